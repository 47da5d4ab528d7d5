//! `[abuse]`: the first line against guessing.

use std::time::Duration;

use ipnet::IpNet;

use crate::quantity::Positive;
use crate::reader::Table;

/// `[abuse]`. Budgets are kept for (account, device, network) and for the network alone, never for an account
/// alone: nobody can lock out an owner by failing in his name.
#[derive(Clone, Debug)]
pub struct Abuse {
    /// Networks that are never limited; always wins.
    pub allow: Vec<IpNet>,
    /// Failed logins after which a connection is closed.
    pub failures_per_connection: u32,
    /// Every failed login is answered this long after it came (design §2, step 5: above the backend's slow
    /// percentile and its own failure delay, 2 s at Dovecot).
    pub failure_deadline: Duration,
    /// The deadline rises to this after repeated failures.
    pub failure_deadline_max: Duration,
    /// Failures that one (account, device, network) may have in `window`.
    pub failures_per_device: u32,
    /// Failures that one network (IPv4 address, IPv6 /64) may have in `window`.
    pub failures_per_network: u32,
    /// The time over which budgets fill up again.
    pub window: Duration,
    /// How many of each are remembered at most; the least active are forgotten first.
    pub tracked: u32,
}

impl Abuse {
    pub(crate) fn read(table: &mut Table<'_>) -> Self {
        let count = |table: &mut Table<'_>, key, default| table.or(key, Positive(default)).0;
        Self {
            allow: table.or("allow", Vec::new()),
            failures_per_connection: count(table, "failures-per-connection", 5),
            failure_deadline: table.or("failure-deadline", Duration::from_millis(2_500)),
            failure_deadline_max: table.or("failure-deadline-max", Duration::from_secs(15)),
            failures_per_device: count(table, "failures-per-device", 10),
            failures_per_network: count(table, "failures-per-network", 100),
            window: table.or("window", Duration::from_secs(15 * 60)),
            tracked: count(table, "tracked", 65_536),
        }
    }
}

//! `[abuse]`: the first line against guessing.

use std::time::Duration;

use ipnet::IpNet;
use policy::abuse::{Limits, Rate};

use crate::quantity::Positive;
use crate::reader::{Read, Table, Value};

/// `[abuse]`. Budgets are kept for (account, device, network) and for networks, never for an account alone: nobody can
/// lock out an owner by failing in his name.
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
    /// The budgets and how many are remembered.
    pub budgets: Limits,
}

impl Abuse {
    pub(crate) fn read(table: &mut Table<'_>) -> Self {
        let default = Limits::default();
        Self {
            allow: table.or("allow", Vec::new()),
            failures_per_connection: table.or("failures-per-connection", Positive(5)).0,
            failure_deadline: table.or("failure-deadline", Duration::from_millis(2_500)),
            failure_deadline_max: table.or("failure-deadline-max", Duration::from_secs(15)),
            budgets: Limits {
                source: table.or("source", default.source),
                network: table.or("network", default.network),
                neighbourhood: table.or("neighbourhood", default.neighbourhood),
                account: table.or("account", default.account),
                sources: entries(table, "sources-remembered", default.sources),
                networks: entries(table, "networks-remembered", default.networks),
                accounts: entries(table, "accounts-remembered", default.accounts),
                devices: entries(table, "devices-remembered", default.devices),
                proven: entries(table, "proven-remembered", default.proven),
            },
        }
    }
}

/// A number of table entries.
pub(crate) fn entries(table: &mut Table<'_>, key: &'static str, default: usize) -> usize {
    table.optional::<Entries>(key).map_or(default, |Entries(number)| number)
}

/// 1,024 (fewer would be flushed by one attacker) to 16 million (some 500 MB).
struct Entries(usize);

impl Read for Entries {
    fn read(value: &Value<'_>) -> Option<Self> {
        match usize::try_from(u64::read(value)?) {
            Ok(number) if (1_024..=16 << 20).contains(&number) => Some(Self(number)),
            _ => value.wrong("this many cannot be remembered", "write a number from 1024 to 16777216"),
        }
    }
}

impl Read for Rate {
    /// `{ burst = 10, refill = "6m" }`: ten at once, and one more every six minutes.
    fn read(value: &Value<'_>) -> Option<Self> {
        let mend = "write { burst = 10, refill = \"6m\" }: ten at once, then one more every six minutes";
        let mut table = value.table()?;
        let burst = table.required("burst", mend);
        let refill = table.required::<Duration>("refill", mend);
        table.finish();
        let every_ms = u64::try_from(refill?.as_millis()).ok()?;
        burst.map(|Positive(burst)| Self { burst, every_ms })
    }
}

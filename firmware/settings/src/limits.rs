//! `[limits]`: what connections may cost.

use std::time::Duration;

use mail::session::Protocol;

use crate::quantity::Positive;
use crate::reader::Table;

/// `[limits]`.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once, all listeners together.
    pub connections: u32,
    /// Connections at once from one network (IPv4 address, IPv6 /64).
    pub connections_per_network: u32,
    /// Live sessions of one account at once.
    pub sessions_per_account: u32,
    /// From accept to the end of the TLS handshake.
    pub handshake_timeout: Duration,
    /// From accept to a login, however many commands come between: one octet a minute does not help.
    pub login_timeout: Duration,
    /// Silence after which an IMAP session ends; RFC 9051 §5.4 wants 30 minutes at least.
    pub imap_idle: Duration,
    /// Silence after which a POP3 session ends; RFC 1939 §3 wants 10 minutes at least.
    pub pop3_idle: Duration,
    /// Silence after which a submission session ends; RFC 5321 §4.5.3.2.7 wants 5 minutes at least.
    pub submission_idle: Duration,
    /// How long sessions may go on after a shutdown was asked for.
    pub drain: Duration,
}

impl Limits {
    pub(crate) fn read(table: &mut Table<'_>) -> Self {
        let count = |table: &mut Table<'_>, key, default| table.or(key, Positive(default)).0;
        Self {
            connections: count(table, "connections", 10_000),
            connections_per_network: count(table, "connections-per-network", 200),
            sessions_per_account: count(table, "sessions-per-account", 50),
            handshake_timeout: table.or("handshake-timeout", Duration::from_secs(15)),
            login_timeout: table.or("login-timeout", Duration::from_mins(1)),
            imap_idle: table.or("imap-idle", Duration::from_mins(31)),
            pop3_idle: table.or("pop3-idle", Duration::from_mins(10)),
            submission_idle: table.or("submission-idle", Duration::from_mins(5)),
            drain: table.or("drain", Duration::from_secs(30)),
        }
    }

    /// The silence that ends a session.
    pub fn idle(&self, protocol: Protocol) -> Duration {
        match protocol {
            Protocol::Imap => self.imap_idle,
            Protocol::Pop3 => self.pop3_idle,
            Protocol::Submission => self.submission_idle,
        }
    }
}

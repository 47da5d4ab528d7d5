//! Counters since the gateway started.

use policy::UnixSeconds;
use serde::{Deserialize, Serialize};

/// A few of the figures that the metrics page has, for people.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Stats {
    /// The gateway's version.
    pub version: String,
    /// When it started.
    pub started: UnixSeconds,
    /// Connections taken.
    pub connections: u64,
    /// Connections open now.
    pub open: u64,
    /// Sessions logged in now.
    pub sessions: u64,
    /// Logins that the backend accepted.
    pub logins: u64,
    /// Logins that failed, whatever the cause.
    pub failures: u64,
    /// Messages handed on.
    pub messages: u64,
    /// Accounts in the database.
    pub accounts: u64,
    /// Devices in the database.
    pub devices: u64,
    /// Octets of the database on disk.
    pub database_octets: u64,
    /// Octets of memory in use.
    pub memory_octets: u64,
}

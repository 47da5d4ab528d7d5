//! Accounts, and the attempts against them.

use policy::{Mode, UnixSeconds};
use serde::{Deserialize, Serialize};

/// One account.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AccountRow {
    /// Its canonical name.
    pub account: String,
    /// The mode in force, all layers merged.
    pub mode: Mode,
    /// Where the mode comes from: `box`, `domain` or `account`.
    pub mode_from: String,
    /// The backend that holds it; `None`: no route.
    pub backend: Option<String>,
    /// Devices that may log in.
    pub approved: u32,
    /// Devices that wait.
    pub pending: u32,
    /// Devices sent away.
    pub revoked: u32,
    /// Live sessions.
    pub sessions: u32,
    /// Its newest successful login.
    pub last_seen: Option<UnixSeconds>,
}

/// Failed attempts from one network.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AttemptRow {
    /// The canonical account; `None`: several, or none that exists.
    pub account: Option<String>,
    /// IPv4 address or IPv6 /64.
    pub network: String,
    /// ISO 3166-1 alpha-2.
    pub country: Option<String>,
    /// Failed attempts, equal repeats counted once.
    pub failures: u64,
    /// The first of them.
    pub first: UnixSeconds,
    /// The newest of them.
    pub last: UnixSeconds,
    /// Until when the network is held off; `None`: it is not.
    pub blocked_until: Option<UnixSeconds>,
}

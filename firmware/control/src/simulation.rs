//! What a lock now would have refused.

use std::net::IpAddr;

use policy::{Alias, UnixSeconds};
use serde::{Deserialize, Serialize};

use crate::page::Page;

/// "Locking now would have refused 3 of 412 logins, these." In several pages the counts are the same in each.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Simulation {
    /// The one account it is about; `None`: all.
    pub account: Option<String>,
    /// The oldest login counted.
    pub since: Option<UnixSeconds>,
    /// Successful logins counted.
    pub logins: u64,
    /// Of these, how many a lock would have refused.
    pub would_refuse: u64,
    /// Who that would have been, the most logins first.
    pub refused: Page<SimulationRow>,
}

/// Logins of one device that a lock would have refused.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SimulationRow {
    /// The canonical account.
    pub account: String,
    /// The device; `None`: it showed nothing to recognise it by.
    pub device: Option<Alias>,
    /// What it says of itself; may be empty.
    pub client: String,
    /// `imap`, `pop3` or `submission`.
    pub protocol: String,
    /// From where, the newest of them; `None` also when retention has passed.
    pub address: Option<IpAddr>,
    /// Why, a few words.
    pub reason: String,
    /// How many logins.
    pub logins: u64,
    /// The newest of them.
    pub last: UnixSeconds,
}

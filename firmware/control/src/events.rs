//! The journal.

use std::net::IpAddr;

use policy::{Alias, UnixSeconds};
use serde::{Deserialize, Serialize};

/// One thing that happened.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct EventRow {
    /// When.
    pub at: UnixSeconds,
    /// What, as a kebab-case word such as `login-refused`; the same word in logs and metrics.
    pub kind: String,
    /// The canonical account it is about.
    pub account: Option<String>,
    /// The device it is about.
    pub device: Option<Alias>,
    /// `imap`, `pop3` or `submission`.
    pub protocol: Option<String>,
    /// From where; `None` also when retention has passed.
    pub address: Option<IpAddr>,
    /// ISO 3166-1 alpha-2.
    pub country: Option<String>,
    /// The connection id.
    pub session: Option<String>,
    /// One sentence for people.
    pub text: String,
}

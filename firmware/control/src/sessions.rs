//! Live sessions.

use std::net::SocketAddr;

use policy::{Alias, UnixSeconds};
use serde::{Deserialize, Serialize};

/// One connection that has logged in.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SessionRow {
    /// The connection id, as in every log line of it.
    pub session: String,
    /// The canonical account.
    pub account: String,
    /// Its device; `None`: not recognised (observe mode).
    pub device: Option<Alias>,
    /// `imap`, `pop3` or `submission`.
    pub protocol: String,
    /// The client.
    pub address: SocketAddr,
    /// The backend that serves it.
    pub backend: String,
    /// When it logged in.
    pub since: UnixSeconds,
    /// Octets from the client.
    pub octets_in: u64,
    /// Octets to the client.
    pub octets_out: u64,
}

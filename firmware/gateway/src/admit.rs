//! One login, from facts to answer (design §2): canonical name, budget, policy, backend, record, reply.
//!
//! What the client can observe of a refusal is one constant line at one deadline, whatever its cause. A refused
//! device's credentials never reach the backend before that reply.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mail::session::{Label, Peer, Protocol, Task};
use mail::sasl::Mechanism;
use mail::{Account, ClientId};
use policy::{Admitted, Decision, Facts, Held, Identity, Mark, Refused, Rules, Traits, Verdict};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::alert::Attempted;
use crate::backend::{self, LoggedIn, Target};
use crate::event::{Event, Kind, Reason, Subject};
use crate::gateway::{Current, Gateway};
use crate::listen::Permit;
use crate::relay::Kill;
use crate::sessions::{Listed, Session};
use crate::stream::Stream;
use crate::upstream::Upstream;

/// A client, as far as its connection shows.
#[derive(Clone, Debug)]
pub struct Client {
    /// Connection id, on every line of the log.
    pub id: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// Its address, from a load balancer's header where there is one.
    pub address: SocketAddr,
    /// The address it connected to.
    pub local: SocketAddr,
    /// Whether it is under TLS.
    pub tls: bool,
    /// The server name it asked for.
    pub sni: Option<String>,
    /// JA4 without what resumption changes.
    pub ja4: String,
}

impl Client {
    /// A client that has shown nothing yet.
    pub fn new(id: String, protocol: Protocol, address: SocketAddr, local: SocketAddr) -> Self {
        Self { id, protocol, address, local, tls: false, sni: None, ja4: String::new() }
    }

    /// For events.
    pub fn subject(&self) -> Subject {
        Subject::client(&self.id, self.protocol, self.address.ip())
    }
}

/// One login attempt, out of the session's buffer. Its secret is wiped when it is dropped.
pub struct Attempt {
    /// How.
    pub mechanism: Mechanism,
    /// The name as sent.
    pub user: Vec<u8>,
    /// A differing authorization identity.
    pub authzid: Option<Vec<u8>>,
    /// Password or token.
    pub secret: Zeroizing<Vec<u8>>,
    /// The device's name.
    pub clientid: Option<ClientId>,
    /// What the client says of itself.
    pub label: Box<Label>,
}

/// Who sits in a session after login.
#[derive(Clone, Debug)]
pub struct Seat {
    /// Connection id.
    pub connection: String,
    /// Canonical account.
    pub account: Account,
    /// The device's alias, if it is recorded.
    pub device: Option<String>,
    /// What is spoken.
    pub protocol: Protocol,
    /// From where.
    pub address: SocketAddr,
}

/// A session behind its login.
pub struct Live {
    /// The client's side; in clear and closed until the connection puts its own here.
    pub client: Option<Stream>,
    /// The backend's side.
    pub backend: Stream,
    /// Octets of the client that belong to the backend.
    pub up: Vec<u8>,
    /// Octets of the backend that follow its answer to the login.
    pub down: Vec<u8>,
    /// Lines for the client ahead of that answer.
    pub untagged: Vec<u8>,
    /// Text of that answer.
    pub text: Vec<u8>,
    /// Who.
    pub seat: Seat,
    /// Takes the session off the list when dropped.
    pub listed: Listed,
    /// Says when it is to end.
    pub kill: oneshot::Receiver<Kill>,
    /// Given back when dropped.
    pub permit: Option<Permit>,
}

/// The answer to a login.
pub enum Outcome {
    /// Logged in; the client has yet to be told.
    In(Box<Live>),
    /// The constant failure line is due now.
    Failed,
    /// The temporary error is due now.
    Unavailable,
}

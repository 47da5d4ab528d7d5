//! What a session machine and its driver say to each other, the same for IMAP, POP3 and submission.
//!
//! Two kinds of machine stand back to back. A [`Session`] is the server's side towards a mail client, up to its
//! login; a [`Backend`] is our client's side towards the ISP's own server, up to the same point. Both take
//! octets and give actions in fixed memory. However the input is split, the same octets give the same actions.
//! The driver owns sockets, TLS, the clock and every decision.

use core::net::SocketAddr;

use crate::clientid::ClientId;
use crate::sasl::Mechanism;

/// The three protocols whose logins are guarded.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Protocol {
    /// RFC 9051, RFC 3501.
    Imap,
    /// RFC 1939.
    Pop3,
    /// RFC 6409.
    Submission,
}

impl Protocol {
    /// All of them, in the order listings use.
    pub const ALL: [Self; 3] = [Self::Imap, Self::Pop3, Self::Submission];

    /// Lower-case name, as in settings, logs and control frames.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Imap => "imap",
            Self::Pop3 => "pop3",
            Self::Submission => "submission",
        }
    }
}

/// Whether octets are protected on the wire.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Transport {
    /// In clear: no login, no CLIENTID; STARTTLS is offered.
    Clear,
    /// Under TLS, implicit or after STARTTLS.
    Tls,
}

/// The server's side of a session, up to login.
pub trait Session {
    /// What this listener offers, made once from the backend's own capabilities and shared by its sessions.
    type Offer;

    /// Takes what fits of `bytes` and says how much that was; the caller keeps the rest (back-pressure).
    #[must_use]
    fn push(&mut self, bytes: &[u8]) -> usize;

    /// The next thing to do, or `None` until more octets or the pending answer arrive. Do them in order: to
    /// skip one is to desynchronise the peer. The first calls on a new session yield its greeting.
    fn next(&mut self, offer: &Self::Offer) -> Option<Action<'_>>;

    /// The handshake asked for by [`Action::StartTls`] is done: everything learnt in clear is forgotten.
    fn tls_established(&mut self);

    /// Answers the pending [`Action::Login`]; only then is later input parsed.
    fn answer(&mut self, answer: Answer<'_>);

    /// Octets pushed but not parsed, once [`Action::Relay`] was yielded: they belong to the backend.
    fn rest(&self) -> &[u8];
}

/// What the driver must do for a [`Session`].
#[derive(Debug)]
pub enum Action<'a> {
    /// Write these octets to the client.
    Send(&'a [u8]),
    /// Flush, then start the TLS handshake on the same socket, then call [`Session::tls_established`]. Any octet
    /// that arrived behind the STARTTLS line has already made this a `Close` (RFC 3207 §4.2 and the "NO STARTTLS"
    /// attacks: no carry-over).
    StartTls,
    /// Decide this login and call [`Session::answer`]. No input is parsed until then.
    Login(Login<'a>),
    /// Login is done and its reply sent: from here on octets go to the backend, [`Session::rest`] first.
    Relay,
    /// Something worth an event or a counter; the session goes on.
    Note(Note),
    /// Flush, then close the connection; the machine is over.
    Close(Closed),
}

/// One complete login attempt, still in the session's own buffer; wiped by the next call of
/// [`Session::answer`]. `Debug` shows no credential.
pub struct Login<'a> {
    /// How the client authenticates.
    pub mechanism: Mechanism,
    /// The name to log in as, exactly as sent: not yet canonical.
    pub user: &'a [u8],
    /// A SASL authorization identity that differs from `user`, if one was sent (RFC 4616 §2).
    pub authzid: Option<&'a [u8]>,
    /// The password, or for OAuth the whole decoded initial response, to be relayed as is.
    pub secret: &'a [u8],
    /// The device's name, if the client gave one.
    pub clientid: Option<&'a ClientId>,
    /// What the client says of itself; never proof of anything (RFC 2971 §1).
    pub label: &'a Label,
}

impl core::fmt::Debug for Login<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Login").field("mechanism", &self.mechanism).finish_non_exhaustive()
    }
}

/// What a client says of itself before login: IMAP ID (RFC 2971) and the EHLO name (RFC 5321 §4.1.1.1).
///
/// Values are cut to their capacity at a character border and hold printable characters only (others become `?`).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Label {
    /// ID `name`.
    pub name: heapless::String<64>,
    /// ID `version`.
    pub version: heapless::String<32>,
    /// ID `vendor`.
    pub vendor: heapless::String<64>,
    /// ID `os`.
    pub os: heapless::String<32>,
    /// The name given in EHLO or HELO.
    pub ehlo: heapless::String<255>,
}

/// The driver's answer to a login. The session turns it into its protocol's one constant line.
#[derive(Debug)]
pub enum Answer<'a> {
    /// The backend said yes. `untagged`: complete lines that IMAP sends ahead of the tagged reply (may be empty).
    /// `text`: what followed the backend's OK, +OK or 235, without the line end, passed on (may be empty).
    Admitted {
        /// Complete lines with their CRLF.
        untagged: &'a [u8],
        /// Human text and response codes.
        text: &'a [u8],
    },
    /// Any failure at all: the same bytes for every cause.
    Failed,
    /// The backend is away: a temporary error for everybody alike.
    Unavailable,
    /// `Failed`, and this connection has had its chances.
    FailedLast,
}

/// Events for counters and the journal; none changes what the peer sees.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Note {
    /// A CLIENTID in clear: refused as an unknown command, not looked at, and wiped.
    ClientIdInClear,
    /// A login was tried in clear: refused before its credentials were looked at.
    LoginInClear,
    /// The type held `_`, taken as `-` (clientid.md Q11).
    ClientIdUnderscore,
    /// A command that is not in the grammar.
    Malformed,
}

/// Why a session machine ended the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Closed {
    /// LOGOUT or QUIT.
    ByClient,
    /// Too many malformed commands or bad logins.
    TooManyErrors,
    /// A line or literal over its limit.
    TooLong,
    /// Octets behind STARTTLS, before the handshake.
    Injection,
    /// Bare CR or LF where only CRLF may stand.
    BareLineEnd,
}

/// Our side of a connection to the ISP's server, up to login.
pub trait Backend {
    /// Takes what fits of `bytes` and says how much that was.
    #[must_use]
    fn push(&mut self, bytes: &[u8]) -> usize;

    /// The next thing to do, or `None` until more octets arrive. `job` is the same at every call.
    fn next(&mut self, job: &Job<'_>) -> Option<Step<'_>>;

    /// The handshake asked for by [`Step::StartTls`] is done: what was learnt in clear is forgotten.
    fn tls_established(&mut self);

    /// Octets pushed but not parsed, once a step said [`Outcome::Accepted`]: they belong to the client.
    fn rest(&self) -> &[u8];
}

/// What is wanted of the backend.
#[derive(Debug)]
pub struct Job<'a> {
    /// What to do there.
    pub task: Task<'a>,
    /// Whether STARTTLS must be done first. `Clear` with `starttls` false means a trusted network path.
    pub starttls: bool,
    /// Tell the backend who the client is by the protocol's own means (IMAP ID, XCLIENT); `None`: say nothing.
    pub peer: Option<&'a Peer<'a>>,
    /// Our own name for EHLO.
    pub hostname: &'a str,
}

/// The purpose of a backend connection.
pub enum Task<'a> {
    /// Read greeting and capabilities (after STARTTLS where asked), then leave politely.
    Probe,
    /// Log in with the client's own credentials.
    Login {
        /// How. PLAIN and LOGIN may be exchanged for whichever the backend has.
        mechanism: Mechanism,
        /// The canonical account name in the form the backend wants.
        user: &'a [u8],
        /// Password, or the OAuth initial response as is.
        secret: &'a [u8],
    },
}

impl core::fmt::Debug for Task<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Probe => "Probe",
            Self::Login { .. } => "Login",
        })
    }
}

/// Who the client is, for the backend's logs and limits (clientid.md §5).
#[derive(Clone, Debug)]
pub struct Peer<'a> {
    /// The client's address and port.
    pub client: SocketAddr,
    /// The address and port it connected to on this box.
    pub local: SocketAddr,
    /// Our connection id, 1 to 64 ASCII letters and digits.
    pub session: &'a str,
    /// Whether the client's side is under TLS.
    pub tls: bool,
    /// The server name the client asked for (SNI), a valid host name.
    pub sni: Option<&'a str>,
    /// The device's alias, never its token.
    pub device: Option<&'a str>,
    /// What the client said in EHLO, for XCLIENT HELO; empty if nothing.
    pub helo: &'a str,
}

/// What the driver must do for a [`Backend`].
#[derive(Debug)]
pub enum Step<'a> {
    /// Write these octets to the backend. May hold a credential: never log them.
    Send(&'a [u8]),
    /// Flush, do the TLS handshake, then call [`Backend::tls_established`]. Octets behind the backend's go-ahead
    /// have already made this a [`Outcome::Violation`] (response injection).
    StartTls,
    /// The task is over.
    Done(Outcome<'a>),
}

/// How a backend task ended.
#[derive(Debug)]
pub enum Outcome<'a> {
    /// [`Task::Probe`]: the capabilities before login, one space between; for EHLO and CAPA one line each, CRLF
    /// between.
    Capabilities(&'a [u8]),
    /// [`Task::Login`]: logged in; see [`Answer::Admitted`].
    Accepted {
        /// Untagged lines before the tagged reply (IMAP), complete with CRLF.
        untagged: &'a [u8],
        /// Text behind OK, +OK or 235.
        text: &'a [u8],
    },
    /// The backend refused the credentials.
    Rejected,
    /// The backend cannot decide now (temporary error, shutdown, no such mechanism); the word says at which step.
    Away(&'static str),
    /// The backend broke its protocol or was tampered with (PREAUTH, injection, endless line): close, raise an event.
    Violation(&'static str),
}

//! Our side towards the ISP's own servers: connect, say who the client is, log in or probe.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mail::session::{Backend, Job, Outcome, Peer, Protocol, Step, Task};
use preface::proxy_protocol::{self, Ends, Extras};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use settings::IdentityVia;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::stream::{Read, Stream};

/// One server of the ISP, for one protocol.
#[derive(Clone, Debug)]
pub struct Target {
    /// The backend's name in the settings.
    pub name: Arc<str>,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Where it is.
    pub address: SocketAddr,
    /// How the way there is protected.
    pub security: Security,
    /// How it is told who the client is.
    pub identity: IdentityVia,
    /// How long one step may take.
    pub timeout: Duration,
    /// Our own name for EHLO.
    pub hostname: Arc<str>,
}

/// How the way to a backend is protected.
#[derive(Clone, Debug)]
pub enum Security {
    /// Not at all: the operator trusts the cable.
    Clear,
    /// STARTTLS or STLS before anything else is believed.
    StartTls(Arc<ClientConfig>, ServerName<'static>),
    /// TLS from the first octet.
    Implicit(Arc<ClientConfig>, ServerName<'static>),
}

/// How a login at the backend ended.
pub enum Login {
    /// Logged in.
    Accepted(LoggedIn),
    /// The backend refused the credentials.
    Rejected,
    /// The backend cannot be reached or cannot decide.
    Away(String),
    /// The backend broke its protocol, or somebody on the way did.
    Violation(&'static str),
}

/// A backend connection behind its login.
pub struct LoggedIn {
    /// The connection.
    pub stream: Stream,
    /// Complete lines the client sees before the answer to its login (IMAP).
    pub untagged: Vec<u8>,
    /// The text behind the backend's OK.
    pub text: Vec<u8>,
    /// What the backend sent behind it.
    pub rest: Vec<u8>,
}

enum End {
    Away(String),
    Violation(&'static str),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Away(error.to_string())
    }
}

/// Logs in with the client's own credentials.
pub async fn login<B: Backend>(
    mut machine: Box<B>,
    target: &Target,
    task: Task<'_>,
    peer: &Peer<'_>,
) -> Login {
    match run(machine.as_mut(), target, task, Some(peer)).await {
        Ok(Finished::Accepted(done)) => Login::Accepted(done),
        Ok(Finished::Rejected) => Login::Rejected,
        Ok(Finished::Capabilities(_)) => Login::Violation("capabilities instead of a login"),
        Err(End::Away(why)) => Login::Away(why),
        Err(End::Violation(why)) => Login::Violation(why),
    }
}

/// Reads the backend's capabilities: is it there, and what can it do?
///
/// # Errors
/// A line for the log: where it stopped and why.
pub async fn probe<B: Backend>(mut machine: Box<B>, target: &Target) -> Result<Vec<u8>, String> {
    match run(machine.as_mut(), target, Task::Probe, None).await {
        Ok(Finished::Capabilities(list)) => Ok(list),
        Ok(_) => Err("a login answered a probe".into()),
        Err(End::Away(why)) => Err(why),
        Err(End::Violation(why)) => Err(format!("protocol violation: {why}")),
    }
}

/// Says who a client is and leaves before any login; what the backend made of it is then to be asked of `machine`.
///
/// # Errors
/// As [`probe`].
pub async fn introduce<B: Backend>(machine: &mut B, target: &Target, peer: &Peer<'_>) -> Result<(), String> {
    match run(machine, target, Task::Probe, Some(peer)).await {
        Ok(_) => Ok(()),
        Err(End::Away(why)) => Err(why),
        Err(End::Violation(why)) => Err(format!("protocol violation: {why}")),
    }
}

/// What the machine said, owned, before the connection is handed over with it.
enum Word {
    Capabilities(Vec<u8>),
    Accepted(Vec<u8>, Vec<u8>),
    Rejected,
}

enum Finished {
    Capabilities(Vec<u8>),
    Accepted(LoggedIn),
    Rejected,
}

/// Connects, and sends a PROXY header where one is due.
///
/// # Errors
/// The connection's.
pub async fn open(target: &Target, peer: Option<&Peer<'_>>) -> io::Result<Stream> {
    let socket = timeout(target.timeout, TcpStream::connect(target.address))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "connect timed out"))??;
    let mut stream = Stream::clear(socket);
    let header = match (target.identity, peer) {
        (IdentityVia::None | IdentityVia::Protocol, _) => None,
        // Version 1 has no word for "myself" that every receiver takes, so a probe tells the truth.
        (IdentityVia::ProxyV1, None) => {
            let ends = Ends { source: stream.local_addr()?, destination: stream.peer_addr()? };
            Some(proxy_protocol::encode_v1(ends))
        }
        (IdentityVia::ProxyV1, Some(peer)) => Some(proxy_protocol::encode_v1(ends(peer))),
        // Our own probes say LOCAL: the backend is to use the real addresses of the connection.
        (IdentityVia::ProxyV2, None) => Some(proxy_protocol::encode_local()),
        (IdentityVia::ProxyV2, Some(peer)) => {
            let extras = Extras { authority: peer.sni, unique_id: Some(peer.session), tls: None };
            Some(proxy_protocol::encode_v2(ends(peer), &extras))
        }
    };
    if let Some(header) = header {
        stream.send(&header).await?;
    }
    Ok(stream)
}

fn ends(peer: &Peer<'_>) -> Ends {
    Ends { source: peer.client, destination: peer.local }
}

async fn run<B: Backend>(
    machine: &mut B,
    target: &Target,
    task: Task<'_>,
    peer: Option<&Peer<'_>>,
) -> Result<Finished, End> {
    let mut stream = open(target, peer).await?;
    let limit = target.timeout;
    let late = |step: &'static str| move |_| End::Away(format!("timed out in {step}"));
    let mut inbox: Vec<u8> = Vec::new();
    if let Security::Implicit(config, name) = &target.security {
        let handshake = stream.connect_tls(Arc::clone(config), name.clone());
        inbox = timeout(limit, handshake).await.map_err(late("TLS handshake"))??;
        machine.tls_established();
    }
    let job = Job {
        task,
        starttls: matches!(target.security, Security::StartTls(..)),
        peer: peer.filter(|_| target.identity == IdentityVia::Protocol),
        hostname: &target.hostname,
    };
    let mut sent = false;
    loop {
        let taken = machine.push(&inbox);
        inbox.drain(..taken);
        let mut starttls = false;
        let mut finished = None;
        while let Some(step) = machine.next(&job) {
            match step {
                Step::Send(bytes) => {
                    stream.try_send(bytes)?;
                    sent = true;
                }
                Step::StartTls => {
                    starttls = true;
                    break;
                }
                Step::Done(outcome) => {
                    finished = Some(match outcome {
                        Outcome::Capabilities(list) => Ok(Word::Capabilities(list.to_vec())),
                        Outcome::Accepted { untagged, text } => {
                            Ok(Word::Accepted(untagged.to_vec(), text.to_vec()))
                        }
                        Outcome::Rejected => Ok(Word::Rejected),
                        Outcome::Away(why) => Err(End::Away(why.to_owned())),
                        Outcome::Violation(why) => Err(End::Violation(why)),
                    });
                    break;
                }
            }
        }
        match finished {
            None => {}
            Some(Ok(Word::Accepted(untagged, text))) => {
                let mut rest = machine.rest().to_vec();
                rest.extend_from_slice(&inbox);
                return Ok(Finished::Accepted(LoggedIn { stream, untagged, text, rest }));
            }
            Some(Ok(Word::Capabilities(list))) => {
                // The polite QUIT or LOGOUT is under way; whether it arrives does not matter.
                let _ = timeout(limit, stream.flush()).await;
                return Ok(Finished::Capabilities(list));
            }
            Some(Ok(Word::Rejected)) => return Ok(Finished::Rejected),
            Some(Err(end)) => return Err(end),
        }
        if starttls {
            let Security::StartTls(config, name) = &target.security else {
                return Err(End::Violation("STARTTLS without being asked"));
            };
            if !inbox.is_empty() {
                return Err(End::Violation("octets behind STARTTLS"));
            }
            timeout(limit, stream.flush()).await.map_err(late("STARTTLS"))??;
            let handshake = stream.connect_tls(Arc::clone(config), name.clone());
            inbox = timeout(limit, handshake).await.map_err(late("TLS handshake"))??;
            machine.tls_established();
            continue;
        }
        if taken > 0 && !inbox.is_empty() {
            continue;
        }
        if !inbox.is_empty() {
            return Err(End::Violation("more than an answer may hold"));
        }
        let step = if sent { "reply" } else { "greeting" };
        match timeout(limit, stream.read(&mut |bytes| inbox.extend_from_slice(bytes)))
            .await
            .map_err(late(step))??
        {
            Read::Data => {}
            Read::End => return Err(End::Away(format!("closed the connection instead of a {step}"))),
        }
    }
}

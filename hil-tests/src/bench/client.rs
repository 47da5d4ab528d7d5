//! The mail client that makes the load: whole dialogues, every reply checked, and the kind of TLS handshake with it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use base64ct::{Base64, Encoding};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedCipherSuite};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use super::account::Credentials;
use super::payload::{self, LITERAL};
use super::wire::Wire;

/// Where a proxy listens, and whether it understands CLIENTID.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// IMAP under TLS, or in clear when there is no proxy.
    pub imap: SocketAddr,
    /// Submission under TLS.
    pub submission: SocketAddr,
    /// Whether the client names its device before it logs in, as Thunderbird does.
    pub clientid: bool,
}

/// How a client starts TLS 1.3.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Handshake {
    /// Nothing is remembered: certificate and signature every time.
    Full,
    /// Tickets are kept and used, from the second connection on.
    Resumed,
}

/// The one cipher suite that a client offers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Suite {
    /// `TLS_AES_128_GCM_SHA256`.
    Aes128Gcm,
    /// `TLS_CHACHA20_POLY1305_SHA256`.
    ChaCha20,
}

impl Suite {
    fn offered(self) -> SupportedCipherSuite {
        match self {
            Self::Aes128Gcm => ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
            Self::ChaCha20 => ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        }
    }
}

/// A client that connects again and again. Cheap to clone; clones share their tickets.
#[derive(Clone)]
pub struct Client {
    /// `None` talks in clear.
    connector: Option<TlsConnector>,
    handshake: Handshake,
}

/// A connection in whatever transport.
type Connection = Wire<Box<dyn Stream>>;

/// What a connection runs over.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Client {
    /// A client that trusts one CA and offers TLS 1.3 with one suite.
    pub fn new(ca: &CertificateDer<'static>, suite: Suite, handshake: Handshake) -> Result<Self> {
        let provider =
            Arc::new(CryptoProvider { cipher_suites: vec![suite.offered()], ..ring::default_provider() });
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone())?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_webpki_verifier(verifier)
            .with_no_client_auth();
        config.resumption = match handshake {
            Handshake::Full => Resumption::disabled(),
            Handshake::Resumed => Resumption::in_memory_sessions(8),
        };
        Ok(Self { connector: Some(TlsConnector::from(Arc::new(config))), handshake })
    }

    /// A client in clear, to ask the backend itself.
    pub fn clear() -> Self {
        Self { connector: None, handshake: Handshake::Full }
    }

    /// Connects and shakes hands; whether the handshake was a resumed one.
    async fn connect(&self, to: SocketAddr, from: Ipv4Addr) -> Result<(Connection, bool)> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((from, 0))).context("bind")?;
        let tcp: TcpStream = socket.connect(to).await.context("connect")?;
        tcp.set_nodelay(true)?;
        let Some(connector) = &self.connector else {
            return Ok((Wire::new(Box::new(tcp)), false));
        };
        let tls =
            connector.connect(ServerName::try_from("localhost")?, tcp).await.context("TLS handshake")?;
        let resumed = tls.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        Ok((Wire::new(Box::new(tls)), resumed))
    }

    /// Connects; an error unless the handshake is of the kind that is being measured.
    async fn connect_as_measured(&self, to: SocketAddr, from: Ipv4Addr) -> Result<Connection> {
        let (wire, resumed) = self.connect(to, from).await?;
        ensure!(
            resumed == (self.handshake == Handshake::Resumed),
            "the handshake was {}",
            if resumed { "resumed" } else { "full" }
        );
        Ok(wire)
    }

    /// One whole session that counts for nothing: it warms the proxy and leaves tickets with this client.
    pub async fn warm_up(&self, target: Target, who: &Credentials) -> Result<()> {
        let (wire, _) = self.connect(target.imap, who.from).await?;
        let mut session = Imap { wire };
        session.log_in(target, who).await?;
        session.leave().await
    }

    /// An IMAP session, logged in: connection, handshake, greeting, CLIENTID where understood, LOGIN, its OK.
    pub async fn imap(&self, target: Target, who: &Credentials) -> Result<Imap> {
        let wire = self.connect_as_measured(target.imap, who.from).await?;
        let mut session = Imap { wire };
        session.log_in(target, who).await?;
        Ok(session)
    }

    /// A login that must be refused, and as a refusal: any other end is an error.
    pub async fn imap_refused(&self, target: Target, who: &Credentials) -> Result<()> {
        let mut wire = self.connect_as_measured(target.imap, who.from).await?;
        greeting(&mut wire, target, who, "* OK").await?;
        let reply = command(&mut wire, &login(who)).await?;
        ensure!(reply.starts_with("a NO "), "a wrong password was answered {reply:?}");
        Ok(())
    }

    /// Submits one message on a connection of its own; the backend's receipt must be that of what was sent.
    pub async fn submit(&self, target: Target, who: &Credentials, number: u32) -> Result<()> {
        let mut wire = self.connect_as_measured(target.submission, who.from).await?;
        smtp(&mut wire, "", "220").await?;
        smtp(&mut wire, "EHLO client.bench.test\r\n", "250").await?;
        if target.clientid {
            smtp(&mut wire, &format!("CLIENTID UUID {}\r\n", who.device), "250").await?;
        }
        let response = Base64::encode_string(format!("\0{}\0{}", who.user, who.password).as_bytes());
        smtp(&mut wire, &format!("AUTH PLAIN {response}\r\n"), "235").await?;
        smtp(&mut wire, &format!("MAIL FROM:<{}>\r\n", who.user), "250").await?;
        smtp(&mut wire, "RCPT TO:<someone@elsewhere.test>\r\n", "250").await?;
        smtp(&mut wire, "DATA\r\n", "354").await?;
        let message = payload::message(number);
        let receipt = payload::receipt(&message);
        let mut data = message;
        data.extend_from_slice(b".\r\n");
        wire.send(&data).await?;
        let reply = wire.expect_line("the reply to a message").await?;
        ensure!(
            reply.starts_with("250") && reply.ends_with(&receipt),
            "message answered {reply:?}, not {receipt:?}"
        );
        smtp(&mut wire, "QUIT\r\n", "221").await?;
        wire.drain().await?;
        Ok(())
    }
}

/// A session after its login.
pub struct Imap {
    wire: Connection,
}

impl Imap {
    async fn log_in(&mut self, target: Target, who: &Credentials) -> Result<()> {
        greeting(&mut self.wire, target, who, "* OK").await?;
        let reply = command(&mut self.wire, &login(who)).await?;
        ensure!(reply.starts_with("a OK"), "login answered {reply:?}");
        Ok(())
    }

    /// Opens the mailbox.
    pub async fn select(&mut self) -> Result<()> {
        let reply = command(&mut self.wire, "a SELECT INBOX\r\n").await?;
        ensure!(reply.starts_with("a OK"), "SELECT answered {reply:?}");
        Ok(())
    }

    /// Fetches the large message and compares every octet.
    pub async fn fetch(&mut self) -> Result<()> {
        self.wire.send(b"a FETCH 1 BODY[]\r\n").await?;
        let head = self.wire.expect_line("a literal").await?;
        ensure!(head == format!("* 1 FETCH (BODY[] {{{}}}", LITERAL.len()), "FETCH answered {head:?}");
        ensure!(self.wire.matches(&LITERAL).await?, "the message arrived changed");
        let (close, reply) = (self.wire.expect_line(")").await?, self.wire.expect_line("OK").await?);
        ensure!(close == ")" && reply.starts_with("a OK"), "FETCH ended with {close:?}, {reply:?}");
        Ok(())
    }

    /// Parks the session: IDLE (RFC 2177).
    pub async fn idle(&mut self) -> Result<()> {
        self.wire.send(b"a IDLE\r\n").await?;
        let reply = self.wire.expect_line("a continuation").await?;
        ensure!(reply.starts_with('+'), "IDLE answered {reply:?}");
        Ok(())
    }

    /// Ends IDLE; proves that the session is still there.
    pub async fn done(&mut self) -> Result<()> {
        let reply = command(&mut self.wire, "DONE\r\n").await?;
        ensure!(reply.starts_with("a OK"), "DONE answered {reply:?}");
        Ok(())
    }

    /// LOGOUT, and waits until the server has closed, so that its work for this session is over too.
    pub async fn leave(mut self) -> Result<()> {
        let reply = command(&mut self.wire, "a LOGOUT\r\n").await?;
        ensure!(reply.starts_with("a OK"), "LOGOUT answered {reply:?}");
        self.wire.drain().await.context("after LOGOUT")
    }
}

fn login(who: &Credentials) -> String {
    format!("a LOGIN \"{}\" \"{}\"\r\n", who.user, who.password)
}

/// Waits for the greeting and names the device where that is understood.
async fn greeting(wire: &mut Connection, target: Target, who: &Credentials, expected: &str) -> Result<()> {
    let greeting = wire.expect_line("a greeting").await?;
    ensure!(greeting.starts_with(expected), "greeted with {greeting:?}");
    if target.clientid {
        let reply = command(wire, &format!("a CLIENTID UUID {}\r\n", who.device)).await?;
        ensure!(reply.starts_with("a OK"), "CLIENTID answered {reply:?}");
    }
    Ok(())
}

/// Sends a command with tag `a`; gives its tagged reply.
async fn command(wire: &mut Connection, line: &str) -> Result<String> {
    wire.send(line.as_bytes()).await?;
    loop {
        let reply = wire.expect_line("a tagged reply").await?;
        if reply.starts_with("a ") {
            return Ok(reply);
        }
        ensure!(reply.starts_with("* "), "neither tagged nor untagged: {reply:?}");
    }
}

/// Sends a command (none if empty), reads its whole reply, which must have the code.
async fn smtp(wire: &mut Connection, line: &str, code: &str) -> Result<()> {
    if !line.is_empty() {
        wire.send(line.as_bytes()).await?;
    }
    loop {
        let reply = wire.expect_line("a reply").await?;
        let Some(rest) = reply.strip_prefix(code) else {
            let verb = line.split_whitespace().next().unwrap_or("the connection");
            bail!("{verb} answered {reply:?}");
        };
        if !rest.starts_with('-') {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::account;
    use crate::bench::backend::{self, Ports};
    use crate::bench::identity::{Identity, KeyKind};
    use crate::bench::pump::{self, PumpArgs};
    use crate::guard::Workshop;
    use crate::port::loopback;

    fn direct(ports: Ports) -> Target {
        Target { imap: loopback(ports.imap), submission: loopback(ports.submission), clientid: false }
    }

    /// The backend behind the pump, with a certificate of this kind.
    fn pumped(workshop: &Workshop, kind: KeyKind) -> (Target, Identity) {
        let ports = backend::spawn().unwrap();
        let identity = Identity::new(workshop, "test", kind).unwrap();
        let ready = pump::spawn(&PumpArgs {
            chain: identity.chain.clone(),
            key: identity.key.clone(),
            imap: loopback(ports.imap),
            submission: loopback(ports.submission),
        })
        .unwrap();
        (Target { imap: ready.imaps, submission: ready.submissions, clientid: false }, identity)
    }

    #[tokio::test]
    async fn whole_dialogues_pass_and_wrong_passwords_do_not() {
        let target = direct(backend::spawn().unwrap());
        let client = Client::clear();
        let mut session = client.imap(target, &account::owner(7)).await.unwrap();
        session.select().await.unwrap();
        session.fetch().await.unwrap();
        session.idle().await.unwrap();
        session.done().await.unwrap();
        session.leave().await.unwrap();
        client.submit(target, &account::owner(8), 8).await.unwrap();

        client.imap_refused(target, &account::attacker(2)).await.unwrap();
        client.imap_refused(target, &account::attacker(3)).await.unwrap();
        assert!(client.imap(target, &account::attacker(4)).await.is_err());
        assert!(client.submit(target, &account::attacker(4), 9).await.is_err());
        // A login that is let in where a refusal is due is a failure too.
        let error = client.imap_refused(target, &account::owner(9)).await.unwrap_err();
        assert!(error.to_string().contains("a wrong password was answered"), "{error:#}");
    }

    /// What the bench sends only to Postern is not quietly ignored elsewhere.
    #[tokio::test]
    async fn a_server_without_clientid_is_a_failure_where_clientid_is_due() {
        let target = Target { clientid: true, ..direct(backend::spawn().unwrap()) };
        assert!(Client::clear().imap(target, &account::owner(1)).await.is_err());
        assert!(Client::clear().submit(target, &account::owner(1), 1).await.is_err());
    }

    #[tokio::test]
    async fn a_handshake_of_the_wrong_kind_is_a_failure() {
        let workshop = Workshop::new().unwrap();
        let (target, identity) = pumped(&workshop, KeyKind::P256);
        let client = |handshake| Client::new(&identity.ca, Suite::Aes128Gcm, handshake).unwrap();

        let resuming = client(Handshake::Resumed);
        let error = resuming.imap(target, &account::owner(1)).await.err().unwrap();
        assert_eq!(error.to_string(), "the handshake was full");
        resuming.warm_up(target, &account::owner(1)).await.unwrap();
        for number in 0..5 {
            resuming.imap(target, &account::owner(number)).await.unwrap().leave().await.unwrap();
        }
        let full = client(Handshake::Full);
        for number in 0..3 {
            full.imap(target, &account::owner(number)).await.unwrap().leave().await.unwrap();
        }
    }

    #[tokio::test]
    async fn large_messages_and_submissions_survive_the_pump_under_rsa_and_chacha() {
        let workshop = Workshop::new().unwrap();
        let (target, identity) = pumped(&workshop, KeyKind::Rsa2048);
        let client = Client::new(&identity.ca, Suite::ChaCha20, Handshake::Full).unwrap();
        let mut session = client.imap(target, &account::owner(1)).await.unwrap();
        session.fetch().await.unwrap();
        session.leave().await.unwrap();
        client.submit(target, &account::owner(2), 2).await.unwrap();
    }
}

//! Hands one mail to the ISP's own server over SMTP (RFC 5321), in a strict and small dialogue.
//!
//! Own code rather than a crate: one transaction, no pipelining, every reply bounded, and the difference that matters to
//! the queue, *try again* or *never*, is the reply's first digit.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::alert::outbox::Mail;
use crate::dial::{self, DialError, Roots, Stream, Target};
use crate::names::Names;

/// For connecting and for each reply. RFC 5321 §4.5.3.2 allows minutes; the server stands beside the box.
const STEP: Duration = Duration::from_secs(30);
/// For the reply to the end mark, where servers run their filters.
const ACCEPT: Duration = Duration::from_mins(2);
/// Octets of one reply, all lines.
const REPLY: usize = 8 * 1024;

/// The server that takes our mail.
#[derive(Clone, Debug)]
pub struct RelaySettings {
    /// Where it is.
    pub target: Target,
    /// The name its certificate must hold; `None`: the host of `target`.
    pub name: Option<String>,
    /// How the connection is protected.
    pub security: Security,
    /// Whom we trust there.
    pub roots: Roots,
    /// Name to log in with, for servers that want it; never sent in clear.
    pub login: Option<Login>,
    /// Our own name for EHLO.
    pub hostname: String,
}

/// How the connection to the relay is protected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Security {
    /// Not at all: a server on the same machine or on a trusted wire.
    Clear,
    /// STARTTLS, and nothing is sent without it.
    StartTls,
    /// TLS from the first octet.
    Implicit,
}

/// A name and a password, which `Debug` does not show.
#[derive(Clone)]
pub struct Login {
    /// The name.
    pub user: String,
    /// The password.
    pub password: mail::secret::Secret<256>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").finish_non_exhaustive()
    }
}

/// Why a mail was not taken.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// No connection; the next try may have one.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The connection broke.
    #[error("connection to the relay: {0}")]
    Broken(#[from] io::Error),
    /// 4xx: later.
    #[error("relay says {reply} to {step}")]
    Temporary {
        /// At which command.
        step: &'static str,
        /// What the server said, its first line.
        reply: String,
    },
    /// 5xx: never.
    #[error("relay refuses at {step}: {reply}")]
    Permanent {
        /// At which command.
        step: &'static str,
        /// What the server said, its first line.
        reply: String,
    },
    /// Not SMTP, or not with the protection that the settings ask for.
    #[error("relay breaks the protocol: {0}")]
    Protocol(&'static str),
    /// An address that cannot stand in an SMTP command.
    #[error("no address that mail can be sent to")]
    Address,
}

impl RelayError {
    /// Whether this mail will never be taken. A server that refuses before it has seen a recipient is set up wrongly,
    /// there or here, and that is mended without losing the queue.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Permanent { step, .. } => OF_MAIL.contains(step),
            Self::Address => true,
            Self::Dial(_) | Self::Broken(_) | Self::Temporary { .. } | Self::Protocol(_) => false,
        }
    }

    /// Whether the relay itself is in trouble, rather than this one mail.
    pub fn is_relay(&self) -> bool {
        match self {
            Self::Permanent { step, .. } | Self::Temporary { step, .. } => !OF_MAIL.contains(step),
            Self::Dial(_) | Self::Broken(_) | Self::Protocol(_) => true,
            Self::Address => false,
        }
    }
}

/// Steps at which a server judges the mail, not us.
const OF_MAIL: [&str; 3] = ["RCPT", "DATA", "the message"];

/// Sends mail, one connection each.
#[derive(Clone, Debug)]
pub struct Relay {
    settings: RelaySettings,
    names: Names,
    tls: Option<Arc<ClientConfig>>,
}

impl Relay {
    /// Prepares TLS; connects to nobody yet.
    pub fn new(settings: RelaySettings, names: Names) -> Result<Self, DialError> {
        let tls = match settings.security {
            Security::Clear => None,
            Security::StartTls | Security::Implicit => Some(dial::tls_config(&settings.roots)?),
        };
        Ok(Self { settings, names, tls })
    }

    /// Sends one mail; `Ok` once the server has taken it for at least one recipient.
    pub async fn send(&self, mail: &Mail) -> Result<(), RelayError> {
        let from = if mail.from.is_empty() { "" } else { path(&mail.from).ok_or(RelayError::Address)? };
        let to = mail.to.iter().filter_map(|to| path(to)).collect::<Vec<_>>();
        if to.is_empty() {
            return Err(RelayError::Address);
        }
        let host = self.settings.name.as_ref().unwrap_or(&self.settings.target.host);
        let stream = dial::tcp(&self.names, &self.settings.target, STEP).await?;
        let mut talk = match (self.settings.security, &self.tls) {
            (Security::Implicit, Some(tls)) => Talk::new(dial::tls(tls, host, stream, STEP).await?),
            _ => Talk::new(Box::new(stream)),
        };
        talk.reply().await?.expect("the greeting", 220)?;
        let mut offers = self.hello(&mut talk).await?;
        if let (Security::StartTls, Some(tls)) = (self.settings.security, &self.tls) {
            if !offers.has("STARTTLS") {
                return Err(RelayError::Protocol("no STARTTLS"));
            }
            talk.command("STARTTLS").await?.expect("STARTTLS", 220)?;
            // RFC 3207 §4.2 and CVE-2011-0411: what came in clear behind the go-ahead was put there by somebody.
            if !talk.buffer.is_empty() {
                return Err(RelayError::Protocol("octets behind STARTTLS"));
            }
            talk = Talk::new(dial::tls(tls, host, talk.stream, STEP).await?);
            offers = self.hello(&mut talk).await?;
        }
        if let Some(login) = &self.settings.login {
            self.login(&mut talk, login, &offers).await?;
        }
        talk.command(&format!("MAIL FROM:<{from}>")).await?.expect("MAIL", 250)?;
        let mut accepted = 0;
        let mut refusal = None;
        for to in to {
            match talk.command(&format!("RCPT TO:<{to}>")).await?.expect("RCPT", 25) {
                Ok(()) => accepted += 1,
                Err(error) => refusal = Some(error),
            }
        }
        if accepted == 0 {
            return Err(refusal.unwrap_or(RelayError::Address));
        }
        talk.command("DATA").await?.expect("DATA", 354)?;
        talk.write(&stuffed(&mail.message)).await?;
        talk.reply_within(ACCEPT).await?.expect("the message", 250)?;
        // It is taken; whether the goodbye works is nobody's concern.
        let _ = talk.write(b"QUIT\r\n").await;
        Ok(())
    }

    async fn hello(&self, talk: &mut Talk) -> Result<Reply, RelayError> {
        let reply = talk.command(&format!("EHLO {}", self.settings.hostname)).await?;
        reply.expect("EHLO", 250)?;
        Ok(reply)
    }

    async fn login(&self, talk: &mut Talk, login: &Login, offers: &Reply) -> Result<(), RelayError> {
        if self.settings.security == Security::Clear {
            return Err(RelayError::Protocol("a login is set, but no TLS to protect it"));
        }
        if !offers
            .lines
            .iter()
            .any(|line| line.starts_with("AUTH ") && line.split(' ').any(|word| word == "PLAIN"))
        {
            return Err(RelayError::Protocol("no AUTH PLAIN"));
        }
        // RFC 4616: authzid NUL authcid NUL password.
        let mut plain = zeroize::Zeroizing::new(vec![0]);
        plain.extend_from_slice(login.user.as_bytes());
        plain.push(0);
        plain.extend_from_slice(login.password.expose());
        let mut command = zeroize::Zeroizing::new(Vec::from(&b"AUTH PLAIN "[..]));
        base64(&plain, &mut command);
        command.extend_from_slice(b"\r\n");
        talk.write(&command).await?;
        talk.reply().await?.expect("AUTH", 235)
    }
}

/// RFC 4648 §4. The queue's only use of it; the session machines have their own without allocation.
fn base64(input: &[u8], out: &mut Vec<u8>) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in input.chunks(3) {
        let group = chunk
            .iter()
            .chain([&0, &0])
            .take(3)
            .fold(0_usize, |group, octet| group << 8 | usize::from(*octet));
        for place in 0..4 {
            let digit = ALPHABET.get(group >> (18 - 6 * place) & 63).copied().unwrap_or(b'=');
            out.push(if place > chunk.len() { b'=' } else { digit });
        }
    }
}

/// An address that can stand between `<` and `>`: printable ASCII, no space, quote or bracket, at most 254 octets.
fn path(address: &str) -> Option<&str> {
    let plain = |octet: u8| octet.is_ascii_graphic() && !matches!(octet, b'<' | b'>' | b'"' | b'\\');
    (address.len() <= 254 && address.bytes().all(plain) && address.contains('@')).then_some(address)
}

/// RFC 5321 §4.5.2: dots doubled, every line ended by CRLF, the end mark.
fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 64);
    let body = message.strip_suffix(b"\n").map_or(message, |body| body.strip_suffix(b"\r").unwrap_or(body));
    for line in body.split(|octet| *octet == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.first() == Some(&b'.') {
            out.push(b'.');
        }
        out.extend(line.iter().filter(|octet| **octet != b'\r'));
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}

/// One complete reply.
#[derive(Debug)]
struct Reply {
    code: u16,
    lines: Vec<String>,
}

impl Reply {
    /// Whether the code is the wanted one, or of the wanted ten (`25` stands for 250 to 259: 251 is a yes to RCPT).
    fn expect(&self, step: &'static str, wanted: u16) -> Result<(), RelayError> {
        if self.code == wanted || self.code / 10 == wanted {
            return Ok(());
        }
        let reply = format!("{} {}", self.code, self.lines.first().map_or("", String::as_str));
        Err(if self.code / 100 == 5 {
            RelayError::Permanent { step, reply }
        } else {
            RelayError::Temporary { step, reply }
        })
    }

    fn has(&self, keyword: &str) -> bool {
        self.lines.iter().skip(1).any(|line| line.eq_ignore_ascii_case(keyword))
    }
}

/// The dialogue.
struct Talk {
    stream: Box<dyn Stream>,
    /// Octets read and not yet part of a reply.
    buffer: Vec<u8>,
}

impl Talk {
    fn new(stream: Box<dyn Stream>) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    async fn command(&mut self, line: &str) -> Result<Reply, RelayError> {
        self.write(format!("{line}\r\n").as_bytes()).await?;
        self.reply().await
    }

    async fn write(&mut self, octets: &[u8]) -> Result<(), RelayError> {
        let write = async {
            self.stream.write_all(octets).await?;
            self.stream.flush().await
        };
        timeout(STEP, write).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(())
    }

    async fn reply(&mut self) -> Result<Reply, RelayError> {
        self.reply_within(STEP).await
    }

    async fn reply_within(&mut self, limit: Duration) -> Result<Reply, RelayError> {
        let read = async {
            loop {
                if let Some((reply, used)) = parse(&self.buffer)? {
                    self.buffer.drain(..used);
                    return Ok(reply);
                }
                if self.buffer.len() >= REPLY {
                    return Err(RelayError::Protocol("endless reply"));
                }
                let mut chunk = [0; 1_024];
                let count = self.stream.read(&mut chunk).await?;
                if count == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                self.buffer.extend_from_slice(chunk.get(..count).unwrap_or_default());
            }
        };
        timeout(limit, read).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }
}

/// A whole reply (RFC 5321 §4.2) and its length, or `None` while it is not complete. Bare LF, changing codes and
/// anything else outside the grammar is an error.
fn parse(buffer: &[u8]) -> Result<Option<(Reply, usize)>, RelayError> {
    const BAD: RelayError = RelayError::Protocol("malformed reply");
    let mut lines = Vec::new();
    let mut code = None;
    let mut used = 0;
    loop {
        let rest = buffer.get(used..).unwrap_or_default();
        let Some(end) = rest.iter().position(|octet| *octet == b'\n') else { return Ok(None) };
        let line = rest.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(BAD)?;
        used += end + 1;
        let (digits, tail) = line.split_at_checked(3).ok_or(BAD)?;
        if !digits.iter().all(u8::is_ascii_digit) || !matches!(digits.first(), Some(b'2'..=b'5')) {
            return Err(BAD);
        }
        let this = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
        if *code.get_or_insert(this) != this {
            return Err(BAD);
        }
        let text = tail.get(1..).unwrap_or_default();
        lines.push(
            text.iter()
                .map(|octet| if (0x20..0x7f).contains(octet) { char::from(*octet) } else { '?' })
                .collect(),
        );
        match tail.first() {
            Some(b'-') => {}
            Some(b' ') | None => return Ok(Some((Reply { code: this, lines }, used))),
            Some(_) => return Err(BAD),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::SocketAddr;

    use rustls::ServerConfig;
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use tokio::io::{AsyncBufReadExt, BufReader};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// What the server of these tests does.
    #[derive(Clone, Copy, Debug, Default)]
    #[allow(clippy::struct_excessive_bools)] // switches of a test server, each on its own
    pub(crate) struct Script {
        pub(crate) starttls: bool,
        pub(crate) implicit: bool,
        pub(crate) inject: bool,
        pub(crate) auth: bool,
        pub(crate) rcpt: Option<&'static str>,
        pub(crate) greeting: Option<&'static str>,
    }

    pub(crate) fn mail(to: &[&str]) -> Mail {
        Mail {
            id: "id1".into(),
            from: "security@isp.example".into(),
            to: to.iter().map(ToString::to_string).collect(),
            message: b"Subject: x\r\n\r\nfirst\r\n.\r\n..\r\nend\r\n".to_vec(),
        }
    }

    struct Certificate {
        pem: Vec<u8>,
        acceptor: TlsAcceptor,
    }

    fn certificate() -> Certificate {
        let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(issued.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![issued.cert.der().clone()], key)
            .unwrap();
        Certificate { pem: issued.cert.pem().into_bytes(), acceptor: TlsAcceptor::from(Arc::new(config)) }
    }

    /// A server that follows `script` and reports each command line and message line it hears.
    pub(crate) async fn server(script: Script) -> (RelaySettings, mpsc::UnboundedReceiver<String>) {
        let certificate = certificate();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here: SocketAddr = listener.local_addr().unwrap();
        let (heard, hear) = mpsc::unbounded_channel();
        let acceptor = certificate.acceptor.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, heard) = (acceptor.clone(), heard.clone());
                tokio::spawn(async move {
                    // A client that leaves early is what some tests are about.
                    let _ = serve(stream, acceptor, script, heard).await;
                });
            }
        });
        let settings = RelaySettings {
            target: Target { host: "127.0.0.1".into(), port: here.port() },
            name: Some("localhost".into()),
            security: match (script.implicit, script.starttls) {
                (true, _) => Security::Implicit,
                (false, true) => Security::StartTls,
                _ => Security::Clear,
            },
            roots: Roots::Pem(certificate.pem),
            login: None,
            hostname: "postern.isp.example".into(),
        };
        (settings, hear)
    }

    async fn serve(
        stream: tokio::net::TcpStream,
        acceptor: TlsAcceptor,
        script: Script,
        heard: mpsc::UnboundedSender<String>,
    ) -> io::Result<()> {
        let mut stream: BufReader<Box<dyn Stream>> = BufReader::new(if script.implicit {
            Box::new(acceptor.accept(stream).await?)
        } else {
            Box::new(stream)
        });
        let greeting = script.greeting.unwrap_or("220-two\r\n220 lines\r\n");
        stream.write_all(greeting.as_bytes()).await?;
        let (mut data, mut secured) = (false, script.implicit);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let line = line.strip_suffix("\r\n").expect("CRLF").to_owned();
            let _ = heard.send(line.clone());
            let reply = match line.split([' ', ':']).next().unwrap() {
                _ if data && line == "." => {
                    data = false;
                    "250 2.0.0 taken"
                }
                _ if data => continue,
                "EHLO" if script.starttls && !secured => "250-me\r\n250 STARTTLS",
                "EHLO" if script.auth => "250-me\r\n250-SIZE 1000\r\n250 AUTH LOGIN PLAIN",
                "EHLO" => "250-me\r\n250 8BITMIME",
                "STARTTLS" => {
                    let injected = if script.inject { "220 go\r\n250 injected\r\n" } else { "220 go\r\n" };
                    stream.write_all(injected.as_bytes()).await?;
                    stream = BufReader::new(Box::new(acceptor.accept(stream.into_inner()).await?));
                    secured = true;
                    continue;
                }
                "AUTH" => "235 2.7.0 in",
                "RCPT" if line.contains("ann@") => script.rcpt.unwrap_or("250 ok"),
                "DATA" => {
                    data = true;
                    "354 go on"
                }
                _ => "250 ok",
            };
            stream.write_all(format!("{reply}\r\n").as_bytes()).await?;
        }
    }

    async fn send(
        script: Script,
        login: Option<Login>,
        to: &[&str],
    ) -> (Result<(), RelayError>, Vec<String>) {
        let (settings, mut hear) = server(script).await;
        let relay = Relay::new(
            RelaySettings { login, ..settings },
            Names::new(&crate::names::NameServers::Off).unwrap(),
        );
        let result = relay.unwrap().send(&mail(to)).await;
        let mut heard = Vec::new();
        while let Ok(line) = hear.try_recv() {
            heard.push(line);
        }
        (result, heard)
    }

    #[tokio::test]
    async fn in_clear_with_dots() {
        let (result, heard) = send(Script::default(), None, &["ann@isp.example"]).await;
        result.unwrap();
        let mut want = vec![
            "EHLO postern.isp.example",
            "MAIL FROM:<security@isp.example>",
            "RCPT TO:<ann@isp.example>",
            "DATA",
            "Subject: x",
            "",
            "first",
            "..",
            "...",
            "end",
            ".",
            "QUIT",
        ];
        want.truncate(heard.len().max(11)); // nobody waits for the goodbye to arrive
        assert_eq!(heard, want);
    }

    #[tokio::test]
    async fn under_tls_with_login() {
        let login =
            Login { user: "box".into(), password: mail::secret::Secret::copy_from(b"pass word").unwrap() };
        for script in [
            Script { starttls: true, auth: true, ..Script::default() },
            Script { implicit: true, auth: true, ..Script::default() },
        ] {
            let (result, heard) = send(script, Some(login.clone()), &["ann@isp.example"]).await;
            result.unwrap();
            assert!(heard.contains(&"AUTH PLAIN AGJveABwYXNzIHdvcmQ=".to_owned()), "{heard:?}");
            assert_eq!(heard.contains(&"STARTTLS".to_owned()), script.starttls);
        }
        assert!(!format!("{login:?}").contains("pass"));
    }

    #[tokio::test]
    async fn nothing_is_sent_without_the_protection_asked_for() {
        // The server offers no STARTTLS, as after a downgrade on the wire.
        let (settings, mut hear) = server(Script::default()).await;
        let settings = RelaySettings { security: Security::StartTls, ..settings };
        let names = Names::new(&crate::names::NameServers::Off).unwrap();
        let error = Relay::new(settings, names).unwrap().send(&mail(&["ann@isp.example"])).await.unwrap_err();
        assert!(matches!(error, RelayError::Protocol("no STARTTLS")), "{error}");
        let mut heard = Vec::new();
        while let Ok(line) = hear.try_recv() {
            heard.push(line);
        }
        assert_eq!(heard, ["EHLO postern.isp.example"]);

        let (result, heard) =
            send(Script { starttls: true, inject: true, ..Script::default() }, None, &["ann@x.example"])
                .await;
        assert!(matches!(result, Err(RelayError::Protocol("octets behind STARTTLS"))), "{result:?}");
        assert_eq!(heard.last().unwrap(), "STARTTLS");

        let login = Login { user: "box".into(), password: mail::secret::Secret::copy_from(b"x").unwrap() };
        let (result, heard) =
            send(Script { auth: true, ..Script::default() }, Some(login), &["ann@x.example"]).await;
        assert!(matches!(result, Err(RelayError::Protocol(_))), "{result:?}");
        assert!(!heard.iter().any(|line| line.starts_with("AUTH")), "{heard:?}");
    }

    #[tokio::test]
    async fn a_stranger_certificate_is_refused() {
        let (settings, _hear) = server(Script { implicit: true, ..Script::default() }).await;
        let settings = RelaySettings { roots: Roots::Public, ..settings };
        let names = Names::new(&crate::names::NameServers::Off).unwrap();
        let error = Relay::new(settings, names).unwrap().send(&mail(&["ann@isp.example"])).await.unwrap_err();
        assert!(matches!(error, RelayError::Dial(DialError::Tls { .. })), "{error}");
        assert!(!error.is_permanent() && error.is_relay());
    }

    #[tokio::test]
    async fn refusals_are_told_apart() {
        let later = Script { rcpt: Some("451 4.7.1 later"), ..Script::default() };
        let (result, _) = send(later, None, &["ann@isp.example"]).await;
        assert!(matches!(&result, Err(RelayError::Temporary { step: "RCPT", .. })), "{result:?}");
        let never = Script { rcpt: Some("550-5.1.1 no\r\n550 such user"), ..Script::default() };
        let (result, _) = send(never, None, &["ann@isp.example"]).await;
        assert!(result.unwrap_err().is_permanent());
        // One of two is enough.
        let (result, heard) = send(never, None, &["ann@isp.example", "bob@isp.example"]).await;
        result.unwrap();
        assert!(heard.contains(&"RCPT TO:<bob@isp.example>".to_owned()));
        let (result, _) = send(Script::default(), None, &["ann\r\nDATA@x", "<>@x", "ann"]).await;
        assert!(matches!(result, Err(RelayError::Address)));
        for greeting in ["220 bare\n", "HTTP/1.1 400\r\n", "220-x\r\n250 y\r\n", "554 no\r\n"] {
            let (result, heard) =
                send(Script { greeting: Some(greeting), ..Script::default() }, None, &["ann@isp.example"])
                    .await;
            let error = result.unwrap_err();
            assert!(heard.is_empty() && error.is_relay() && !error.is_permanent(), "{greeting:?}: {error}");
        }
    }

    #[test]
    fn known_base64() {
        // RFC 4648 §10.
        for (input, want) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            let mut out = Vec::new();
            base64(input.as_bytes(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
    }

    #[test]
    fn no_line_end_smuggles() {
        assert_eq!(stuffed(b"a\n.\nb"), b"a\r\n..\r\nb\r\n.\r\n");
        assert_eq!(stuffed(b"a\r.\rb\r\n"), b"a.b\r\n.\r\n");
        assert_eq!(stuffed(b""), b"\r\n.\r\n");
    }
}

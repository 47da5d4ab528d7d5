//! A mail client that speaks line by line: the harness's own hand on the wire, where a real client hides the octets.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// How long any answer may take before the client gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// How much of what a server says is kept for comparison.
const HEARD: usize = 64 * 1024;

/// A connection to a mail server, in clear or under TLS.
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    pending: Vec<u8>,
    heard: Vec<u8>,
}

#[derive(Debug)]
enum Stream {
    Clear(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    /// Only while STARTTLS turns one into the other.
    Gone,
}

/// What a client trusts and offers in a TLS handshake.
#[derive(Clone, Debug)]
pub struct Trust(Arc<ClientConfig>);

impl Trust {
    /// Trusts one CA; resumes no session.
    pub fn new(ca: &CertificateDer<'static>) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone()).context("the CA is no CA")?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }

    /// The same trust in a configuration of the caller's making (other suites, ALPN, tickets).
    pub const fn from_config(config: Arc<ClientConfig>) -> Self {
        Self(config)
    }
}

impl Client {
    /// Connects in clear.
    pub fn clear(address: SocketAddr) -> Result<Self> {
        Self::clear_from(address, None)
    }

    /// Connects in clear from a source address, such as another one of 127.0.0.0/8.
    pub fn clear_from(address: SocketAddr, source: Option<IpAddr>) -> Result<Self> {
        let stream = open(address, source).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: Stream::Clear(stream), pending: Vec::new(), heard: Vec::new() })
    }

    /// Connects under TLS, as to ports 993, 995 and 465.
    pub fn tls(address: SocketAddr, trust: &Trust) -> Result<Self> {
        Self::tls_from(address, trust, None)
    }

    /// Connects under TLS from a source address.
    pub fn tls_from(address: SocketAddr, trust: &Trust, source: Option<IpAddr>) -> Result<Self> {
        let mut client = Self::clear_from(address, source)?;
        client.start_tls(trust)?;
        Ok(client)
    }

    /// Does the TLS handshake now, after the server's go-ahead to STARTTLS.
    pub fn start_tls(&mut self, trust: &Trust) -> Result<()> {
        let Stream::Clear(mut stream) = std::mem::replace(&mut self.stream, Stream::Gone) else {
            bail!("already under TLS")
        };
        let name = ServerName::try_from("mail.example.test")?;
        let mut session = ClientConnection::new(Arc::clone(&trust.0), name)?;
        while session.is_handshaking() {
            session.complete_io(&mut stream).context("TLS handshake failed")?;
        }
        self.stream = Stream::Tls(Box::new(StreamOwned::new(session, stream)));
        Ok(())
    }

    /// Sends a line; CRLF is added. The line and its end leave in one write.
    pub fn send(&mut self, line: &str) -> Result<()> {
        self.raw(format!("{line}\r\n").as_bytes())
    }

    /// Sends octets as they are.
    pub fn raw(&mut self, octets: &[u8]) -> Result<()> {
        match &mut self.stream {
            Stream::Clear(stream) => stream.write_all(octets)?,
            Stream::Tls(stream) => {
                stream.write_all(octets)?;
                stream.flush()?;
            }
            Stream::Gone => bail!("no connection"),
        }
        Ok(())
    }

    /// The next line, without its CRLF.
    ///
    /// # Errors
    /// Where the server closes first or stays silent.
    pub fn line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.pending.iter().position(|octet| *octet == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(line.strip_suffix(b"\r\n").unwrap_or(&line)).into_owned());
            }
            if self.fill()? == 0 {
                bail!("the server closed; before that it sent {:?}", String::from_utf8_lossy(&self.pending));
            }
        }
    }

    /// Lines up to the first one that starts with `prefix`, that one included.
    pub fn until(&mut self, prefix: &str) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        loop {
            let line = self.line().with_context(|| format!("waiting for {prefix:?} after {lines:?}"))?;
            let found = line.starts_with(prefix);
            lines.push(line);
            if found {
                return Ok(lines);
            }
        }
    }

    /// Sends a line and gives the next one.
    pub fn ask(&mut self, line: &str) -> Result<String> {
        self.send(line)?;
        self.line()
    }

    /// Sends an SMTP command and gives its reply, all lines of it joined by LF.
    pub fn smtp(&mut self, command: &str) -> Result<String> {
        self.send(command)?;
        self.smtp_reply()
    }

    /// An SMTP reply, all lines of it joined by LF.
    pub fn smtp_reply(&mut self) -> Result<String> {
        let mut reply = self.line()?;
        while reply.lines().last().is_some_and(|line| line.as_bytes().get(3) == Some(&b'-')) {
            reply.push('\n');
            reply.push_str(&self.line()?);
        }
        Ok(reply)
    }

    /// Everything the server sends until it closes.
    pub fn rest(&mut self) -> Result<Vec<u8>> {
        while self.fill()? > 0 {}
        Ok(std::mem::take(&mut self.pending))
    }

    /// Everything the server has sent so far, up to a limit of 64 KiB.
    pub fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard).into_owned()
    }

    /// How long reads wait; the start is 30 s.
    pub fn set_patience(&self, limit: Duration) -> Result<()> {
        Ok(self.socket()?.set_read_timeout(Some(limit))?)
    }

    /// Whether the server closes within `limit`, whatever it still says.
    pub fn is_closed_within(&mut self, limit: Duration) -> Result<bool> {
        let start = Instant::now();
        self.set_patience(limit.max(Duration::from_millis(1)))?;
        loop {
            match self.fill() {
                Ok(0) => return Ok(true),
                Ok(_) if start.elapsed() < limit => {}
                Ok(_) => return Ok(false),
                Err(error) => {
                    let timeout = error.downcast_ref::<std::io::Error>().is_some_and(|error| {
                        matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
                    });
                    return Ok(!timeout); // a reset is a close
                }
            }
        }
    }

    /// This side's address.
    pub fn local(&self) -> Result<SocketAddr> {
        Ok(self.socket()?.local_addr()?)
    }

    /// Says that nothing more will be sent, and keeps listening (TCP half-close, in clear or under TLS).
    pub fn half_close(&mut self) -> Result<()> {
        if let Stream::Tls(stream) = &mut self.stream {
            stream.conn.send_close_notify();
            stream.flush()?;
        }
        Ok(self.socket()?.shutdown(std::net::Shutdown::Write)?)
    }

    fn socket(&self) -> Result<&TcpStream> {
        match &self.stream {
            Stream::Clear(stream) => Ok(stream),
            Stream::Tls(stream) => Ok(&stream.sock),
            Stream::Gone => bail!("no connection"),
        }
    }

    fn fill(&mut self) -> Result<usize> {
        let mut buffer = [0; 16 * 1024];
        let read = match &mut self.stream {
            Stream::Clear(stream) => stream.read(&mut buffer),
            Stream::Tls(stream) => match stream.read(&mut buffer) {
                // Many servers close without TLS' own goodbye.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(0),
                other => other,
            },
            Stream::Gone => bail!("no connection"),
        }?;
        self.pending.extend_from_slice(&buffer[..read]);
        let room = HEARD.saturating_sub(self.heard.len());
        self.heard.extend_from_slice(&buffer[..read.min(room)]);
        Ok(read)
    }
}

fn open(address: SocketAddr, source: Option<IpAddr>) -> Result<TcpStream> {
    let Some(source) = source else { return Ok(TcpStream::connect_timeout(&address, PATIENCE)?) };
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket: OwnedFd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(source, 0)))?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(TcpStream::from(socket))
}

/// Another address of the loopback network: `client(7)` is 127.0.0.7.
pub const fn client(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, number))
}

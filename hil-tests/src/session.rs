//! A login, spoken to the octet, in each of the three protocols.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};

use crate::client::{Client, Trust};
use crate::gateway::Gateway;
use crate::secrets;

/// The three protocols whose logins are guarded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// On the listener `imaps`.
    Imap,
    /// On the listener `pop3s`.
    Pop3,
    /// On the listener `submissions`.
    Submission,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Imap, Self::Pop3, Self::Submission];

    /// Those that have a CLIENTID.
    pub const WITH_CLIENTID: [Self; 2] = [Self::Imap, Self::Submission];

    /// How every failed login is answered (design §2, step 5), with the tag that [`Session::login`] uses.
    pub const fn failure(self) -> &'static str {
        match self {
            Self::Imap => "a NO [AUTHENTICATIONFAILED] Authentication failed.",
            Self::Pop3 => "-ERR [AUTH] Authentication failed.",
            Self::Submission => "535 5.7.8 Authentication credentials invalid",
        }
    }

    /// How every login is answered while the backend is away (design §2, step 6): the start of it.
    pub const fn unavailable(self) -> &'static str {
        match self {
            Self::Imap => "a NO [UNAVAILABLE]",
            Self::Pop3 => "-ERR [SYS/TEMP]",
            Self::Submission => "454 4.7.0",
        }
    }

    const fn success(self) -> &'static str {
        match self {
            Self::Imap => "a OK",
            Self::Pop3 => "+OK",
            Self::Submission => "235",
        }
    }
}

/// From where a client comes.
#[derive(Clone, Copy, Debug)]
pub enum Origin {
    /// 127.0.0.1.
    Here,
    /// Another address of this machine.
    From(IpAddr),
    /// Any address at all, told in a PROXY v1 header; the gateway must list 127.0.0.1 as a load balancer.
    Behind(SocketAddr),
}

/// A session up to and past its login.
#[derive(Debug)]
pub struct Session {
    /// The wire.
    pub client: Client,
    protocol: Protocol,
}

impl Session {
    /// Connects under TLS, and takes the greeting (and the reply to EHLO).
    pub fn open(gateway: &Gateway, protocol: Protocol) -> Result<Self> {
        Self::open_from(gateway, protocol, Origin::Here, &gateway.trust()?)
    }

    /// Connects from somewhere, with a TLS configuration of its own.
    pub fn open_from(gateway: &Gateway, protocol: Protocol, origin: Origin, trust: &Trust) -> Result<Self> {
        let address = match protocol {
            Protocol::Imap => gateway.listeners.imaps,
            Protocol::Pop3 => gateway.listeners.pop3s,
            Protocol::Submission => gateway.listeners.submissions,
        };
        let client = connect(address, origin, trust)?;
        let mut session = Self { client, protocol };
        session.greet()?;
        Ok(session)
    }

    fn greet(&mut self) -> Result<()> {
        let greeting = match self.protocol {
            Protocol::Imap => self.client.line()?.starts_with("* OK"),
            Protocol::Pop3 => self.client.line()?.starts_with("+OK"),
            Protocol::Submission => {
                self.client.smtp_reply()?.starts_with("220")
                    && self.client.smtp("EHLO [192.0.2.200]")?.starts_with("250")
            }
        };
        ensure!(greeting, "no greeting");
        Ok(())
    }

    /// Names the device: `CLIENTID UUID TOKEN`. Every well-formed one is taken (clientid.md Q15).
    pub fn identify(&mut self, token: &str) -> Result<()> {
        let (line, success) = match self.protocol {
            Protocol::Imap => (format!("c CLIENTID UUID {token}"), "c OK"),
            Protocol::Submission => (format!("CLIENTID UUID {token}"), "250"),
            Protocol::Pop3 => return Ok(()), // has no such command (clientid.md §2.4)
        };
        let reply = self.client.ask(&line)?;
        ensure!(reply.starts_with(success), "CLIENTID was answered {reply:?}");
        Ok(())
    }

    /// Logs in and gives the reply's last line. The line that decides is the last one sent.
    pub fn login(&mut self, user: &str, password: &str) -> Result<String> {
        self.begin_login(user, password)?.finish()
    }

    /// Everything before the line that decides, so that the wait for its answer can be timed alone.
    pub fn begin_login(&mut self, user: &str, password: &str) -> Result<Pending<'_>> {
        let secret = secrets::plain_base64(user, password);
        let line = match self.protocol {
            Protocol::Imap => {
                let go = self.client.ask("a AUTHENTICATE PLAIN")?;
                ensure!(go.starts_with('+'), "AUTHENTICATE was answered {go:?}");
                secret
            }
            Protocol::Pop3 => {
                let go = self.client.ask(&format!("USER {user}"))?;
                ensure!(go.starts_with("+OK"), "USER was answered {go:?}");
                format!("PASS {password}")
            }
            Protocol::Submission => {
                let go = self.client.ask("AUTH PLAIN")?;
                ensure!(go.starts_with("334"), "AUTH was answered {go:?}");
                secret
            }
        };
        Ok(Pending { session: self, line })
    }

    /// Logs in, or fails.
    pub fn enter(&mut self, user: &str, password: &str) -> Result<()> {
        let reply = self.login(user, password)?;
        ensure!(self.protocol.is_success(&reply), "the login was answered {reply:?}");
        Ok(())
    }

    /// A command that changes nothing, and its reply's last line: is somebody there?
    pub fn nothing(&mut self) -> Result<String> {
        match self.protocol {
            Protocol::Imap => {
                self.client.send("n NOOP")?;
                Ok(self.client.until("n ")?.pop().unwrap_or_default())
            }
            Protocol::Pop3 | Protocol::Submission => self.client.ask("NOOP"),
        }
    }
}

impl Protocol {
    /// Whether a login's reply says yes.
    pub fn is_success(self, reply: &str) -> bool {
        reply.starts_with(self.success())
    }
}

/// A login of which all but the deciding line was sent.
#[derive(Debug)]
pub struct Pending<'a> {
    session: &'a mut Session,
    line: String,
}

impl Pending<'_> {
    /// Sends the deciding line and waits for the answer; gives its last line.
    pub fn finish(self) -> Result<String> {
        let Self { session, line } = self;
        session.client.send(&line)?;
        match session.protocol {
            Protocol::Imap => Ok(session.client.until("a ")?.pop().unwrap_or_default()),
            Protocol::Pop3 => session.client.line(),
            Protocol::Submission => session.client.smtp_reply(),
        }
    }
}

/// Connects under TLS from somewhere.
pub fn connect(address: SocketAddr, origin: Origin, trust: &Trust) -> Result<Client> {
    match origin {
        Origin::Here => Client::tls(address, trust),
        Origin::From(source) => Client::tls_from(address, trust, Some(source)),
        Origin::Behind(source) => {
            let mut client = Client::clear(address)?;
            client.raw(proxy_header(source, address).as_bytes())?;
            client.start_tls(trust)?;
            Ok(client)
        }
    }
}

/// A PROXY v1 header (haproxy's proxy-protocol.txt §2.1).
pub fn proxy_header(source: SocketAddr, destination: SocketAddr) -> String {
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let to = if source.is_ipv4() { destination.ip().to_string() } else { "::1".into() };
    format!("PROXY {family} {} {to} {} {}\r\n", source.ip(), source.port(), destination.port())
}

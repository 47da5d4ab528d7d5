//! `[backends.NAME]`: the ISP's own servers.

use std::path::PathBuf;
use std::time::Duration;

use mail::Domain;
use mail::session::Protocol;

use crate::address::Endpoint;
use crate::reader::{Entry, Read, Table, Value, choice};

/// One set of servers that hold the same mailboxes.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Its IMAP server; `None`: IMAP is not served for mailboxes here.
    pub imap: Option<Service>,
    /// Its POP3 server.
    pub pop3: Option<Service>,
    /// Its submission server.
    pub submission: Option<Service>,
    /// How it wants logins spelled.
    pub login_form: LoginForm,
}

/// One server of a backend.
#[derive(Clone, Debug)]
pub struct Service {
    /// Where it is.
    pub address: Endpoint,
    /// How the way to it is protected.
    pub tls: BackendTls,
    /// PEM of the authorities that vouch for it; `None`: the public ones.
    pub ca: Option<PathBuf>,
    /// The name its certificate must hold; `None`: the host of `address`, which may be an IP address.
    pub name: Option<Domain>,
    /// How it is told who the client is (clientid.md §5).
    pub identity: IdentityVia,
    /// Time between health probes.
    pub health_interval: Duration,
    /// Longest wait for a connection, and for each reply up to login.
    pub timeout: Duration,
}

/// How the way to a backend is protected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BackendTls {
    /// In clear: only to this machine or a private address.
    None,
    /// STARTTLS or STLS, never without.
    StartTls,
    /// From the first octet.
    Implicit,
}

/// How a backend is told who the client is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IdentityVia {
    /// Not at all: it sees this box.
    None,
    /// IMAP ID, XCLIENT.
    Protocol,
    /// A PROXY v2 header, before TLS.
    ProxyV2,
    /// A PROXY v1 header, before TLS.
    ProxyV1,
}

/// How a backend wants logins spelled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LoginForm {
    /// `alice@example.net`.
    Address,
    /// `alice`.
    LocalPart,
}

impl Backend {
    /// Its server for a protocol.
    pub fn service(&self, protocol: Protocol) -> Option<&Service> {
        match protocol {
            Protocol::Imap => self.imap.as_ref(),
            Protocol::Pop3 => self.pop3.as_ref(),
            Protocol::Submission => self.submission.as_ref(),
        }
    }

    /// A backend with its name: letters, digits, `-`, `_`.
    pub(crate) fn read(entry: &Entry<'_>) -> Option<(String, Self)> {
        let name = entry.name;
        let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        let name = if plain {
            Some(name.to_owned())
        } else {
            entry.wrong_name(format!("{name:?} is not a name"), "use letters, digits, - and _")
        };
        let mut table = entry.value.table()?;
        let imap = table.optional("imap");
        let pop3 = table.optional("pop3");
        let submission = table.optional("submission");
        let login_form = table.or("login-form", LoginForm::Address);
        table.finish();
        Some((name?, Self { imap, pop3, submission, login_form }))
    }
}

impl Read for Service {
    fn read(value: &Value<'_>) -> Option<Self> {
        let mut table = value.table()?;
        let service = Self::fields(&mut table);
        table.finish();
        service
    }
}

impl Service {
    fn fields(table: &mut Table<'_>) -> Option<Self> {
        let address = table.required("address", "add address = \"imap.internal.example:993\"");
        let tls = table.or("tls", BackendTls::Implicit);
        let ca = table.optional("ca");
        let name = table.optional("name");
        let identity = table.or("identity", IdentityVia::Protocol);
        let health_interval = table.or("health-interval", Duration::from_secs(10));
        let timeout = table.or("timeout", Duration::from_secs(10));
        Some(Self { address: address?, tls, ca, name, identity, health_interval, timeout })
    }
}

impl Read for BackendTls {
    fn read(value: &Value<'_>) -> Option<Self> {
        choice(value, &[("none", Self::None), ("starttls", Self::StartTls), ("implicit", Self::Implicit)])
    }
}

impl Read for IdentityVia {
    fn read(value: &Value<'_>) -> Option<Self> {
        let words = [
            ("none", Self::None),
            ("protocol", Self::Protocol),
            ("proxy-v2", Self::ProxyV2),
            ("proxy-v1", Self::ProxyV1),
        ];
        choice(value, &words)
    }
}

impl Read for LoginForm {
    fn read(value: &Value<'_>) -> Option<Self> {
        choice(value, &[("address", Self::Address), ("local-part", Self::LocalPart)])
    }
}

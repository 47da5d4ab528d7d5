//! `[log]`, `[metrics]`, `[control]`, `[events]`, `[geo]`, `[dns]`: what the box shows and what it looks up.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use crate::quantity::Size;
use crate::reader::{Read, Table, Value, choice};

/// `[log]`: to standard error.
#[derive(Clone, Copy, Debug)]
pub struct Log {
    /// One JSON object a line, or lines for people.
    pub format: LogFormat,
    /// What is left out below.
    pub level: Level,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    /// For machines.
    Json,
    /// For people.
    Human,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Level {
    /// What needs a hand.
    Error,
    /// What may soon.
    Warn,
    /// Sessions, logins, refusals with their reasons.
    Info,
    /// Peers' hang-ups, backend dialogue by step; never credentials.
    Debug,
    /// Everything; never credentials.
    Trace,
}

impl Level {
    /// As `tracing` spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// `[metrics]`.
#[derive(Clone, Copy, Debug)]
pub struct Metrics {
    /// Where Prometheus text is served, without login: a local address; `None`: nowhere.
    pub listen: Option<SocketAddr>,
}

/// `[control]`.
#[derive(Clone, Debug)]
pub struct Control {
    /// The Unix socket of `postern` and the consoles.
    pub socket: PathBuf,
    /// User ids that may use it, besides root and the gateway's own.
    pub uids: Vec<u32>,
}

/// `[events]`: the local journal.
#[derive(Clone, Copy, Debug)]
pub struct Events {
    /// Days after which client addresses are forgotten, in the journal and with devices.
    pub address_retention: Duration,
    /// Octets the journal may fill; the oldest events go first.
    pub journal_size: u64,
}

/// `[geo]`.
#[derive(Clone, Debug)]
pub struct Geo {
    /// A country table (`MaxMind` DB format); `None`: countries are unknown.
    pub country: Option<PathBuf>,
    /// What its licence wants said in mail that uses it.
    pub attribution: Option<String>,
}

/// `[dns]`: names of client addresses (PTR), for alerts.
#[derive(Clone, Debug)]
pub struct Dns {
    /// Who is asked.
    pub resolver: Resolver,
    /// Longest wait for a name.
    pub timeout: Duration,
}

/// Who is asked for names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Resolver {
    /// Nobody.
    Off,
    /// Those of /etc/resolv.conf.
    System,
    /// These.
    Servers(Vec<SocketAddr>),
}

impl Log {
    pub(crate) fn read(table: &mut Table<'_>) -> Self {
        Self { format: table.or("format", LogFormat::Human), level: table.or("level", Level::Info) }
    }
}

impl Metrics {
    pub(crate) fn read(table: &mut Table<'_>) -> Self {
        Self { listen: table.optional("listen") }
    }
}

impl Control {
    pub(crate) fn read(table: &mut Table<'_>) -> Self {
        Self { socket: table.or("socket", "/run/postern/control".into()), uids: table.or("uids", Vec::new()) }
    }
}

impl Events {
    pub(crate) fn read(table: &mut Table<'_>) -> Self {
        Self {
            address_retention: table.or("address-retention", Duration::from_hours(90 * 24)),
            journal_size: table.or("journal-size", Size(64 << 20)).0,
        }
    }
}

impl Geo {
    pub(crate) fn read(table: &mut Table<'_>) -> Self {
        Self { country: table.optional("country"), attribution: table.optional("attribution") }
    }
}

impl Dns {
    pub(crate) fn read(table: &mut Table<'_>) -> Self {
        Self {
            resolver: table.or("resolver", Resolver::System),
            timeout: table.or("timeout", Duration::from_secs(3)),
        }
    }
}

impl Read for LogFormat {
    fn read(value: &Value<'_>) -> Option<Self> {
        choice(value, &[("json", Self::Json), ("human", Self::Human)])
    }
}

impl Read for Level {
    fn read(value: &Value<'_>) -> Option<Self> {
        let levels = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];
        choice(value, &levels.map(|level| (level.name(), level)))
    }
}

impl Read for Resolver {
    fn read(value: &Value<'_>) -> Option<Self> {
        match value.get() {
            DeValue::String(_) => choice(value, &[("off", None), ("system", Some(()))])
                .map(|word| word.map_or(Self::Off, |()| Self::System)),
            DeValue::Array(list) if list.is_empty() => {
                value.wrong("no server is listed", "write \"off\" for none")
            }
            DeValue::Array(_) => {
                Some(Self::Servers(Vec::<Server>::read(value)?.into_iter().map(|server| server.0).collect()))
            }
            _ => value.wrong_type("a word or a list", "write \"off\", \"system\" or [\"192.0.2.53\"]"),
        }
    }
}

/// A name server: an address, with a port if it is not 53.
struct Server(SocketAddr);

impl Read for Server {
    fn read(value: &Value<'_>) -> Option<Self> {
        let text = value.text("an address", "write \"192.0.2.53\" or \"192.0.2.53:5353\"")?;
        match text.parse::<IpAddr>() {
            Ok(address) => Some(Self((address, 53).into())),
            Err(_) => SocketAddr::read(value).map(Self),
        }
    }
}

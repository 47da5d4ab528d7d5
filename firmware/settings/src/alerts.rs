//! `[alerts]`: who is told, and how.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::address::{Endpoint, HttpUrl, MailAddress};
use crate::backend::BackendTls;
use crate::quantity::Positive;
use crate::reader::{Read, Table, Value};

/// `[alerts]`.
#[derive(Clone, Debug)]
pub struct Alerts {
    /// How alert mail goes out; `None`: nobody is told by mail.
    pub mail: Option<AlertMail>,
    /// The page that the one link in a mail to an owner leads to.
    pub portal: Option<HttpUrl>,
    /// The first alert goes out at once; what follows is gathered this long.
    pub digest_interval: Duration,
    /// Mails to one account in a day, digests included.
    pub mails_per_account: u32,
    /// Who runs the box.
    pub operator: Operator,
}

/// How alert mail goes out.
#[derive(Clone, Debug)]
pub struct AlertMail {
    /// Its From and envelope sender.
    pub from: MailAddress,
    /// The server that takes it.
    pub via: Via,
}

/// The server that takes alert mail.
#[derive(Clone, Debug)]
pub enum Via {
    /// The submission server of this backend.
    Backend(String),
    /// This SMTP server, which must take mail from the box without a login.
    Server {
        /// Where.
        address: Endpoint,
        /// How the way to it is protected.
        tls: BackendTls,
        /// PEM of the authorities that vouch for it; `None`: the public ones.
        ca: Option<PathBuf>,
    },
}

/// `[alerts.operator]`: any number of ways, so that one broken path does not silence the others.
#[derive(Clone, Debug, Default)]
pub struct Operator {
    /// Address for mail.
    pub mail: Option<MailAddress>,
    /// A syslog receiver (RFC 5424).
    pub syslog: Option<Syslog>,
    /// An HTTP address that gets a JSON object by POST.
    pub webhook: Option<HttpUrl>,
}

/// A syslog receiver.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Syslog {
    /// `udp://192.0.2.1:514` (RFC 5426).
    Udp(SocketAddr),
    /// `unix:/dev/log`.
    Unix(PathBuf),
}

impl Alerts {
    /// `from`, `via` and `via-tls`, `via-ca` belong together; what is missing or too much is told by its place.
    pub(crate) fn read(table: &mut Table<'_>) -> Self {
        let from = table.value("from");
        let via = table.value("via");
        let tls = table.value("via-tls");
        let ca = table.value("via-ca");
        let mail = match (&from, &via) {
            (Some(from), Some(via)) => {
                let (from, via) = (MailAddress::read(from), Self::via(via, tls.as_ref(), ca.as_ref()));
                from.zip(via).map(|(from, via)| AlertMail { from, via })
            }
            (Some(from), None) => from.contradiction(
                "from says nothing without via",
                "add via = \"NAME\", a backend that takes the mail",
            ),
            (None, Some(_)) => {
                table.missing("from", "add from = \"postern@example.net\", the sender of alert mail")
            }
            (None, None) => None,
        };
        if via.is_none() {
            for extra in [&tls, &ca].into_iter().flatten() {
                let _: Option<()> =
                    extra.contradiction("this says nothing without via", "add via, or remove this");
            }
        }
        Self {
            mail,
            portal: table.optional("portal"),
            digest_interval: table.or("digest-interval", Duration::from_hours(24)),
            mails_per_account: table.or("mails-per-account", Positive(10)).0,
            operator: table.section("operator", |table| Operator {
                mail: table.optional("mail"),
                syslog: table.optional("syslog"),
                webhook: table.optional("webhook"),
            }),
        }
    }

    fn via(value: &Value<'_>, tls: Option<&Value<'_>>, ca: Option<&Value<'_>>) -> Option<Via> {
        let text = value.text(
            "a backend's name or an address",
            "write via = \"NAME\" or via = \"smtp.example.net:25\"",
        )?;
        if text.contains(':') {
            let address = Endpoint::read(value)?;
            let default = if address.is_near() { BackendTls::None } else { BackendTls::StartTls };
            let tls = tls.map_or(Some(default), BackendTls::read)?;
            return Some(Via::Server { address, tls, ca: ca.map(PathBuf::read).unwrap_or_default() });
        }
        for extra in [tls, ca].into_iter().flatten() {
            let mend = "remove it, or give via as \"host:port\"";
            let _: Option<()> =
                extra.contradiction(format!("via is the backend {text:?}, which has its own TLS"), mend);
        }
        Some(Via::Backend(String::read(value)?))
    }
}

impl Read for Syslog {
    fn read(value: &Value<'_>) -> Option<Self> {
        let mend = "write \"udp://192.0.2.1:514\" or \"unix:/dev/log\"";
        let text = value.text("a syslog receiver", mend)?;
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Some(Self::Unix(value.base().join(path)));
        }
        match text.strip_prefix("udp://").and_then(|address| address.parse::<SocketAddr>().ok()) {
            Some(address) if address.port() != 0 => Some(Self::Udp(address)),
            _ => value.wrong(format!("{text:?} is not a syslog receiver"), mend),
        }
    }
}

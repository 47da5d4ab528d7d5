//! Sets up alerts and look-ups as the settings say.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use mail::session::Protocol;
use settings::{BackendTls, Endpoint, Resolver, Settings, Via};
use tracing::level_filters::LevelFilter;

use crate::alert::operator::{self, MailWay, NewsSettings, Ways};
use crate::alert::relay::Security;
use crate::alert::syslog::{Receiver, Syslog, SyslogSettings};
use crate::alert::webhook::{Webhook, WebhookSettings};
use crate::alert::{AlertSettings, Alerts, Letter, LetterSettings, Limits, Outbox, Relay, RelaySettings};
use crate::dial::{Roots, Target};
use crate::event::{Recorder, Severity};
use crate::geo::ATTRIBUTION;
use crate::log::{Destination, Format, LogSettings};
use crate::names::{NameServers, Names};
use crate::ptr::Pointers;

/// Syslog's number for the mail system (RFC 5424 table 1).
const FACILITY_MAIL: u8 = 2;

/// Who is asked for names.
pub fn name_servers(settings: &Settings) -> NameServers {
    match &settings.dns.resolver {
        Resolver::Off => NameServers::Off,
        Resolver::System => NameServers::System,
        Resolver::Servers(list) => NameServers::Listed(list.clone()),
    }
}

/// How and how much is logged.
pub fn log(settings: &Settings) -> LogSettings {
    let level = match settings.log.level {
        settings::Level::Error => LevelFilter::ERROR,
        settings::Level::Warn => LevelFilter::WARN,
        settings::Level::Info => LevelFilter::INFO,
        settings::Level::Debug => LevelFilter::DEBUG,
        settings::Level::Trace => LevelFilter::TRACE,
    };
    let format = match settings.log.format {
        settings::LogFormat::Json => Format::Json,
        settings::LogFormat::Human => Format::Human,
    };
    LogSettings { format, level, destination: Destination::StandardError }
}

/// Starts the alerts to owners and operator. `None`: the settings name no way for mail to owners.
///
/// # Errors
/// A CA file or folder that cannot be used.
pub fn start(
    settings: &Settings,
    names: &Names,
    events: &Recorder,
    data: &Path,
) -> Result<Option<(Alerts, Outbox)>> {
    let alerts = &settings.alerts;
    let letter = alerts.mail.as_ref().map(|mail| LetterSettings {
        from_name: "Postern mail security".into(),
        from: mail.from.to_string(),
        envelope_from: None,
        hostname: settings.host.hostname.as_str().into(),
        default_domain: settings.host.default_domain.as_ref().map(|domain| domain.as_str().into()),
        devices_url: alerts.portal.as_ref().map(|url| format!("{}/", url.to_string().trim_end_matches('/'))),
        help: alerts.operator.mail.as_ref().map(ToString::to_string).unwrap_or_default(),
        attribution: settings.geo.attribution.clone().unwrap_or_else(|| ATTRIBUTION.into()),
    });
    let outbox = match &alerts.mail {
        Some(mail) => {
            let relay = Relay::new(relay(settings, &mail.via)?, names.clone())?;
            Some(
                Outbox::start(Some(data.join("alerts")), relay, events.clone())
                    .context("the folder of alert mail")?,
            )
        }
        None => None,
    };
    let mut ways = Ways::default();
    if let Some(syslog) = &alerts.operator.syslog {
        let to = match syslog {
            settings::Syslog::Udp(address) => Receiver::Udp(*address),
            settings::Syslog::Unix(path) => Receiver::Unix(path.clone()),
        };
        let hostname = settings.host.hostname.as_str().into();
        let settings = SyslogSettings { to, facility: FACILITY_MAIL, hostname, from: Severity::Info };
        ways.syslog = Some(Syslog::new(settings));
    }
    if let Some(url) = &alerts.operator.webhook {
        let settings = WebhookSettings { url: url.to_string(), roots: Roots::Public, token: None };
        ways.webhook = Some(Webhook::start(&settings, names.clone(), events.clone())?);
    }
    if let (Some(to), Some(letter), Some(outbox)) = (&alerts.operator.mail, &letter, &outbox) {
        let letter = Letter::new(letter.clone());
        ways.mail = Some(MailWay { to: vec![to.to_string()], letter, outbox: outbox.clone() });
    }
    if ways.syslog.is_some() || ways.webhook.is_some() || ways.mail.is_some() {
        operator::start(events, NewsSettings::default(), ways);
    }
    let (Some(letter), Some(outbox)) = (letter, outbox) else { return Ok(None) };
    let limits = Limits {
        digest_after: alerts.digest_interval.as_secs().max(1),
        digest_longest: alerts.digest_interval.as_secs().max(Limits::default().digest_longest),
        mails_per_account: alerts.mails_per_account,
        ..Limits::default()
    };
    let pointers = Pointers::new(names.clone(), settings.dns.timeout);
    let settings = AlertSettings { limits, letter };
    let alerts = Alerts::start(settings, pointers, outbox.clone(), events.clone());
    Ok(Some((alerts, outbox)))
}

fn relay(settings: &Settings, via: &Via) -> Result<RelaySettings> {
    let (address, tls, ca, name): (&Endpoint, BackendTls, _, _) = match via {
        Via::Server { address, tls, ca } => (address, *tls, ca.as_ref(), None),
        Via::Backend(name) => {
            let service =
                settings.backends.get(name).and_then(|backend| backend.service(Protocol::Submission));
            let service = service
                .with_context(|| format!("[alerts] via: backend {name:?} has no submission server"))?;
            (&service.address, service.tls, service.ca.as_ref(), service.name.as_ref())
        }
    };
    let roots = match ca {
        Some(path) => Roots::Pem(fs::read(path).with_context(|| format!("cannot read {}", path.display()))?),
        None => Roots::Public,
    };
    let security = match tls {
        BackendTls::None => Security::Clear,
        BackendTls::StartTls => Security::StartTls,
        BackendTls::Implicit => Security::Implicit,
    };
    let target = Target { host: address.host.clone(), port: address.port };
    let name = name.map(|name| name.as_str().to_owned());
    Ok(RelaySettings {
        target,
        name,
        security,
        roots,
        login: None,
        hostname: settings.host.hostname.as_str().into(),
    })
}

//! What happened, worth keeping: one vocabulary for the journal, the operator's syslog and `postern events`.
//!
//! An event never holds a credential or a CLIENTID token: its fields have no room for one, and free text is [`Text`],
//! written by this box about a fact, cut and cleaned.

pub mod journal;
pub mod recorder;

use std::fmt;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use mail::session::Protocol;
use policy::{Admitted, Held, Refused};
use serde::{Deserialize, Deserializer, Serialize};

pub use journal::{Journal, JournalError, JournalSettings, Query};
pub use recorder::Recorder;

/// Seconds since 1970-01-01 UTC.
pub type UnixSeconds = u64;

/// The clock, in the unit of events. A clock before 1970 is taken as 1970.
pub fn now() -> UnixSeconds {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// One thing that happened. One JSON object on one line in the journal.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Event {
    /// When.
    pub at: UnixSeconds,
    /// What, with what only this kind has.
    #[serde(flatten)]
    pub kind: Kind,
    /// Who and from where, as far as known.
    #[serde(flatten)]
    pub subject: Subject,
}

/// Who and from where. Everything may be unknown.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Subject {
    /// Connection id, as on every line of the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<Text>,
    /// Canonical account name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<Text>,
    /// `imap`, `pop3` or `submission`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Text>,
    /// The client's address; gone once retention has passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// ISO 3166-1 alpha-2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country: Option<Text>,
    /// The device's alias.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<Text>,
}

impl Subject {
    /// A client on a connection.
    pub fn client(connection: &str, protocol: Protocol, address: IpAddr) -> Self {
        Self {
            connection: Some(connection.into()),
            protocol: Some(protocol.name().into()),
            address: Some(address),
            ..Self::default()
        }
    }

    /// An account, whoever touches it.
    pub fn account(account: &str) -> Self {
        Self { account: Some(account.into()), ..Self::default() }
    }

    /// The same with its account.
    #[must_use]
    pub fn with_account(mut self, account: &str) -> Self {
        self.account = Some(account.into());
        self
    }

    /// The same with its device's alias.
    #[must_use]
    pub fn with_device(mut self, alias: Option<&str>) -> Self {
        self.device = alias.map(Into::into);
        self
    }

    /// The same with its country.
    #[must_use]
    pub fn with_country(mut self, country: Option<&str>) -> Self {
        self.country = country.map(Into::into);
        self
    }
}

impl Event {
    /// Something that happened now.
    pub fn new(kind: Kind, subject: Subject) -> Self {
        Self { at: now(), kind, subject }
    }
}

/// What happened.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Kind {
    /// A login went through.
    LoginAdmitted {
        /// Why it was let through.
        why: Admission,
    },
    /// A login was refused for now; the owner may approve the device.
    LoginHeld {
        /// Why.
        reason: Reason,
    },
    /// A login was refused.
    LoginRefused {
        /// Why.
        reason: Reason,
    },
    /// A session after login is over.
    SessionEnded {
        /// Octets from the client.
        received: u64,
        /// Octets to the client.
        sent: u64,
        /// Seconds since login.
        seconds: u64,
        /// Who ended it.
        cause: Text,
    },
    /// A device was recorded for the first time.
    DeviceNew,
    /// A device may log in.
    DeviceApproved {
        /// Who did it: an operator, the owner, or a rule.
        by: Text,
    },
    /// A device may log in no more.
    DeviceRevoked {
        /// Who did it.
        by: Text,
    },
    /// A device got a name.
    DeviceRenamed {
        /// Who did it.
        by: Text,
    },
    /// An account's mode was changed.
    AccountMode {
        /// `observe`, `learn` or `lock`.
        mode: Text,
        /// Who did it.
        by: Text,
    },
    /// The probe off the wire found out whether a refused client knew the password.
    PasswordProbed {
        /// Whether it did.
        known: bool,
    },
    /// A backend broke its protocol; the session was closed.
    BackendViolation {
        /// Its name in the settings.
        backend: Text,
        /// What it did.
        what: Text,
    },
    /// A backend cannot be reached, or cannot decide.
    BackendAway {
        /// Its name in the settings.
        backend: Text,
        /// At which step.
        what: Text,
    },
    /// A backend is there again.
    BackendBack {
        /// Its name in the settings.
        backend: Text,
    },
    /// The route look-up gave no usable answer.
    RouteTrouble {
        /// What went wrong.
        what: Text,
    },
    /// The device database cannot be read or written. Locked mailboxes stay locked.
    StoreTrouble {
        /// What went wrong.
        what: Text,
    },
    /// The device database works again.
    StoreBack,
    /// An abuse budget ran out.
    Abuse {
        /// Which one.
        what: Text,
    },
    /// An account's sending budget ran out: its submissions are stopped for now.
    SendingStopped,
    /// A CLIENTID in clear: refused unread.
    ClientIdInClear,
    /// A login in clear: refused unread.
    LoginInClear,
    /// A connection was closed for what it sent.
    HostileClose {
        /// What that was.
        what: Text,
    },
    /// New settings are in force.
    SettingsReloaded {
        /// Who asked.
        by: Text,
    },
    /// New settings were refused; the old ones stay in force.
    SettingsRefused {
        /// What is wrong with them.
        what: Text,
    },
    /// Certificates were read anew.
    CertificatesReloaded {
        /// How many names are served.
        names: u64,
    },
    /// A certificate is missing, expired or about to be.
    CertificateTrouble {
        /// Which, and what.
        what: Text,
    },
    /// An alert was taken by the mail server.
    AlertSent {
        /// `owner` or `operator`.
        to: Text,
    },
    /// An alert could not be sent; `retry` says whether it stays in the queue.
    AlertFailed {
        /// `owner` or `operator`, and by which way.
        to: Text,
        /// What went wrong.
        what: Text,
        /// Whether it will be tried again.
        retry: bool,
    },
    /// More accounts are under attack than alerts are sent for in an hour.
    AlertsThrottled,
    /// The gateway serves.
    Started {
        /// Its version.
        version: Text,
    },
    /// The gateway drains and stops.
    Stopping,
}

/// RFC 5424 §6.2.1 severities that this box uses.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// 6: what happens every day.
    Info,
    /// 5: worth a look.
    Notice,
    /// 4: something is wrong, service goes on.
    Warning,
    /// 3: users notice.
    Error,
}

impl Severity {
    /// The number of RFC 5424.
    pub const fn code(self) -> u8 {
        match self {
            Self::Info => 6,
            Self::Notice => 5,
            Self::Warning => 4,
            Self::Error => 3,
        }
    }
}

impl Kind {
    /// Name as in the journal, syslog MSGID and metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::LoginAdmitted { .. } => "login-admitted",
            Self::LoginHeld { .. } => "login-held",
            Self::LoginRefused { .. } => "login-refused",
            Self::SessionEnded { .. } => "session-ended",
            Self::DeviceNew => "device-new",
            Self::DeviceApproved { .. } => "device-approved",
            Self::DeviceRevoked { .. } => "device-revoked",
            Self::DeviceRenamed { .. } => "device-renamed",
            Self::AccountMode { .. } => "account-mode",
            Self::PasswordProbed { .. } => "password-probed",
            Self::BackendViolation { .. } => "backend-violation",
            Self::BackendAway { .. } => "backend-away",
            Self::BackendBack { .. } => "backend-back",
            Self::RouteTrouble { .. } => "route-trouble",
            Self::StoreTrouble { .. } => "store-trouble",
            Self::StoreBack => "store-back",
            Self::Abuse { .. } => "abuse",
            Self::SendingStopped => "sending-stopped",
            Self::ClientIdInClear => "client-id-in-clear",
            Self::LoginInClear => "login-in-clear",
            Self::HostileClose { .. } => "hostile-close",
            Self::SettingsReloaded { .. } => "settings-reloaded",
            Self::SettingsRefused { .. } => "settings-refused",
            Self::CertificatesReloaded { .. } => "certificates-reloaded",
            Self::CertificateTrouble { .. } => "certificate-trouble",
            Self::AlertSent { .. } => "alert-sent",
            Self::AlertFailed { .. } => "alert-failed",
            Self::AlertsThrottled => "alerts-throttled",
            Self::Started { .. } => "started",
            Self::Stopping => "stopping",
        }
    }

    /// How much it matters to the operator.
    pub const fn severity(&self) -> Severity {
        match self {
            Self::StoreTrouble { .. } | Self::BackendViolation { .. } | Self::BackendAway { .. } => {
                Severity::Error
            }
            Self::RouteTrouble { .. }
            | Self::SendingStopped
            | Self::SettingsRefused { .. }
            | Self::CertificateTrouble { .. }
            | Self::AlertFailed { .. }
            | Self::AlertsThrottled
            | Self::PasswordProbed { known: true } => Severity::Warning,
            Self::Abuse { .. }
            | Self::BackendBack { .. }
            | Self::StoreBack
            | Self::SettingsReloaded { .. }
            | Self::DeviceApproved { .. }
            | Self::DeviceRevoked { .. }
            | Self::AccountMode { .. }
            | Self::Started { .. }
            | Self::Stopping => Severity::Notice,
            Self::LoginAdmitted { .. }
            | Self::LoginHeld { .. }
            | Self::LoginRefused { .. }
            | Self::SessionEnded { .. }
            | Self::DeviceNew
            | Self::DeviceRenamed { .. }
            | Self::PasswordProbed { known: false }
            | Self::ClientIdInClear
            | Self::LoginInClear
            | Self::HostileClose { .. }
            | Self::CertificatesReloaded { .. }
            | Self::AlertSent { .. } => Severity::Info,
        }
    }
}

/// Why a login was let through.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Admission {
    /// An approved device.
    Approved,
    /// Observe mode.
    Observed,
    /// Learn mode.
    Learning,
    /// A new device, approved for some days.
    Provisional,
}

impl From<Admitted> for Admission {
    fn from(admitted: Admitted) -> Self {
        match admitted {
            Admitted::Approved => Self::Approved,
            Admitted::Observed => Self::Observed,
            Admitted::Learning => Self::Learning,
            Admitted::Provisional { .. } => Self::Provisional,
        }
    }
}

/// Why a login was held or refused. The client never learns which.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The account has no device with this identity.
    UnknownDevice,
    /// The device waits for its owner.
    Unapproved,
    /// Approval has run out.
    Expired,
    /// The device was revoked.
    Revoked,
    /// The protocol is not allowed for this account.
    Protocol,
    /// Outside the allowed networks.
    Network,
    /// Outside the allowed countries.
    Country,
    /// No CLIENTID, where one is required.
    ClientIdRequired,
    /// The CLIENTID's type is not trusted here.
    UntrustedType,
    /// No token, and weak identities are not taken.
    NoIdentity,
    /// As many devices are approved as the rules allow.
    TooManyDevices,
    /// The backend said no.
    Credentials,
    /// An abuse budget was spent.
    Budget,
    /// A name that no account can have, or an authorization identity that differs.
    BadName,
    /// The backend is away; told to everybody alike.
    Unavailable,
}

impl Reason {
    /// Name as in the journal and as a metrics label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnknownDevice => "unknown-device",
            Self::Unapproved => "unapproved",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Protocol => "protocol",
            Self::Network => "network",
            Self::Country => "country",
            Self::ClientIdRequired => "client-id-required",
            Self::UntrustedType => "untrusted-type",
            Self::NoIdentity => "no-identity",
            Self::TooManyDevices => "too-many-devices",
            Self::Credentials => "credentials",
            Self::Budget => "budget",
            Self::BadName => "bad-name",
            Self::Unavailable => "unavailable",
        }
    }

    /// The same for people, to follow "refused: ".
    pub const fn text(self) -> &'static str {
        match self {
            Self::UnknownDevice => "this device has not been approved for your mailbox",
            Self::Unapproved => "this device is still waiting for your approval",
            Self::Expired => "the approval of this device has run out",
            Self::Revoked => "you have revoked this device",
            Self::Protocol => "your mailbox does not allow this protocol",
            Self::Network => "it came from a network that your mailbox does not allow",
            Self::Country => "it came from a country that your mailbox does not allow",
            Self::ClientIdRequired => "it did not name its device, which your mailbox requires",
            Self::UntrustedType => "it named its device in a way that your mailbox does not trust",
            Self::NoIdentity => "it could not be recognised as one of your devices",
            Self::TooManyDevices => "your mailbox already has as many devices as it allows",
            Self::Credentials => "the password was wrong",
            Self::Budget => "there had been too many attempts",
            Self::BadName => "the login name was not acceptable",
            Self::Unavailable => "the mail server could not be reached",
        }
    }
}

impl From<Held> for Reason {
    fn from(held: Held) -> Self {
        match held {
            Held::UnknownDevice => Self::UnknownDevice,
            Held::Unapproved => Self::Unapproved,
            Held::Expired => Self::Expired,
        }
    }
}

impl From<Refused> for Reason {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Revoked => Self::Revoked,
            Refused::Protocol => Self::Protocol,
            Refused::Network => Self::Network,
            Refused::Country => Self::Country,
            Refused::ClientIdRequired => Self::ClientIdRequired,
            Refused::UntrustedType => Self::UntrustedType,
            Refused::NoIdentity => Self::NoIdentity,
            Refused::TooManyDevices => Self::TooManyDevices,
        }
    }
}

/// Text for people: at most [`Text::MAX`] octets, no control characters, so that no line of a log can be forged.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Text(Box<str>);

impl Text {
    /// As long as the longest account name.
    pub const MAX: usize = 320;

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        let mut clean = String::with_capacity(text.len().min(Self::MAX));
        for letter in text.chars() {
            // Format characters such as bidi overrides can make a line read as another one.
            let hidden = letter.is_control()
                || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
            let letter = if hidden { '?' } else { letter };
            if clean.len() + letter.len_utf8() > Self::MAX {
                break;
            }
            clean.push(letter);
        }
        Self(clean.into())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_flat_object_on_one_line() {
        let subject = Subject::client("c1", Protocol::Imap, "192.0.2.7".parse().unwrap())
            .with_account("ann@example.net")
            .with_device(Some("k3x9qa"))
            .with_country(Some("DE"));
        let event = Event { at: 7, kind: Kind::LoginHeld { reason: Reason::UnknownDevice }, subject };
        let line = serde_json::to_string(&event).unwrap();
        assert_eq!(
            line,
            r#"{"at":7,"event":"login-held","reason":"unknown-device","connection":"c1","account":"ann@example.net","protocol":"imap","address":"192.0.2.7","country":"DE","device":"k3x9qa"}"#
        );
        assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
    }

    #[test]
    fn names_agree_with_the_journal() {
        let name = |kind: Kind| (kind.name(), serde_json::to_value(&kind).unwrap()["event"].clone());
        let text = Text::from("x");
        for kind in [
            Kind::DeviceNew,
            Kind::StoreBack,
            Kind::ClientIdInClear,
            Kind::LoginInClear,
            Kind::SendingStopped,
            Kind::AlertsThrottled,
            Kind::Stopping,
            Kind::PasswordProbed { known: true },
            Kind::AlertFailed { to: text.clone(), what: text.clone(), retry: true },
            Kind::SessionEnded { received: 1, sent: 2, seconds: 3, cause: text },
        ] {
            let (name, json) = name(kind);
            assert_eq!(json, name);
        }
        for reason in [Reason::ClientIdRequired, Reason::BadName, Reason::TooManyDevices, Reason::Credentials]
        {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.name());
        }
    }

    #[test]
    fn text_cannot_forge_a_line() {
        assert_eq!(Text::from("a\r\nb\u{202e}c\0").as_str(), "a??b?c?");
        assert_eq!(Text::from("é".repeat(400).as_str()).as_str().len(), Text::MAX);
        assert_eq!(serde_json::from_str::<Text>(r#""a\nb""#).unwrap().as_str(), "a?b");
    }
}

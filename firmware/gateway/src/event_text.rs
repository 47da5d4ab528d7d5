//! Events in one sentence each, as `postern events` shows them.

use crate::event::{Admission, Kind};

/// The sentence of an event, for people.
pub fn sentence(kind: &Kind) -> String {
    match kind {
        Kind::LoginAdmitted { why } => {
            let why = match why {
                Admission::Approved => "its device is approved",
                Admission::Observed => "the mailbox is only observed",
                Admission::Learning => "the mailbox is learning its devices",
                Admission::Provisional => "new device, approved for some days",
            };
            format!("logged in: {why}")
        }
        Kind::LoginHeld { reason } => {
            format!("login refused until its owner approves the device ({})", reason.name())
        }
        Kind::LoginRefused { reason } => format!("login refused ({})", reason.name()),
        Kind::SessionEnded { received, sent, seconds, cause } => {
            format!("session over after {seconds} s, {received} octets in, {sent} out: {}", cause.as_str())
        }
        Kind::DeviceNew => "a device was recorded for the first time".into(),
        Kind::DeviceApproved { by } => format!("device approved by {}", by.as_str()),
        Kind::DeviceRevoked { by } => format!("device revoked by {}", by.as_str()),
        Kind::DeviceRenamed { by } => format!("device renamed by {}", by.as_str()),
        Kind::AccountMode { mode, by } => format!("mode set to {} by {}", mode.as_str(), by.as_str()),
        Kind::PasswordProbed { known: true } => {
            "a refused client KNOWS the password: it must be changed".into()
        }
        Kind::PasswordProbed { known: false } => "a refused client guessed; its password is wrong".into(),
        Kind::BackendViolation { backend, what } => {
            format!("backend {} broke its protocol: {}", backend.as_str(), what.as_str())
        }
        Kind::BackendAway { backend, what } => {
            format!("backend {} is away: {}", backend.as_str(), what.as_str())
        }
        Kind::BackendBack { backend } => format!("backend {} is back", backend.as_str()),
        Kind::RouteTrouble { what } => format!("route look-up failed: {}", what.as_str()),
        Kind::StoreTrouble { what } => format!("device database in trouble: {}", what.as_str()),
        Kind::StoreBack => "device database is well again".into(),
        Kind::Abuse { what } => format!("budget used up: {}", what.as_str()),
        Kind::SendingStopped => "sending budget used up; further mail is put off".into(),
        Kind::ClientIdInClear => "CLIENTID sent in clear: refused and wiped".into(),
        Kind::LoginInClear => "login tried in clear: refused before it was looked at".into(),
        Kind::HostileClose { what } => format!("connection closed for what it sent: {}", what.as_str()),
        Kind::SettingsReloaded { by } => format!("settings reloaded by {}", by.as_str()),
        Kind::SettingsRefused { what } => format!("new settings refused, the old stay: {}", what.as_str()),
        Kind::CertificatesReloaded { names } => format!("certificates reloaded, {names} names"),
        Kind::CertificateTrouble { what } => format!("certificate trouble: {}", what.as_str()),
        Kind::AlertSent { to } => format!("alert taken by the mail server, to {}", to.as_str()),
        Kind::AlertFailed { to, what, retry } => {
            let next = if *retry { "it will be tried again" } else { "it is given up" };
            format!("alert to {} not sent, {next}: {}", to.as_str(), what.as_str())
        }
        Kind::AlertsThrottled => "more accounts under attack than alerts are sent for".into(),
        Kind::Started { version } => format!("gateway {} serves", version.as_str()),
        Kind::Stopping => "gateway drains and stops".into(),
    }
}

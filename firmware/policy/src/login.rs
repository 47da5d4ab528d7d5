//! The facts of one login attempt.

use std::net::IpAddr;

use mail::session::Protocol;
use serde::{Deserialize, Serialize};

use crate::UnixSeconds;
use crate::device::Device;

/// What a client shows of itself without proof.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Traits {
    /// IMAP ID name, else empty.
    pub client: String,
    /// IMAP ID version.
    pub version: String,
    /// IMAP ID os.
    pub os: String,
    /// The form of the EHLO name: `literal`, `localhost`, `bare`, `domain`, or empty.
    pub ehlo: String,
    /// JA4 of the TLS ClientHello without what resumption changes.
    pub ja4: String,
    /// The client's network: /24 or /64.
    pub network: String,
    /// ISO 3166-1 alpha-2, or empty.
    pub country: String,
}

/// What a session showed of its device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Identity<'a> {
    /// A CLIENTID of this type.
    ClientId {
        /// Upper-case type.
        kind: &'a str,
    },
    /// No token: only traits.
    Traits,
}

/// Everything `decide` may look at.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The protocol of this login.
    pub protocol: Protocol,
    /// The client's address.
    pub address: IpAddr,
    /// ISO 3166-1 alpha-2 of it, if known.
    pub country: Option<&'a str>,
    /// What it showed.
    pub identity: Identity<'a>,
    /// The device that this identity belongs to, if the account has one.
    pub device: Option<&'a Device>,
    /// How many devices of the account are approved now.
    pub approved: usize,
    /// How many are pending.
    pub pending: usize,
    /// The time.
    pub now: UnixSeconds,
}

impl Traits {
    /// The form of an EHLO or HELO name (RFC 5321 §4.1.3, §4.1.4): `literal` (`[192.0.2.1]`), `localhost` (with or
    /// without a domain made up for it), `bare` (one label), `domain`, or empty. The name itself changes with networks and
    /// holds host names people gave their machines; the form belongs to the client's code and stays.
    pub fn ehlo_form(name: &str) -> &'static str {
        let name = name.trim().trim_end_matches('.');
        let first = name.split('.').next().unwrap_or_default();
        if name.is_empty() {
            ""
        } else if name.starts_with('[') {
            "literal"
        } else if first.eq_ignore_ascii_case("localhost") {
            "localhost"
        } else if name.parse::<IpAddr>().is_ok() {
            // An address without its brackets is wrong, and as telling as one with them.
            "literal"
        } else if name.contains('.') {
            "domain"
        } else {
            "bare"
        }
    }
}

/// The line people read in alerts and lists, such as `IMAP client, Linux, unknown mail software` or
/// `IMAP client, Android, K-9 Mail 6.8`. Without a protocol to go by, it tells it from what was shown: only submission has
/// an EHLO name, only IMAP an ID.
pub fn describe(traits: &Traits) -> String {
    let shown_in = if !traits.ehlo.is_empty() {
        Some(Protocol::Submission)
    } else if traits.client.is_empty() && traits.os.is_empty() {
        None
    } else {
        Some(Protocol::Imap)
    };
    describe_over(shown_in, traits)
}

/// [`describe`], where the protocol is known.
pub fn describe_over(protocol: Option<Protocol>, traits: &Traits) -> String {
    let kind = match protocol {
        Some(Protocol::Imap) => "IMAP client",
        Some(Protocol::Pop3) => "POP3 client",
        Some(Protocol::Submission) => "sending client",
        None => "mail client",
    };
    let or_unknown = |word: &str, unknown: &str| {
        if word.is_empty() { unknown.to_owned() } else { word.to_owned() }
    };
    let system = or_unknown(&traits.os, "unknown system");
    let software = or_unknown(&traits.client, "unknown mail software");
    let version = if traits.client.is_empty() || traits.version.is_empty() {
        String::new()
    } else {
        format!(" {}", traits.version)
    };
    format!("{kind}, {system}, {software}{version}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ehlo_names_fall_into_five_forms() {
        for (name, form) in [
            ("", ""),
            (" . ", ""),
            ("[192.0.2.1]", "literal"),
            ("[IPv6:2001:db8::1]", "literal"),
            ("192.0.2.1", "literal"),
            ("localhost", "localhost"),
            ("LOCALHOST.localdomain", "localhost"),
            ("anns-laptop", "bare"),
            ("anns-laptop.", "bare"),
            ("mail.example.net", "domain"),
        ] {
            assert_eq!(Traits::ehlo_form(name), form, "{name:?}");
        }
    }

    #[test]
    fn lines_read_like_the_alert_that_inspired_them() {
        let linux = Traits { os: "Linux".into(), ..Traits::default() };
        assert_eq!(describe(&linux), "IMAP client, Linux, unknown mail software");
        let k9 = Traits {
            client: "K-9 Mail".into(),
            version: "6.8".into(),
            os: "Android".into(),
            ..Traits::default()
        };
        assert_eq!(describe(&k9), "IMAP client, Android, K-9 Mail 6.8");
        let sender = Traits { ehlo: "literal".into(), ..Traits::default() };
        assert_eq!(describe(&sender), "sending client, unknown system, unknown mail software");
        assert_eq!(describe(&Traits::default()), "mail client, unknown system, unknown mail software");
        assert_eq!(describe_over(Some(Protocol::Pop3), &linux), "POP3 client, Linux, unknown mail software");
    }
}

//! One mail client of one account.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::UnixSeconds;
use crate::login::Traits;

/// The name people use for a device: the first 30 bits of a keyed hash of its first mark, in lower-case base32
/// (RFC 4648 alphabet), six characters. Unique within its account.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Alias(pub String);

/// A device as the database keeps it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Device {
    /// What people call it in commands and mail.
    pub alias: Alias,
    /// A name the owner gave it; empty until then.
    pub name: String,
    /// Whether it may log in.
    pub standing: Standing,
    /// How it is recognised, strongest first; at most [`Device::MARKS`].
    pub marks: Vec<Mark>,
    /// What it says of itself, for people.
    pub traits: Traits,
    /// When it was first recorded.
    pub first_seen: UnixSeconds,
    /// Its newest successful login.
    pub last_seen: Option<Sighting>,
    /// Successful logins counted.
    pub logins: u64,
}

impl Device {
    /// Tokens and clusters one device may hold (Thunderbird can use one token for IMAP and another for SMTP).
    pub const MARKS: usize = 8;
}

/// Whether a device may log in.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Standing {
    /// Seen, and waiting for its owner.
    Pending,
    /// Approved, perhaps until a date.
    Approved {
        /// The first second at which it no longer is.
        until: Option<UnixSeconds>,
    },
    /// Sent away by the owner or the operator.
    Revoked,
}

/// One way to recognise a device. Never holds a token in clear.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "mark")]
pub enum Mark {
    /// HMAC-SHA-256 of account, type and token under the box's key, as 64 hex digits.
    Token {
        /// CLIENTID type, such as `UUID`.
        kind: String,
        /// The keyed hash.
        mac: String,
    },
    /// HMAC-SHA-256 of account and the weak traits (client name or EHLO form, JA4, network), as 64 hex digits.
    Cluster {
        /// The keyed hash.
        mac: String,
    },
}

/// How hard an identity is to forge, shown wherever it is used.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strength {
    /// Traits anybody can imitate.
    Weak,
    /// An app password bound to a class.
    Medium,
    /// A CLIENTID token, or a TLS client key.
    Strong,
}

impl Mark {
    /// How much this mark is worth.
    pub const fn strength(&self) -> Strength {
        match self {
            Self::Token { .. } => Strength::Strong,
            Self::Cluster { .. } => Strength::Weak,
        }
    }
}

/// When, how and from where a device was seen.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Sighting {
    /// When.
    pub at: UnixSeconds,
    /// `imap`, `pop3` or `submission`.
    pub protocol: String,
    /// From where; `None` once retention has passed.
    pub address: Option<IpAddr>,
    /// ISO 3166-1 alpha-2, if the offline table knew.
    pub country: Option<String>,
}

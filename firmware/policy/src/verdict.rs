//! What the box does with one login, and why.

use serde::{Deserialize, Serialize};

/// A verdict under the rules in force, and the one a lock would give: the simulation is free.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Decision {
    /// What is done.
    pub verdict: Verdict,
    /// What would be done if the mailbox were locked now.
    pub if_locked: Verdict,
}

/// What the box does with one login. No default and no wildcard arm: a new case must say what it does.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[must_use]
pub enum Verdict {
    /// The backend is asked; its yes lets the client in.
    Admit(Admitted),
    /// Refused for now: the owner may approve the device. The credentials do not reach the backend in line.
    Hold(Held),
    /// Refused. The credentials do not reach the backend in line.
    Refuse(Refused),
}

/// Why a login is let through to the backend, and what its success records.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Admitted {
    /// An approved device.
    Approved,
    /// Observe mode: success records a pending device, or a sighting.
    Observed,
    /// Learn mode: success approves the device.
    Learning,
    /// A new device that the rules approve for some days on success.
    Provisional {
        /// Days of approval.
        days: u32,
    },
}

/// Why a login is held.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Held {
    /// The account has no device with this identity.
    UnknownDevice,
    /// The device waits for its owner.
    Unapproved,
    /// Approval has run out.
    Expired,
}

/// Why a login is refused.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refused {
    /// The device was revoked.
    Revoked,
    /// The protocol is not allowed for this account.
    Protocol,
    /// The address is outside the allowed networks.
    Network,
    /// The country is not allowed, or not known while a list is set.
    Country,
    /// No CLIENTID, where one is required.
    ClientIdRequired,
    /// The CLIENTID's type is not trusted as identity here.
    UntrustedType,
    /// No token, and weak identities are not taken.
    NoIdentity,
    /// As many devices are approved as the rules allow.
    TooManyDevices,
}

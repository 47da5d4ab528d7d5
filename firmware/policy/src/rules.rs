//! The owner's rules: three layers, where a lower one may tighten and never loosen.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::UnixSeconds;

/// What happens to devices that are not approved.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "mode", deny_unknown_fields)]
pub enum Mode {
    /// Record, refuse nobody.
    Observe,
    /// Approve what logs in successfully until a date, then lock.
    Learn {
        /// The first second at which it locks.
        until: UnixSeconds,
    },
    /// Admit approved devices only.
    Lock,
}

/// What a successful login of a new device gets under a mode that holds new devices.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum NewDevice {
    /// Wait for the owner, who is told by mail.
    Hold,
    /// Approve for this many days and tell the owner.
    ApproveForDays(u32),
}

/// One layer of rules as written: what is `None` is left to the layer above.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Layer {
    /// Observe, learn or lock.
    pub mode: Option<Mode>,
    /// Protocols that may be used: `imap`, `pop3`, `submission`.
    pub protocols: Option<Vec<String>>,
    /// Networks logins may come from.
    pub networks: Option<Vec<IpNet>>,
    /// Countries logins may come from (ISO 3166-1 alpha-2).
    pub countries: Option<Vec<String>>,
    /// Whether only a CLIENTID counts as identity.
    pub require_clientid: Option<bool>,
    /// CLIENTID types trusted as identity; the default leaves out low-entropy ones such as `MAC`.
    pub trusted_types: Option<Vec<String>>,
    /// Whether a weak cluster (traits) may stand for a device that sends no CLIENTID.
    pub weak_identity: Option<bool>,
    /// How many devices may be approved at once.
    pub max_devices: Option<u32>,
    /// What a new device gets.
    pub new_device: Option<NewDevice>,
}

/// The rules in force for one account, all layers merged.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// See [`Layer::mode`].
    pub mode: Mode,
    /// `None`: all.
    pub protocols: Option<Vec<String>>,
    /// Every list must hold the address (one list a layer); empty: anywhere.
    pub networks: Vec<Vec<IpNet>>,
    /// `None`: anywhere.
    pub countries: Option<Vec<String>>,
    /// See [`Layer::require_clientid`].
    pub require_clientid: bool,
    /// `None`: every type but the low-entropy ones.
    pub trusted_types: Option<Vec<String>>,
    /// See [`Layer::weak_identity`].
    pub weak_identity: bool,
    /// See [`Layer::max_devices`].
    pub max_devices: u32,
    /// See [`Layer::new_device`].
    pub new_device: NewDevice,
}

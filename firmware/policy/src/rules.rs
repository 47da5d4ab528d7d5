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

/// CLIENTID types that are no proof of a device by default: interface addresses, serial numbers and licence keys
/// have little entropy and are printed on boxes; cookies move between machines (clientid.md Q25, Q28).
const LOW_ENTROPY: [&str; 5] = ["MAC", "K9-IMEI", "IMEI", "COOKIE", "BBLICENSEKEY"];

impl Mode {
    /// The mode in force at `now`: learning that has passed its date is a lock.
    #[must_use]
    pub const fn at(self, now: UnixSeconds) -> Self {
        match self {
            Self::Observe => Self::Observe,
            Self::Learn { until } if now < until => Self::Learn { until },
            Self::Learn { .. } | Self::Lock => Self::Lock,
        }
    }

    /// The stricter of two: observe < learn < lock, and learning that ends sooner is the stricter learning.
    #[must_use]
    pub const fn tighter(self, other: Self) -> Self {
        match (self, other) {
            (Self::Lock, _) | (_, Self::Lock) => Self::Lock,
            (Self::Learn { until: a }, Self::Learn { until: b }) => {
                Self::Learn { until: if a < b { a } else { b } }
            }
            (Self::Learn { until }, Self::Observe) | (Self::Observe, Self::Learn { until }) => {
                Self::Learn { until }
            }
            (Self::Observe, Self::Observe) => Self::Observe,
        }
    }
}

impl NewDevice {
    /// The stricter of two: holding is stricter than any approval, fewer days are stricter than more.
    #[must_use]
    pub const fn tighter(self, other: Self) -> Self {
        match (self, other) {
            (Self::Hold, _) | (_, Self::Hold) => Self::Hold,
            (Self::ApproveForDays(a), Self::ApproveForDays(b)) => {
                Self::ApproveForDays(if a < b { a } else { b })
            }
        }
    }
}

impl Rules {
    /// Approved devices an account may have unless a layer says otherwise: a person's phones, tablets, laptops and
    /// scripts several times over, and still a number an owner can review.
    pub const MAX_DEVICES: u32 = 32;

    /// The rules in force for one account. A layer that says nothing leaves the matter to the others; where several
    /// speak, the strictest of what they say holds, so a lower layer can never loosen what an upper one wrote. What
    /// no layer says takes its default: observe, every protocol, network and country, CLIENTID not required, every
    /// type but the low-entropy ones, no weak identity, [`Self::MAX_DEVICES`], and new devices held.
    #[must_use]
    pub fn merge(box_: &Layer, domain: Option<&Layer>, account: Option<&Layer>) -> Self {
        let layers = || [Some(box_), domain, account].into_iter().flatten();
        Self {
            mode: layers().filter_map(|layer| layer.mode).reduce(Mode::tighter).unwrap_or(Mode::Observe),
            protocols: intersection(layers().map(|layer| layer.protocols.as_deref())),
            networks: layers().filter_map(|layer| layer.networks.clone()).collect(),
            countries: intersection(layers().map(|layer| layer.countries.as_deref())),
            require_clientid: layers().filter_map(|layer| layer.require_clientid).any(|required| required),
            trusted_types: intersection(layers().map(|layer| layer.trusted_types.as_deref())),
            weak_identity: layers()
                .filter_map(|layer| layer.weak_identity)
                .reduce(|upper, lower| upper && lower)
                .unwrap_or(false),
            max_devices: layers().filter_map(|layer| layer.max_devices).min().unwrap_or(Self::MAX_DEVICES),
            new_device: layers()
                .filter_map(|layer| layer.new_device)
                .reduce(NewDevice::tighter)
                .unwrap_or(NewDevice::Hold),
        }
    }

    /// Whether a CLIENTID of this type counts as identity.
    pub fn trusts(&self, kind: &str) -> bool {
        match &self.trusted_types {
            Some(types) => types.iter().any(|trusted| trusted.eq_ignore_ascii_case(kind)),
            None => !is_low_entropy(kind),
        }
    }
}

/// See [`LOW_ENTROPY`]; every type that begins with `LICENSE` is one as well.
fn is_low_entropy(kind: &str) -> bool {
    let kind = kind.to_ascii_uppercase();
    LOW_ENTROPY.contains(&kind.as_str()) || kind.starts_with("LICENSE") || kind.ends_with("-IMEI")
}

/// What every list that is present holds; `None` when none is. Comparison ignores ASCII case.
fn intersection<'a>(lists: impl Iterator<Item = Option<&'a [String]>>) -> Option<Vec<String>> {
    lists.flatten().fold(None, |common: Option<Vec<String>>, list| {
        Some(match common {
            None => list.to_vec(),
            Some(common) => common
                .into_iter()
                .filter(|held| list.iter().any(|other| other.eq_ignore_ascii_case(held)))
                .collect(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(mode: Mode) -> Layer {
        Layer { mode: Some(mode), ..Layer::default() }
    }

    #[test]
    fn silence_takes_the_defaults() {
        let rules = Rules::merge(&Layer::default(), None, None);
        assert_eq!(
            rules,
            Rules {
                mode: Mode::Observe,
                protocols: None,
                networks: vec![],
                countries: None,
                require_clientid: false,
                trusted_types: None,
                weak_identity: false,
                max_devices: 32,
                new_device: NewDevice::Hold,
            }
        );
        for (kind, trusted) in [
            ("UUID", true),
            ("TBIRD-UUID", true),
            ("MAC", false),
            ("mac", false),
            ("K9-IMEI", false),
            ("LICENSE", false),
            ("LICENSEKEY", false),
            ("COOKIE", false),
        ] {
            assert_eq!(rules.trusts(kind), trusted, "{kind}");
        }
    }

    #[test]
    fn a_lower_layer_tightens_the_mode_and_never_loosens_it() {
        let learn = |until| Mode::Learn { until };
        for (upper, lower, merged) in [
            (Mode::Observe, Mode::Observe, Mode::Observe),
            (Mode::Observe, learn(5), learn(5)),
            (learn(5), Mode::Observe, learn(5)),
            (learn(5), learn(9), learn(5)),
            (learn(9), learn(5), learn(5)),
            (Mode::Observe, Mode::Lock, Mode::Lock),
            (Mode::Lock, Mode::Observe, Mode::Lock),
            (Mode::Lock, learn(5), Mode::Lock),
            (learn(5), Mode::Lock, Mode::Lock),
        ] {
            assert_eq!(Rules::merge(&layer(upper), None, Some(&layer(lower))).mode, merged);
            assert_eq!(Rules::merge(&layer(upper), Some(&layer(lower)), None).mode, merged);
        }
    }

    #[test]
    fn learning_past_its_date_is_a_lock() {
        let mode = Mode::Learn { until: 100 };
        assert_eq!(mode.at(99), mode);
        assert_eq!(mode.at(100), Mode::Lock);
    }

    #[test]
    fn lists_intersect_and_networks_must_all_match() {
        let words = |list: &[&str]| Some(list.iter().map(ToString::to_string).collect::<Vec<_>>());
        let upper = Layer {
            protocols: words(&["imap", "submission"]),
            networks: Some(vec!["10.0.0.0/8".parse().unwrap()]),
            trusted_types: words(&["UUID", "MAC"]),
            max_devices: Some(5),
            new_device: Some(NewDevice::ApproveForDays(7)),
            weak_identity: Some(false),
            ..Layer::default()
        };
        let lower = Layer {
            protocols: words(&["pop3", "IMAP"]),
            networks: Some(vec!["10.1.0.0/16".parse().unwrap()]),
            trusted_types: words(&["MAC", "COOKIE"]),
            max_devices: Some(9),
            new_device: Some(NewDevice::ApproveForDays(30)),
            weak_identity: Some(true),
            require_clientid: Some(true),
            ..Layer::default()
        };
        let rules = Rules::merge(&upper, None, Some(&lower));
        assert_eq!(rules.protocols, words(&["imap"]));
        assert_eq!(rules.networks.len(), 2);
        assert_eq!(rules.trusted_types, words(&["MAC"]));
        assert!(rules.trusts("MAC") && !rules.trusts("UUID") && !rules.trusts("COOKIE"));
        assert_eq!(rules.max_devices, 5);
        assert_eq!(rules.new_device, NewDevice::ApproveForDays(7));
        assert!(!rules.weak_identity && rules.require_clientid);
    }
}

//! Devices as people see them.

use std::net::IpAddr;

use policy::login::describe;
use policy::{Alias, Device, Mark, Standing, Strength};
use serde::{Deserialize, Serialize};

use crate::UnixSeconds;

/// One device of one account.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DeviceRow {
    /// The canonical account.
    pub account: String,
    /// What commands call it: six characters.
    pub alias: Alias,
    /// What its owner calls it; may be empty.
    pub name: String,
    /// Pending, approved (until) or revoked.
    pub standing: Standing,
    /// Of its strongest identity.
    pub strength: Strength,
    /// CLIENTID types it has shown, and `traits` if it is known by them.
    pub kinds: Vec<String>,
    /// What it says of itself, such as `IMAP client, Linux, Thunderbird 140.1`.
    pub client: String,
    /// When it was first recorded.
    pub first_seen: UnixSeconds,
    /// When it last logged in.
    pub last_seen: Option<UnixSeconds>,
    /// How: `imap`, `pop3` or `submission`.
    pub protocol: Option<String>,
    /// From where; `None` also when retention has passed.
    pub address: Option<IpAddr>,
    /// ISO 3166-1 alpha-2.
    pub country: Option<String>,
    /// Successful logins.
    pub logins: u64,
}

impl DeviceRow {
    /// A record as people see it.
    pub fn new(account: &str, device: &Device) -> Self {
        let mut kinds = Vec::new();
        for mark in &device.marks {
            let kind = match mark {
                Mark::Token { kind, .. } => kind.as_str(),
                Mark::Cluster { .. } => "traits",
            };
            if !kinds.iter().any(|known| known == kind) {
                kinds.push(kind.to_owned());
            }
        }
        let seen = device.last_seen.as_ref();
        Self {
            account: account.to_owned(),
            alias: device.alias.clone(),
            name: device.name.clone(),
            standing: device.standing,
            strength: device.marks.iter().map(Mark::strength).max().unwrap_or(Strength::Weak),
            kinds,
            client: describe(&device.traits),
            first_seen: device.first_seen,
            last_seen: seen.map(|seen| seen.at),
            protocol: seen.map(|seen| seen.protocol.clone()),
            address: seen.and_then(|seen| seen.address),
            country: seen.and_then(|seen| seen.country.clone()),
            logins: device.logins,
        }
    }
}

#[cfg(test)]
mod tests {
    use policy::device::Sighting;
    use policy::login::Traits;

    use super::*;

    #[test]
    fn a_row_says_what_the_record_says_without_its_marks() {
        let mac = "5e".repeat(32);
        let device = Device {
            alias: Alias("7f3k9q".into()),
            name: String::new(),
            standing: Standing::Approved { until: Some(9) },
            marks: vec![
                Mark::Cluster { mac: mac.clone() },
                Mark::Token { kind: "UUID".into(), mac: mac.clone() },
                Mark::Token { kind: "UUID".into(), mac: mac.clone() },
            ],
            traits: Traits { client: "Thunderbird".into(), os: "Linux".into(), ..Traits::default() },
            first_seen: 1,
            last_seen: Some(Sighting {
                at: 5,
                protocol: "imap".into(),
                address: None,
                country: Some("AT".into()),
            }),
            logins: 3,
        };
        let row = DeviceRow::new("alice@example.net", &device);
        assert_eq!(
            (row.strength, row.client.as_str()),
            (Strength::Strong, "IMAP client, Linux, Thunderbird")
        );
        assert_eq!(row.kinds, ["traits", "UUID"]);
        assert_eq!(
            (row.last_seen, row.protocol.as_deref(), row.country.as_deref()),
            (Some(5), Some("imap"), Some("AT"))
        );
        assert!(!serde_json::to_string(&row).unwrap().contains(&mac));
    }
}

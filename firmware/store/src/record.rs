//! Records: a checksummed, versioned header, and the bodies of accounts, devices, attempts and logs.

use policy::UnixSeconds;
use policy::device::{Alias, Device, Mark, Sighting, Standing};
use policy::login::Traits;
use policy::rules::Layer;
use policy::simulate::{Client, Outcome};
use policy::verdict::{Admitted, Held, Refused, Verdict};
use serde::{Deserialize, Serialize};

use crate::codec::{Put, Take, crc32c, hex, unhex};
use crate::error::StoreError;

/// Octets of a whole value, header and all (appliance.md §7.3: larger ones could spill into sled's unsynced blobs).
pub(crate) const VALUE_MAX: usize = 2_048;

/// Octets of a body.
pub(crate) const BODY_MAX: usize = VALUE_MAX - HEADER;

/// Format version, CRC-32C of the key, sequence, CRC-32C of all that and the body.
const HEADER: usize = 1 + 4 + 8 + 4;
const FORMAT: u8 = 1;

/// A key with its value, sealed or not.
pub(crate) type KeyValue = (Vec<u8>, Vec<u8>);

/// A body with its header.
pub(crate) fn seal(key: &[u8], sequence: u64, body: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(HEADER + body.len());
    value.push(FORMAT);
    value.extend_from_slice(&crc32c(&[key]).to_le_bytes());
    value.extend_from_slice(&sequence.to_le_bytes());
    let crc = crc32c(&[&value, body]);
    value.extend_from_slice(&crc.to_le_bytes());
    value.extend_from_slice(body);
    value
}

/// Sequence and body of a sound value; `None` for one that is damaged, of another key or of an unknown format.
pub(crate) fn open<'a>(key: &[u8], value: &'a [u8]) -> Option<(u64, &'a [u8])> {
    let (covered, _) = value.split_at_checked(HEADER - 4)?;
    let mut take = Take(value);
    let format = take.u8()?;
    let key_hash = take.u32()?;
    let sequence = take.u64()?;
    let crc = take.u32()?;
    let sound = format == FORMAT && key_hash == crc32c(&[key]) && crc == crc32c(&[covered, take.0]);
    sound.then_some((sequence, take.0))
}

/// An account as the database keeps it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct AccountRecord {
    /// Canonical name.
    pub name: String,
    /// Its own layer of rules; all silent by default.
    pub layer: Layer,
    /// When it was first recorded.
    pub since: UnixSeconds,
}

impl AccountRecord {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        let mut put = Put::default();
        let name = self.name.as_bytes();
        if name.len() > 320 {
            return Err(StoreError::TooLarge("the account's name"));
        }
        put.number(name.len() as u64);
        put.bytes(name);
        put.number(self.since);
        if self.layer != Layer::default() {
            let layer =
                serde_json::to_vec(&self.layer).map_err(|_| StoreError::TooLarge("the account's rules"))?;
            put.bytes(&layer);
        }
        if put.0.len() > BODY_MAX {
            return Err(StoreError::TooLarge("the account's rules"));
        }
        Ok(put.0)
    }

    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let mut take = Take(body);
        let length = usize::try_from(take.number()?).ok()?;
        let name = String::from_utf8(take.slice(length)?.to_vec()).ok()?;
        let since = take.number()?;
        let layer = if take.0.is_empty() { Layer::default() } else { serde_json::from_slice(take.0).ok()? };
        Some(Self { name, layer, since })
    }
}

pub(crate) fn encode_device(device: &Device) -> Vec<u8> {
    let mut put = Put::default();
    put_standing(&mut put, device.standing);
    put.number(device.logins);
    put.number(device.first_seen);
    put.text(&device.alias.0, 16);
    put.text(&device.name, 128);
    put_marks(&mut put, &device.marks);
    put_traits(&mut put, &device.traits);
    put_sighting(&mut put, device.last_seen.as_ref());
    put.0
}

pub(crate) fn decode_device(body: &[u8]) -> Option<Device> {
    let take = &mut Take(body);
    Some(Device {
        standing: take_standing(take)?,
        logins: take.number()?,
        first_seen: take.number()?,
        alias: Alias(take.text()?),
        name: take.text()?,
        marks: take_marks(take)?,
        traits: take_traits(take)?,
        last_seen: take_sighting(take)?,
    })
}

/// Only the standing, which comes first so that counting need not read the rest.
pub(crate) fn decode_standing(body: &[u8]) -> Option<Standing> {
    take_standing(&mut Take(body))
}

/// Whether a device's record holds one of these MACs, without decoding the rest.
pub(crate) fn device_has_mark(body: &[u8], macs: &[[u8; 32]]) -> Option<bool> {
    let take = &mut Take(body);
    take_standing(take)?;
    take.number()?;
    take.number()?;
    take.text()?;
    take.text()?;
    has_mark(take, macs)
}

/// A refused attempt at a mailbox, kept so that its owner can approve the device that made it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Attempt {
    /// What the device will be called.
    pub alias: Alias,
    /// How it will be recognised.
    pub marks: Vec<Mark>,
    /// What it said of itself.
    pub traits: Traits,
    /// When it first came.
    pub first_seen: UnixSeconds,
    /// Its newest attempt.
    pub last_seen: Option<Sighting>,
    /// Attempts counted.
    pub count: u64,
    /// Whether the password it showed was tried, off the wire, and found right.
    pub password_known: Option<bool>,
}

impl Attempt {
    /// Attempts kept per account.
    pub const MAX: usize = 32;

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut put = Put::default();
        put.u8(match self.password_known {
            None => 0,
            Some(false) => 1,
            Some(true) => 2,
        });
        put.number(self.count);
        put.number(self.first_seen);
        put.text(&self.alias.0, 16);
        put_marks(&mut put, &self.marks);
        put_traits(&mut put, &self.traits);
        put_sighting(&mut put, self.last_seen.as_ref());
        put.0
    }

    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let take = &mut Take(body);
        Some(Self {
            password_known: match take.u8()? {
                0 => None,
                1 => Some(false),
                2 => Some(true),
                _ => return None,
            },
            count: take.number()?,
            first_seen: take.number()?,
            alias: Alias(take.text()?),
            marks: take_marks(take)?,
            traits: take_traits(take)?,
            last_seen: take_sighting(take)?,
        })
    }
}

/// An account's log of logins. Where its lines do not fit, those that were quiet longest are left out.
pub(crate) fn encode_logins(log: &[Outcome]) -> Vec<u8> {
    let mut lines: Vec<&Outcome> = log.iter().collect();
    lines.sort_by_key(|line| std::cmp::Reverse(line.last));
    let mut body = Put::default();
    for line in lines.into_iter().take(Outcome::MAX) {
        let mut put = Put::default();
        put.text(&line.protocol, 16);
        match &line.client {
            Client::Device(alias) => {
                put.u8(0);
                put.text(&alias.0, 16);
            }
            Client::Traits(text) => {
                put.u8(1);
                put.text(text, 96);
            }
        }
        put_verdict(&mut put, line.if_locked);
        put.number(line.count);
        put.number(line.first);
        put.number(line.last);
        put.address(line.address);
        if body.0.len() + put.0.len() > BODY_MAX {
            break;
        }
        body.bytes(&put.0);
    }
    body.0
}

pub(crate) fn decode_logins(body: &[u8]) -> Option<Vec<Outcome>> {
    let take = &mut Take(body);
    let mut log = Vec::new();
    while !take.0.is_empty() {
        log.push(Outcome {
            protocol: take.text()?,
            client: match take.u8()? {
                0 => Client::Device(Alias(take.text()?)),
                1 => Client::Traits(take.text()?),
                _ => return None,
            },
            if_locked: take_verdict(take)?,
            count: take.number()?,
            first: take.number()?,
            last: take.number()?,
            address: take.address()?,
        });
    }
    Some(log)
}

/// When alerts about what went out: hashes of what, and the times.
pub(crate) fn encode_alerts(alerts: &[(u64, UnixSeconds)]) -> Vec<u8> {
    let mut put = Put::default();
    for (what, at) in alerts {
        put.bytes(&what.to_le_bytes());
        put.number(*at);
    }
    put.0
}

pub(crate) fn decode_alerts(body: &[u8]) -> Option<Vec<(u64, UnixSeconds)>> {
    let take = &mut Take(body);
    let mut alerts = Vec::new();
    while !take.0.is_empty() {
        alerts.push((take.u64()?, take.number()?));
    }
    Some(alerts)
}

fn put_standing(put: &mut Put, standing: Standing) {
    match standing {
        Standing::Pending => put.u8(0),
        Standing::Approved { until: None } => put.u8(1),
        Standing::Approved { until: Some(until) } => {
            put.u8(2);
            put.number(until);
        }
        Standing::Revoked => put.u8(3),
    }
}

fn take_standing(take: &mut Take<'_>) -> Option<Standing> {
    Some(match take.u8()? {
        0 => Standing::Pending,
        1 => Standing::Approved { until: None },
        2 => Standing::Approved { until: Some(take.number()?) },
        3 => Standing::Revoked,
        _ => return None,
    })
}

/// The raw hash of a mark; `None` if its hexadecimal is none.
pub(crate) fn mac(mark: &Mark) -> Option<[u8; 32]> {
    match mark {
        Mark::Token { mac, .. } | Mark::Cluster { mac } => unhex(mac),
    }
}

fn put_marks(put: &mut Put, marks: &[Mark]) {
    let marks: Vec<_> =
        marks.iter().filter_map(|mark| Some((mark, mac(mark)?))).take(Device::MARKS).collect();
    put.u8(u8::try_from(marks.len()).unwrap_or(0));
    for (mark, mac) in marks {
        match mark {
            Mark::Token { kind, .. } => {
                put.u8(0);
                put.text(kind, 16);
            }
            Mark::Cluster { .. } => put.u8(1),
        }
        put.bytes(&mac);
    }
}

fn take_marks(take: &mut Take<'_>) -> Option<Vec<Mark>> {
    let count = usize::from(take.u8()?);
    let mut marks = Vec::with_capacity(count.min(Device::MARKS));
    for _ in 0..count {
        marks.push(match take.u8()? {
            0 => {
                let kind = take.text()?;
                Mark::Token { kind, mac: hex(&take.array::<32>()?) }
            }
            1 => Mark::Cluster { mac: hex(&take.array::<32>()?) },
            _ => return None,
        });
    }
    Some(marks)
}

fn has_mark(take: &mut Take<'_>, macs: &[[u8; 32]]) -> Option<bool> {
    let mut found = false;
    for _ in 0..take.u8()? {
        match take.u8()? {
            0 => {
                let length = usize::from(take.u8()?);
                take.slice(length)?;
            }
            1 => {}
            _ => return None,
        }
        let held = take.array::<32>()?;
        for mac in macs {
            // Constant time (clientid.md Q27), and no early end: the work does not tell which mark it was.
            found |= same(&held, mac);
        }
    }
    Some(found)
}

/// Equality in constant time.
pub(crate) fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    std::hint::black_box(a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b))) == 0
}

fn put_traits(put: &mut Put, traits: &Traits) {
    put.text(&traits.client, 64);
    put.text(&traits.version, 32);
    put.text(&traits.os, 32);
    put.text(&traits.ehlo, 16);
    put.text(&traits.ja4, 40);
    put.text(&traits.network, 48);
    put.text(&traits.country, 2);
}

fn take_traits(take: &mut Take<'_>) -> Option<Traits> {
    Some(Traits {
        client: take.text()?,
        version: take.text()?,
        os: take.text()?,
        ehlo: take.text()?,
        ja4: take.text()?,
        network: take.text()?,
        country: take.text()?,
    })
}

fn put_sighting(put: &mut Put, sighting: Option<&Sighting>) {
    match sighting {
        None => put.u8(0),
        Some(sighting) => {
            put.u8(1);
            put.number(sighting.at);
            put.text(&sighting.protocol, 16);
            put.address(sighting.address);
            put.text(sighting.country.as_deref().unwrap_or_default(), 2);
        }
    }
}

#[allow(clippy::option_option, reason = "outer: whether it could be read; inner: whether there was one")]
fn take_sighting(take: &mut Take<'_>) -> Option<Option<Sighting>> {
    Some(match take.u8()? {
        0 => None,
        1 => Some(Sighting {
            at: take.number()?,
            protocol: take.text()?,
            address: take.address()?,
            country: Some(take.text()?).filter(|country| !country.is_empty()),
        }),
        _ => return None,
    })
}

fn put_verdict(put: &mut Put, verdict: Verdict) {
    put.u8(match verdict {
        Verdict::Admit(Admitted::Approved) => 0,
        Verdict::Admit(Admitted::Observed) => 1,
        Verdict::Admit(Admitted::Learning) => 2,
        Verdict::Admit(Admitted::Provisional { .. }) => 3,
        Verdict::Hold(Held::UnknownDevice) => 4,
        Verdict::Hold(Held::Unapproved) => 5,
        Verdict::Hold(Held::Expired) => 6,
        Verdict::Refuse(Refused::Revoked) => 7,
        Verdict::Refuse(Refused::Protocol) => 8,
        Verdict::Refuse(Refused::Network) => 9,
        Verdict::Refuse(Refused::Country) => 10,
        Verdict::Refuse(Refused::ClientIdRequired) => 11,
        Verdict::Refuse(Refused::UntrustedType) => 12,
        Verdict::Refuse(Refused::NoIdentity) => 13,
        Verdict::Refuse(Refused::TooManyDevices) => 14,
    });
    if let Verdict::Admit(Admitted::Provisional { days }) = verdict {
        put.number(u64::from(days));
    }
}

fn take_verdict(take: &mut Take<'_>) -> Option<Verdict> {
    Some(match take.u8()? {
        0 => Verdict::Admit(Admitted::Approved),
        1 => Verdict::Admit(Admitted::Observed),
        2 => Verdict::Admit(Admitted::Learning),
        3 => Verdict::Admit(Admitted::Provisional { days: u32::try_from(take.number()?).ok()? }),
        4 => Verdict::Hold(Held::UnknownDevice),
        5 => Verdict::Hold(Held::Unapproved),
        6 => Verdict::Hold(Held::Expired),
        7 => Verdict::Refuse(Refused::Revoked),
        8 => Verdict::Refuse(Refused::Protocol),
        9 => Verdict::Refuse(Refused::Network),
        10 => Verdict::Refuse(Refused::Country),
        11 => Verdict::Refuse(Refused::ClientIdRequired),
        12 => Verdict::Refuse(Refused::UntrustedType),
        13 => Verdict::Refuse(Refused::NoIdentity),
        14 => Verdict::Refuse(Refused::TooManyDevices),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_sealed_record_survives_no_flipped_bit() {
        let value = seal(b"Dkey", 7, b"body");
        assert_eq!(open(b"Dkey", &value), Some((7, &b"body"[..])));
        assert_eq!(open(b"Dkez", &value), None);
        for bit in 0..value.len() * 8 {
            let mut flipped = value.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(b"Dkey", &flipped), None, "bit {bit}");
        }
        for length in 0..value.len() {
            assert_eq!(open(b"Dkey", &value[..length]), None);
        }
    }

    #[test]
    fn every_verdict_comes_back() {
        let mut seen = 0;
        for code in 0..=u8::MAX {
            if let Some(verdict) = take_verdict(&mut Take(&[code, 9])) {
                let mut put = Put::default();
                put_verdict(&mut put, verdict);
                assert_eq!(put.0[0], code);
                assert_eq!(take_verdict(&mut Take(&put.0)), Some(verdict));
                seen += 1;
            }
        }
        assert_eq!(seen, 15);
    }

    #[test]
    fn the_largest_log_fits_a_record() {
        let log: Vec<_> = (0..Outcome::MAX as u64)
            .map(|at| Outcome {
                protocol: "submission".into(),
                client: Client::Traits("x".repeat(500)),
                if_locked: Verdict::Refuse(Refused::NoIdentity),
                count: u64::MAX,
                first: u64::MAX - 1,
                last: u64::MAX - at,
                address: Some("2001:db8::1".parse().unwrap()),
            })
            .collect();
        let body = encode_logins(&log);
        assert!(body.len() <= BODY_MAX);
        let kept = decode_logins(&body).unwrap();
        assert!(kept.len() >= 12);
        assert_eq!(kept[0].last, u64::MAX, "the newest stay");
    }

    prop_compose! {
        fn any_device()(
            alias in "[a-z2-7]{6}", name in ".{0,200}", logins in any::<u64>(), first_seen in any::<u64>(),
            standing in prop_oneof![
                Just(Standing::Pending), Just(Standing::Revoked),
                any::<Option<u64>>().prop_map(|until| Standing::Approved { until })],
            marks in prop::collection::vec((any::<[u8; 32]>(), prop::option::of("[A-Z]{1,16}")), 0..10),
            text in prop::array::uniform5(".{0,90}"),
            last in prop::option::of((any::<u64>(), any::<Option<std::net::IpAddr>>(), prop::option::of("[A-Z]{2}"))),
        ) -> Device {
            let [client, version, os, ja4, network] = text;
            Device {
                alias: Alias(alias), name, standing, logins, first_seen,
                marks: marks.into_iter().map(|(mac, kind)| match kind {
                    Some(kind) => Mark::Token { kind, mac: hex(&mac) },
                    None => Mark::Cluster { mac: hex(&mac) },
                }).collect(),
                traits: Traits { client, version, os, ja4, network, ehlo: "bare".into(), country: "CA".into() },
                last_seen: last.map(|(at, address, country)| Sighting { at, protocol: "imap".into(), address, country }),
            }
        }
    }

    proptest! {
        #[test]
        fn devices_come_back_and_fit(device in any_device()) {
            let body = encode_device(&device);
            prop_assert!(body.len() <= BODY_MAX);
            let back = decode_device(&body).unwrap();
            // What was cut stays cut the same way.
            prop_assert_eq!(encode_device(&back), body.clone());
            prop_assert_eq!(decode_standing(&body), Some(device.standing));
            for mark in back.marks.iter().take(Device::MARKS) {
                prop_assert_eq!(device_has_mark(&body, &[mac(mark).unwrap()]), Some(true));
            }
            prop_assert_eq!(device_has_mark(&body, &[[0; 32]]), Some(false));
        }

        #[test]
        fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode_device(&body);
            let _ = device_has_mark(&body, &[[0; 32]]);
            let _ = Attempt::decode(&body);
            let _ = AccountRecord::decode(&body);
            let _ = decode_logins(&body);
            let _ = decode_alerts(&body);
            let _ = open(b"k", &body);
        }
    }
}

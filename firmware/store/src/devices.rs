//! What happens to an account's records: each function is one change, made in the writer's thread.

use policy::UnixSeconds;
use policy::device::{Alias, Device, Mark, Sighting, Standing};
use policy::login::{Traits, describe};
use policy::rules::Layer;
use policy::simulate::{self, Client, Outcome};
use policy::verdict::{Admitted, Verdict};

use crate::codec::sha256_16;
use crate::engine::damaged;
use crate::error::StoreError;
use crate::key::{Kind, Place};
use crate::record::{
    AccountRecord, Attempt, decode_alerts, decode_device, decode_logins, encode_alerts, encode_device,
    encode_logins, mac,
};
use crate::writer::{Tx, Urgency};

/// Devices of one account waiting for their owner.
pub const PENDING_MAX: usize = 32;
/// Devices of one account altogether.
pub const DEVICES_MAX: usize = 256;
/// Kinds of alerts of one account whose times are remembered.
const ALERTS_MAX: usize = 64;
const DAY: u64 = 24 * 60 * 60;

/// A login that the backend has said yes to.
#[derive(Clone, Debug)]
pub struct Success {
    /// Canonical name.
    pub account: String,
    /// How the session was recognised. Where there is a token, clusters are ignored: a weak identity is never tied to a
    /// strong one just because both were seen together.
    pub marks: Vec<Mark>,
    /// What it said of itself.
    pub traits: Traits,
    /// When, how and from where.
    pub sighting: Sighting,
    /// Why policy let it through.
    pub admitted: Admitted,
    /// The rules' limit on approved devices, looked at again here: two new devices may come at the same time.
    pub max_devices: u32,
    /// What a lock would have said, for the simulation.
    pub if_locked: Verdict,
}

/// What became of a [`Success`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Recorded {
    /// The device. `None`: the session showed nothing to recognise it by.
    pub alias: Option<Alias>,
    /// Whether it was recorded for the first time.
    pub new: bool,
    /// Its standing now. `Revoked`: the owner was faster than this login, so end the session.
    pub standing: Standing,
}

/// What became of a refused attempt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Noted {
    /// The name by which the owner may approve it.
    pub alias: Alias,
    /// Whether it is the first of its kind.
    pub new: bool,
    /// How many attempts it has made.
    pub count: u64,
}

/// Everything of one account.
#[derive(Clone, Debug, PartialEq)]
pub struct Listing {
    /// Its name and rules.
    pub account: AccountRecord,
    /// Its devices, newest use first.
    pub devices: Vec<Device>,
    /// Refused attempts, newest first.
    pub attempts: Vec<Attempt>,
}

type Change<R> = Result<(R, Urgency), StoreError>;

/// The marks that count: tokens if there is any, else clusters.
pub(crate) fn effective(marks: &[Mark]) -> Vec<Mark> {
    let is_token = |mark: &&Mark| matches!(mark, Mark::Token { .. });
    let tokens: Vec<Mark> = marks.iter().filter(is_token).cloned().collect();
    if tokens.is_empty() { marks.to_vec() } else { tokens }
}

pub(crate) fn success(tx: &mut Tx<'_>, login: &Success) -> Change<Recorded> {
    let place = Place::of(&login.account);
    let now = login.sighting.at;
    let mut urgency = ensure_account(tx, &login.account, now)?;
    let marks = effective(&login.marks);
    let mut devices = devices(tx, place)?;
    let approved = devices.iter().filter(|device| is_approved(device, now)).count();
    let room = approved < usize::try_from(login.max_devices).unwrap_or(usize::MAX);
    let known = devices.iter().position(|device| shares_mark(&device.marks, &marks));
    let granted = |standing| match (standing, login.admitted) {
        (Standing::Revoked, _) => Standing::Revoked,
        (standing @ Standing::Approved { until }, _) if until.is_none_or(|until| now < until) => standing,
        (Standing::Pending | Standing::Approved { .. }, Admitted::Learning) if room => {
            Standing::Approved { until: None }
        }
        (Standing::Pending, Admitted::Provisional { days }) if room => {
            Standing::Approved { until: Some(now.saturating_add(u64::from(days) * DAY)) }
        }
        (
            standing,
            Admitted::Approved | Admitted::Observed | Admitted::Learning | Admitted::Provisional { .. },
        ) => standing,
    };
    let recorded = if let Some(at) = known {
        let mut device = devices.swap_remove(at);
        let standing = granted(device.standing);
        if standing != device.standing || marks.first().is_none_or(|newest| !device.marks.contains(newest)) {
            urgency = Urgency::Now;
        }
        device.standing = standing;
        adopt_marks(&mut device.marks, &marks);
        device.traits = merged_traits(&device.traits, &login.traits);
        device.last_seen = Some(login.sighting.clone());
        device.logins = device.logins.saturating_add(1);
        put_device(tx, place, &device)?;
        Recorded { alias: Some(device.alias), new: false, standing }
    } else if let Some(first) = marks.first() {
        urgency = Urgency::Now;
        let attempt = attempts(tx, place)?.into_iter().find(|attempt| shares_mark(&attempt.marks, &marks));
        if let Some(attempt) = &attempt {
            tx.remove(place.keyed(Kind::Attempt, &attempt.alias));
        }
        let standing = granted(Standing::Pending);
        make_room(tx, place, &mut devices, standing == Standing::Pending, now)?;
        let alias = match attempt {
            Some(attempt) => attempt.alias,
            None => free_alias(tx, place, first)?,
        };
        let mut kept = Vec::new();
        adopt_marks(&mut kept, &marks);
        let device = Device {
            alias: alias.clone(),
            name: String::new(),
            standing,
            marks: kept,
            traits: login.traits.clone(),
            first_seen: now,
            last_seen: Some(login.sighting.clone()),
            logins: 1,
        };
        put_device(tx, place, &device)?;
        Recorded { alias: Some(alias), new: true, standing }
    } else {
        Recorded { alias: None, new: false, standing: Standing::Pending }
    };
    let outcome = Outcome {
        protocol: login.sighting.protocol.clone(),
        client: match &recorded.alias {
            Some(alias) => Client::Device(alias.clone()),
            None => Client::Traits(describe(&login.traits)),
        },
        if_locked: login.if_locked,
        count: 1,
        first: now,
        last: now,
        address: login.sighting.address,
    };
    let mut log = logins(tx, place)?;
    simulate::note(&mut log, outcome);
    tx.put(place.key(Kind::Logins), encode_logins(&log))?;
    Ok((recorded, urgency))
}

/// A refused login of a known account. Nothing waits for it: at worst a power cut forgets a stranger's try.
pub(crate) fn refusal(
    tx: &mut Tx<'_>,
    account: &str,
    marks: &[Mark],
    traits: &Traits,
    sighting: &Sighting,
) -> Change<Option<Noted>> {
    let place = Place::of(account);
    let marks = effective(marks);
    let Some(first) = marks.first() else {
        return Ok((None, Urgency::Lazy));
    };
    if tx.get(&place.key(Kind::Account))?.is_none() {
        return Err(StoreError::NoAccount);
    }
    // A device that exists needs no second entry: it is held or revoked, and listed as such.
    if let Some(device) = devices(tx, place)?.into_iter().find(|device| shares_mark(&device.marks, &marks)) {
        return Ok((Some(Noted { alias: device.alias, new: false, count: 0 }), Urgency::Lazy));
    }
    let mut all = attempts(tx, place)?;
    let attempt = if let Some(at) = all.iter().position(|attempt| shares_mark(&attempt.marks, &marks)) {
        let mut attempt = all.swap_remove(at);
        attempt.count = attempt.count.saturating_add(1);
        attempt.traits = merged_traits(&attempt.traits, traits);
        attempt.last_seen = Some(sighting.clone());
        attempt
    } else {
        while all.len() >= Attempt::MAX {
            let Some(at) = least_deserving(&all) else { break };
            let gone = all.swap_remove(at);
            tx.remove(place.keyed(Kind::Attempt, &gone.alias));
        }
        let mut kept = Vec::new();
        adopt_marks(&mut kept, &marks);
        Attempt {
            alias: free_alias(tx, place, first)?,
            marks: kept,
            traits: traits.clone(),
            first_seen: sighting.at,
            last_seen: Some(sighting.clone()),
            count: 1,
            password_known: None,
        }
    };
    tx.put(place.keyed(Kind::Attempt, &attempt.alias), attempt.encode())?;
    Ok((Some(Noted { new: attempt.count == 1, count: attempt.count, alias: attempt.alias }), Urgency::Lazy))
}

/// The attempt that gives way: never first one whose password was right, then one of the network that has most of them, the
/// one not seen for longest. So one stranger with a thousand tokens displaces himself, not the owner's new phone.
pub(crate) fn least_deserving(attempts: &[Attempt]) -> Option<usize> {
    let network = |attempt: &Attempt| {
        let address = attempt.last_seen.as_ref().and_then(|sighting| sighting.address);
        address.map(policy::abuse::neighbourhood)
    };
    let same_network = |of: &Attempt| attempts.iter().filter(|other| network(other) == network(of)).count();
    attempts
        .iter()
        .enumerate()
        .min_by_key(|(_, attempt)| {
            let last = attempt.last_seen.as_ref().map_or(0, |sighting| sighting.at);
            (attempt.password_known == Some(true), std::cmp::Reverse(same_network(attempt)), last)
        })
        .map(|(at, _)| at)
}

/// What the probe of a refused attempt's password found.
pub(crate) fn password_known(tx: &mut Tx<'_>, account: &str, alias: &Alias, known: bool) -> Change<()> {
    let place = Place::of(account);
    let key = place.keyed(Kind::Attempt, alias);
    if let Some(body) = tx.get(&key)? {
        let mut attempt = Attempt::decode(&body).ok_or_else(|| damaged(&key))?;
        attempt.password_known = Some(known || attempt.password_known == Some(true));
        tx.put(key, attempt.encode())?;
    }
    Ok(((), Urgency::Now))
}

/// Approves a device, or turns an attempt into an approved device.
pub(crate) fn approve(
    tx: &mut Tx<'_>,
    account: &str,
    alias: &Alias,
    until: Option<UnixSeconds>,
    now: UnixSeconds,
) -> Change<Device> {
    let standing = Standing::Approved { until };
    stand(tx, account, alias, standing, now)
}

/// Revokes a device, or turns an attempt into a revoked one, which is then refused in every mode.
pub(crate) fn revoke(tx: &mut Tx<'_>, account: &str, alias: &Alias, now: UnixSeconds) -> Change<Device> {
    stand(tx, account, alias, Standing::Revoked, now)
}

fn stand(
    tx: &mut Tx<'_>,
    account: &str,
    alias: &Alias,
    standing: Standing,
    now: UnixSeconds,
) -> Change<Device> {
    let place = Place::of(account);
    if let Some(mut device) = device(tx, place, alias)? {
        device.standing = standing;
        put_device(tx, place, &device)?;
        return Ok((device, Urgency::Now));
    }
    let key = place.keyed(Kind::Attempt, alias);
    let body = tx.get(&key)?.ok_or(StoreError::NoDevice)?;
    let attempt = Attempt::decode(&body).ok_or_else(|| damaged(&key))?;
    let mut others = devices(tx, place)?;
    make_room(tx, place, &mut others, false, now)?;
    tx.remove(key);
    let device = from_attempt(attempt, standing);
    put_device(tx, place, &device)?;
    Ok((device, Urgency::Now))
}

/// Puts an attempt that was only kept in memory into the database as a device.
pub(crate) fn adopt(
    tx: &mut Tx<'_>,
    account: &str,
    attempt: Attempt,
    standing: Standing,
    now: UnixSeconds,
) -> Change<Device> {
    let place = Place::of(account);
    ensure_account(tx, account, now)?;
    if let Some(known) =
        devices(tx, place)?.into_iter().find(|device| shares_mark(&device.marks, &attempt.marks))
    {
        return stand(tx, account, &known.alias, standing, now);
    }
    let mut others = devices(tx, place)?;
    make_room(tx, place, &mut others, false, now)?;
    let mut device = from_attempt(attempt, standing);
    if tx.get(&place.keyed(Kind::Device, &device.alias))?.is_some() {
        let first = device.marks.first().ok_or(StoreError::NoDevice)?.clone();
        device.alias = free_alias(tx, place, &first)?;
    }
    put_device(tx, place, &device)?;
    Ok((device, Urgency::Now))
}

fn from_attempt(attempt: Attempt, standing: Standing) -> Device {
    let Attempt { alias, marks, traits, first_seen, last_seen: _, count: _, password_known: _ } = attempt;
    // No successful login yet, so nothing was "last seen".
    Device { alias, name: String::new(), standing, marks, traits, first_seen, last_seen: None, logins: 0 }
}

pub(crate) fn rename(tx: &mut Tx<'_>, account: &str, alias: &Alias, name: &str) -> Change<Device> {
    let place = Place::of(account);
    let mut device = device(tx, place, alias)?.ok_or(StoreError::NoDevice)?;
    // Names are shown in terminals and mail.
    device.name = name.chars().filter(|c| !c.is_control()).take(64).collect();
    put_device(tx, place, &device)?;
    Ok((device, Urgency::Now))
}

pub(crate) fn forget(tx: &mut Tx<'_>, account: &str, alias: &Alias) -> Change<()> {
    let place = Place::of(account);
    let keys = [place.keyed(Kind::Device, alias), place.keyed(Kind::Attempt, alias)];
    let mut found = false;
    for key in keys {
        if tx.get(&key)?.is_some() {
            tx.remove(key);
            found = true;
        }
    }
    if found { Ok(((), Urgency::Now)) } else { Err(StoreError::NoDevice) }
}

/// Makes two entries one device: `into` keeps its name and standing and gains the marks of `from`.
pub(crate) fn merge(tx: &mut Tx<'_>, account: &str, into: &Alias, from: &Alias) -> Change<Device> {
    let place = Place::of(account);
    let mut kept = device(tx, place, into)?.ok_or(StoreError::NoDevice)?;
    if into == from {
        return Ok((kept, Urgency::Now));
    }
    let (marks, traits, last_seen, logins) = if let Some(gone) = device(tx, place, from)? {
        (gone.marks, gone.traits, gone.last_seen, gone.logins)
    } else {
        let key = place.keyed(Kind::Attempt, from);
        let body = tx.get(&key)?.ok_or(StoreError::NoDevice)?;
        let attempt = Attempt::decode(&body).ok_or_else(|| damaged(&key))?;
        (attempt.marks, attempt.traits, None, 0)
    };
    if kept.marks.len() + marks.len() > Device::MARKS {
        return Err(StoreError::TooLarge("the merged device"));
    }
    kept.marks.extend(marks);
    kept.traits = merged_traits(&traits, &kept.traits);
    kept.logins = kept.logins.saturating_add(logins);
    if last_seen.as_ref().map(|sighting| sighting.at) > kept.last_seen.as_ref().map(|sighting| sighting.at) {
        kept.last_seen = last_seen;
    }
    tx.remove(place.keyed(Kind::Device, from));
    tx.remove(place.keyed(Kind::Attempt, from));
    put_device(tx, place, &kept)?;
    Ok((kept, Urgency::Now))
}

/// Replaces an account's own layer of rules; makes the account if it is not there.
pub(crate) fn set_layer(tx: &mut Tx<'_>, account: &str, layer: Layer, now: UnixSeconds) -> Change<()> {
    ensure_account(tx, account, now)?;
    let key = Place::of(account).key(Kind::Account);
    let body = tx.get(&key)?.ok_or(StoreError::NoAccount)?;
    let mut record = AccountRecord::decode(&body).ok_or_else(|| damaged(&key))?;
    record.layer = layer;
    tx.put(key, record.encode()?)?;
    Ok(((), Urgency::Now))
}

/// Removes an account with everything it has.
pub(crate) fn forget_account(tx: &mut Tx<'_>, account: &str) -> Change<()> {
    let place = Place::of(account);
    if tx.get(&place.key(Kind::Account))?.is_none() {
        return Err(StoreError::NoAccount);
    }
    for kind in [Kind::Device, Kind::Attempt, Kind::Logins, Kind::Alerts, Kind::Account] {
        for (key, _) in tx.scan(&place.key(kind))? {
            tx.remove(key);
        }
    }
    Ok(((), Urgency::Now))
}

/// When an alert about `what` last went out; from now on, `now`.
pub(crate) fn alerted(
    tx: &mut Tx<'_>,
    account: &str,
    what: &str,
    now: UnixSeconds,
) -> Change<Option<UnixSeconds>> {
    let place = Place::of(account);
    if tx.get(&place.key(Kind::Account))?.is_none() {
        return Err(StoreError::NoAccount);
    }
    let key = place.key(Kind::Alerts);
    let mut alerts = match tx.get(&key)? {
        Some(body) => decode_alerts(&body).ok_or_else(|| damaged(&key))?,
        None => Vec::new(),
    };
    let hash =
        sha256_16(&[what.as_bytes()]).iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte));
    let before = alerts.iter().position(|(other, _)| *other == hash).map(|at| alerts.remove(at).1);
    alerts.push((hash, now));
    if alerts.len() > ALERTS_MAX {
        alerts.remove(0);
    }
    tx.put(key, encode_alerts(&alerts))?;
    // A power cut may thus repeat an alert; it never suppresses one.
    Ok((before, Urgency::Lazy))
}

/// Strips addresses and networks older than `before` from these accounts' records; how many records changed.
pub(crate) fn strip_addresses(tx: &mut Tx<'_>, places: &[Place], before: UnixSeconds) -> Change<u64> {
    let mut stripped = 0;
    let old = |sighting: &Option<Sighting>| {
        sighting.as_ref().is_some_and(|sighting| sighting.at < before && sighting.address.is_some())
    };
    let strip = |traits: &mut Traits, sighting: &mut Option<Sighting>| {
        traits.network.clear();
        if let Some(sighting) = sighting {
            sighting.address = None;
        }
    };
    for place in places {
        for mut device in devices(tx, *place)? {
            if old(&device.last_seen) {
                strip(&mut device.traits, &mut device.last_seen);
                put_device(tx, *place, &device)?;
                stripped += 1;
            }
        }
        for mut attempt in attempts(tx, *place)? {
            if old(&attempt.last_seen) {
                strip(&mut attempt.traits, &mut attempt.last_seen);
                tx.put(place.keyed(Kind::Attempt, &attempt.alias), attempt.encode())?;
                stripped += 1;
            }
        }
        let mut log = logins(tx, *place)?;
        let lines = log.iter_mut().filter(|line| line.last < before && line.address.is_some());
        let changed = lines.map(|line| line.address = None).count();
        if changed > 0 {
            tx.put(place.key(Kind::Logins), encode_logins(&log))?;
            stripped += 1;
        }
    }
    Ok((stripped, Urgency::Now))
}

pub(crate) fn listing(tx: &Tx<'_>, account: &str) -> Result<Listing, StoreError> {
    let place = Place::of(account);
    let key = place.key(Kind::Account);
    let body = tx.get(&key)?.ok_or(StoreError::NoAccount)?;
    let record = AccountRecord::decode(&body).ok_or_else(|| damaged(&key))?;
    let seen = |sighting: &Option<Sighting>| std::cmp::Reverse(sighting.as_ref().map(|sighting| sighting.at));
    let mut devices = devices(tx, place)?;
    devices.sort_by_key(|device| seen(&device.last_seen));
    let mut attempts = attempts(tx, place)?;
    attempts.sort_by_key(|attempt| seen(&attempt.last_seen));
    Ok(Listing { account: record, devices, attempts })
}

pub(crate) fn logins(tx: &Tx<'_>, place: Place) -> Result<Vec<Outcome>, StoreError> {
    let key = place.key(Kind::Logins);
    match tx.get(&key)? {
        Some(body) => decode_logins(&body).ok_or_else(|| damaged(&key)),
        None => Ok(Vec::new()),
    }
}

fn ensure_account(tx: &mut Tx<'_>, account: &str, now: UnixSeconds) -> Result<Urgency, StoreError> {
    let key = Place::of(account).key(Kind::Account);
    if tx.get(&key)?.is_some() {
        return Ok(Urgency::Lazy);
    }
    let record = AccountRecord { name: account.to_owned(), layer: Layer::default(), since: now };
    tx.put(key, record.encode()?)?;
    Ok(Urgency::Now)
}

fn devices(tx: &Tx<'_>, place: Place) -> Result<Vec<Device>, StoreError> {
    let records = tx.scan(&place.key(Kind::Device))?;
    records.iter().map(|(key, body)| decode_device(body).ok_or_else(|| damaged(key))).collect()
}

fn device(tx: &Tx<'_>, place: Place, alias: &Alias) -> Result<Option<Device>, StoreError> {
    let key = place.keyed(Kind::Device, alias);
    tx.get(&key)?.map(|body| decode_device(&body).ok_or_else(|| damaged(&key))).transpose()
}

fn put_device(tx: &mut Tx<'_>, place: Place, device: &Device) -> Result<(), StoreError> {
    tx.put(place.keyed(Kind::Device, &device.alias), encode_device(device))
}

fn attempts(tx: &Tx<'_>, place: Place) -> Result<Vec<Attempt>, StoreError> {
    let records = tx.scan(&place.key(Kind::Attempt))?;
    records.iter().map(|(key, body)| Attempt::decode(body).ok_or_else(|| damaged(key))).collect()
}

pub(crate) fn shares_mark(held: &[Mark], shown: &[Mark]) -> bool {
    held.iter()
        .filter_map(mac)
        .any(|held| shown.iter().filter_map(mac).any(|shown| crate::record::same(&held, &shown)))
}

/// Takes the marks a session showed: all of them are the same name under keys of different age, and the newest stays.
pub(crate) fn adopt_marks(held: &mut Vec<Mark>, shown: &[Mark]) {
    let Some(newest) = shown.first() else { return };
    held.retain(|mark| !shares_mark(std::slice::from_ref(mark), shown) || mark == newest);
    if !held.contains(newest) {
        held.insert(0, newest.clone());
        held.truncate(Device::MARKS);
    }
}

/// What is known of a client after it has shown itself again: IMAP tells the software, submission the EHLO form.
fn merged_traits(before: &Traits, now: &Traits) -> Traits {
    let newer = |before: &String, now: &String| if now.is_empty() { before.clone() } else { now.clone() };
    Traits {
        client: newer(&before.client, &now.client),
        version: newer(&before.version, &now.version),
        os: newer(&before.os, &now.os),
        ehlo: newer(&before.ehlo, &now.ehlo),
        ja4: newer(&before.ja4, &now.ja4),
        network: newer(&before.network, &now.network),
        country: newer(&before.country, &now.country),
    }
}

fn is_approved(device: &Device, now: UnixSeconds) -> bool {
    matches!(device.standing, Standing::Approved { until } if until.is_none_or(|until| now < until))
}

/// Keeps an account within its bounds, by giving up the pending device not used for longest, then an expired one. Approved
/// and revoked devices never give way.
fn make_room(
    tx: &mut Tx<'_>,
    place: Place,
    devices: &mut Vec<Device>,
    for_pending: bool,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    let pending = devices.iter().filter(|device| device.standing == Standing::Pending).count();
    if !(for_pending && pending >= PENDING_MAX) && devices.len() < DEVICES_MAX {
        return Ok(());
    }
    let last = |device: &Device| device.last_seen.as_ref().map_or(device.first_seen, |sighting| sighting.at);
    let rank = |device: &Device| match device.standing {
        Standing::Pending => Some(0),
        Standing::Approved { .. } if !is_approved(device, now) => Some(1),
        Standing::Approved { .. } | Standing::Revoked => None,
    };
    let gone = devices
        .iter()
        .enumerate()
        .filter_map(|(at, device)| Some(((rank(device)?, last(device)), at)))
        .min()
        .map(|(_, at)| at)
        .ok_or(StoreError::AccountFull)?;
    let gone = devices.swap_remove(gone);
    tx.remove(place.keyed(Kind::Device, &gone.alias));
    Ok(())
}

/// Six letters of RFC 4648 base32 from 30 bits of the mark (clientid.md Q26); where the account has that name already, from
/// the next 30.
fn free_alias(tx: &Tx<'_>, place: Place, mark: &Mark) -> Result<Alias, StoreError> {
    let mac = mac(mark).ok_or(StoreError::TooLarge("a mark that is no hash"))?;
    for piece in 0..8 {
        let alias = alias(&mac, piece);
        let free = |kind| Ok::<_, StoreError>(tx.get(&place.keyed(kind, &alias))?.is_none());
        if free(Kind::Device)? && free(Kind::Attempt)? {
            return Ok(alias);
        }
    }
    Err(StoreError::AccountFull)
}

/// The `piece`-th 30 bits, from 0 to 7.
pub(crate) fn alias(mac: &[u8; 32], piece: usize) -> Alias {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bit = |at: usize| mac.get(at / 8).map_or(0, |byte| usize::from(byte >> (7 - at % 8) & 1));
    let letter = |n: usize| {
        let start = piece * 30 + n * 5;
        let index = (start..start + 5).fold(0, |index, at| index << 1 | bit(at));
        LETTERS.get(index).map_or('a', |letter| char::from(*letter))
    };
    Alias((0..6).map(letter).collect())
}

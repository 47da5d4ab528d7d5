//! Which incident is told at once, and which waits for a digest. Pure: time is an argument.
//!
//! Per account and device the first incident of a kind is told at once; what follows is counted and told in a digest,
//! first after an hour, then after two, four, … up to a day, as long as it goes on. Ten thousand attempts make one mail
//! and one digest. A device that was quiet for a day is news again.
//!
//! An attacker may use a new identity each time, so an account gets only a few first mails until its next digest, and
//! the box only so many mails an hour. Memory is bounded by [`Limits::accounts`] × [`Limits::devices`] entries of at
//! most about 2 KiB: 33 MiB with the defaults if every text is as long as it may be, about a fifth in practice.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::alert::{Class, Incident};
use crate::event::{Text, UnixSeconds};

/// When, and how often, owners are told.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Seconds from the first mail to the digest; doubles while it goes on.
    pub digest_after: u64,
    /// The longest such wait, in seconds.
    pub digest_longest: u64,
    /// Seconds without an incident after which a device is news again.
    pub quiet_after: u64,
    /// Mails told at once, for one account until its next digest. Of several strangers at once the owner hears
    /// separately, of a thousand not.
    pub firsts: u32,
    /// Mails to one account in a day, digests included; what is over it is told by the next day's digest.
    pub mails_per_account: u32,
    /// Mails of the whole box in an hour; what is over it waits for the next digest.
    pub mails_per_hour: u32,
    /// Accounts remembered. More accounts under attack at once are not told, the operator is.
    pub accounts: usize,
    /// Devices listed for one account; more are counted.
    pub devices: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            digest_after: 3_600,
            digest_longest: 86_400,
            quiet_after: 86_400,
            firsts: 3,
            mails_per_account: 12,
            mails_per_hour: 1_200,
            accounts: 4_096,
            devices: 4,
        }
    }
}

/// What is done with an incident.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answer {
    /// Told by a mail of its own.
    Now,
    /// Counted for the digest.
    Later,
    /// As [`Answer::Later`], or forgotten where there is no room; and the box has reached a limit of its own, for the
    /// first time in this hour.
    Throttled,
}

/// What one account is told together.
#[derive(Clone, Debug)]
pub struct Digest {
    /// Whose.
    pub account: Text,
    /// Who else is told.
    pub also: Vec<Text>,
    /// The time of the first incident counted here.
    pub since: UnixSeconds,
    /// All incidents counted here.
    pub count: u64,
    /// The devices behind them, in order of appearance.
    pub devices: Vec<DigestDevice>,
    /// Incidents of devices beyond those listed.
    pub others: u64,
}

/// One device in a digest.
#[derive(Clone, Debug)]
pub struct DigestDevice {
    /// Its newest incident.
    pub last: Incident,
    /// How many.
    pub count: u64,
    /// From how many addresses, up to [`DigestDevice::ADDRESSES`].
    pub addresses: usize,
}

impl DigestDevice {
    /// Addresses told apart; from here on it is "at least".
    pub const ADDRESSES: usize = 64;
}

/// What was told and what waits.
#[derive(Debug)]
pub struct Ledger {
    limits: Limits,
    accounts: HashMap<Text, Entry>,
    hour: Budget,
    swept: UnixSeconds,
}

#[derive(Debug)]
struct Entry {
    devices: Vec<Device>,
    also: Vec<Text>,
    others: u64,
    /// First mails since the last digest.
    firsts: u32,
    /// Mails since the day began.
    day: Budget,
    /// Wait before the next digest.
    wait: u64,
    /// When that is.
    due: UnixSeconds,
    /// First incident counted for it.
    since: Option<UnixSeconds>,
    last: UnixSeconds,
}

#[derive(Debug)]
struct Device {
    key: (Text, Class),
    last: Incident,
    count: u64,
    /// Hashes: the addresses themselves would be four times as long.
    addresses: HashSet<u64>,
}

/// Mails in a stretch of time.
#[derive(Debug, Default)]
struct Budget {
    start: UnixSeconds,
    mails: u32,
    said: bool,
}

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

impl Budget {
    fn at(&mut self, now: UnixSeconds, length: u64) -> &mut Self {
        // A clock set back starts anew too.
        if now >= self.start.saturating_add(length) || now < self.start {
            *self = Self { start: now, mails: 0, said: false };
        }
        self
    }

    fn take(&mut self, limit: u32) -> bool {
        let free = self.mails < limit;
        self.mails += u32::from(free);
        free
    }

    fn refuse(&mut self) -> Answer {
        if std::mem::replace(&mut self.said, true) { Answer::Later } else { Answer::Throttled }
    }
}

impl Ledger {
    /// Nothing told yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits, accounts: HashMap::new(), hour: Budget::default(), swept: 0 }
    }

    /// Takes an incident and says what is done with it.
    pub fn note(&mut self, incident: &Incident, now: UnixSeconds) -> Answer {
        let limits = self.limits;
        let hour = self.hour.at(now, HOUR);
        if !self.accounts.contains_key(&incident.account) {
            if self.accounts.len() >= limits.accounts && self.swept != now {
                self.swept = now;
                self.accounts.retain(|_, entry| !entry.forgettable(now, limits.quiet_after));
            }
            if self.accounts.len() >= limits.accounts {
                return hour.refuse();
            }
        }
        let entry = self.accounts.entry(incident.account.clone()).or_insert_with(|| Entry {
            devices: Vec::new(),
            also: incident.also.clone(),
            others: 0,
            firsts: 0,
            day: Budget::default(),
            wait: limits.digest_after,
            due: now.saturating_add(limits.digest_after),
            since: None,
            last: now,
        });
        entry.last = now;
        let key = (incident.device.clone(), incident.what.class());
        // A device that was quiet for so long is news, even while others keep the account busy.
        entry.devices.retain(|device| device.key != key || !device.idle(now, limits.quiet_after));
        let known = entry.devices.iter().position(|device| device.key == key);
        // Only what can be listed is told: otherwise it would be told again and again.
        // The day's last mail is kept for a digest: the owner hears at least that it goes on.
        let free = entry.day.at(now, DAY).mails + 1 < limits.mails_per_account.max(2);
        if known.is_none() && free && entry.firsts < limits.firsts && entry.make_room(limits, now) {
            if hour.take(limits.mails_per_hour) {
                entry.firsts += 1;
                entry.day.mails += 1;
                entry.devices.push(Device::new(key, incident)); // with nothing to count yet
                return Answer::Now;
            }
            entry.count(None, key, incident, limits, now);
            return hour.refuse();
        }
        entry.count(known, key, incident, limits, now);
        Answer::Later
    }

    /// Digests whose time has come. Call it every second or so.
    pub fn due(&mut self, now: UnixSeconds) -> Vec<Digest> {
        let limits = self.limits;
        let hour = self.hour.at(now, HOUR);
        let mut digests = Vec::new();
        self.accounts.retain(|account, entry| {
            if entry.due > now {
                return true;
            }
            if entry.since.is_none() {
                // Quiet since the last mail: the next wait is a short one again.
                entry.wait = limits.digest_after;
                entry.firsts = 0;
                entry.due = now.saturating_add(entry.wait);
                return !entry.forgettable(now, limits.quiet_after);
            }
            // One mail a day is not enough for a first one and its digest: two are the least.
            if entry.day.at(now, DAY).mails < limits.mails_per_account.max(2)
                && hour.take(limits.mails_per_hour)
            {
                entry.day.mails += 1;
                digests.extend(entry.digest(account));
                entry.firsts = 0;
                entry.wait = entry.wait.saturating_mul(2).min(limits.digest_longest.max(limits.digest_after));
                entry.due = now.saturating_add(entry.wait);
            }
            true
        });
        digests
    }

    /// Everything that waits, at the end of the process.
    pub fn close(self) -> Vec<Digest> {
        self.accounts.into_iter().filter_map(|(account, mut entry)| entry.digest(&account)).collect()
    }

    /// Accounts remembered now, for the metrics.
    pub fn len(&self) -> usize {
        self.accounts.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }
}

impl Entry {
    fn forgettable(&self, now: UnixSeconds, quiet_after: u64) -> bool {
        self.since.is_none() && now.saturating_sub(self.last) >= quiet_after
    }

    fn count(
        &mut self,
        known: Option<usize>,
        key: (Text, Class),
        incident: &Incident,
        limits: Limits,
        now: UnixSeconds,
    ) {
        if self.since.is_none() {
            self.since = Some(incident.at);
            // After a quiet time the old appointment may be just ahead: a digest covers at least one wait.
            if self.due < now.saturating_add(self.wait) && self.firsts == 0 {
                self.due = now.saturating_add(self.wait);
            }
        }
        let index = known.or_else(|| {
            self.make_room(limits, now).then(|| {
                self.devices.push(Device::new(key, incident));
                self.devices.len() - 1
            })
        });
        match index.and_then(|index| self.devices.get_mut(index)) {
            Some(device) => device.count(incident),
            None => self.others += 1,
        }
    }

    /// Whether one more device can be listed. One with nothing to tell for a while makes room.
    fn make_room(&mut self, limits: Limits, now: UnixSeconds) -> bool {
        if self.devices.len() < limits.devices {
            return true;
        }
        let idle =
            self.devices.iter().enumerate().filter(|(_, device)| device.idle(now, limits.digest_after));
        let oldest = idle.min_by_key(|(_, device)| device.last.at).map(|(index, _)| index);
        oldest.map(|index| self.devices.remove(index)).is_some()
    }

    fn digest(&mut self, account: &Text) -> Option<Digest> {
        let since = self.since.take()?;
        let mut devices = Vec::new();
        let mut count = self.others;
        for device in self.devices.iter_mut().filter(|device| device.count > 0) {
            count += device.count;
            let addresses = std::mem::take(&mut device.addresses).len();
            devices.push(DigestDevice {
                last: device.last.clone(),
                count: std::mem::take(&mut device.count),
                addresses,
            });
        }
        let others = std::mem::take(&mut self.others);
        Some(Digest { account: account.clone(), also: self.also.clone(), since, count, devices, others })
    }
}

impl Device {
    fn new(key: (Text, Class), incident: &Incident) -> Self {
        Self { key, last: incident.clone(), count: 0, addresses: HashSet::new() }
    }

    /// Nothing waits to be told, and nothing came for so many seconds.
    fn idle(&self, now: UnixSeconds, seconds: u64) -> bool {
        self.count == 0 && now.saturating_sub(self.last.at) >= seconds
    }

    fn count(&mut self, incident: &Incident) {
        self.count += 1;
        self.last.clone_from(incident);
        if self.addresses.len() < DigestDevice::ADDRESSES {
            let mut hasher = DefaultHasher::new();
            incident.address.hash(&mut hasher);
            self.addresses.insert(hasher.finish());
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use mail::session::Protocol;
    use proptest::prelude::*;

    use super::*;
    use crate::alert::What;
    use crate::event::Reason;

    /// A stranger at the door.
    pub(crate) fn incident(account: &str, device: &str, at: UnixSeconds) -> Incident {
        Incident {
            at,
            account: account.into(),
            also: vec![],
            device: device.into(),
            alias: Some("k3x9qa".into()),
            page: Some("Zm9v".into()),
            protocol: Protocol::Imap,
            traits: policy::Traits { os: "Linux".into(), ..policy::Traits::default() },
            clientid: None,
            address: "208.53.45.68".parse().unwrap(),
            country: Some("US".into()),
            what: What::Refused(Reason::UnknownDevice),
        }
    }

    #[test]
    fn ten_thousand_attempts_make_one_mail_and_one_digest() {
        let mut ledger = Ledger::new(Limits::default());
        let mut told = 0;
        for number in 0..10_000 {
            let at = 1_000 + number / 10;
            told += usize::from(ledger.note(&incident("ann@example.net", "stranger", at), at) == Answer::Now);
            assert!(ledger.due(at).is_empty());
        }
        assert_eq!(told, 1);
        let digests = ledger.due(1_000 + HOUR);
        assert_eq!(digests.len(), 1);
        assert_eq!((digests[0].count, digests[0].devices[0].count, digests[0].others), (9_999, 9_999, 0));
        assert_eq!(digests[0].devices[0].addresses, 1);
        assert!(ledger.due(1_000 + 100 * HOUR).is_empty(), "and nothing after it");
        assert!(ledger.is_empty(), "and it is forgotten");
    }

    #[test]
    fn ten_thousand_identities_do_not_make_ten_thousand_mails() {
        let mut ledger = Ledger::new(Limits::default());
        let note = |ledger: &mut Ledger, number: u64| {
            ledger.note(&incident("ann@example.net", &format!("stranger {number}"), 1_000), 1_000)
        };
        let told = (0..10_000).filter(|number| note(&mut ledger, *number) == Answer::Now).count();
        assert_eq!(told, 3);
        let digests = ledger.due(1_000 + HOUR);
        assert_eq!(digests.len(), 1);
        assert_eq!(digests[0].count, 9_997);
        assert!(digests[0].devices.len() <= 4);
        let listed: u64 = digests[0].devices.iter().map(|device| device.count).sum();
        assert_eq!(listed + digests[0].others, 9_997);
    }

    #[test]
    fn a_second_device_and_a_known_password_are_news() {
        let mut ledger = Ledger::new(Limits::default());
        assert_eq!(ledger.note(&incident("ann", "one", 1), 1), Answer::Now);
        assert_eq!(ledger.note(&incident("ann", "two", 2), 2), Answer::Now);
        assert_eq!(ledger.note(&incident("bob", "one", 3), 3), Answer::Now);
        let known = Incident { what: What::PasswordKnown, ..incident("ann", "one", 4) };
        assert_eq!(ledger.note(&known, 4), Answer::Now);
        assert_eq!(ledger.note(&known, 5), Answer::Later);
    }

    #[test]
    fn digests_become_rarer_while_it_goes_on() {
        let mut ledger = Ledger::new(Limits::default());
        let mut times = Vec::new();
        for minute in 0..3 * 24 * 60 {
            let now = minute * 60;
            let answer = ledger.note(&incident("ann", "stale phone", now), now);
            assert_eq!(answer == Answer::Now, minute == 0, "minute {minute}");
            times.extend(ledger.due(now).iter().map(|_| minute / 60));
        }
        assert_eq!(times, [1, 3, 7, 15, 31, 55]);
    }

    #[test]
    fn quiet_for_a_day_is_news_again() {
        let mut ledger = Ledger::new(Limits::default());
        let mut told = Vec::new();
        for hour in 0..80_u64 {
            let now = hour * HOUR;
            assert!(ledger.due(now).is_empty());
            if [0, 40, 70].contains(&hour) && ledger.note(&incident("ann", "phone", now), now) == Answer::Now
            {
                told.push(hour);
            }
        }
        assert_eq!(told, [0, 40, 70]);
    }

    #[test]
    fn nobody_is_told_twice_in_an_hour() {
        let mut ledger = Ledger::new(Limits { firsts: 100, ..Limits::default() });
        let mut told = std::collections::HashMap::new();
        for second in 0..3_000 {
            let device = format!("device {}", second % 10);
            if ledger.note(&incident("ann", &device, second), second) == Answer::Now {
                *told.entry(device).or_insert(0) += 1;
            }
        }
        assert_eq!(told.into_values().collect::<Vec<_>>(), [1; 4]);
    }

    #[test]
    fn an_account_has_a_day() {
        let limits =
            Limits { digest_after: 60, digest_longest: 60, mails_per_account: 5, ..Limits::default() };
        let mut ledger = Ledger::new(limits);
        let (mut mails, mut counted) = (Vec::new(), 0);
        for minute in 0..2 * 24 * 60 {
            let now = minute * 60;
            // A new device each time.
            if ledger.note(&incident("ann", &minute.to_string(), now), now) == Answer::Now {
                mails.push(minute / (24 * 60));
                counted += 1;
            }
            for digest in ledger.due(now) {
                mails.push(minute / (24 * 60));
                counted += digest.count;
            }
        }
        assert_eq!(mails, [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]);
        counted += ledger.close().iter().map(|digest| digest.count).sum::<u64>();
        assert_eq!(counted, 2 * 24 * 60, "nothing is lost");
    }

    #[test]
    fn the_box_has_a_budget_and_says_so_once_an_hour() {
        let limits = Limits { mails_per_hour: 10, ..Limits::default() };
        let mut ledger = Ledger::new(limits);
        let answers: Vec<_> =
            (0..100).map(|number| ledger.note(&incident(&format!("user{number}"), "bot", 5), 5)).collect();
        assert_eq!(answers.iter().filter(|answer| **answer == Answer::Now).count(), 10);
        assert_eq!(answers.iter().filter(|answer| **answer == Answer::Throttled).count(), 1);
        // The ninety others come as digests, ten an hour; nobody is forgotten.
        let sent: usize = (1..=9).map(|hour| ledger.due(5 + hour * HOUR).len()).sum();
        assert_eq!(sent, 90);
    }

    #[test]
    fn accounts_are_bounded() {
        let limits = Limits { accounts: 50, ..Limits::default() };
        let mut ledger = Ledger::new(limits);
        for number in 0..1_000 {
            ledger.note(&incident(&format!("user{number}"), "bot", 5), 5);
        }
        assert_eq!(ledger.len(), 50);
        // A day later there is room again.
        let later = 5 + 25 * HOUR;
        assert_eq!(ledger.note(&incident("late", "bot", later), later), Answer::Now);
        assert_eq!(ledger.len(), 1);
    }

    proptest! {
        /// Whatever comes, in whatever order: nothing is told twice, nothing counted is lost, memory is bounded.
        #[test]
        fn every_incident_is_told_or_counted(steps in proptest::collection::vec((0_u8..6, 0_u8..9, 0_u64..5_000), 1..400)) {
            let limits = Limits { accounts: 4, mails_per_hour: 5, ..Limits::default() };
            let mut ledger = Ledger::new(limits);
            let (mut now, mut told, mut later, mut dropped, mut summed) = (0, 0_u64, 0_u64, 0_u64, 0_u64);
            for (account, device, wait) in steps {
                now += wait;
                summed += ledger.due(now).iter().map(|digest| digest.count).sum::<u64>();
                let (before, name) = (ledger.accounts.len(), format!("user{account}"));
                let room = ledger.accounts.contains_key(&Text::from(name.as_str()))
                    || before < limits.accounts
                    || ledger.accounts.values().any(|entry| entry.forgettable(now, limits.quiet_after));
                match ledger.note(&incident(&name, &device.to_string(), now), now) {
                    Answer::Now => told += 1,
                    _ if room => later += 1,
                    _ => dropped += 1,
                }
                prop_assert!(ledger.len() <= limits.accounts);
                prop_assert!(ledger.accounts.values().all(|entry| entry.devices.len() <= limits.devices));
            }
            summed += ledger.close().iter().map(|digest| digest.count).sum::<u64>();
            prop_assert_eq!(summed, later, "told {}, dropped {}", told, dropped);
        }
    }
}

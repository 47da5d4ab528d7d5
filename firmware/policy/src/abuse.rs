//! First line of defence against guessing: budgets for failed logins, in tables of fixed size.
//!
//! Failures are charged to (account, device, network), never to an address alone, so that one stale phone cannot lock out
//! its office and a stranger cannot lock out an owner:
//! - An approved device has a budget of its own, in a table strangers cannot touch.
//! - A source that has logged in to this account before (without a device's proof) has one too, in a second table.
//! - Everybody else shares the fate of their network: IPv4 by address, then by /24; IPv6 by /64, then by /48.
//! - An account that is guessed at from everywhere is never refused for it: answers to strangers only get slower, and
//!   [`Guard::under_attack`] says so, for an alert.
//!
//! The same wrong password again is a stale phone, not a guess, and is counted once.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use ipnet::IpNet;

pub use crate::table::Rate;
use crate::table::{Eviction, Table};

/// Whether a login may be tried.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Budget {
    /// Go on.
    Ok,
    /// Fail it like any other failure, without asking policy or backend.
    Exhausted {
        /// Milliseconds until one more try fits. For logs and events, never for the peer.
        retry_after: u64,
    },
}

/// Who tries to log in.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    /// The canonical account name, whether it exists or not.
    pub account: &'a str,
    /// The alias of the approved device that the session's CLIENTID belongs to. `None` for everybody else, also for
    /// tokens nobody approved: a stranger makes up as many of those as he likes. Weak identities can be imitated: give
    /// `None` for them as well.
    pub device: Option<&'a str>,
    /// The client's address.
    pub address: IpAddr,
}

/// The budgets. The defaults suit a small provider with carrier-grade NAT among its customers.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Different wrong passwords from one source for one account: a person remembers within ten.
    pub source: Rate,
    /// From one IPv4 address or IPv6 /64, over all accounts.
    pub network: Rate,
    /// From one IPv4 /24 or IPv6 /48, over all accounts.
    pub neighbourhood: Rate,
    /// For one account, from strangers everywhere. Slows answers, refuses nobody.
    pub account: Rate,
    /// Strangers' (account, network) pairs remembered.
    pub sources: usize,
    /// Networks and neighbourhoods remembered.
    pub networks: usize,
    /// Accounts remembered.
    pub accounts: usize,
    /// Approved devices' budgets remembered.
    pub devices: usize,
    /// Sources with an earlier success remembered.
    pub proven: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const MINUTE: u64 = 60_000;
        Self {
            source: Rate { burst: 10, every_ms: 6 * MINUTE },
            network: Rate { burst: 40, every_ms: MINUTE },
            neighbourhood: Rate { burst: 160, every_ms: MINUTE / 4 },
            account: Rate { burst: 30, every_ms: 2 * MINUTE },
            sources: 65_536,
            networks: 65_536,
            accounts: 32_768,
            devices: 65_536,
            proven: 65_536,
        }
    }
}

/// All budgets of failed logins. Times are milliseconds of any clock that does not go back.
#[derive(Debug)]
pub struct Guard {
    limits: Limits,
    allowed: Vec<IpNet>,
    seed: [u64; 2],
    sources: Table,
    networks: Table,
    accounts: Table,
    devices: Table,
    proven: Table,
}

/// Bad logins one connection may have (identical ones count too: a connection ends at some time).
pub const FAILURES_PER_CONNECTION: u8 = 5;

/// The highest [`Guard::delay_step`].
pub const MAX_DELAY_STEP: u32 = 5;

impl Guard {
    /// `allowed`: networks that are never charged (monitors, webmail, offices the operator vouches for). `seed`: random and
    /// secret, so that nobody can aim at somebody else's slot.
    pub fn new(limits: Limits, allowed: Vec<IpNet>, seed: [u64; 2]) -> Self {
        Self {
            sources: Table::new(limits.sources, Eviction::Coolest),
            networks: Table::new(limits.networks, Eviction::Coolest),
            accounts: Table::new(limits.accounts, Eviction::Coolest),
            devices: Table::new(limits.devices, Eviction::Unused),
            proven: Table::new(limits.proven, Eviction::Unused),
            limits,
            allowed,
            seed,
        }
    }

    /// The most octets the tables can ever take: 33 a budget; 9.5 MB with the default limits. Sets are allocated when
    /// first used: a quiet box has a 0.3 MB index and next to nothing in it.
    pub fn max_bytes(&self) -> usize {
        [&self.sources, &self.networks, &self.accounts, &self.devices, &self.proven]
            .into_iter()
            .map(Table::max_bytes)
            .sum()
    }

    /// Replaces the allow-list, when settings change.
    pub fn set_allowed(&mut self, allowed: Vec<IpNet>) {
        self.allowed = allowed;
    }

    /// Whether this source may try now. Charges nothing.
    pub fn check(&self, key: &Key<'_>, now: u64) -> Budget {
        if self.is_allowed(key.address) {
            return Budget::Ok;
        }
        let hashes = self.hashes(key);
        let wait = match self.own(key, &hashes) {
            Some(tat) => self.limits.source.wait(tat, 1, now),
            None => [
                self.limits.source.wait(self.sources.tat(hashes.source), 1, now),
                self.limits.network.wait(self.networks.tat(hashes.network), 1, now),
                self.limits.neighbourhood.wait(self.networks.tat(hashes.neighbourhood), 1, now),
            ]
            .into_iter()
            .max()
            .unwrap_or(0),
        };
        if wait == 0 { Budget::Ok } else { Budget::Exhausted { retry_after: wait } }
    }

    /// A login failed, whatever the cause. `secret_tag`: the low 12 bits of a keyed hash of the password. True if it
    /// was charged: false for a repeated password and for allowed networks (count and alert only on true).
    pub fn failure(&mut self, key: &Key<'_>, secret_tag: u16, now: u64) -> bool {
        if self.is_allowed(key.address) {
            return false;
        }
        let hashes = self.hashes(key);
        let rate = self.limits.source;
        let own = if key.device.is_some() {
            self.devices.entry(hashes.device, rate, now)
        } else {
            self.proven.get_mut(hashes.source)
        };
        if let Some(slot) = own {
            if slot.repeats(secret_tag) {
                return false;
            }
            slot.tat = rate.charge(slot.tat, 1, now);
            return true;
        }
        if let Some(slot) = self.sources.entry(hashes.source, rate, now) {
            if slot.repeats(secret_tag) {
                return false;
            }
            slot.tat = rate.charge(slot.tat, 1, now);
        }
        charge(&mut self.networks, hashes.network, self.limits.network, now);
        charge(&mut self.networks, hashes.neighbourhood, self.limits.neighbourhood, now);
        charge(&mut self.accounts, hashes.account, self.limits.account, now);
        true
    }

    /// A login succeeded: its source starts afresh, and from now on has a budget that its network cannot drain. The network's
    /// own budget is not given back, or whoever has one valid account could guess at all others.
    pub fn success(&mut self, key: &Key<'_>, now: u64) {
        let hashes = self.hashes(key);
        let own = if key.device.is_some() {
            self.devices.entry(hashes.device, self.limits.source, now)
        } else {
            self.proven.entry(hashes.source, self.limits.source, now)
        };
        if let Some(slot) = own {
            slot.clear();
        }
        if let Some(slot) = self.sources.get_mut(hashes.source) {
            slot.clear();
        }
    }

    /// How much longer than usual the answer to a failure should take, in steps from 0 to [`MAX_DELAY_STEP`]: one more each
    /// time the charges that are not back yet double. Known sources answer for themselves, strangers also for their network
    /// and for what their account suffers.
    pub fn delay_step(&self, key: &Key<'_>, now: u64) -> u32 {
        if self.is_allowed(key.address) {
            return 0;
        }
        let hashes = self.hashes(key);
        let outstanding = match self.own(key, &hashes) {
            Some(tat) => self.limits.source.outstanding(tat, now),
            None => self
                .limits
                .source
                .outstanding(self.sources.tat(hashes.source), now)
                .max(self.limits.network.outstanding(self.networks.tat(hashes.network), now) / 4)
                .max(self.limits.account.outstanding(self.accounts.tat(hashes.account), now) / 2),
        };
        outstanding.checked_ilog2().map_or(0, |log| log.min(MAX_DELAY_STEP))
    }

    /// Whether strangers have spent the account's whole budget: a botnet that tries once per address looks like this.
    pub fn under_attack(&self, account: &str, now: u64) -> bool {
        let hash = self.hash(&(Kind::Account, account));
        self.limits.account.wait(self.accounts.tat(hash), 1, now) > 0
    }

    fn is_allowed(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.allowed.iter().any(|network| network.contains(&address))
    }

    /// The budget of a known device or source.
    fn own(&self, key: &Key<'_>, hashes: &Hashes) -> Option<u64> {
        if key.device.is_some() {
            Some(self.devices.tat(hashes.device))
        } else {
            self.proven.get(hashes.source).map(|slot| slot.tat)
        }
    }

    fn hashes(&self, key: &Key<'_>) -> Hashes {
        let network = network(key.address);
        Hashes {
            device: self.hash(&(Kind::Device, key.account, key.device, network)),
            source: self.hash(&(Kind::Source, key.account, network)),
            network: self.hash(&(Kind::Network, network)),
            neighbourhood: self.hash(&(Kind::Neighbourhood, neighbourhood(key.address))),
            account: self.hash(&(Kind::Account, key.account)),
        }
    }

    fn hash(&self, value: &impl Hash) -> u64 {
        // SipHash-1-3 (std's DefaultHasher), keyed by hashing the secret seed first.
        let mut hasher = DefaultHasher::new();
        self.seed.hash(&mut hasher);
        value.hash(&mut hasher);
        hasher.finish()
    }
}

/// What a failure is charged to.
struct Hashes {
    device: u64,
    source: u64,
    network: u64,
    neighbourhood: u64,
    account: u64,
}

#[derive(Hash)]
enum Kind {
    Device,
    Source,
    Network,
    Neighbourhood,
    Account,
}

fn charge(table: &mut Table, hash: u64, rate: Rate, now: u64) {
    if let Some(slot) = table.entry(hash, rate, now) {
        slot.tat = rate.charge(slot.tat, 1, now);
    }
}

/// The network a client answers for: its IPv4 address, or its IPv6 /64 (one subscriber).
pub fn network(address: IpAddr) -> IpNet {
    truncate(address, 32, 64)
}

/// The wider network: IPv4 /24, IPv6 /48 (one site).
pub fn neighbourhood(address: IpAddr) -> IpNet {
    truncate(address, 24, 48)
}

fn truncate(address: IpAddr, v4: u8, v6: u8) -> IpNet {
    let address = address.to_canonical();
    let prefix = if address.is_ipv4() { v4 } else { v6 };
    IpNet::new(address, prefix).map_or_else(|_| IpNet::from(address), |network| network.trunc())
}

/// Counts the bad logins of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Connection {
    failures: u8,
}

impl Connection {
    /// One more failure; true if it was the last this connection may have.
    #[must_use]
    pub fn failure(&mut self) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.failures >= FAILURES_PER_CONNECTION
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000;
    const HOUR: u64 = 3_600 * SECOND;

    fn guard() -> Guard {
        Guard::new(Limits::default(), vec!["198.51.100.0/24".parse().unwrap()], [1, 2])
    }

    fn key<'a>(account: &'a str, address: &str) -> Key<'a> {
        Key { account, device: None, address: address.parse().unwrap() }
    }

    fn is_ok(guard: &Guard, key: &Key<'_>, now: u64) -> bool {
        guard.check(key, now) == Budget::Ok
    }

    #[test]
    fn ten_guesses_and_then_one_every_six_minutes() {
        let mut guard = guard();
        let key = key("ann@example.net", "192.0.2.1");
        for guess in 0..10 {
            assert!(is_ok(&guard, &key, 0), "{guess}");
            assert!(guard.failure(&key, guess, 0));
        }
        assert_eq!(guard.check(&key, 0), Budget::Exhausted { retry_after: 360 * SECOND });
        assert!(!is_ok(&guard, &key, 360 * SECOND - 1));
        assert!(is_ok(&guard, &key, 360 * SECOND));
    }

    #[test]
    fn hammering_on_a_spent_budget_is_forgiven_in_bounded_time() {
        let mut guard = guard();
        let key = key("ann@example.net", "192.0.2.1");
        for guess in 0..4_000 {
            let _ = guard.failure(&key, guess, 0);
        }
        assert!(!is_ok(&guard, &key, HOUR));
        assert!(is_ok(&guard, &key, 2 * HOUR));
    }

    #[test]
    fn a_stale_phone_repeats_itself_and_is_counted_once() {
        let mut guard = guard();
        let phone = key("ann@example.net", "192.0.2.1");
        assert!(guard.failure(&phone, 7, 0));
        for try_ in 1..10_000 {
            assert!(!guard.failure(&phone, 7, try_ * SECOND));
        }
        assert!(is_ok(&guard, &phone, 10_000 * SECOND));
        assert!(is_ok(&guard, &key("bob@example.net", "192.0.2.1"), 10_000 * SECOND));
    }

    #[test]
    fn an_office_behind_one_address_survives_one_bad_phone() {
        let mut guard = guard();
        let office = "192.0.2.1";
        // Bob has logged in from here before, without a CLIENTID; Cid's phone is approved; Dora is new.
        guard.success(&key("bob@example.net", office), 0);
        let cid = Key { device: Some("cidpho"), ..key("cid@example.net", office) };
        // Ann's phone goes wild and spends the whole office's budget.
        for guess in 0..4_000 {
            let _ = guard.failure(&key("ann@example.net", office), guess, 0);
        }
        assert!(is_ok(&guard, &key("bob@example.net", office), 0));
        assert!(is_ok(&guard, &cid, 0));
        // Dora mistypes and still gets in: failures without end for one account are one source.
        let mut one_account = self::guard();
        for guess in 0..30 {
            let _ = one_account.failure(&key("ann@example.net", office), guess, 0);
        }
        assert!(is_ok(&one_account, &key("dora@example.net", office), 0));
    }

    #[test]
    fn an_attacker_cannot_drain_the_owners_device() {
        let mut guard = guard();
        let owner = Key { device: Some("abcdef"), ..key("ann@example.net", "192.0.2.9") };
        // From everywhere, from the owner's own address, and without end.
        for n in 0..200_000_u32 {
            let address = IpAddr::from(n.to_be_bytes());
            let _ = guard.failure(&Key { account: "ann@example.net", device: None, address }, 1, 0);
            let _ = guard.failure(&key("ann@example.net", "192.0.2.9"), (n & 0xfff) as u16, 0);
        }
        assert!(is_ok(&guard, &owner, 0));
        assert_eq!(guard.delay_step(&owner, 0), 0);
    }

    #[test]
    fn a_botnet_that_tries_once_per_address_is_seen_slowed_and_locks_nobody_out() {
        let mut guard = guard();
        for n in 0..5_000_u32 {
            let address = IpAddr::from((0x0a00_0000 + n * 256).to_be_bytes());
            let _ = guard.failure(
                &Key { account: "ann@example.net", device: None, address },
                (n & 0xfff) as u16,
                0,
            );
        }
        assert!(guard.under_attack("ann@example.net", 0));
        assert!(!guard.under_attack("bob@example.net", 0));
        let new_place = key("ann@example.net", "203.0.113.5");
        assert!(is_ok(&guard, &new_place, 0));
        assert!(guard.delay_step(&new_place, 0) >= 4);
        assert_eq!(guard.delay_step(&key("bob@example.net", "203.0.113.5"), 0), 0);
    }

    #[test]
    fn spraying_one_password_over_many_accounts_is_charged_to_the_network() {
        let mut guard = guard();
        for n in 0..40 {
            let account = format!("user{n}@example.net");
            assert!(guard.failure(&key(&account, "192.0.2.1"), 7, 0));
        }
        assert!(!is_ok(&guard, &key("fresh@example.net", "192.0.2.1"), 0));
        assert!(is_ok(&guard, &key("fresh@example.net", "192.0.2.2"), 0));
        // The neighbours join in, four times over.
        for n in 0..160 {
            let account = format!("user{n}@example.net");
            let _ = guard.failure(&key(&account, &format!("192.0.2.{}", 10 + n % 8)), 7, 0);
        }
        assert!(!is_ok(&guard, &key("fresh@example.net", "192.0.2.200"), 0));
        assert!(is_ok(&guard, &key("fresh@example.net", "192.0.3.200"), 0));
    }

    #[test]
    fn ipv6_is_charged_by_subscriber() {
        let mut guard = guard();
        for guess in 0..10 {
            let _ = guard.failure(&key("ann@example.net", &format!("2001:db8::{guess:x}")), guess, 0);
        }
        assert!(!is_ok(&guard, &key("ann@example.net", "2001:db8::ffff"), 0));
        assert!(is_ok(&guard, &key("ann@example.net", "2001:db8:0:1::1"), 0));
        assert_eq!(network("2001:db8::1".parse().unwrap()).to_string(), "2001:db8::/64");
        assert_eq!(network("::ffff:192.0.2.1".parse().unwrap()).to_string(), "192.0.2.1/32");
        assert_eq!(neighbourhood("192.0.2.1".parse().unwrap()).to_string(), "192.0.2.0/24");
    }

    #[test]
    fn the_allow_list_always_wins() {
        let mut guard = guard();
        let webmail = key("ann@example.net", "198.51.100.3");
        for guess in 0..4_000 {
            assert!(!guard.failure(&webmail, guess, 0));
        }
        assert!(is_ok(&guard, &webmail, 0));
        assert_eq!(guard.delay_step(&webmail, 0), 0);
        // Even for a source charged before it was listed.
        let office = key("ann@example.net", "192.0.2.1");
        for guess in 0..20 {
            let _ = guard.failure(&office, guess, 0);
        }
        guard.set_allowed(vec!["192.0.2.0/24".parse().unwrap()]);
        assert!(is_ok(&guard, &office, 0));
    }

    #[test]
    fn a_flood_of_new_keys_washes_out_neither_attackers_nor_devices() {
        let small = Limits {
            sources: 1_024,
            networks: 1_024,
            accounts: 1_024,
            devices: 1_024,
            proven: 1_024,
            ..Limits::default()
        };
        let mut guard = Guard::new(small, vec![], [3, 4]);
        let bytes = guard.max_bytes();
        let attacker = key("ann@example.net", "192.0.2.1");
        let stolen = Key { device: Some("abcdef"), ..key("ann@example.net", "192.0.2.2") };
        let regular = key("ann@example.net", "192.0.2.3");
        guard.success(&regular, 0);
        for guess in 0..10 {
            let _ = guard.failure(&attacker, guess, 0);
            let _ = guard.failure(&stolen, guess, 0);
        }
        for n in 0..100_000_u32 {
            let account = format!("{n}@example.net");
            let address = IpAddr::from((0x1400_0000 + n * 256).to_be_bytes());
            let _ = guard.failure(&Key { account: &account, device: None, address }, 1, 1);
        }
        assert!(!is_ok(&guard, &attacker, 1));
        assert!(!is_ok(&guard, &stolen, 1));
        // What the regular is known for survives too: spend his network, he still gets in.
        for n in 0..100 {
            let account = format!("user{n}@example.net");
            let _ = guard.failure(&key(&account, "192.0.2.3"), 1, 1);
        }
        assert!(!is_ok(&guard, &key("new@example.net", "192.0.2.3"), 1));
        assert!(is_ok(&guard, &regular, 1));
        assert_eq!(guard.max_bytes(), bytes);
        assert!(bytes <= 5 * 1_024 * 33, "{bytes}");
        assert!(self::guard().max_bytes() < 10_000_000);
    }

    #[test]
    fn answers_slow_down_with_repeats_and_recover() {
        let mut guard = guard();
        let key = key("ann@example.net", "192.0.2.1");
        let mut steps = vec![guard.delay_step(&key, 0)];
        for guess in 0..40 {
            let _ = guard.failure(&key, guess, 0);
            steps.push(guard.delay_step(&key, 0));
        }
        assert!(steps.is_sorted());
        assert_eq!((steps[0], steps[1], steps[2]), (0, 0, 1));
        assert!(steps[40] >= 4 && steps[40] <= MAX_DELAY_STEP);
        assert_eq!(guard.delay_step(&key, 24 * HOUR), 0);
    }

    #[test]
    fn success_starts_the_source_afresh_but_not_its_network() {
        let mut guard = guard();
        for n in 0..40 {
            let _ = guard.failure(&key(&format!("user{n}@example.net"), "192.0.2.1"), 7, 0);
        }
        guard.success(&key("mallory@example.net", "192.0.2.1"), 0);
        assert!(is_ok(&guard, &key("mallory@example.net", "192.0.2.1"), 0));
        assert!(!is_ok(&guard, &key("ann@example.net", "192.0.2.1"), 0));
    }

    #[test]
    fn a_connection_has_five_chances() {
        let mut connection = Connection::default();
        let last: Vec<_> = (0..6).map(|_| connection.failure()).collect();
        assert_eq!(last, [false, false, false, false, true, true]);
    }
}

//! Refused attempts at accounts nobody has logged in to yet. Kept in memory only: names of accounts cost a stranger nothing,
//! and must not cost us disk.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use policy::abuse::neighbourhood;
use policy::device::{Alias, Mark, Sighting};
use policy::login::Traits;

use crate::devices::{Noted, alias, effective, shares_mark};
use crate::record::{Attempt, mac};

/// Attempts remembered, about 1 KiB each at most.
const MAX: usize = 1_024;
/// Of them, from one IPv4 /24 or IPv6 /48.
const PER_NETWORK: usize = 16;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Strangers(Mutex<VecDeque<(String, Attempt)>>);

impl Strangers {
    pub(crate) fn note(
        &self,
        account: &str,
        marks: &[Mark],
        traits: &Traits,
        sighting: &Sighting,
    ) -> Option<Noted> {
        let marks = effective(marks);
        let first = mac(marks.first()?)?;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known =
            all.iter_mut().find(|(name, attempt)| name == account && shares_mark(&attempt.marks, &marks));
        if let Some((_, attempt)) = known {
            attempt.count = attempt.count.saturating_add(1);
            attempt.last_seen = Some(sighting.clone());
            return Some(Noted { alias: attempt.alias.clone(), new: false, count: attempt.count });
        }
        let near = |attempt: &Attempt| {
            let address = attempt.last_seen.as_ref().and_then(|sighting| sighting.address);
            address.map(neighbourhood) == sighting.address.map(neighbourhood)
        };
        if all.iter().filter(|(_, attempt)| near(attempt)).count() >= PER_NETWORK
            && let Some(oldest) = all.iter().position(|(_, attempt)| near(attempt))
        {
            all.remove(oldest);
        }
        if all.len() >= MAX {
            all.pop_front();
        }
        let attempt = Attempt {
            alias: alias(&first, 0),
            marks: marks.into_iter().take(1).collect(),
            traits: traits.clone(),
            first_seen: sighting.at,
            last_seen: Some(sighting.clone()),
            count: 1,
            password_known: None,
        };
        let noted = Noted { alias: attempt.alias.clone(), new: true, count: 1 };
        all.push_back((account.to_owned(), attempt));
        Some(noted)
    }

    /// The attempts at one account, newest first.
    pub(crate) fn of(&self, account: &str) -> Vec<Attempt> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().rev().filter(|(name, _)| name == account).map(|(_, attempt)| attempt.clone()).collect()
    }

    /// Takes one out.
    pub(crate) fn take(&self, account: &str, alias: &Alias) -> Option<Attempt> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = all.iter().position(|(name, attempt)| name == account && attempt.alias == *alias)?;
        all.remove(at).map(|(_, attempt)| attempt)
    }

    /// Puts one back that could not be recorded.
    pub(crate) fn put_back(&self, account: &str, attempt: Attempt) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back((account.to_owned(), attempt));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::hex;

    #[test]
    fn one_network_displaces_only_itself() {
        let strangers = Strangers::default();
        let note = |account: &str, n: u32, address: [u8; 4]| {
            let mut raw = [0; 32];
            raw[..4].copy_from_slice(&n.to_be_bytes());
            let mark = Mark::Cluster { mac: hex(&raw) };
            let sighting =
                Sighting { at: 1, protocol: "imap".into(), address: Some(address.into()), country: None };
            strangers.note(account, &[mark], &Traits::default(), &sighting).unwrap()
        };
        let owner = note("new@example.net", 1, [192, 0, 2, 1]);
        assert!(owner.new && !note("new@example.net", 1, [192, 0, 2, 1]).new);
        for n in 2..5_000 {
            note(&format!("{n}@example.net"), n << 2, [198, 51, 100, n.to_be_bytes()[3]]);
        }
        assert_eq!(strangers.of("new@example.net").len(), 1);
        for n in 2..5_000_u32 {
            let [_, b, c, _] = (n << 8).to_be_bytes();
            note(&format!("{n}@example.net"), n << 2, [10, b, c, 1]);
        }
        assert!(strangers.0.lock().unwrap().len() <= MAX);
        assert!(strangers.take("4999@example.net", &alias(&[0; 32], 0)).is_none());
    }
}

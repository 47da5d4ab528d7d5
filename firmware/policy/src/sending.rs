//! How much one account may send: a hijacked mailbox must stop by itself, and be told of.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::abuse::Budget;
use crate::table::{Eviction, Rate, Table};

/// What one account may send. A budget refills evenly, so an account that was quiet may send up to twice a day's amount
/// within one day, never more.
#[derive(Clone, Copy, Debug)]
pub struct SendingLimits {
    /// Messages an hour.
    pub messages_per_hour: u32,
    /// Messages a day.
    pub messages_per_day: u32,
    /// Recipients an hour, over all messages.
    pub recipients_per_hour: u32,
    /// Recipients a day.
    pub recipients_per_day: u32,
    /// Accounts remembered.
    pub accounts: usize,
}

impl Default for SendingLimits {
    /// A busy person, not a newsletter: lists have accounts with limits of their own.
    fn default() -> Self {
        Self {
            messages_per_hour: 200,
            messages_per_day: 1_000,
            recipients_per_hour: 500,
            recipients_per_day: 2_000,
            accounts: 65_536,
        }
    }
}

/// Sending budgets of all accounts, in tables of fixed size. Times are milliseconds of any clock that does not go back.
#[derive(Debug)]
pub struct SendingBudget {
    seed: [u64; 2],
    budgets: [(Count, Rate, Table); 4],
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Count {
    Messages,
    Recipients,
}

impl SendingBudget {
    /// `seed`: random and secret.
    pub fn new(limits: &SendingLimits, seed: [u64; 2]) -> Self {
        const HOUR: u64 = 3_600_000;
        let budget = |count, amount: u32, period: u64| {
            let rate = Rate { burst: amount, every_ms: (period / u64::from(amount.max(1))).max(1) };
            (count, rate, Table::new(limits.accounts, Eviction::Unused))
        };
        Self {
            seed,
            budgets: [
                budget(Count::Messages, limits.messages_per_hour, HOUR),
                budget(Count::Messages, limits.messages_per_day, 24 * HOUR),
                budget(Count::Recipients, limits.recipients_per_hour, HOUR),
                budget(Count::Recipients, limits.recipients_per_day, 24 * HOUR),
            ],
        }
    }

    /// Takes one message to `recipients` from the account's budgets, or from none of them if it does not fit in all. Ask
    /// before DATA; a message that then fails at the backend stays counted.
    pub fn charge(&mut self, account: &str, recipients: u32, now: u64) -> Budget {
        let hash = self.hash(account);
        let cost = |count| match count {
            Count::Messages => 1,
            Count::Recipients => recipients,
        };
        let wait = self
            .budgets
            .iter()
            .map(|(count, rate, table)| rate.wait(table.tat(hash), cost(*count), now))
            .max();
        if let Some(retry_after) = wait.filter(|wait| *wait > 0) {
            return Budget::Exhausted { retry_after };
        }
        for (count, rate, table) in &mut self.budgets {
            let cost = cost(*count);
            if let Some(slot) = table.entry(hash, *rate, now) {
                slot.tat = rate.charge(slot.tat, cost, now);
            }
        }
        Budget::Ok
    }

    /// Forgives an account everything: its owner has changed the password.
    pub fn forgive(&mut self, account: &str) {
        let hash = self.hash(account);
        for (_, _, table) in &mut self.budgets {
            if let Some(slot) = table.get_mut(hash) {
                slot.clear();
            }
        }
    }

    /// The most octets the tables can ever take: 9 MB with the default limits, allocated as used.
    pub fn max_bytes(&self) -> usize {
        self.budgets.iter().map(|(_, _, table)| table.max_bytes()).sum()
    }

    fn hash(&self, account: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.seed.hash(&mut hasher);
        account.hash(&mut hasher);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    fn budget() -> SendingBudget {
        let limits = SendingLimits {
            messages_per_hour: 10,
            messages_per_day: 20,
            recipients_per_hour: 30,
            recipients_per_day: 100,
            accounts: 1_024,
        };
        SendingBudget::new(&limits, [1, 2])
    }

    #[test]
    fn a_hijacked_account_stops_and_others_go_on() {
        let mut budget = budget();
        for message in 0..10 {
            assert_eq!(budget.charge("ann", 1, 0), Budget::Ok, "{message}");
        }
        assert_eq!(budget.charge("ann", 1, 0), Budget::Exhausted { retry_after: HOUR / 10 });
        assert_eq!(budget.charge("bob", 1, 0), Budget::Ok);
        assert_eq!(budget.charge("ann", 1, HOUR / 10), Budget::Ok);
    }

    #[test]
    fn the_day_counts_too() {
        let mut budget = budget();
        let sent =
            (0..24 * 60).filter(|minute| budget.charge("ann", 1, minute * 60_000) == Budget::Ok).count();
        assert!((20..=40).contains(&sent), "{sent}");
    }

    #[test]
    fn recipients_count_and_a_refusal_takes_nothing() {
        let mut budget = budget();
        assert_eq!(budget.charge("ann", 29, 0), Budget::Ok);
        assert!(matches!(budget.charge("ann", 2, 0), Budget::Exhausted { .. }));
        for _ in 0..100 {
            assert!(matches!(budget.charge("ann", 31, 0), Budget::Exhausted { .. }), "more than fits ever");
        }
        assert_eq!(budget.charge("ann", 1, 0), Budget::Ok);
    }

    #[test]
    fn an_owner_can_be_forgiven() {
        let mut budget = budget();
        while budget.charge("ann", 1, 0) == Budget::Ok {}
        budget.forgive("ann");
        assert_eq!(budget.charge("ann", 1, 0), Budget::Ok);
        assert!(budget.max_bytes() < 4 * 1_024 * 34);
    }
}

//! A table of token buckets that never grows: sets of eight slots, found by a keyed hash, allocated when first used.

/// How fast a budget comes back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// Charges a full budget takes at once.
    pub burst: u32,
    /// Milliseconds until one charge comes back. At least 1.
    pub every_ms: u64,
}

impl Rate {
    /// The whole budget in milliseconds of refilling.
    const fn window(self) -> u64 {
        self.every_ms.saturating_mul(self.burst as u64)
    }

    /// Milliseconds until `cost` charges fit, 0 if they fit now (GCRA; `tat` is when the budget is full again).
    pub(crate) fn wait(self, tat: u64, cost: u32, now: u64) -> u64 {
        let after = tat.max(now).saturating_add(self.every_ms.saturating_mul(u64::from(cost)));
        after.saturating_sub(now.saturating_add(self.window()))
    }

    /// Takes `cost` charges, never running further into debt than one full budget: the punishment for hammering on a
    /// spent budget ends `2 × burst × every_ms` after the hammering does.
    pub(crate) fn charge(self, tat: u64, cost: u32, now: u64) -> u64 {
        tat.max(now)
            .saturating_add(self.every_ms.saturating_mul(u64::from(cost)))
            .min(now.saturating_add(self.window().saturating_mul(2)))
    }

    /// How many charges are not back yet.
    pub(crate) fn outstanding(self, tat: u64, now: u64) -> u64 {
        tat.saturating_sub(now).div_ceil(self.every_ms.max(1))
    }
}

/// One budget. 32 octets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slot {
    /// Keyed hash of what it is for; 0: free.
    hash: u64,
    /// When the budget is full again, in milliseconds.
    pub(crate) tat: u64,
    /// Last use.
    touched: u64,
    /// The last few wrong passwords, as 12 bits each with [`Slot::USED`]; 0: none.
    tags: [u16; 4],
}

impl Slot {
    const USED: u16 = 0x1000;

    /// Whether this wrong password is one of the last few; if not, it is now.
    pub(crate) fn repeats(&mut self, tag: u16) -> bool {
        let tag = (tag & 0x0fff) | Self::USED;
        if self.tags.contains(&tag) {
            return true;
        }
        self.tags.rotate_right(1);
        self.tags[0] = tag;
        false
    }

    /// Forgets every charge.
    pub(crate) fn clear(&mut self) {
        self.tat = 0;
        self.tags = [0; 4];
    }
}

/// Who gives way when a set is full.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Eviction {
    /// Strangers' budgets: what has cooled goes first, then the oldest of those with a single charge. A set of hotter
    /// ones takes nobody new, so a flood of fresh keys cannot wash out those who are being held back.
    Coolest,
    /// Budgets of known devices: always room for the newest, the one unused longest goes.
    Unused,
}

const WAYS: usize = 8;

/// See the module.
#[derive(Debug)]
pub(crate) struct Table {
    sets: Vec<Option<Box<[Slot; WAYS]>>>,
    eviction: Eviction,
}

impl Table {
    /// Room for `slots` budgets, rounded up to a power of two.
    pub(crate) fn new(slots: usize, eviction: Eviction) -> Self {
        let sets = (slots / WAYS).max(1).next_power_of_two();
        Self { sets: vec![None; sets], eviction }
    }

    /// The most octets it can ever take.
    pub(crate) fn max_bytes(&self) -> usize {
        self.sets.len() * (size_of::<Option<Box<[Slot; WAYS]>>>() + WAYS * size_of::<Slot>())
    }

    fn set(&self, hash: u64) -> usize {
        // The length is a power of two, so the low bits choose; the whole hash is compared within the set.
        usize::try_from(hash & (self.sets.len() as u64 - 1)).unwrap_or(0)
    }

    /// When the budget under `hash` is full again; 0 (that is: full) where there is none.
    pub(crate) fn tat(&self, hash: u64) -> u64 {
        self.get(hash).map_or(0, |slot| slot.tat)
    }

    pub(crate) fn get(&self, hash: u64) -> Option<&Slot> {
        let hash = hash.max(1);
        self.sets.get(self.set(hash))?.as_deref()?.iter().find(|slot| slot.hash == hash)
    }

    pub(crate) fn get_mut(&mut self, hash: u64) -> Option<&mut Slot> {
        let hash = hash.max(1);
        let set = self.set(hash);
        self.sets.get_mut(set)?.as_deref_mut()?.iter_mut().find(|slot| slot.hash == hash)
    }

    /// The budget under `hash`, made if need be; `None` when its set is full of those who must stay.
    pub(crate) fn entry(&mut self, hash: u64, rate: Rate, now: u64) -> Option<&mut Slot> {
        let hash = hash.max(1);
        let set = self.set(hash);
        let slots = self.sets.get_mut(set)?.get_or_insert_default();
        let at = if let Some(at) = slots.iter().position(|slot| slot.hash == hash) {
            at
        } else {
            let at = victim(slots, self.eviction, rate, now)?;
            slots[at] = Slot { hash, ..Slot::default() };
            at
        };
        let slot = slots.get_mut(at)?;
        slot.touched = now;
        Some(slot)
    }
}

/// The slot whose loss does least harm, if any may be lost.
fn victim(slots: &[Slot; WAYS], eviction: Eviction, rate: Rate, now: u64) -> Option<usize> {
    let may_go = |slot: &Slot| match eviction {
        Eviction::Unused => true,
        Eviction::Coolest => slot.hash == 0 || rate.outstanding(slot.tat, now) <= 1,
    };
    slots
        .iter()
        .enumerate()
        .filter(|(_, slot)| may_go(slot))
        .min_by_key(|(_, slot)| {
            let warm = eviction == Eviction::Coolest && slot.tat > now;
            (slot.hash != 0, warm, slot.touched)
        })
        .map(|(at, _)| at)
}

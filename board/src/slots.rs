//! Which firmware boots: two slots, one pure choice (design §7).
//!
//! The selector, init, the updater and the judge of power cuts share this file, so that all of them mean the same by
//! the same bytes. *Try once, then commit*: a new slot gets one boot, and whatever ends that boot, the next one is the
//! committed slot again unless the new one committed itself. Nothing here counts a healthy box out: three quick power
//! cycles change nothing, and the committed slot is never left silently for the other one.
//!
//! ```text
//! selector   Records::read → choose → put → load → start;  refused → Choice::refused → put → load → …
//! updater    writes the other slot, its header last → try_once → put → reboot
//! init       served → put, once every service answers; commit → put, once the trial has passed its gate
//! ```
//!
//! # The state partition
//! Two copies of one record; the one with the newer sequence number counts, the other one is written next. They lie
//! 64 KiB apart, so that no erase block of a card or eMMC's controller holds both.
//!
//! | byte | size | what |
//! | --- | --- | --- |
//! | 0 | 512 | copy 0 |
//! | 65536 | 512 | copy 1 |
//!
//! # The record
//! Little-endian. Slots are letters: `A`, `B`; a rescue system is `R`; 0 is none.
//!
//! | byte | size | what |
//! | --- | --- | --- |
//! | 0 | 8 | `PSTNSTAT` |
//! | 8 | 4 | format, 1 |
//! | 12 | 4 | sequence number, wraps |
//! | 16 | 1 | the committed slot |
//! | 17 | 1 | the slot to be tried at the next boot, or 0 |
//! | 18 | 1 | what was started last, or 0 |
//! | 19 | 1 | 1 if that was a trial |
//! | 20 | 4 | boots of the committed slot since one served |
//! | 24 | 484 | zero; ignored by readers |
//! | 508 | 4 | CRC-32C of bytes 0 to 507 |
//!
//! # The slot partition
//! A block of 4096 bytes, of which the first 512 are the header, then the signed EFI file. The header is one sector
//! and is written last: a slot half written has none. It says how much to read, never whom to trust; that is the
//! signature's part.
//!
//! | byte | size | what |
//! | --- | --- | --- |
//! | 0 | 8 | `PSTNSLOT` |
//! | 8 | 4 | format, 1 |
//! | 12 | 4 | zero |
//! | 16 | 8 | length of the EFI file |
//! | 24 | 32 | SHA-256 of the EFI file |
//! | 56 | 32 | version, printable ASCII, filled up with zeros |
//! | 88 | 420 | zero; ignored by readers |
//! | 508 | 4 | CRC-32C of bytes 0 to 507 |
//! | 512 | 3584 | anything; not read |
//! | 4096 | length | the EFI file |

mod header;
mod record;
#[cfg(test)]
mod tests;

pub use header::{SlotHeader, Version};
pub use record::{Damage, RECORD};
use record::{open, seal, u32_at};

/// Where the two copies of the state lie, from the start of their partition.
pub const COPIES: [u64; 2] = [0, 65536];

/// Where the EFI file begins, from the start of a slot's partition.
pub const PAYLOAD: u64 = 4096;

/// As many boots of the committed slot may end unserved; the next one starts rescue.
pub const UNSERVED: u32 = 8;

/// One of the two places for firmware.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Slot {
    /// `postern-a`.
    A,
    /// `postern-b`.
    B,
}

impl Slot {
    /// Both, in the order of the disk.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The one that is not this: where an update goes while this one runs.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// The name of its partition in the GPT.
    pub const fn partition(self) -> &'static str {
        match self {
            Self::A => "postern-a",
            Self::B => "postern-b",
        }
    }

    /// `a` or `b`, as stage lines say it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    const fn letter(self) -> u8 {
        match self {
            Self::A => b'A',
            Self::B => b'B',
        }
    }

    const fn from_letter(letter: u8) -> Option<Self> {
        match letter {
            b'A' => Some(Self::A),
            b'B' => Some(Self::B),
            _ => None,
        }
    }
}

/// What can be started.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Firmware {
    /// A slot's.
    Slot(Slot),
    /// The rescue system on the boot partition, as it left the factory.
    Rescue,
}

impl Firmware {
    /// `a`, `b` or `rescue`, as stage lines say it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Slot(slot) => slot.name(),
            Self::Rescue => "rescue",
        }
    }
}

/// What the box knows of its slots.
///
/// A value: transitions give a new one, and nothing has happened until [`Records::put`]'s bytes are on the disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct State {
    /// The slot that boots.
    pub committed: Slot,
    /// The slot that boots next time, once.
    pub trial: Option<Slot>,
    /// What was started last: on the running box, what runs. `None` until the first boot.
    pub running: Option<Firmware>,
    /// Whether that start was a trial.
    pub running_as_trial: bool,
    /// Boots of the committed slot since one of them served.
    pub unserved: u32,
}

impl State {
    /// A box on which `committed` was installed and nothing has happened yet.
    pub const fn new(committed: Slot) -> Self {
        Self { committed, trial: None, running: None, running_as_trial: false, unserved: 0 }
    }

    /// What is assumed when both records are damaged: slot A if its header can be read, else B if that can. If neither
    /// can, A is refused when it is loaded, and rescue follows. Whoever calls this must say that he did.
    pub const fn assumed(a_is_valid: bool, b_is_valid: bool) -> Self {
        Self::new(if b_is_valid && !a_is_valid { Slot::B } else { Slot::A })
    }

    /// Lets `slot` boot next time, once.
    #[must_use]
    pub const fn try_once(self, slot: Slot) -> Self {
        Self { trial: Some(slot), ..self }
    }

    /// Makes the slot that runs as a trial the one that boots. `None`: no trial is running, nothing to write.
    #[must_use]
    pub const fn commit(self) -> Option<Self> {
        match self.running {
            Some(Firmware::Slot(slot)) if self.running_as_trial => {
                Some(Self { committed: slot, running_as_trial: false, unserved: 0, ..self })
            }
            _ => None,
        }
    }

    /// Notes that what runs has served. `None`: nothing to write.
    ///
    /// A trial that serves says nothing of the committed slot, so it changes nothing until it commits. A rescue
    /// system that serves gives the committed slot its boots back: what kept it from serving may have been mended.
    #[must_use]
    pub const fn served(self) -> Option<Self> {
        if self.running_as_trial || self.unserved == 0 { None } else { Some(Self { unserved: 0, ..self }) }
    }

    fn encode(self, sequence: u32) -> [u8; RECORD] {
        let mut record = record::new(MAGIC);
        record[12..16].copy_from_slice(&sequence.to_le_bytes());
        record[16] = self.committed.letter();
        record[17] = self.trial.map_or(NONE, Slot::letter);
        record[18] = match self.running {
            None => NONE,
            Some(Firmware::Slot(slot)) => slot.letter(),
            Some(Firmware::Rescue) => RESCUE,
        };
        record[19] = u8::from(self.running_as_trial);
        record[20..24].copy_from_slice(&self.unserved.to_le_bytes());
        seal(record)
    }

    fn decode(record: &[u8]) -> Result<(u32, Self), Damage> {
        let record = open(record, MAGIC)?;
        let trial = match record[17] {
            NONE => None,
            letter => Some(Slot::from_letter(letter).ok_or(Damage::Value)?),
        };
        let running = match record[18] {
            NONE => None,
            RESCUE => Some(Firmware::Rescue),
            letter => Some(Firmware::Slot(Slot::from_letter(letter).ok_or(Damage::Value)?)),
        };
        let running_as_trial = match record[19] {
            0 => false,
            1 => true,
            _ => return Err(Damage::Value),
        };
        let committed = Slot::from_letter(record[16]).ok_or(Damage::Value)?;
        let state = Self { committed, trial, running, running_as_trial, unserved: u32_at(record, 20) };
        Ok((u32_at(record, 12), state))
    }
}

/// The state partition: two copies, the newer one counts, the other one is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Records {
    newest: Option<State>,
    sequence: u32,
    next: usize,
    damage: [Option<Damage>; 2],
}

impl Records {
    /// A partition on which nothing was written yet.
    pub const fn blank() -> Self {
        Self { newest: None, sequence: 0, next: 0, damage: [Some(Damage::Empty); 2] }
    }

    /// Reads both copies, each at least [`RECORD`] bytes long.
    ///
    /// Newer is what lies less than half of all sequence numbers ahead, so 0 is newer than `u32::MAX`.
    pub fn read(copies: [&[u8]; 2]) -> Self {
        let [first, second] = copies.map(State::decode);
        let damage = [first.err(), second.err()];
        let (newest, next) = match (first, second) {
            (Ok(first), Ok(second)) if is_newer(second.0, first.0) => (Some(second), 0),
            (Ok(first), _) => (Some(first), 1),
            (Err(_), Ok(second)) => (Some(second), 0),
            (Err(_), Err(_)) => (None, 0),
        };
        let sequence = newest.map_or(0, |(sequence, _)| sequence);
        Self { newest: newest.map(|(_, state)| state), sequence, next, damage }
    }

    /// The state that counts; `None` if both copies are damaged ([`State::assumed`] says what then).
    pub const fn newest(&self) -> Option<State> {
        self.newest
    }

    /// What is wrong with each copy. One damaged copy is what a power cut leaves behind.
    pub const fn damage(&self) -> [Option<Damage>; 2] {
        self.damage
    }

    /// Where to write which bytes so that `state` counts from then on: over the older copy, under the next sequence
    /// number. Write, flush, then act on it; if the write failed, read both copies anew.
    #[must_use]
    pub fn put(&mut self, state: State) -> (u64, [u8; RECORD]) {
        let at = self.next;
        self.sequence = self.sequence.wrapping_add(1);
        self.newest = Some(state);
        self.next = 1 - at;
        self.damage[at] = None;
        (COPIES[at], state.encode(self.sequence))
    }
}

/// What to start, and what to have on the disk before it is started.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Choice {
    /// What to start.
    pub firmware: Firmware,
    /// Why that.
    pub reason: Reason,
    /// To be written first. If a trial's cannot be written, it must not be started: it would be tried for ever.
    pub state: State,
}

/// Why something is started.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    /// It is to be tried once.
    Trial,
    /// It is the committed slot.
    Committed,
    /// The committed slot did not serve in [`UNSERVED`] boots.
    Unserved,
    /// The committed slot was refused, or came back.
    Refused,
}

impl Reason {
    /// In a few words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trial => "trial",
            Self::Committed => "committed",
            Self::Unserved => "the committed slot did not serve in 8 boots",
            Self::Refused => "the committed slot does not start",
        }
    }
}

/// The choice. Pure: the same state gives the same one.
pub fn choose(state: State) -> Choice {
    if let Some(slot) = state.trial {
        let firmware = Firmware::Slot(slot);
        let state = State { trial: None, running: Some(firmware), running_as_trial: true, ..state };
        return Choice { firmware, reason: Reason::Trial, state };
    }
    if state.unserved >= UNSERVED {
        return rescue(state, Reason::Unserved);
    }
    let firmware = Firmware::Slot(state.committed);
    let unserved = state.unserved + 1;
    let state = State { running: Some(firmware), running_as_trial: false, unserved, ..state };
    Choice { firmware, reason: Reason::Committed, state }
}

impl Choice {
    /// What comes next when this one was refused by the firmware, could not be read, or returned: after a trial the
    /// committed slot, after that rescue, after that nothing. Never the other slot.
    pub fn refused(&self) -> Option<Self> {
        match self.reason {
            Reason::Trial => Some(choose(self.state)),
            Reason::Committed => Some(rescue(self.state, Reason::Refused)),
            Reason::Unserved | Reason::Refused => None,
        }
    }
}

fn rescue(state: State, reason: Reason) -> Choice {
    let firmware = Firmware::Rescue;
    let state = State { running: Some(firmware), running_as_trial: false, ..state };
    Choice { firmware, reason, state }
}

const MAGIC: [u8; 8] = *b"PSTNSTAT";
const NONE: u8 = 0;
const RESCUE: u8 = b'R';

/// Whether `a` comes after `b`; numbers wrap.
const fn is_newer(a: u32, b: u32) -> bool {
    let ahead = a.wrapping_sub(b);
    ahead != 0 && ahead < 1 << 31
}

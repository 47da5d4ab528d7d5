//! The whole order, on a machine that keeps a record of what it was asked and can fail at each step.

extern crate std;
use std::string::{String, ToString};
use std::vec::Vec;

use board::slots::{UNSERVED, Version};

use super::*;
use crate::gpt::tests::disk;

/// Sectors of the test disk: slots of 8 KiB, the state's 128 KiB, and some more.
const LAST: u64 = 400;
const A: u64 = 40;
const B: u64 = 60;
const STATE: u64 = 80;

struct Fake {
    disk: Vec<[u8; SECTOR]>,
    /// Images that start; the others are refused.
    starts: Vec<Started>,
    /// What started, and the disk at that moment: what comes after happens on no machine, since nothing comes back.
    started: Option<(Started, Vec<[u8; SECTOR]>)>,
    said: Vec<String>,
    writes: usize,
    /// The write that tears, by number.
    torn: Option<usize>,
    writable: bool,
    armed: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Started {
    A,
    B,
    Rescue,
}

impl Machine for Fake {
    type Error = &'static str;

    fn last(&mut self) -> Result<u64, Self::Error> {
        if self.disk.is_empty() { Err("no disk") } else { Ok(self.disk.len() as u64 - 1) }
    }

    fn read(&mut self, lba: u64, into: &mut [u8; SECTOR]) -> Result<(), Self::Error> {
        *into = *self.disk.get(usize::try_from(lba).unwrap()).ok_or("DEVICE_ERROR")?;
        Ok(())
    }

    fn write(&mut self, lba: u64, sector: &[u8; SECTOR]) -> Result<(), Self::Error> {
        if !self.writable {
            return Err("WRITE_PROTECTED");
        }
        assert!([0, 128].map(|offset| STATE + offset).contains(&lba), "writes beside the state, at {lba}");
        self.writes += 1;
        let bytes = if self.torn == Some(self.writes) { 100 } else { SECTOR };
        self.disk[usize::try_from(lba).unwrap()][..bytes].copy_from_slice(&sector[..bytes]);
        Ok(())
    }

    fn watchdog(&mut self, seconds: usize) -> Result<(), Self::Error> {
        self.armed = seconds;
        Ok(())
    }

    fn start(&mut self, image: Image) -> Self::Error {
        let image = match image {
            Image::Slot(Partition { first: A, .. }, 1000) => Started::A,
            Image::Slot(Partition { first: B, .. }, 2000) => Started::B,
            Image::Rescue => Started::Rescue,
            Image::Slot(..) => panic!("{image:?}"),
        };
        assert_eq!(self.armed, WATCHDOG, "{image:?} without a watchdog");
        self.armed = 0;
        if self.started.is_none() && self.starts.contains(&image) {
            self.started = Some((image, self.disk.clone()));
        }
        "SECURITY_VIOLATION"
    }

    fn say(&mut self, line: fmt::Arguments<'_>) {
        self.said.push(line.to_string());
    }
}

impl Fake {
    fn new(state: Option<State>) -> Self {
        let partitions =
            [("postern-a", A, A + 15), ("postern-b", B, B + 15), ("postern-state", STATE, STATE + 255)];
        let mut disk = disk(LAST, &partitions);
        for (first, length, version) in [(A, 1000, "1.0.0"), (B, 2000, "1.1.0")] {
            let version = Version::new(version).unwrap();
            disk[usize::try_from(first).unwrap()] = SlotHeader { length, sha256: [0; 32], version }.encode();
        }
        let mut fake = Self {
            disk,
            starts: [Started::A, Started::B, Started::Rescue].into(),
            started: None,
            said: Vec::new(),
            writes: 0,
            torn: None,
            writable: true,
            armed: 0,
        };
        let mut records = Records::blank();
        for state in state.into_iter().flat_map(|state| [state, state]) {
            fake.put(records.put(state));
        }
        fake
    }

    fn put(&mut self, (offset, record): (u64, [u8; RECORD])) {
        self.disk[usize::try_from(STATE + offset / 512).unwrap()] = record;
    }

    /// Boots; gives what started, if anything.
    fn boot(&mut self) -> Option<Started> {
        self.said.clear();
        select(self);
        let (started, disk) = self.started.take()?;
        self.disk = disk;
        Some(started)
    }

    fn records(&self) -> Records {
        let at = |offset: u64| &self.disk[usize::try_from(STATE + offset).unwrap()][..];
        Records::read([at(0), at(128)])
    }

    fn state(&self) -> State {
        self.records().newest().unwrap()
    }

    fn said(&self, words: &str) -> bool {
        self.said.iter().any(|line| line.contains(words))
    }

    /// Boots with only `starts` able to start.
    fn boots(state: State, starts: &[Started]) -> (Option<Started>, Self) {
        let mut fake = Self::new(Some(state));
        fake.starts = starts.into();
        let started = fake.boot();
        (started, fake)
    }
}

#[test]
fn the_committed_slot_boots() {
    for (slot, started) in [(Slot::A, Started::A), (Slot::B, Started::B)] {
        let (booted, fake) = Fake::boots(State::new(slot), &[started]);
        assert_eq!(booted, Some(started));
        assert!(fake.said("starting, 1."), "{:?}", fake.said);
    }
}

#[test]
fn a_trial_is_cleared_before_it_starts() {
    let mut fake = Fake::new(Some(State::new(Slot::A).try_once(Slot::B)));
    assert_eq!(fake.boot(), Some(Started::B));
    let state = fake.state();
    assert_eq!(
        (state.trial, state.running, state.running_as_trial),
        (None, Some(Firmware::Slot(Slot::B)), true)
    );
    assert_eq!(state.unserved, 0);
    assert_eq!(fake.boot(), Some(Started::A), "the next boot is the committed slot's");
}

#[test]
fn refusals_go_on_to_rescue_and_end() {
    let trial = State::new(Slot::A).try_once(Slot::B);
    assert_eq!(Fake::boots(trial, &[Started::A, Started::Rescue]).0, Some(Started::A));
    let (booted, fake) = Fake::boots(trial, &[Started::Rescue]);
    assert_eq!(booted, Some(Started::Rescue));
    assert_eq!(fake.state().running, Some(Firmware::Rescue));
    assert!(fake.said("b: refused: SECURITY_VIOLATION") && fake.said("a: refused: SECURITY_VIOLATION"));
    // Never silently the other slot.
    assert_eq!(Fake::boots(State::new(Slot::A), &[Started::B]).0, None);
    let (booted, fake) = Fake::boots(trial, &[]);
    assert_eq!(booted, None);
    assert!(fake.said("nothing starts"));
}

#[test]
fn eight_unserved_boots() {
    let mut fake = Fake::new(Some(State::new(Slot::B)));
    for boot in 1..=UNSERVED {
        assert_eq!(fake.boot(), Some(Started::B), "boot {boot}");
        assert_eq!(fake.state().unserved, boot);
    }
    assert_eq!(fake.boot(), Some(Started::Rescue));
    assert!(fake.said("did not serve in 8 boots"));
    let mut records = fake.records();
    fake.put(records.put(fake.state().served().unwrap()));
    assert_eq!(fake.boot(), Some(Started::B), "rescue served: the slot has its boots back");
}

#[test]
fn a_damaged_header() {
    let mut fake = Fake::new(Some(State::new(Slot::A)));
    fake.disk[usize::try_from(A).unwrap()][20] ^= 1;
    assert_eq!(fake.boot(), Some(Started::Rescue));
    assert!(fake.said("a: refused: its header: damaged or written in part"), "{:?}", fake.said);
}

#[test]
fn both_records_damaged() {
    let mut fake = Fake::new(None);
    assert_eq!(fake.boot(), Some(Started::A));
    assert!(fake.said("there is no state: taking slot a for committed"));
    let mut fake = Fake::new(None);
    fake.disk[usize::try_from(A).unwrap()].fill(0);
    assert_eq!(fake.boot(), Some(Started::B));
    fake.disk[usize::try_from(B).unwrap()].fill(0);
    for copy in [STATE, STATE + 128] {
        fake.disk[usize::try_from(copy).unwrap()].fill(0xff);
    }
    assert_eq!(fake.boot(), Some(Started::Rescue));
}

#[test]
fn a_disk_that_does_not_write() {
    let mut fake = Fake::new(Some(State::new(Slot::A).try_once(Slot::B)));
    fake.writable = false;
    assert_eq!(fake.boot(), Some(Started::A), "a trial that cannot be cleared is not tried");
    assert!(fake.said("the state is not written: WRITE_PROTECTED") && fake.said("b: not tried"));
}

#[test]
fn a_disk_that_writes_something_else() {
    let mut fake = Fake::new(Some(State::new(Slot::A).try_once(Slot::B)));
    fake.torn = Some(1);
    assert_eq!(fake.boot(), Some(Started::A));
    assert!(fake.said("the disk gives back other bytes than were written"));
    assert_eq!(fake.state().trial, None);
}

#[test]
fn no_partitions_and_no_disk() {
    let mut fake = Fake::new(Some(State::new(Slot::A)));
    fake.disk.fill([0; SECTOR]);
    assert_eq!(fake.boot(), Some(Started::Rescue));
    assert!(fake.said("no partitions: the disk has no GPT"));
    fake.disk.clear();
    assert_eq!(fake.boot(), Some(Started::Rescue));
    assert!(fake.said("no disk"));
}

#[test]
fn a_state_partition_too_short() {
    let mut fake = Fake::new(None);
    fake.disk = disk(LAST, &[("postern-state", STATE, STATE + 127)]);
    assert_eq!(fake.boot(), Some(Started::Rescue));
    assert_eq!(fake.writes, 0);
}

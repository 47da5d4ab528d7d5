//! Whatever is cut off or torn, the choice is the old one or the new one.

use proptest::prelude::*;
use proptest::{array, option};

use super::*;

/// A state partition on a disk that may lose power within a write.
#[derive(Clone)]
struct Disk([[u8; RECORD]; 2]);

/// How far a write came before the power went.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Whole,
    Nothing,
    /// The first bytes are new, the rest is old.
    Head(usize),
    /// The last bytes are new, the rest is old.
    Tail(usize),
    /// The sector holds nothing sensible.
    Noise(u8),
}

impl Disk {
    fn with(states: &[State]) -> Self {
        let mut disk = Self([[0; RECORD]; 2]);
        let mut records = Records::blank();
        for &state in states {
            disk.write(records.put(state), Fate::Whole);
        }
        disk
    }

    fn read(&self) -> Records {
        Records::read([&self.0[0], &self.0[1]])
    }

    fn write(&mut self, (offset, new): (u64, [u8; RECORD]), fate: Fate) {
        let copy = COPIES.iter().position(|&start| start == offset).unwrap();
        let old = &mut self.0[copy];
        match fate {
            Fate::Whole => *old = new,
            Fate::Nothing => {}
            Fate::Head(bytes) => old[..bytes].copy_from_slice(&new[..bytes]),
            Fate::Tail(bytes) => old[RECORD - bytes..].copy_from_slice(&new[RECORD - bytes..]),
            Fate::Noise(byte) => *old = [byte; RECORD],
        }
    }
}

fn fates() -> impl Iterator<Item = Fate> {
    [Fate::Whole, Fate::Nothing]
        .into_iter()
        .chain((0..=RECORD).flat_map(|bytes| [Fate::Head(bytes), Fate::Tail(bytes)]))
        .chain([0x00, 0x5a, 0xff].map(Fate::Noise))
}

/// What a box does with its slots, one write each.
#[derive(Clone, Copy, Debug)]
enum Step {
    Boot,
    Refused,
    Served,
    Update,
    Commit,
}

/// The record that `step` writes, if any.
fn after(state: State, step: Step) -> Option<State> {
    match step {
        Step::Boot => Some(choose(state).state),
        Step::Refused => choose(state).refused().map(|choice| choice.state),
        Step::Served => state.served(),
        Step::Update => Some(state.try_once(state.committed.other())),
        Step::Commit => state.commit(),
    }
}

fn slot() -> impl Strategy<Value = Slot> {
    prop_oneof![Just(Slot::A), Just(Slot::B)]
}

fn firmware() -> impl Strategy<Value = Firmware> {
    prop_oneof![slot().prop_map(Firmware::Slot), Just(Firmware::Rescue)]
}

fn state() -> impl Strategy<Value = State> {
    let boots = prop_oneof![0..10_u32, any::<u32>()];
    (slot(), option::of(slot()), option::of(firmware()), any::<bool>(), boots).prop_map(
        |(committed, trial, running, running_as_trial, unserved)| State {
            committed,
            trial,
            running,
            running_as_trial,
            unserved,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Boot),
        Just(Step::Refused),
        Just(Step::Served),
        Just(Step::Update),
        Just(Step::Commit)
    ]
}

/// A box's life with an update that serves and commits, one that hangs, one that is refused, and a slot that fails.
const LIFE: &[Step] = &[
    Step::Boot,
    Step::Served,
    Step::Update,
    Step::Boot,
    Step::Commit,
    Step::Boot,
    Step::Served,
    Step::Update,
    Step::Boot,
    Step::Boot,
    Step::Served,
    Step::Update,
    Step::Refused,
    Step::Served,
    Step::Boot,
    Step::Boot,
    Step::Boot,
    Step::Boot,
    Step::Boot,
    Step::Boot,
    Step::Boot,
    Step::Boot,
    Step::Boot,
    Step::Served,
    Step::Boot,
];

/// The n-th write is torn in every way, for every n and every number that the sequence may have reached.
#[test]
fn torn_write_leaves_the_old_or_the_new_choice() {
    for start in [0, 126, 127, 254, 255, 0xffff, i32::MAX as u32 - 3, i32::MAX as u32, u32::MAX - 3, u32::MAX]
    {
        let mut disk = Disk::with(&[]);
        let mut records = Records { sequence: start, ..Records::blank() };
        let mut state = State::new(Slot::A);
        disk.write(records.put(state), Fate::Whole);
        disk.write(records.put(state), Fate::Whole);
        for (n, &step) in LIFE.iter().enumerate() {
            let new = after(state, step).unwrap_or_else(|| panic!("step {n} writes nothing"));
            let mut records = disk.read();
            assert_eq!(records.newest(), Some(state), "before step {n} from {start}");
            let write = records.put(new);
            for fate in fates() {
                let mut torn = disk.clone();
                torn.write(write, fate);
                let found =
                    torn.read().newest().unwrap_or_else(|| panic!("step {n}, {fate:?}: nothing left"));
                assert!([state, new].contains(&found), "step {n}, {fate:?}: {found:?}");
                // And the next write heals it.
                let mut records = torn.read();
                let healing = records.put(found);
                torn.write(healing, Fate::Whole);
                assert_eq!(torn.read().newest(), Some(found), "step {n}, {fate:?}: not healed");
            }
            disk.write(write, Fate::Whole);
            state = new;
        }
        assert_eq!(disk.read().damage(), [None, None]);
    }
}

/// A failing write goes on failing, with the same bytes or noise: the choice stays.
#[test]
fn a_worn_out_copy_keeps_the_other() {
    let old = State::new(Slot::B);
    let mut disk = Disk::with(&[old, old]);
    for byte in 0..=255 {
        let mut records = disk.read();
        let write = records.put(choose(old).state);
        disk.write(write, Fate::Noise(byte));
        assert_eq!(disk.read().newest(), Some(old));
    }
}

proptest! {
    /// Any life, cut anywhere in any way, leaves the old or the new state.
    #[test]
    fn any_life_survives_any_cut(
        mut state in state(),
        sequence in any::<u32>(),
        steps in proptest::collection::vec((step(), 0..=RECORD, any::<bool>()), 1..40),
    ) {
        let mut disk = Disk::with(&[]);
        let mut records = Records { sequence, ..Records::blank() };
        disk.write(records.put(state), Fate::Whole);
        disk.write(records.put(state), Fate::Whole);
        for (step, bytes, head) in steps {
            let Some(new) = after(state, step) else { continue };
            let mut records = disk.read();
            disk.write(records.put(new), if head { Fate::Head(bytes) } else { Fate::Tail(bytes) });
            let found = disk.read().newest().unwrap();
            prop_assert!([state, new].contains(&found));
            state = found;
        }
    }

    /// A trial is started once, whatever was there before; then nothing but a commit makes the box boot it again.
    #[test]
    fn a_trial_happens_once(state in state(), new in slot()) {
        let first = choose(state.try_once(new));
        prop_assert_eq!(first.firmware, Firmware::Slot(new));
        prop_assert_eq!(first.reason, Reason::Trial);
        let second = choose(first.state);
        prop_assert_ne!(second.reason, Reason::Trial);
        prop_assert_eq!(second.state.committed, state.committed);
        let committed = first.state.commit().unwrap();
        prop_assert_eq!(choose(committed).firmware, Firmware::Slot(new));
        prop_assert_eq!(choose(committed).reason, Reason::Committed);
    }

    /// Refusals go trial, committed, rescue, end; the slot that is neither on trial nor committed is never started.
    #[test]
    fn refusals_end_in_rescue(state in state()) {
        let mut choice = choose(state);
        for _ in 0..3 {
            if let Firmware::Slot(slot) = choice.firmware {
                prop_assert!(slot == state.committed || Some(slot) == state.trial);
            }
            prop_assert_eq!(choice.state.running, Some(choice.firmware));
            prop_assert_eq!(choice.state.trial, None);
            prop_assert_eq!(choice.state.running_as_trial, choice.reason == Reason::Trial);
            match choice.refused() {
                Some(next) => choice = next,
                None => break,
            }
        }
        prop_assert_eq!(choice.firmware, Firmware::Rescue);
        prop_assert_eq!(choice.refused(), None);
        prop_assert_eq!(choice.state.committed, state.committed);
    }

    /// What was written is what is read, and any other sector is refused, whatever bit of it changed.
    #[test]
    fn records_round_trip(state in state(), sequence in any::<u32>(), bit in 0..RECORD * 8) {
        let mut record = state.encode(sequence);
        prop_assert_eq!(State::decode(&record), Ok((sequence, state)));
        record[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(State::decode(&record).is_err());
    }

    #[test]
    fn headers_round_trip(
        length in 1..32_u64 << 20,
        sha256 in array::uniform32(any::<u8>()),
        version in "[!-~]{1,32}",
        bit in 0..RECORD * 8,
    ) {
        let header = SlotHeader { length, sha256, version: Version::new(&version).unwrap() };
        let mut record = header.encode();
        prop_assert_eq!(SlotHeader::decode(&record, length + PAYLOAD), Ok(header));
        prop_assert_eq!(header.version.as_str(), version);
        prop_assert_eq!(SlotHeader::decode(&record, length + PAYLOAD - 1), Err(Damage::Length(length)));
        record[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(SlotHeader::decode(&record, u64::MAX).is_err());
    }

    /// Any bytes: an answer, no panic.
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..RECORD + 8)) {
        prop_assert!(State::decode(&bytes).is_err());
        prop_assert!(SlotHeader::decode(&bytes, u64::MAX).is_err());
        prop_assert_eq!(Records::read([&bytes, &[]]).newest(), None);
    }
}

#[test]
fn sequence_numbers_wrap() {
    for older in [0, 1, 127, 255, 256, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff_u32] {
        let newer = older.wrapping_add(1);
        assert!(is_newer(newer, older) && !is_newer(older, newer) && !is_newer(older, older));
        let (old, new) = (State::new(Slot::A), State::new(Slot::B));
        for copies in [[old.encode(older), new.encode(newer)], [new.encode(newer), old.encode(older)]] {
            let mut records = Records::read([&copies[0], &copies[1]]);
            assert_eq!(records.newest(), Some(new), "{older}");
            // The older copy is overwritten, under a number that is newer still.
            let (offset, record) = records.put(new);
            let oldest = copies.iter().position(|copy| *copy == old.encode(older)).unwrap();
            assert_eq!(offset, COPIES[oldest]);
            assert_eq!(State::decode(&record).unwrap().0, newer.wrapping_add(1));
        }
    }
}

#[test]
fn eight_unserved_boots_start_rescue() {
    let mut state = State::new(Slot::B);
    for _ in 0..UNSERVED {
        let choice = choose(state);
        assert_eq!(choice.firmware, Firmware::Slot(Slot::B));
        state = choice.state;
    }
    let choice = choose(state);
    assert_eq!((choice.firmware, choice.reason), (Firmware::Rescue, Reason::Unserved));
    // Rescue stays until something serves; a rescue that serves gives the slot its boots back.
    assert_eq!(choose(choice.state), choice);
    let mended = choice.state.served().unwrap();
    assert_eq!(choose(mended).firmware, Firmware::Slot(Slot::B));
    // A trial comes first even now: it is how rescue mends a box.
    assert_eq!(choose(choice.state.try_once(Slot::A)).firmware, Firmware::Slot(Slot::A));
}

#[test]
fn quick_power_cycles_change_nothing() {
    let mut state = State::new(Slot::A);
    for _ in 0..1000 {
        for _ in 0..3 {
            state = choose(state).state;
            assert_eq!(state.running, Some(Firmware::Slot(Slot::A)));
        }
        state = state.served().unwrap();
        assert_eq!(state.served(), None);
    }
}

#[test]
fn a_trial_neither_serves_nor_spends_for_the_committed_slot() {
    let state = State { unserved: 5, ..State::new(Slot::A) }.try_once(Slot::B);
    let trial = choose(state).state;
    assert_eq!(trial.unserved, 5);
    assert_eq!(trial.served(), None);
    assert_eq!(trial.commit().unwrap().unserved, 0);
    assert_eq!(choose(trial).state.commit(), None, "only what runs as a trial commits");
}

#[test]
fn both_copies_damaged() {
    let records = Disk::with(&[]).read();
    assert_eq!(records, Records::blank());
    assert_eq!(State::assumed(true, true).committed, Slot::A);
    assert_eq!(State::assumed(true, false).committed, Slot::A);
    assert_eq!(State::assumed(false, true).committed, Slot::B);
    let neither = choose(State::assumed(false, false));
    assert_eq!(neither.firmware, Firmware::Slot(Slot::A));
    assert_eq!(neither.refused().unwrap().firmware, Firmware::Rescue);
}

#[test]
fn known_bytes() {
    let state = State {
        committed: Slot::B,
        trial: Some(Slot::A),
        running: Some(Firmware::Rescue),
        running_as_trial: false,
        unserved: 3,
    };
    let record = state.encode(0x0403_0201);
    assert_eq!(&record[..24], b"PSTNSTAT\x01\0\0\0\x01\x02\x03\x04BAR\0\x03\0\0\0");
    assert_eq!(u32_at(&record, 508), crc::Crc::<u32>::new(&crc::CRC_32_ISCSI).checksum(&record[..508]));
    let mut newer = state.encode(1);
    newer[8] = 2;
    assert_eq!(State::decode(&seal(newer)), Err(Damage::Format(2)));
    let mut odd = state.encode(1);
    odd[16] = b'C';
    assert_eq!(State::decode(&seal(odd)), Err(Damage::Value));
    assert_eq!(State::decode(&[0; RECORD]), Err(Damage::Empty));
    assert_eq!(State::decode(&[0xff; RECORD]), Err(Damage::Magic));
    for text in ["", " ", "a b", "ä", "a\0b", "\0", "123456789012345678901234567890123"] {
        assert_eq!(Version::new(text), None, "{text:?}");
    }
}

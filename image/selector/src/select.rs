//! The order of things: read the state, choose, note it, start; refused, choose again.

use core::fmt;

use board::slots::{
    COPIES, Choice, Damage, Firmware, PAYLOAD, RECORD, Reason, Records, Slot, SlotHeader, State, choose,
};

use crate::gpt::{Partition, Partitions, SECTOR};

/// Seconds that the firmware waits for a started image to take over, before it resets.
pub const WATCHDOG: usize = 60;

/// What the selector needs of a machine.
pub trait Machine {
    /// What went wrong, in the firmware's words.
    type Error: fmt::Display;

    /// The disk's last sector.
    ///
    /// # Errors
    /// There is no disk to speak of.
    fn last(&mut self) -> Result<u64, Self::Error>;

    /// Reads a sector.
    ///
    /// # Errors
    /// The disk does not.
    fn read(&mut self, lba: u64, into: &mut [u8; SECTOR]) -> Result<(), Self::Error>;

    /// Writes a sector and has the disk keep it.
    ///
    /// # Errors
    /// The disk does not.
    fn write(&mut self, lba: u64, sector: &[u8; SECTOR]) -> Result<(), Self::Error>;

    /// Resets the machine after so many seconds, unless something else has taken over by then.
    ///
    /// # Errors
    /// The firmware has no watchdog.
    fn watchdog(&mut self, seconds: usize) -> Result<(), Self::Error>;

    /// Loads and starts an image. It comes back only with the reason why that did not go well.
    fn start(&mut self, image: Image) -> Self::Error;

    /// Prints a line.
    fn say(&mut self, line: fmt::Arguments<'_>);
}

/// Where an image lies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Image {
    /// In a slot, from its sector [`PAYLOAD`] on, so many bytes.
    Slot(Partition, u64),
    /// On the boot partition: [`RESCUE`].
    Rescue,
}

/// The rescue system, on the partition that the selector itself was loaded from.
pub const RESCUE: &str = "\\postern\\rescue.efi";

/// Starts what is to boot. Comes back when nothing starts.
pub fn select<M: Machine>(machine: &mut M) {
    let partitions = partitions(machine);
    let mut journal = Journal::open(machine, partitions.state);
    let mut next = Some(choose(journal.state(machine, &partitions)));
    while let Some(choice) = next {
        start(machine, &partitions, &mut journal, &choice);
        next = choice.refused();
    }
    machine.say(format_args!("nothing starts: neither the slots nor {RESCUE}"));
}

/// Notes the choice and starts it; comes back when that did not go well.
fn start<M: Machine>(machine: &mut M, partitions: &Partitions, journal: &mut Journal, choice: &Choice) {
    let name = choice.firmware.name();
    if let Err(error) = machine.watchdog(WATCHDOG) {
        machine.say(format_args!("the firmware's watchdog is not armed: {error}"));
    }
    if let Err(trouble) = journal.write(machine, choice.state) {
        machine.say(format_args!("the state is not written: {trouble}"));
        if choice.reason == Reason::Trial {
            // It would be tried for ever.
            machine.say(format_args!("{name}: not tried"));
            return;
        }
    }
    let (image, version) = match choice.firmware {
        Firmware::Rescue => (Image::Rescue, None),
        Firmware::Slot(slot) => match header(machine, partitions, slot) {
            Ok((partition, header)) => (Image::Slot(partition, header.length), Some(header.version)),
            Err(trouble) => {
                machine.say(format_args!("{name}: refused: its header: {trouble}"));
                return;
            }
        },
    };
    match version {
        Some(version) => machine.say(format_args!("{name}: starting, {version}, {}", choice.reason.name())),
        None => machine.say(format_args!("{name}: starting: {}", choice.reason.name())),
    }
    let error = machine.start(image);
    machine.say(format_args!("{name}: refused: {error}"));
}

fn partitions<M: Machine>(machine: &mut M) -> Partitions {
    let found = match machine.last() {
        Ok(last) => Partitions::read(last, |lba, into| machine.read(lba, into)),
        Err(error) => {
            machine.say(format_args!("no disk: {error}"));
            return Partitions::default();
        }
    };
    found.unwrap_or_else(|error| {
        machine.say(format_args!("no partitions: {error}"));
        Partitions::default()
    })
}

/// The partition of a slot, and what lies in it.
fn header<M: Machine>(
    machine: &mut M,
    partitions: &Partitions,
    slot: Slot,
) -> Result<(Partition, SlotHeader), Trouble<M::Error>> {
    let partition = partitions.slot(slot).ok_or(Trouble::Missing)?;
    let mut record = [0; RECORD];
    machine.read(partition.first, &mut record).map_err(Trouble::Disk)?;
    let header = SlotHeader::decode(&record, partition.bytes()).map_err(Trouble::Damage)?;
    Ok((partition, header))
}

/// The state partition.
struct Journal {
    partition: Option<Partition>,
    records: Records,
}

impl Journal {
    fn open<M: Machine>(machine: &mut M, partition: Option<Partition>) -> Self {
        // A partition too short for both copies is none: a write would go to whatever lies behind it.
        let partition = partition.filter(|partition| partition.bytes() >= COPIES[1] + RECORD as u64);
        let Some(found) = partition else {
            machine.say(format_args!("the state cannot be read: there is no partition of its name and size"));
            return Self { partition, records: Records::blank() };
        };
        let mut copies = [[0; RECORD]; 2];
        for (offset, copy) in COPIES.iter().zip(&mut copies) {
            if let Err(error) = machine.read(lba(found, *offset), copy) {
                machine.say(format_args!("the state at byte {offset} cannot be read: {error}"));
                copy.fill(0);
            }
        }
        let records = Records::read([&copies[0], &copies[1]]);
        for (offset, damage) in COPIES.iter().zip(records.damage()) {
            // A new box has written one copy only, or none; the latter is said below.
            if let Some(damage) = damage.filter(|damage| *damage != Damage::Empty) {
                machine.say(format_args!("the state at byte {offset} is not used: {damage}"));
            }
        }
        Self { partition, records }
    }

    /// The newest state, or what is assumed when there is none.
    fn state<M: Machine>(&self, machine: &mut M, partitions: &Partitions) -> State {
        self.records.newest().unwrap_or_else(|| {
            let [a, b] = Slot::BOTH.map(|slot| header(machine, partitions, slot).is_ok());
            let state = State::assumed(a, b);
            machine
                .say(format_args!("there is no state: taking slot {} for committed", state.committed.name()));
            state
        })
    }

    /// Writes over the older copy and reads back what lies there then.
    fn write<M: Machine>(&mut self, machine: &mut M, state: State) -> Result<(), Trouble<M::Error>> {
        let partition = self.partition.ok_or(Trouble::Missing)?;
        let mut records = self.records;
        let (offset, record) = records.put(state);
        machine.write(lba(partition, offset), &record).map_err(Trouble::Disk)?;
        let mut written = [0; RECORD];
        machine.read(lba(partition, offset), &mut written).map_err(Trouble::Disk)?;
        if written != record {
            return Err(Trouble::Changed);
        }
        self.records = records; // only now: a failed write leaves the older copy the older one
        Ok(())
    }
}

/// The sector at `offset` bytes into `partition`.
pub(crate) const fn lba(partition: Partition, offset: u64) -> u64 {
    partition.first + offset / SECTOR as u64
}

const _: () = assert!(RECORD == SECTOR && PAYLOAD.is_multiple_of(SECTOR as u64), "records are sectors");

/// Why something on the disk is of no use.
enum Trouble<E> {
    Missing,
    Disk(E),
    Damage(Damage),
    Changed,
}

impl<E: fmt::Display> fmt::Display for Trouble<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("there is no such partition"),
            Self::Disk(error) => error.fmt(f),
            Self::Damage(damage) => damage.fmt(f),
            Self::Changed => f.write_str("the disk gives back other bytes than were written"),
        }
    }
}

#[cfg(test)]
mod tests;

//! What was booted, and the note that it served.

use core::fmt::Display;
use std::path::Path;

use board::Fault;
use board::disk::{Disk, Role};
use board::slots::{COPIES, Damage, Firmware, Records};
use board::state::StatePartition;

use crate::console::say;

/// EFI is where the selector runs; without it the kernel was started directly.
const EFI: &str = "/sys/firmware/efi";

/// What was booted, as the state partition tells it.
#[derive(Debug)]
pub(crate) struct Boot {
    state: Option<(StatePartition, Records)>,
    /// What the selector started; `None`: there was no selector.
    started: Option<(Firmware, bool)>,
}

impl Boot {
    /// Reads the state partition of `disk`.
    pub(crate) fn find(disk: Option<&Disk>) -> Self {
        let state = disk.and_then(|disk| match read(&disk.partition(Role::State).device) {
            Ok(state) => Some(state),
            Err(fault) => {
                say!("{fault}");
                None
            }
        });
        let selected = Path::new(EFI).exists();
        let newest = state.as_ref().and_then(|(_, records)| records.newest());
        let started =
            newest.filter(|_| selected).and_then(|state| Some((state.running?, state.running_as_trial)));
        Self { state, started }
    }

    /// `a`, `b`, `rescue` or `direct`.
    pub(crate) fn slot(&self) -> &'static dyn Display {
        match self.started {
            Some((Firmware::Slot(board::slots::Slot::A), _)) => &"a",
            Some((Firmware::Slot(board::slots::Slot::B), _)) => &"b",
            Some((Firmware::Rescue, _)) => &"rescue",
            None => &"direct",
        }
    }

    /// `trial`, `committed` or `direct`.
    pub(crate) fn kind(&self) -> &'static dyn Display {
        match self.started {
            Some((_, true)) => &"trial",
            Some((_, false)) => &"committed",
            None => &"direct",
        }
    }

    /// Notes that the box serves. A box that was started directly keeps its hands off the selector's state.
    pub(crate) fn served(&mut self) {
        let (Some((partition, records)), true) = (&mut self.state, self.started.is_some()) else { return };
        let Some(state) = records.newest().and_then(board::slots::State::served) else { return };
        let (offset, record) = records.put(state);
        let copy = COPIES.iter().position(|at| *at == offset).unwrap_or(0);
        if let Err(fault) = partition.write(copy, &record) {
            // The next boot counts one more; eight such boots start rescue, which is what a dying disk calls for.
            say!("that the box serves cannot be noted: {fault}");
        }
    }
}

fn read(device: &Path) -> Result<(StatePartition, Records), Fault> {
    let partition = StatePartition::open(device)?;
    let copies = [partition.read(0)?, partition.read(1)?];
    let records = Records::read([&copies[0], &copies[1]]);
    for (copy, damage) in records.damage().into_iter().enumerate() {
        // One that was never written is what the factory leaves; the rest is what a power cut or a dying disk leaves.
        if let Some(damage) = damage.filter(|damage| *damage != Damage::Empty) {
            say!("state record {copy}: {damage:?}");
        }
    }
    Ok((partition, records))
}

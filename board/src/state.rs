//! The partition with the two state records: bytes in and out; what they mean is for [`crate::slots`].

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::libc::O_DSYNC;

use crate::Fault;

/// One record is one sector, which a disk writes whole or not at all.
pub const RECORD: usize = 512;

/// Where the two records lie, in bytes from the partition's start: far enough apart that one damaged erase block of a
/// simple flash card does not take both.
pub const OFFSETS: [u64; 2] = [0, 65536];

/// The open state partition.
#[derive(Debug)]
pub struct StatePartition {
    file: File,
    device: PathBuf,
}

const MEND: &str = "replace the disk if this stays; the box boots its committed slot meanwhile";

impl StatePartition {
    /// Opens the partition.
    pub fn open(device: &Path) -> Result<Self, Fault> {
        let file = OpenOptions::new().read(true).write(true).custom_flags(O_DSYNC).open(device);
        let file = file.map_err(|error| Fault::io("state", device, "cannot be opened", MEND, error))?;
        Ok(Self { file, device: device.to_owned() })
    }

    /// One of the two records as it lies on the disk.
    pub fn read(&self, copy: usize) -> Result<[u8; RECORD], Fault> {
        let mut record = [0; RECORD];
        let offset = self.offset(copy)?;
        match self.file.read_exact_at(&mut record, offset) {
            Ok(()) => Ok(record),
            Err(error) => Err(self.fault(copy, "cannot be read", error)),
        }
    }

    /// Writes one record, waits until the disk has it, and reads it back from there.
    ///
    /// Write the older copy: the newer one is what holds if the power fails now.
    pub fn write(&self, copy: usize, record: &[u8; RECORD]) -> Result<(), Fault> {
        let offset = self.offset(copy)?;
        let written = self.file.write_all_at(record, offset);
        written.map_err(|error| self.fault(copy, "cannot be written", error))?;
        // The whole of it (0, 0): else the answer would come from memory.
        let dropped = posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        dropped.map_err(|errno| self.fault(copy, "cannot be read back", errno))?;
        if self.read(copy)? == *record {
            return Ok(());
        }
        let what = format!("record {copy} is not what was written");
        Err(Fault::new("state", &self.device, what, MEND))
    }

    fn offset(&self, copy: usize) -> Result<u64, Fault> {
        let offset = OFFSETS.get(copy).copied();
        offset.ok_or_else(|| Fault::new("state", &self.device, "there are two records", "ask for 0 or 1"))
    }

    fn fault(&self, copy: usize, what: &str, error: impl Into<std::io::Error>) -> Fault {
        Fault::io("state", &self.device, format!("record {copy} {what}"), MEND, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_lie_at_their_places_and_nothing_else_changes() {
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().join("state");
        std::fs::write(&device, vec![7; 1 << 20]).unwrap();
        let state = StatePartition::open(&device).unwrap();
        state.write(1, &[1; RECORD]).unwrap();
        assert_eq!((state.read(0).unwrap(), state.read(1).unwrap()), ([7; RECORD], [1; RECORD]));
        state.write(0, &[2; RECORD]).unwrap();
        let mut expected = vec![7; 1 << 20];
        expected[..512].fill(2);
        expected[65536..66048].fill(1);
        assert!(std::fs::read(&device).unwrap() == expected);
        assert!(state.read(2).is_err());
    }

    #[test]
    fn a_partition_that_is_too_short_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().join("state");
        std::fs::write(&device, [0; 600]).unwrap();
        let fault = StatePartition::open(&device).unwrap().read(1).unwrap_err().to_string();
        assert!(fault.contains("state: record 1 cannot be read: failed to fill whole buffer"), "{fault}");
    }
}

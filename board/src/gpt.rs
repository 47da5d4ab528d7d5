//! A partition table (GPT, UEFI 2.10 §5.3) as bytes: read, checked, and changed without losing what we do not know.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use crc::{CRC_32_ISO_HDLC, Crc};

/// The sectors that our images and their tables are made for.
pub(crate) const SECTOR: u64 = 512;

/// The same, for lengths in memory.
pub(crate) const SECTOR_BYTES: usize = 512;
const CRC32: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// Tables are 128 entries of 128 bytes; nobody has more than this, and a damaged number must not take the memory.
const MOST: u64 = 1 << 20;

/// One of the two copies of a table: its header's sector and the entries it points to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Copy {
    header: Vec<u8>,
    /// Whole sectors; what follows the last entry is kept.
    pub(crate) entries: Vec<u8>,
}

/// A field of the header: its offset and what it means. All are 64 bits wide.
#[derive(Clone, Copy)]
pub(crate) enum Field {
    /// The sector that this header itself lies in.
    Own = 24,
    /// The sector of the other copy's header.
    Other = 32,
    /// The first sector that partitions may use.
    FirstUsable = 40,
    /// The last sector that partitions may use.
    LastUsable = 48,
    /// The first sector of the entries.
    Entries = 72,
}

impl Copy {
    /// Reads the copy whose header is said to lie in this sector; says what is wrong with it.
    pub(crate) fn read(disk: &File, lba: u64) -> Result<Self, String> {
        let mut header = vec![0; SECTOR_BYTES];
        let read = |bytes: &mut [u8], lba: u64| {
            let at = lba.checked_mul(SECTOR).ok_or_else(|| format!("there is no sector {lba}"))?;
            disk.read_exact_at(bytes, at).map_err(|error| format!("sector {lba} cannot be read: {error}"))
        };
        read(&mut header, lba)?;
        let mut copy = Self { header, entries: Vec::new() };
        if copy.header.get(..8) != Some(b"EFI PART") || copy.get(Field::Own) != lba {
            return Err(format!("sector {lba} holds no partition table"));
        }
        if !(92..=512).contains(&copy.word(12)) || copy.word(16) != copy.header_crc() {
            return Err(format!("the header in sector {lba} is damaged"));
        }
        let length = u64::from(copy.word(80)) * u64::from(copy.word(84));
        if copy.word(84) < 128 || length == 0 || length > MOST {
            return Err(format!("the header in sector {lba} has entries of no usual size"));
        }
        let length = usize::try_from(length).map_err(|error| error.to_string())?;
        copy.entries = vec![0; length.next_multiple_of(SECTOR_BYTES)];
        let first = copy.get(Field::Entries);
        read(&mut copy.entries, first)?;
        if copy.word(88) != copy.entries_crc() {
            return Err(format!("the entries in sector {first} are damaged"));
        }
        Ok(copy)
    }

    /// The header's sector.
    pub(crate) fn header(&self) -> &[u8] {
        &self.header
    }

    pub(crate) fn get(&self, field: Field) -> u64 {
        u64_at(&self.header, field as usize)
    }

    pub(crate) fn set(&mut self, field: Field, value: u64) {
        put(&mut self.header, field as usize, &value.to_le_bytes());
    }

    /// How many sectors the entries take.
    pub(crate) fn entry_sectors(&self) -> u64 {
        self.entries.len() as u64 / SECTOR
    }

    /// First and last sector of a partition, by its number from 1; `None` for one that is not used.
    pub(crate) fn partition(&self, number: u32) -> Option<(u64, u64)> {
        let entry = self.entries.get(self.entry(number)?..)?;
        let used = entry.get(..16)?.iter().any(|byte| *byte != 0);
        used.then(|| (u64_at(entry, 32), u64_at(entry, 40)))
    }

    /// Every partition that is used: number, first and last sector.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = (u32, u64, u64)> {
        (1..=self.word(80))
            .filter_map(|number| self.partition(number).map(|(first, last)| (number, first, last)))
    }

    /// Moves the end of a partition.
    pub(crate) fn set_last(&mut self, number: u32, last: u64) {
        if let Some(at) = self.entry(number) {
            put(&mut self.entries, at + 40, &last.to_le_bytes());
        }
    }

    /// Brings both checksums up to what the bytes are now.
    pub(crate) fn seal(&mut self) {
        let crc = self.entries_crc();
        put(&mut self.header, 88, &crc.to_le_bytes());
        let crc = self.header_crc();
        put(&mut self.header, 16, &crc.to_le_bytes());
    }

    fn entry(&self, number: u32) -> Option<usize> {
        let index = number.checked_sub(1).filter(|index| *index < self.word(80))?;
        usize::try_from(u64::from(index) * u64::from(self.word(84))).ok()
    }

    fn word(&self, at: usize) -> u32 {
        let bytes = self.header.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    /// Over the header's own length, with its checksum's field as zero.
    fn header_crc(&self) -> u32 {
        let mut header = self.header.clone();
        put(&mut header, 16, &[0; 4]);
        let length = usize::try_from(self.word(12)).unwrap_or(SECTOR_BYTES).min(SECTOR_BYTES);
        CRC32.checksum(&header[..length])
    }

    fn entries_crc(&self) -> u32 {
        let length = u64::from(self.word(80)) * u64::from(self.word(84));
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(self.entries.len());
        CRC32.checksum(&self.entries[..length])
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(field) = bytes.get_mut(at..at + value.len()) {
        field.copy_from_slice(value);
    }
}

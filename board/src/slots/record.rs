//! What both kinds of record share: a sector with a name, a format and a checksum.

use core::fmt;

use crc::{CRC_32_ISCSI, Crc};

/// Bytes of a state record and of a slot's header: one sector, which disks write whole or not at all.
pub const RECORD: usize = 512;

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Damage {
    /// Nothing was written there yet.
    Empty,
    /// Fewer bytes than a record.
    Short,
    /// Something else lies there.
    Magic,
    /// Bytes changed, or were written in part.
    Checksum,
    /// Written by a newer Postern.
    Format(u32),
    /// The EFI file would be empty, or longer than its partition.
    Length(u64),
    /// A field says what it cannot say.
    Value,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty"),
            Self::Short => f.write_str("cut off"),
            Self::Magic => f.write_str("not a record of Postern"),
            Self::Checksum => f.write_str("damaged or written in part: its checksum is wrong"),
            Self::Format(format) => write!(f, "format {format}, which this version does not know"),
            Self::Length(length) => write!(f, "{length} bytes of firmware, which its partition cannot hold"),
            Self::Value => f.write_str("a field has an impossible value"),
        }
    }
}

impl core::error::Error for Damage {}

const FORMAT: u32 = 1;

/// Where the checksum of a record lies.
const CHECKSUM: usize = RECORD - 4;

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// A record without fields yet.
pub(super) fn new(magic: [u8; 8]) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[..8].copy_from_slice(&magic);
    record[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    record
}

/// Adds the checksum.
pub(super) fn seal(mut record: [u8; RECORD]) -> [u8; RECORD] {
    let checksum = CRC.checksum(&record[..CHECKSUM]);
    record[CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
    record
}

/// The record, if it is whole and says what it should be.
pub(super) fn open(record: &[u8], magic: [u8; 8]) -> Result<&[u8], Damage> {
    let record = record.get(..RECORD).ok_or(Damage::Short)?;
    if record.iter().all(|&byte| byte == 0) {
        return Err(Damage::Empty);
    }
    if !record.starts_with(&magic) {
        return Err(Damage::Magic);
    }
    if u32_at(record, CHECKSUM) != CRC.checksum(&record[..CHECKSUM]) {
        return Err(Damage::Checksum);
    }
    match u32_at(record, 8) {
        FORMAT => Ok(record),
        format => Err(Damage::Format(format)),
    }
}

/// A number within a record.
pub(super) fn u32_at(record: &[u8], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&record[at..at + 4]);
    u32::from_le_bytes(bytes)
}

//! The first sector of a slot.

use core::fmt;

use super::PAYLOAD;
use super::record::{self, Damage, RECORD, open, seal};

/// What lies in a slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SlotHeader {
    /// Bytes of the signed EFI file, which begins at [`PAYLOAD`].
    pub length: u64,
    /// Its SHA-256: for those who write and compare. Trust comes from the signature inside the file.
    pub sha256: [u8; 32],
    /// Its version.
    pub version: Version,
}

impl SlotHeader {
    /// The partition's first sector.
    pub fn encode(&self) -> [u8; RECORD] {
        let mut record = record::new(MAGIC);
        record[16..24].copy_from_slice(&self.length.to_le_bytes());
        record[24..56].copy_from_slice(&self.sha256);
        record[56..88].copy_from_slice(&self.version.0);
        seal(record)
    }

    /// Reads the first [`RECORD`] bytes of a slot that is `partition` bytes long.
    ///
    /// # Errors
    /// What is wrong with it. An EFI file that would not fit into the partition is wrong, and so is an empty one.
    pub fn decode(record: &[u8], partition: u64) -> Result<Self, Damage> {
        let record = open(record, MAGIC)?;
        let mut length = [0; 8];
        length.copy_from_slice(&record[16..24]);
        let length = u64::from_le_bytes(length);
        if length == 0 || partition.checked_sub(PAYLOAD).is_none_or(|room| length > room) {
            return Err(Damage::Length(length));
        }
        let (mut sha256, mut version) = ([0; 32], [0; 32]);
        sha256.copy_from_slice(&record[24..56]);
        version.copy_from_slice(&record[56..88]);
        Ok(Self { length, sha256, version: Version::from_bytes(version).ok_or(Damage::Value)? })
    }
}

/// A version as text: 1 to 32 printable ASCII characters without spaces.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Version([u8; 32]);

impl Version {
    /// `None` if it is empty, too long, or has other characters.
    pub fn new(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        // A zero within the text would end it early.
        Self::from_bytes(bytes).filter(|version| version.as_str().len() == text.len())
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|&byte| byte == 0).unwrap_or(self.0.len());
        core::str::from_utf8(&self.0[..end]).unwrap_or_default() // ASCII since it was made
    }

    fn from_bytes(bytes: [u8; 32]) -> Option<Self> {
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        let (text, rest) = bytes.split_at(end);
        let good = end > 0 && text.iter().all(u8::is_ascii_graphic) && rest.iter().all(|&byte| byte == 0);
        good.then_some(Self(bytes))
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

const MAGIC: [u8; 8] = *b"PSTNSLOT";

//! Which firmware a disk would boot: a reader of the state partition that owes nothing to the one it checks.
//!
//! Two copies of a record of 512 octets, at 0 and 65536, little-endian: `PSTNSTAT`, format 1, a sequence number that wraps,
//! the committed slot, the slot to be tried once (or 0), what was started last, whether as a trial, boots of the committed
//! slot since one served, zeros, and CRC-32C of all before it. Slots are the letters `A` and `B`.

use crc::{CRC_32_ISCSI, Crc};

use super::image::Image;

const COPIES: [u64; 2] = [0, 65536];
const RECORD: usize = 512;
const CHECKSUM: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
/// So many boots of the committed slot that did not serve, and the next one is rescue.
const UNSERVED: u32 = 8;

/// What would boot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Choice {
    /// A slot, by its letter, since it is committed.
    Committed(char),
    /// A slot, by its letter, once.
    Trial(char),
    /// The rescue system.
    Rescue,
    /// No copy of the state can be read: the selector has to guess.
    Unknown,
}

/// What would boot from a disk whose state partition begins at this octet.
pub fn choice(image: &Image, partition: u64) -> Choice {
    let copies = COPIES.map(|copy| Record::read(&image.get(partition + copy, RECORD)));
    let newest = match copies {
        [Some(first), Some(second)] => {
            let ahead = second.sequence.wrapping_sub(first.sequence);
            Some(if ahead != 0 && ahead < 1 << 31 { second } else { first })
        }
        [first, second] => first.or(second),
    };
    match newest {
        None => Choice::Unknown,
        Some(Record { trial: Some(slot), .. }) => Choice::Trial(slot),
        Some(Record { unserved: UNSERVED.., .. }) => Choice::Rescue,
        Some(record) => Choice::Committed(record.committed),
    }
}

#[derive(Clone, Copy)]
struct Record {
    sequence: u32,
    committed: char,
    trial: Option<char>,
    unserved: u32,
}

impl Record {
    fn read(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
        let slot = |at: usize| {
            bytes.get(at).map(|octet| char::from(*octet)).filter(|slot| matches!(slot, 'A' | 'B'))
        };
        let is_whole = bytes.starts_with(b"PSTNSTAT")
            && word(8)? == 1
            && word(RECORD - 4)? == CHECKSUM.checksum(bytes.get(..RECORD - 4)?);
        let trial = if *bytes.get(17)? == 0 { None } else { Some(slot(17)?) };
        is_whole.then_some(Self { sequence: word(12)?, committed: slot(16)?, trial, unserved: word(20)? })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A record as the box writes it.
    pub(crate) fn record(sequence: u32, committed: u8, trial: u8, unserved: u32) -> Vec<u8> {
        let mut bytes = b"PSTNSTAT".to_vec();
        bytes.extend([1, sequence].map(u32::to_le_bytes).concat());
        bytes.extend([committed, trial, b'A', 0]);
        bytes.extend(unserved.to_le_bytes());
        bytes.resize(RECORD - 4, 0);
        bytes.extend(CHECKSUM.checksum(&bytes).to_le_bytes());
        bytes
    }

    #[test]
    fn the_newer_whole_copy_decides() {
        let booted = |first: &[u8], second: &[u8]| {
            let mut image = Image::default();
            image.write(4096, first);
            image.write(4096 + 65536, second);
            choice(&image, 4096)
        };
        let (a, b) = (record(7, b'A', 0, 1), record(8, b'B', 0, 7));
        assert_eq!(booted(&a, &b), Choice::Committed('B'));
        assert_eq!(booted(&b, &a), Choice::Committed('B'));
        let torn = [&b[..256], &[0; 256]].concat();
        assert_eq!(booted(&a, &torn), Choice::Committed('A'));
        assert_eq!(booted(&[], &b), Choice::Committed('B'));
        assert_eq!(booted(&torn, &[]), Choice::Unknown);
        assert_eq!(booted(&a, &record(u32::MAX, b'B', 0, 0)), Choice::Committed('A'), "numbers wrap");
        assert_eq!(booted(&a, &record(8, b'A', b'B', 0)), Choice::Trial('B'));
        assert_eq!(booted(&a, &record(8, b'A', 0, 8)), Choice::Rescue);
    }
}

//! Finds partitions by name in a GPT (UEFI specification §5.3), reading a sector at a time into fixed memory.

use core::fmt;

use board::slots::Slot;
use crc::{CRC_32_ISO_HDLC, Crc};

/// Bytes of a sector. Disks with another size are refused by [`crate::efi`].
pub const SECTOR: usize = 512;

/// A part of the disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Partition {
    /// Its number in the table, from 1.
    pub number: u32,
    /// Its own GUID, as it lies on the disk.
    pub guid: [u8; 16],
    /// Its first sector.
    pub first: u64,
    /// How many sectors it has.
    pub sectors: u64,
}

impl Partition {
    /// Its size in bytes.
    pub const fn bytes(&self) -> u64 {
        self.sectors.saturating_mul(SECTOR as u64)
    }
}

/// The partitions that matter here.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Partitions {
    /// `postern-a`.
    pub a: Option<Partition>,
    /// `postern-b`.
    pub b: Option<Partition>,
    /// `postern-state`.
    pub state: Option<Partition>,
}

impl Partitions {
    /// Reads the table at the disk's start or, if that is damaged, the one at its end. `last` is its last sector.
    ///
    /// # Errors
    /// What is wrong with the table at the start, if both are.
    pub fn read<E>(
        last: u64,
        mut read: impl FnMut(u64, &mut [u8; SECTOR]) -> Result<(), E>,
    ) -> Result<Self, Error<E>> {
        Self::read_at(1, last, &mut read).or_else(|first| Self::read_at(last, last, &mut read).or(Err(first)))
    }

    /// The partition of a slot.
    pub const fn slot(&self, slot: Slot) -> Option<Partition> {
        match slot {
            Slot::A => self.a,
            Slot::B => self.b,
        }
    }

    fn read_at<E>(
        at: u64,
        last: u64,
        read: &mut impl FnMut(u64, &mut [u8; SECTOR]) -> Result<(), E>,
    ) -> Result<Self, Error<E>> {
        let mut sector = [0; SECTOR];
        read(at, &mut sector).map_err(Error::Read)?;
        let header = Header::decode(sector, at)?;
        let mut found = Self::default();
        let mut digest = CRC.digest();
        let mut left = header.entries;
        for lba in header.table.. {
            if left == 0 {
                break;
            }
            read(lba, &mut sector).map_err(Error::Read)?;
            for entry in sector.chunks_exact(ENTRY).take(left as usize) {
                digest.update(entry);
                left -= 1;
                found.add(entry, header.entries - left, last);
            }
        }
        if digest.finalize() == header.checksum { Ok(found) } else { Err(Error::Entries) }
    }

    /// Keeps an entry whose name we know and whose sectors are on the disk; the first of a name counts.
    fn add(&mut self, entry: &[u8], number: u32, last: u64) {
        let place = match () {
            () if is_named(entry, Slot::A.partition()) => &mut self.a,
            () if is_named(entry, Slot::B.partition()) => &mut self.b,
            () if is_named(entry, "postern-state") => &mut self.state,
            () => return,
        };
        let (first, end) = (u64_at(entry, 32), u64_at(entry, 40));
        if place.is_some() || first < 2 || first > end || end >= last {
            return;
        }
        let mut guid = [0; 16];
        guid.copy_from_slice(&entry[16..32]);
        *place = Some(Partition { number, guid, first, sectors: end - first + 1 });
    }
}

/// Why there is no table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Error<E> {
    /// The disk failed.
    Read(E),
    /// There is no GPT.
    Missing,
    /// Its header is damaged.
    Header,
    /// Its entries are damaged.
    Entries,
    /// More entries, or larger ones, than any tool writes.
    Size,
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, "the disk cannot be read: {error}"),
            Self::Missing => f.write_str("the disk has no GPT"),
            Self::Header => f.write_str("the GPT's header is damaged, and so is its copy"),
            Self::Entries => f.write_str("the GPT's entries are damaged, and so is their copy"),
            Self::Size => f.write_str("the GPT has entries of a kind that is not known here"),
        }
    }
}

/// Bytes of an entry.
const ENTRY: usize = 128;

/// So many entries at most; every tool writes 128.
const ENTRIES: u32 = 1024;

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

struct Header {
    table: u64,
    entries: u32,
    checksum: u32,
}

impl Header {
    fn decode<E>(mut sector: [u8; SECTOR], at: u64) -> Result<Self, Error<E>> {
        if !sector.starts_with(b"EFI PART") {
            return Err(Error::Missing);
        }
        let checksum = u32_at(&sector, 16);
        sector[16..20].fill(0); // the checksum was made over zeros in its own place
        let size = u32_at(&sector, 12) as usize;
        let bytes = sector.get(..size).filter(|bytes| bytes.len() >= 92).ok_or(Error::Header)?;
        if CRC.checksum(bytes) != checksum || u64_at(bytes, 24) != at {
            return Err(Error::Header);
        }
        let (entries, size) = (u32_at(bytes, 80), u32_at(bytes, 84));
        if size as usize != ENTRY || entries > ENTRIES {
            return Err(Error::Size);
        }
        Ok(Self { table: u64_at(bytes, 72), entries, checksum: u32_at(bytes, 88) })
    }
}

/// Compares an entry's name, 36 UTF-16 units filled up with zeros, with an ASCII one.
fn is_named(entry: &[u8], name: &str) -> bool {
    let units = entry[56..ENTRY].chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
    units.take_while(|&unit| unit != 0).eq(name.bytes().map(u16::from))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
pub(crate) mod tests {
    extern crate std;
    use std::vec;
    use std::vec::Vec;

    use super::*;

    /// A disk of `last + 1` sectors with a GPT of these partitions: name, first and last sector.
    pub(crate) fn disk(last: u64, partitions: &[(&str, u64, u64)]) -> Vec<[u8; SECTOR]> {
        let mut disk = vec![[0; SECTOR]; usize::try_from(last).unwrap() + 1];
        let mut table = [0; 128 * ENTRY];
        for (entry, (name, first, end)) in table.chunks_exact_mut(ENTRY).zip(partitions) {
            entry[..16].fill(7);
            entry[16..32].fill(u8::try_from(*first & 0xff).unwrap());
            entry[32..40].copy_from_slice(&first.to_le_bytes());
            entry[40..48].copy_from_slice(&end.to_le_bytes());
            for (unit, byte) in entry[56..].chunks_exact_mut(2).zip(name.bytes()) {
                unit[0] = byte;
            }
        }
        for (at, start) in [(1, 2), (last, last - 32)] {
            for (sector, bytes) in
                disk[usize::try_from(start).unwrap()..].iter_mut().zip(table.chunks(SECTOR))
            {
                sector.copy_from_slice(bytes);
            }
            let header = &mut disk[usize::try_from(at).unwrap()];
            header[..8].copy_from_slice(b"EFI PART");
            header[12] = 92;
            header[24..32].copy_from_slice(&at.to_le_bytes());
            header[72..80].copy_from_slice(&start.to_le_bytes());
            header[80] = 128;
            header[84] = 128;
            header[88..92].copy_from_slice(&CRC.checksum(&table).to_le_bytes());
            let checksum = CRC.checksum(&header[..92]);
            header[16..20].copy_from_slice(&checksum.to_le_bytes());
        }
        disk
    }

    fn read(disk: &[[u8; SECTOR]]) -> Result<Partitions, Error<&'static str>> {
        Partitions::read(disk.len() as u64 - 1, |lba, into| {
            *into = *disk.get(usize::try_from(lba).unwrap()).ok_or("beyond the end")?;
            Ok(())
        })
    }

    const NAMES: [(&str, u64, u64); 5] = [
        ("postern-boot", 40, 49),
        ("postern-a", 50, 59),
        ("postern-b", 60, 69),
        ("postern-state", 70, 79),
        ("postern-data", 80, 89),
    ];

    #[test]
    fn finds_partitions_by_name() {
        let found = read(&disk(200, &NAMES)).unwrap();
        let a = found.slot(Slot::A).unwrap();
        assert_eq!(a, Partition { number: 2, guid: [50; 16], first: 50, sectors: 10 });
        assert_eq!(a.bytes(), 5120);
        assert_eq!(found.b.unwrap().first, 60);
        assert_eq!(found.state.unwrap().number, 4);
        let odd =
            read(&disk(200, &[("postern-a", 60, 50), ("postern-b", 50, 200), ("postern-state2", 50, 60)]));
        assert_eq!(odd.unwrap(), Partitions::default(), "nonsense is passed over");
    }

    #[test]
    fn one_damaged_table_is_enough() {
        let good = disk(200, &NAMES);
        for damaged in [1, 2, 200, 168] {
            let mut disk = good.clone();
            disk[damaged][60] ^= 1;
            assert_eq!(read(&disk).unwrap(), read(&good).unwrap(), "sector {damaged}");
        }
        let mut both = good.clone();
        both[1] = [0; SECTOR];
        both[200][30] = 9;
        assert_eq!(read(&both), Err(Error::Missing));
        both[1] = good[1];
        both[2][0] = 9;
        assert_eq!(read(&both), Err(Error::Entries));
    }

    /// Any bit of the header flipped, in both copies: an error or the same partitions, no panic, no endless loop.
    #[test]
    fn any_flipped_bit() {
        let good = disk(200, &NAMES);
        for bit in 0..SECTOR * 8 {
            let mut disk = good.clone();
            for at in [1, 200] {
                disk[at][bit / 8] ^= 1 << (bit % 8);
            }
            assert!(read(&disk).is_err() || bit / 8 >= 92, "bit {bit}");
        }
    }
}

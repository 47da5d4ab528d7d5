//! Where the partitions of an image are, by name (UEFI specification 2.10, §5.3).
//!
//! Only the first copy of the table counts: Linux looks at no other unless it is told to, and a box that grows its data
//! partition must leave that copy whole at every instant.

use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use crc::{CRC_32_ISO_HDLC, Crc};

use super::image::Image;

const CHECKSUM: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
/// Octets of a logical block: our images have no other.
const SECTOR: u64 = 512;
/// Octets of the header's fields, and where its own checksum lies among them.
const HEADER: usize = 92;
const OWN: Range<usize> = 16..20;
/// Octets of a partition's entry, and how many there are at most.
const ENTRY: usize = 128;
const ENTRIES_MOST: usize = 256;

/// The octets of the partition with this name.
///
/// # Errors
/// The image has no whole partition table, or none of that name in it.
pub fn partition(image: &Image, name: &str) -> Result<Range<u64>> {
    let mut header = image.get(SECTOR, HEADER);
    let word = |at: usize| short(&header, at).context("the partition table is cut off");
    ensure!(
        header.starts_with(b"EFI PART") && word(12)? as usize == HEADER,
        "there is no partition table (GPT)"
    );
    let (own, of_entries, first) = (word(16)?, word(88)?, long(&header, 72).context("no GPT")?);
    let (count, size) = (word(80)? as usize, word(84)? as usize);
    ensure!(size == ENTRY && count <= ENTRIES_MOST, "the partition table has an unusual form");
    if let Some(own) = header.get_mut(OWN) {
        own.fill(0);
    }
    ensure!(CHECKSUM.checksum(&header) == own, "the partition table's header is damaged");
    let entries = image.get(first * SECTOR, count * ENTRY);
    ensure!(CHECKSUM.checksum(&entries) == of_entries, "the partition table's entries are damaged");
    for entry in entries.chunks_exact(ENTRY) {
        let units = entry.get(56..).unwrap_or_default().chunks_exact(2);
        let units: Vec<u16> =
            units.map(|unit| u16::from_le_bytes([unit[0], unit[1]])).take_while(|unit| *unit != 0).collect();
        if String::from_utf16_lossy(&units) == name {
            let (first, last) = (long(entry, 32).context("no GPT")?, long(entry, 40).context("no GPT")?);
            return Ok(first * SECTOR..(last + 1) * SECTOR);
        }
    }
    bail!("there is no partition {name}")
}

fn long(bytes: &[u8], from: usize) -> Option<u64> {
    bytes.get(from..from + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes)
}

fn short(bytes: &[u8], from: usize) -> Option<u32> {
    bytes.get(from..from + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Writes a table with these partitions: name, first and last sector.
    pub(crate) fn make(image: &mut Image, partitions: &[(&str, u64, u64)]) {
        let mut entries = vec![0; 128 * ENTRY];
        for ((name, first, last), entry) in partitions.iter().zip(entries.chunks_exact_mut(ENTRY)) {
            entry[32..48].copy_from_slice(&[*first, *last].map(u64::to_le_bytes).concat());
            let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
            entry[56..56 + name.len()].copy_from_slice(&name);
        }
        let mut header = b"EFI PART\0\0\x01\0".to_vec();
        header.extend([92_u32, 0, 0].map(u32::to_le_bytes).concat());
        header.resize(72, 0);
        header.extend(2_u64.to_le_bytes());
        header.extend([128, 128, CHECKSUM.checksum(&entries)].map(u32::to_le_bytes).concat());
        let own = CHECKSUM.checksum(&header);
        header[OWN].copy_from_slice(&own.to_le_bytes());
        image.write(SECTOR, &header);
        image.write(2 * SECTOR, &entries);
    }

    #[test]
    fn a_partition_is_found_by_its_name() {
        let mut image = Image::default();
        assert!(partition(&image, "postern-data").is_err());
        make(&mut image, &[("postern-state", 64, 95), ("postern-data", 2048, 4095)]);
        assert_eq!(partition(&image, "postern-data").unwrap(), 1 << 20..2 << 20);
        assert!(partition(&image, "postern").unwrap_err().to_string().contains("no partition postern"));
        image.write(1024 + 128 + 40, &[1]);
        assert!(partition(&image, "postern-data").unwrap_err().to_string().contains("entries are damaged"));
    }
}

//! Gives the data partition the rest of the disk: an image is small, the card it is written to is not.
//!
//! The power may fail at any moment. Linux and both firmwares read the first copy of the table, and Linux reads no
//! other one unless it is told to; so the first copy is good at every moment. It changes with the one sector of its
//! header, which then points to entries that were written elsewhere before.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::disk::{Disk, Role};
use crate::gpt::{Copy, Field, SECTOR, SECTOR_BYTES};
use crate::{Fault, ioctl};

/// What became of the data partition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Growth {
    /// It has the rest of the disk already.
    Already,
    /// It grew, in sectors of 512 bytes. The file system in it is as long as before.
    Grown {
        /// Its length before.
        from: u64,
        /// Its length now.
        to: u64,
    },
}

/// Partitions begin and end at whole MiB, which suits every erase block.
const ALIGN: u64 = 2048;

const MEND: &str =
    "the box serves with the partition as it is; write the image to the disk anew for all of its space";

/// Moves the table's second copy to the disk's end and enlarges the data partition, which must be the last one, in the
/// table and in the kernel's eyes. Also restores the second copy where it is damaged.
pub fn grow_data(disk: &Disk) -> Result<Growth, Fault> {
    let fault = |what: &str, error: io::Error| Fault::io("disk", &disk.device, what, MEND, error);
    if disk.sector_size != SECTOR {
        let what = format!("has sectors of {} bytes", disk.sector_size);
        return Err(Fault::new("disk", &disk.device, what, MEND));
    }
    let data = disk.partition(Role::Data);
    let file = OpenOptions::new().read(true).write(true).open(&disk.device);
    let file = file.map_err(|error| fault("cannot be opened", error))?;
    grow_table(&file, &disk.device, disk.sectors, data.number)?;
    let copy = Copy::read(&file, 1).map_err(|what| Fault::new("disk", &disk.device, what, MEND))?;
    let Some((first, last)) = copy.partition(data.number) else { return Ok(Growth::Already) };
    let to = last + 1 - first;
    // The kernel's own view decides: a table may have grown just before the power failed.
    if to <= data.sectors {
        return Ok(Growth::Already);
    }
    ioctl::resize_partition(&file, data.number, first * SECTOR, to * SECTOR)
        .map_err(|errno| fault("the kernel does not take the new length", errno.into()))?;
    Ok(Growth::Grown { from: data.sectors, to })
}

/// The table alone, on a disk or an image of so many sectors.
fn grow_table(file: &File, device: &Path, sectors: u64, data: u32) -> Result<(), Fault> {
    let plan = plan(file, sectors, data).map_err(|what| Fault::new("disk", device, what, MEND))?;
    for step in plan {
        let written = step.iter().try_for_each(|write| file.write_all_at(&write.bytes, write.lba * SECTOR));
        // A step stands on the one before it: without this the disk may do them in any order.
        written.and_then(|()| file.sync_data()).map_err(|error| {
            Fault::io("disk", device, "the partition table cannot be written", MEND, error)
        })?;
    }
    Ok(())
}

/// Bytes for whole sectors.
struct Write {
    lba: u64,
    bytes: Vec<u8>,
}

/// What is to be written, in steps that must each be on the disk before the next begins; nothing when all is well.
fn plan(file: &File, sectors: u64, data: u32) -> Result<Vec<Vec<Write>>, String> {
    let now = Copy::read(file, 1)?;
    let (mut first, second) = wanted(&now, sectors, data)?;
    if first.entries != now.entries {
        let place = place(file, &now, &first)?;
        first.set(Field::Entries, place);
    }
    first.seal();
    let mut steps = Vec::new();
    let entries_of = |copy: &Copy| Write { lba: copy.get(Field::Entries), bytes: copy.entries.clone() };
    let header_of = |copy: &Copy| Write { lba: copy.get(Field::Own), bytes: copy.header().to_vec() };
    if Copy::read(file, sectors - 1).as_ref() != Ok(&second) {
        steps.push(vec![entries_of(&second)]);
        steps.push(vec![header_of(&second)]);
    }
    if first != now {
        if first.entries != now.entries {
            steps.push(vec![entries_of(&first)]);
        }
        steps.push(vec![header_of(&first)]);
    }
    steps.extend(protective(file, sectors)?.map(|write| vec![write]));
    Ok(steps)
}

/// Both copies as they should be, the first one's entries still without a place.
fn wanted(now: &Copy, sectors: u64, data: u32) -> Result<(Copy, Copy), String> {
    let (start, end) = now.partition(data).ok_or("the table does not have the data partition")?;
    if let Some((number, ..)) = now.partitions().find(|(_, first, _)| *first > start) {
        return Err(format!("partition {number} lies behind the data partition"));
    }
    let entry_sectors = now.entry_sectors();
    let second_entries = sectors.checked_sub(1 + entry_sectors).ok_or("the disk is too short for a table")?;
    let last_usable = second_entries - 1;
    if end > last_usable {
        return Err(format!("the data partition ends in sector {end}, behind the disk's last usable one"));
    }
    let mut first = now.clone();
    let grown = (last_usable + 1) / ALIGN * ALIGN;
    if grown > end + 1 {
        first.set_last(data, grown - 1);
    }
    first.set(Field::Other, sectors - 1);
    first.set(Field::LastUsable, last_usable);
    // The entries may move up to there.
    let start = now.partitions().map(|(_, first, _)| first).min().unwrap_or(start);
    if first.entries != now.entries {
        first.set(Field::FirstUsable, start);
    }
    let mut second = first.clone();
    second.set(Field::Own, sectors - 1);
    second.set(Field::Other, 1);
    second.set(Field::Entries, second_entries);
    second.seal();
    Ok((first, second))
}

/// Where the first copy's new entries go while the old ones still hold: to the table's usual place if that is free now,
/// else just before the first partition, if nothing is there. Some chips load their boot program from sectors between
/// the table and the first partition, so only zeros are written over.
fn place(file: &File, now: &Copy, wanted: &Copy) -> Result<u64, String> {
    let sectors = now.entry_sectors();
    let old = now.get(Field::Entries);
    if old >= 2 + sectors {
        return Ok(2);
    }
    let no_room = || "there is no room before the first partition to move the table to".to_owned();
    let place = wanted.get(Field::FirstUsable).checked_sub(sectors).ok_or_else(no_room)?;
    if place < old + sectors {
        return Err(no_room());
    }
    let mut there = vec![0; wanted.entries.len()];
    file.read_exact_at(&mut there, place * SECTOR).map_err(|error| error.to_string())?;
    let free = there
        .chunks(SECTOR_BYTES)
        .zip(wanted.entries.chunks(SECTOR_BYTES))
        .all(|(is, shall)| ours(is, shall));
    if free { Ok(place) } else { Err(no_room()) }
}

/// Whether a sector may be written over: zeros, or entries that we wrote there, in an attempt that the power cut short
/// or for a former length of the disk; then only where partitions end differs.
fn ours(is: &[u8], shall: &[u8]) -> bool {
    const ENTRY: usize = 128;
    let same = |(is, shall): (&[u8], &[u8])| is[..40] == shall[..40] && is[48..] == shall[48..];
    is.iter().all(|byte| *byte == 0) || is.chunks_exact(ENTRY).zip(shall.chunks_exact(ENTRY)).all(same)
}

/// The protective MBR's one partition covers the disk (UEFI 2.10 §5.2.3): the sector anew, if it does not.
fn protective(file: &File, sectors: u64) -> Result<Option<Write>, String> {
    let mut bytes = [0; SECTOR_BYTES];
    file.read_exact_at(&mut bytes, 0).map_err(|error| format!("sector 0 cannot be read: {error}"))?;
    let length = u32::try_from(sectors - 1).unwrap_or(u32::MAX).to_le_bytes();
    let protective = bytes[510..] == [0x55, 0xAA] && bytes[450] == 0xEE && bytes[454..458] == [1, 0, 0, 0];
    if !protective || bytes[458..462] == length {
        return Ok(None); // whole already, or made by somebody who knows why
    }
    bytes[458..462].copy_from_slice(&length);
    Ok(Some(Write { lba: 0, bytes: bytes.to_vec() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A disk with our five partitions, made by an independent library, then put on a larger disk.
    fn disk(small: u64, large: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(small * SECTOR).unwrap();
        let mbr = ::gpt::mbr::ProtectiveMBR::with_lb_size(u32::try_from(small - 1).unwrap());
        mbr.overwrite_lba0(&mut &file).unwrap();
        let config = ::gpt::GptConfig::new().writable(true);
        let mut table = config.create_from_device(&file, None).unwrap();
        for (role, sectors) in Role::ALL.into_iter().zip([4096, 2048, 2048, 2048]) {
            let kind = ::gpt::partition_types::LINUX_FS;
            table.add_partition(role.name(), sectors * SECTOR, kind, 0, Some(ALIGN)).unwrap();
        }
        let left = table.find_free_sectors().into_iter().last().unwrap();
        let length = (left.1 - 2 * ALIGN) / ALIGN * ALIGN * SECTOR;
        let kind = ::gpt::partition_types::LINUX_FS;
        table.add_partition(Role::Data.name(), length, kind, 0, Some(ALIGN)).unwrap();
        table.write().unwrap();
        file.set_len(large * SECTOR).unwrap();
        file
    }

    /// The partitions as an independent library sees them, through the first copy alone.
    fn seen(file: &File) -> BTreeMap<u32, (String, u64, u64)> {
        let config = ::gpt::GptConfig::new().writable(false).only_valid_headers(false);
        let table = config.open_from_device(file).unwrap();
        table.primary_header().unwrap();
        let partitions = table.partitions().iter();
        partitions.map(|(number, p)| (*number, (p.name.clone(), p.first_lba, p.last_lba))).collect()
    }

    fn both_copies_agree(file: &File) {
        let config = ::gpt::GptConfig::new().writable(false).only_valid_headers(true);
        let table = config.open_from_device(file).unwrap();
        assert!(table.primary_header().is_ok() && table.backup_header().is_ok());
        let length = file.metadata().unwrap().len() / SECTOR;
        assert_eq!(table.primary_header().unwrap().backup_lba, length - 1);
    }

    const SMALL: u64 = 20_000;
    const LARGE: u64 = 30_001;

    fn grow(file: &File) -> Result<(), Fault> {
        grow_table(file, Path::new("disk"), file.metadata().unwrap().len() / SECTOR, 5)
    }

    #[test]
    fn data_takes_the_rest_and_the_others_stay() {
        let file = disk(SMALL, LARGE);
        let before = seen(&file);
        grow(&file).unwrap();
        both_copies_agree(&file);
        let after = seen(&file);
        assert_eq!(after[&5].2, (LARGE - 33) / ALIGN * ALIGN - 1);
        for number in 1..5 {
            assert_eq!(after[&number], before[&number]);
        }
        let mut mbr = [0; 512];
        file.read_exact_at(&mut mbr, 0).unwrap();
        assert_eq!(mbr[458..462], (u32::try_from(LARGE - 1).unwrap()).to_le_bytes());
        assert!(plan(&file, LARGE, 5).unwrap().is_empty(), "a second time there is nothing to do");
    }

    #[test]
    fn it_grows_again_and_the_table_comes_back_to_its_place() {
        let file = disk(SMALL, LARGE);
        for length in [LARGE, LARGE + 50_000, LARGE + 100_000, LARGE + 100_010] {
            file.set_len(length * SECTOR).unwrap();
            grow(&file).unwrap();
            both_copies_agree(&file);
            assert_eq!(seen(&file)[&5].2, (length - 33) / ALIGN * ALIGN - 1);
        }
        assert_eq!(Copy::read(&file, 1).unwrap().get(Field::Entries), 2016);
    }

    #[test]
    fn a_damaged_second_copy_is_restored() {
        let file = disk(SMALL, LARGE);
        grow(&file).unwrap();
        file.write_all_at(&[0xFF; 100], (LARGE - 20) * SECTOR).unwrap();
        grow(&file).unwrap();
        both_copies_agree(&file);
    }

    /// Power fails after every step, with any of the step's sectors written.
    #[test]
    fn the_first_copy_is_good_at_every_moment() {
        let file = disk(SMALL, LARGE);
        let before = seen(&file);
        let steps = plan(&file, LARGE, 5).unwrap();
        assert_eq!(steps.len(), 5);
        let mut after = before.clone();
        after.get_mut(&5).unwrap().2 = (LARGE - 33) / ALIGN * ALIGN - 1;
        let mut random = 1_u64;
        for step in &steps {
            for _ in 0..20 {
                let torn = tempfile::tempfile().unwrap();
                std::io::Seek::rewind(&mut &file).unwrap();
                io::copy(&mut &file, &mut &torn).unwrap();
                for write in step {
                    for (sector, bytes) in (write.lba..).zip(write.bytes.chunks(512)) {
                        random ^= random << 13;
                        random ^= random >> 7;
                        random ^= random << 17;
                        if random.is_multiple_of(2) {
                            torn.write_all_at(bytes, sector * SECTOR).unwrap();
                        }
                    }
                }
                let now = seen(&torn);
                assert!(now == before || now == after);
                // The next start finishes it.
                grow(&torn).unwrap();
                assert_eq!(seen(&torn), after);
                both_copies_agree(&torn);
            }
            for write in step {
                file.write_all_at(&write.bytes, write.lba * SECTOR).unwrap();
            }
        }
        assert_eq!(seen(&file), after);
    }

    #[test]
    fn a_boot_program_before_the_first_partition_is_not_written_over() {
        let file = disk(SMALL, LARGE);
        file.write_all_at(b"boot program", 2040 * SECTOR).unwrap();
        let before = seen(&file);
        let fault = grow(&file).unwrap_err().to_string();
        assert!(fault.contains("there is no room before the first partition"), "{fault}");
        assert_eq!(seen(&file), before);
    }

    #[test]
    fn tables_that_are_not_ours_are_left_alone() {
        let behind = disk(SMALL, LARGE);
        let fault = grow_table(&behind, Path::new("disk"), LARGE, 4).unwrap_err().to_string();
        assert!(fault.contains("partition 5 lies behind the data partition"), "{fault}");
        let fault = grow_table(&behind, Path::new("disk"), SMALL / 2, 5).unwrap_err().to_string();
        assert!(fault.contains("behind the disk's last usable one"), "{fault}");
        behind.write_all_at(&[1], 1030).unwrap();
        let fault = grow(&behind).unwrap_err().to_string();
        assert!(fault.contains("entries in sector 2 are damaged") || fault.contains("damaged"), "{fault}");
        let empty = tempfile::tempfile().unwrap();
        empty.set_len(LARGE * SECTOR).unwrap();
        assert!(grow(&empty).unwrap_err().to_string().contains("sector 1 holds no partition table"));
    }
}

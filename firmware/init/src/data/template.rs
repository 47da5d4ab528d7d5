//! The empty file system, as a list of its blocks: laid on a blank partition in an order that a power cut cannot hurt.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::ext4::{LENGTH, MARK, SUPERBLOCK, Superblock};
use crate::kernel;

/// What is written to: the partition, or in tests a record of what would be.
pub(super) trait Medium {
    /// Bytes that it holds.
    fn size(&self) -> io::Result<u64>;
    /// Writes; nothing is on the disk for sure before [`Medium::sync`].
    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Writes zeroes.
    fn zero(&self, offset: u64, length: u64) -> io::Result<()>;
    /// Waits until the disk has everything.
    fn sync(&self) -> io::Result<()>;
}

impl Medium for File {
    fn size(&self) -> io::Result<u64> {
        Ok(kernel::device_size(self)?)
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn zero(&self, offset: u64, length: u64) -> io::Result<()> {
        Ok(kernel::zero_out(self, offset, length)?)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }
}

/// Zeroed at a time.
const STEP: u64 = 4 << 20;
const SECTOR: u64 = 512;

/// A run of bytes of the template.
type Run<'t> = (u64, &'t [u8]);

/// Lays `template` on `device`. `random` becomes its name and its secret.
///
/// In this order: the mark; zeroes and blocks; the second half of the superblock; its first half, with the magic number,
/// one sector, which a disk writes whole or not at all; the mark away. Each is on the disk before the next begins, so
/// the partition counts as blank up to one write and as finished from it on.
pub(super) fn lay(
    medium: &impl Medium,
    template: &[u8],
    random: &[u8; 32],
    feed: &dyn Fn(),
) -> io::Result<()> {
    let runs = runs(template)?;
    let mut superblock = superblock(&runs)?;
    superblock.rename(random);
    let size = superblock.blocks() * superblock.block_size();
    let room = medium.size()?;
    if room < size || runs.iter().any(|(offset, bytes)| offset + bytes.len() as u64 > size) {
        return Err(invalid(format!("a file system of {size} bytes does not fit into {room}")));
    }
    medium.write(MARK, 0)?;
    medium.sync()?;
    // Not the sector with the mark.
    let mut at = SECTOR;
    while at < size {
        let length = STEP.min(size - at);
        medium.zero(at, length)?;
        at += length;
        feed();
    }
    let head = (SUPERBLOCK + LENGTH) as u64;
    for (offset, bytes) in runs {
        // What lies before its end is written last.
        let skip = usize::try_from(head.saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes.len());
        medium.write(bytes.get(skip..).unwrap_or_default(), offset + skip as u64)?;
        feed();
    }
    medium.sync()?;
    let (first, second) = superblock.bytes().split_at(LENGTH / 2);
    medium.write(second, (SUPERBLOCK + LENGTH / 2) as u64)?;
    medium.sync()?;
    medium.write(first, SUPERBLOCK as u64)?;
    medium.sync()?;
    medium.write(&[0; MARK.len()], 0)?;
    medium.sync()
}

/// Takes the list apart: offset (u64), length (u32), bytes, little-endian, to the end.
fn runs(template: &[u8]) -> io::Result<Vec<Run<'_>>> {
    let broken = || invalid("the template of the file system is damaged".to_owned());
    let (mut rest, mut runs) = (template, Vec::new());
    while !rest.is_empty() {
        let (offset, after) = rest.split_first_chunk::<8>().ok_or_else(broken)?;
        let (length, after) = after.split_first_chunk::<4>().ok_or_else(broken)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| broken())?;
        let (bytes, after) = after.split_at_checked(length).ok_or_else(broken)?;
        runs.push((u64::from_le_bytes(*offset), bytes));
        rest = after;
    }
    Ok(runs)
}

fn superblock(runs: &[Run<'_>]) -> io::Result<Superblock> {
    let at = SUPERBLOCK;
    let first = runs.iter().find(|(offset, _)| *offset == 0).map(|(_, bytes)| *bytes);
    let bytes = first.and_then(|bytes| bytes.get(at..)).and_then(|bytes| bytes.first_chunk::<LENGTH>());
    let superblock = bytes.and_then(Superblock::parse);
    superblock.ok_or_else(|| invalid("the template has no superblock".to_owned()))
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::super::ext4::{Content, look};
    use super::*;
    use std::cell::RefCell;
    use std::process::Command;

    const SIZE: usize = 4 << 20;
    const RANDOM: [u8; 32] = [0xA5; 32];

    enum Write {
        Bytes(u64, Vec<u8>),
        Zero(u64, u64),
        Sync,
    }

    /// Remembers what was done to it.
    #[derive(Default)]
    struct Record(RefCell<Vec<Write>>);

    impl Medium for Record {
        fn size(&self) -> io::Result<u64> {
            Ok(SIZE as u64)
        }
        fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            self.0.borrow_mut().push(Write::Bytes(offset, bytes.to_vec()));
            Ok(())
        }
        fn zero(&self, offset: u64, length: u64) -> io::Result<()> {
            self.0.borrow_mut().push(Write::Zero(offset, length));
            Ok(())
        }
        fn sync(&self) -> io::Result<()> {
            self.0.borrow_mut().push(Write::Sync);
            Ok(())
        }
    }

    /// Does one write to an image, or only every other sector of it: what a power cut may leave of it.
    fn apply(image: &mut [u8], write: &Write, torn: bool) {
        let mut put = |offset: u64, bytes: &[u8]| {
            let sectors = bytes.chunks(512).enumerate();
            for (number, sector) in sectors.filter(|(number, _)| !torn || number % 2 == 1) {
                let at = usize::try_from(offset).unwrap() + number * 512;
                image[at..at + sector.len()].copy_from_slice(sector);
            }
        };
        match write {
            Write::Bytes(offset, bytes) => put(*offset, bytes),
            Write::Zero(offset, length) => put(*offset, &vec![0; usize::try_from(*length).unwrap()]),
            Write::Sync => {}
        }
    }

    fn mke2fs(features: &str) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        File::create(&image).unwrap().set_len(SIZE as u64).unwrap();
        let options = ["-q", "-F", "-t", "ext4", "-b", "1024", "-O", features];
        let options = options.into_iter().chain(["-E", "lazy_itable_init=0,nodiscard", "-J", "size=1"]);
        let path = "/usr/sbin:/sbin:/usr/bin:/bin";
        assert!(
            Command::new("mke2fs").env("PATH", path).args(options).arg(&image).status().unwrap().success()
        );
        let bytes = std::fs::read(&image).unwrap();
        let mut list = Vec::new();
        for (number, block) in
            bytes.chunks(4096).enumerate().filter(|(_, block)| block.iter().any(|b| *b != 0))
        {
            list.extend_from_slice(&(number as u64 * 4096).to_le_bytes());
            list.extend_from_slice(&4096u32.to_le_bytes());
            list.extend_from_slice(block);
        }
        list
    }

    fn content(image: &[u8]) -> Content {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, image).unwrap();
        look(&file).unwrap()
    }

    fn check(image: &[u8]) -> (bool, String) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), image).unwrap();
        let path = "/usr/sbin:/sbin:/usr/bin:/bin";
        let check = Command::new("e2fsck").env("PATH", path).arg("-fn").arg(file.path()).output().unwrap();
        let shown = Command::new("dumpe2fs").env("PATH", path).arg("-h").arg(file.path()).output().unwrap();
        (check.status.success(), String::from_utf8_lossy(&shown.stdout).into_owned())
    }

    #[test]
    fn what_is_laid_out_is_a_file_system_with_a_name_of_its_own() {
        let template = mke2fs("metadata_csum,metadata_csum_seed,64bit,extent,has_journal");
        let record = Record::default();
        lay(&record, &template, &RANDOM, &|| {}).unwrap();
        // A card with another life behind it.
        let mut image = vec![0xEE; SIZE];
        record.0.borrow().iter().for_each(|write| apply(&mut image, write, false));
        assert!(matches!(content(&image), Content::Ext4(_)));
        let (sound, shown) = check(&image);
        assert!(sound && shown.contains("a5a5a5a5-a5a5-45a5-a5a5-a5a5a5a5a5a5"), "{shown}");
    }

    #[test]
    fn checksums_that_hang_on_the_name_keep_it() {
        let template = mke2fs("metadata_csum,^metadata_csum_seed,64bit,extent,has_journal");
        let record = Record::default();
        lay(&record, &template, &RANDOM, &|| {}).unwrap();
        let mut image = vec![0; SIZE];
        record.0.borrow().iter().for_each(|write| apply(&mut image, write, false));
        let (sound, shown) = check(&image);
        assert!(sound && !shown.contains("a5a5a5a5-a5a5"), "{shown}");
    }

    /// The power fails after each write, with what was not yet synced there, half there or lost.
    #[test]
    fn a_power_cut_leaves_it_blank_or_finished() {
        let template = mke2fs("metadata_csum,metadata_csum_seed,64bit,extent,has_journal");
        let record = Record::default();
        lay(&record, &template, &RANDOM, &|| {}).unwrap();
        let writes = record.0.borrow();
        let (mut synced, mut finished) = (vec![0; SIZE], false);
        let mut since = 0;
        for cut in 0..=writes.len() {
            for choice in 0..4u32 {
                let mut image = synced.clone();
                for (at, write) in writes[since..cut].iter().enumerate() {
                    match (choice, at % 2) {
                        (0, _) | (3, 0) => apply(&mut image, write, false),
                        (1, _) => apply(&mut image, write, true),
                        _ => {}
                    }
                }
                match content(&image) {
                    Content::Blank => assert!(!finished, "blank again after write {cut}"),
                    Content::Ext4(_) => assert!(check(&image).0, "not sound after write {cut}, {choice}"),
                    other => panic!("{other:?} after write {cut}, {choice}"),
                }
            }
            if let Some(Write::Sync) = writes.get(cut) {
                writes[since..cut].iter().for_each(|write| apply(&mut synced, write, false));
                since = cut + 1;
                finished |= matches!(content(&synced), Content::Ext4(_));
            }
        }
        assert!(finished);
    }

    #[test]
    fn a_damaged_template_and_a_small_partition_are_refused_before_anything_is_written() {
        let template = mke2fs("metadata_csum,metadata_csum_seed,64bit,extent,has_journal");
        let record = Record::default();
        assert!(lay(&record, &template[..template.len() - 1], &RANDOM, &|| {}).is_err());
        assert!(lay(&record, &[], &RANDOM, &|| {}).is_err());
        assert!(record.0.borrow().is_empty());
    }
}

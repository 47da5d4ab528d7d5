//! A disk in memory: only what is not zero, in blocks that copies share, so that a thousand disks which differ little cost
//! little more than one.

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

/// Octets of a block.
const BLOCK: usize = 4096;
const BLOCK_LENGTH: u64 = BLOCK as u64;
const ZEROS: [u8; BLOCK] = [0; BLOCK];

/// The content of a disk.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// By number. A block of zeros is not here.
    blocks: BTreeMap<u64, Arc<Block>>,
}

#[derive(Clone, Debug)]
struct Block {
    bytes: [u8; BLOCK],
    hash: u64,
}

impl Image {
    /// Reads a raw image, and of a sparse file only what it holds.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let bad = || format!("cannot read the image {}", path.display());
        let file = File::open(path).with_context(bad)?;
        let length = file.metadata().with_context(bad)?.len();
        let mut image = Self::default();
        let mut buffer = vec![0; 64 * BLOCK];
        let mut at = 0;
        while let Some(data) = seek(&file, at, Whence::SeekData).with_context(bad)? {
            let end = seek(&file, data, Whence::SeekHole).with_context(bad)?.unwrap_or(length);
            at = data;
            while at < end {
                let part = buffer.len().min(usize::try_from(end - at)?);
                let part = buffer.get_mut(..part).unwrap_or_default();
                file.read_exact_at(part, at).with_context(bad)?;
                image.write(at, part);
                at += part.len() as u64;
            }
        }
        Ok(image)
    }

    /// What is at `at`, `length` octets of it.
    pub fn get(&self, at: u64, length: usize) -> Vec<u8> {
        let mut found = vec![0; length];
        for (number, inside, place) in pieces(at, length) {
            if let (Some(block), Some(to)) = (self.blocks.get(&number), found.get_mut(place)) {
                to.copy_from_slice(block.bytes.get(inside).unwrap_or_default());
            }
        }
        found
    }

    /// Writes `bytes` at `at`.
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        for (number, inside, place) in pieces(at, bytes.len()) {
            let new = bytes.get(place).unwrap_or_default();
            let block = match self.blocks.get_mut(&number) {
                Some(block) => Arc::make_mut(block),
                None if is_zero(new) => continue,
                None => Arc::make_mut(self.blocks.entry(number).or_insert_with(Block::empty)),
            };
            if let Some(to) = block.bytes.get_mut(inside) {
                to.copy_from_slice(new);
            }
            if is_zero(&block.bytes) {
                self.blocks.remove(&number);
            } else {
                block.hash = hash(number, &block.bytes);
            }
        }
    }

    /// Makes `length` octets from `at` on zero.
    pub fn clear(&mut self, at: u64, length: u64) {
        let end = at.saturating_add(length);
        let whole = at.div_ceil(BLOCK_LENGTH)..end / BLOCK_LENGTH;
        if whole.is_empty() {
            self.write(at, &vec![0; usize::try_from(length).unwrap_or(0)]);
            return;
        }
        let (first, last) = (whole.start * BLOCK_LENGTH, whole.end * BLOCK_LENGTH);
        let gone: Vec<u64> = self.blocks.range(whole).map(|(number, _)| *number).collect();
        for number in gone {
            self.blocks.remove(&number);
        }
        self.write(at, &vec![0; usize::try_from(first - at).unwrap_or(0)]);
        self.write(last, &vec![0; usize::try_from(end - last).unwrap_or(0)]);
    }

    /// A number that is the same for two images that hold the same in `region`, and hardly ever for others. The region
    /// begins and ends at multiples of 4 KiB.
    pub fn identity(&self, region: &Range<u64>) -> u64 {
        let numbers = region.start / BLOCK_LENGTH..region.end / BLOCK_LENGTH;
        self.blocks.range(numbers).fold(0, |sum, (_, block)| sum.wrapping_add(block.hash))
    }

    /// Makes `file` hold what is in `region`, and nothing else.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn store(&self, region: &Range<u64>, file: &File) -> Result<()> {
        file.set_len(0)?;
        file.set_len(region.end - region.start)?;
        let numbers = region.start / BLOCK_LENGTH..region.end / BLOCK_LENGTH;
        for (number, block) in self.blocks.range(numbers) {
            file.write_all_at(&block.bytes, number * BLOCK_LENGTH - region.start)?;
        }
        Ok(())
    }
}

impl Block {
    fn empty() -> Arc<Self> {
        Arc::new(Self { bytes: [0; BLOCK], hash: 0 })
    }
}

/// The blocks that `length` octets at `at` lie in: number, place in the block, place in the octets.
fn pieces(at: u64, length: usize) -> impl Iterator<Item = (u64, Range<usize>, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let here = at + done as u64;
        let inside = usize::try_from(here % BLOCK_LENGTH).unwrap_or(0);
        let part = (BLOCK - inside).min(length - done);
        let place = done..done + part;
        done += part;
        (part > 0).then_some((here / BLOCK_LENGTH, inside..inside + part, place))
    })
}

/// Whether these octets are all zero.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    // By blocks: comparing is quick even where nothing is optimised, and a disk may be cleared by gigabytes.
    bytes.chunks(BLOCK).all(|part| Some(part) == ZEROS.get(..part.len()))
}

/// Of the content and the place: blocks that change places make another image.
fn hash(number: u64, bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(number);
    hasher.write(bytes);
    hasher.finish()
}

/// Where data or a hole begins at or after `at`; `None` past the last data.
fn seek(file: &File, at: u64, whence: Whence) -> Result<Option<u64>> {
    match lseek(file, i64::try_from(at)?, whence) {
        Ok(found) => Ok(Some(u64::try_from(found)?)),
        Err(Errno::ENXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_holds_what_was_written_to_it() {
        let mut image = Image::default();
        let bytes: Vec<u8> = (0..10_000_u32).map(|n| (n % 251) as u8).collect();
        image.write(4_000, &bytes);
        assert_eq!(image.get(4_000, bytes.len()), bytes);
        assert_eq!(image.get(0, 4_000), vec![0; 4_000]);
        image.clear(5_000, 8_000);
        assert_eq!(image.get(4_000, 1_000), bytes[..1_000]);
        assert_eq!(image.get(5_000, 8_000), vec![0; 8_000]);
        assert_eq!(image.get(13_000, 1_000), bytes[9_000..]);
        assert_eq!(image.blocks.len(), 3, "of four blocks one is zero, and gone");
        image.clear(4_000, 100);
        assert_eq!(image.get(4_000, 200)[..], [&[0; 100][..], &bytes[100..200]].concat());
    }

    #[test]
    fn the_same_content_has_the_same_identity_however_it_came_about() {
        let region = 4096..1 << 20;
        let mut one = Image::default();
        one.write(8_192, &[1; 4_096]);
        let mut other = one.clone();
        other.write(8_000, &[2; 5_000]);
        assert_ne!(one.identity(&region), other.identity(&region));
        assert_eq!(one.get(8_192, 4_096), [1; 4_096], "a copy's writes are its own");
        other.write(8_192, &[1; 4_096]);
        other.clear(0, 8_192);
        other.clear(12_288, 4_096);
        assert_eq!(one.identity(&region), other.identity(&region));
        let mut moved = Image::default();
        moved.write(12_288, &[1; 4_096]);
        assert_ne!(one.identity(&region), moved.identity(&region));
        moved.write(8_192, &[1; 4_096]);
        moved.clear(12_288, 4_096);
        moved.write(0, &[5]);
        assert_eq!(one.identity(&region), moved.identity(&region), "outside of the region nothing counts");
    }

    #[test]
    fn a_file_goes_round() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        file.as_file().write_all_at(&[3; 700], 300_000).unwrap();
        file.as_file().write_all_at(&[4; 9], (1 << 20) - 9).unwrap();
        let image = Image::read(file.path()).unwrap();
        assert_eq!(image.get(299_999, 702), [&[0][..], &[3; 700], &[0]].concat());
        let copy = tempfile::NamedTempFile::new().unwrap();
        copy.as_file().write_all_at(&[9; 99], 0).unwrap();
        image.store(&(294_912..1 << 20), copy.as_file()).unwrap();
        let (old, new) = (std::fs::read(file.path()).unwrap(), std::fs::read(copy.path()).unwrap());
        assert!(old[294_912..] == new);
    }
}

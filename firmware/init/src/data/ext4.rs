//! What the first bytes of a partition say: nothing, ext4, or something else. The kernel and e2fsck do the rest.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use crc::{CRC_32_ISCSI, Crc, Digest};

/// Where the superblock lies, and how long it is.
pub(super) const SUPERBLOCK: usize = 1024;
pub(super) const LENGTH: usize = 1024;

/// What has to be zero for a partition to count as blank: no known file system, volume or RAID keeps all of its marks
/// behind so much of nothing.
const START: usize = 128 << 10;

/// Says in the first sector that a file system is being made here, so that a power cut is followed by a new try.
/// ext4 leaves the first two sectors alone.
pub(super) const MARK: &[u8; 32] = b"postern: data is being laid out\n";

const MAGIC: u16 = 0xEF53;
/// `s_state`: the kernel met an error that it could not mend.
const ERRORS: u16 = 2;

const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// Offsets in the superblock (`struct ext4_super_block`).
mod at {
    pub(super) const BLOCKS: usize = 0x04;
    pub(super) const LOG_BLOCK_SIZE: usize = 0x18;
    pub(super) const MAGIC: usize = 0x38;
    pub(super) const STATE: usize = 0x3A;
    pub(super) const INCOMPATIBLE: usize = 0x60;
    pub(super) const READ_ONLY_COMPATIBLE: usize = 0x64;
    pub(super) const UUID: usize = 0x68;
    pub(super) const HASH_SEED: usize = 0xEC;
    pub(super) const BLOCKS_HIGH: usize = 0x150;
    pub(super) const CHECKSUM: usize = 0x3FC;
}

const INCOMPATIBLE_64BIT: u32 = 0x80;
const INCOMPATIBLE_CSUM_SEED: u32 = 0x2000;
const METADATA_CSUM: u32 = 0x400;

/// What is on a partition.
#[derive(Debug)]
pub(super) enum Content {
    /// Nothing, or a file system half made by this program.
    Blank,
    /// An ext4 file system, as far as its superblock goes.
    Ext4(Superblock),
    /// An ext4 file system whose superblock is gone, but a copy of it is there.
    Damaged,
    /// Something else.
    Foreign,
}

/// A superblock with the right magic number.
#[derive(Clone, Debug)]
pub(super) struct Superblock(Box<[u8; LENGTH]>);

/// Looks at the start of a partition.
pub(super) fn look(device: &File) -> io::Result<Content> {
    let mut start = vec![0; START];
    device.read_exact_at(&mut start, 0)?;
    let superblock = start.get(SUPERBLOCK..).and_then(|rest| rest.first_chunk::<LENGTH>());
    if let Some(superblock) = superblock.and_then(Superblock::parse) {
        return Ok(Content::Ext4(superblock));
    }
    if start.starts_with(MARK) || start.iter().all(|byte| *byte == 0) {
        return Ok(Content::Blank);
    }
    Ok(if !names_another(&start) && has_copy(device) { Content::Damaged } else { Content::Foreign })
}

/// Whether the start is marked as something else. Somebody's file system may lie where one of ours was before, and what
/// is left of ours must not make it a ruin to mend.
fn names_another(start: &[u8]) -> bool {
    const MARKS: [(usize, &[u8]); 11] = [
        (510, &[0x55, 0xAA]), // FAT, exFAT, NTFS, a partition table
        (0, b"LUKS\xBA\xBE"),
        (0, b"XFSB"),
        (0, b"hsqs"),                      // squashfs
        (512, b"LABELONE"),                // LVM
        (512, b"EFI PART"),                // GPT
        (1024, &[0x10, 0x20, 0xF5, 0xF2]), // F2FS
        (1024, &[0xE2, 0xE1, 0xF5, 0xE0]), // EROFS
        (4086, b"SWAPSPACE2"),
        (4096, &[0xFC, 0x4E, 0x2B, 0xA9]), // RAID
        (0x10040, b"_BHRfS_M"),            // Btrfs
    ];
    MARKS.iter().any(|(at, mark)| start.get(*at..).is_some_and(|rest| rest.starts_with(mark)))
}

/// Whether the first copy of the superblock, in the second group of blocks of 4 KiB or 1 KiB, is one.
fn has_copy(device: &File) -> bool {
    [32768 * 4096, 8193 * 1024].into_iter().any(|offset| {
        let mut copy = [0; LENGTH];
        device.read_exact_at(&mut copy, offset).is_ok() && Superblock::parse(&copy).is_some()
    })
}

impl Superblock {
    /// `None`: not one.
    pub(super) fn parse(bytes: &[u8; LENGTH]) -> Option<Self> {
        let superblock = Self(Box::new(*bytes));
        (superblock.half(at::MAGIC) == MAGIC).then_some(superblock)
    }

    pub(super) fn bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }

    /// Bytes of a block.
    pub(super) fn block_size(&self) -> u64 {
        1024 << (self.word(at::LOG_BLOCK_SIZE) & 0x0F)
    }

    /// Blocks of the file system.
    pub(super) fn blocks(&self) -> u64 {
        let high = if self.word(at::INCOMPATIBLE) & INCOMPATIBLE_64BIT == 0 {
            0
        } else {
            self.word(at::BLOCKS_HIGH)
        };
        u64::from(high) << 32 | u64::from(self.word(at::BLOCKS))
    }

    /// Whether the kernel has noted errors, which only a check mends.
    pub(super) fn has_errors(&self) -> bool {
        self.half(at::STATE) & ERRORS != 0
    }

    /// Gives the file system a name of its own and its folders a secret of their own. False: its checksums hang on the
    /// name, so it keeps the one it has.
    pub(super) fn rename(&mut self, random: &[u8; 32]) -> bool {
        let checksums = self.has_checksums();
        if checksums && self.word(at::INCOMPATIBLE) & INCOMPATIBLE_CSUM_SEED == 0 {
            return false;
        }
        let (name, seed) = random.split_at(16);
        self.0[at::UUID..at::UUID + 16].copy_from_slice(name);
        // Version 4, variant 1 (RFC 9562 §5.4).
        self.0[at::UUID + 6] = self.0[at::UUID + 6] & 0x0F | 0x40;
        self.0[at::UUID + 8] = self.0[at::UUID + 8] & 0x3F | 0x80;
        self.0[at::HASH_SEED..at::HASH_SEED + 16].copy_from_slice(seed);
        self.seal();
        true
    }

    /// Whether its checksum is that of what is there, if it has one.
    pub(super) fn is_whole(&self) -> bool {
        !self.has_checksums() || self.word(at::CHECKSUM) == self.checksum()
    }

    /// Gives it the checksum of what is there, if it has one.
    pub(super) fn seal(&mut self) {
        if self.has_checksums() {
            let checksum = self.checksum();
            self.0[at::CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
        }
    }

    fn has_checksums(&self) -> bool {
        self.word(at::READ_ONLY_COMPATIBLE) & METADATA_CSUM != 0
    }

    /// The kernel's crc32c of all but the checksum itself: begun with all ones, and not inverted at the end.
    fn checksum(&self) -> u32 {
        let mut digest: Digest<'_, u32> = CRC32C.digest();
        digest.update(&self.0[..at::CHECKSUM]);
        !digest.finalize()
    }

    fn half(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn on(bytes: &[(usize, &[u8])]) -> Content {
        let mut image = vec![0; 256 << 10];
        for (offset, bytes) in bytes {
            image[*offset..*offset + bytes.len()].copy_from_slice(bytes);
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&image).unwrap();
        look(&file).unwrap()
    }

    #[test]
    fn nothing_and_what_was_begun_are_blank() {
        assert!(matches!(on(&[]), Content::Blank));
        assert!(matches!(on(&[(0, MARK), (4096, b"group descriptors")]), Content::Blank));
    }

    #[test]
    fn what_others_left_is_not_ours() {
        let (ntfs, lvm, btrfs) = (b"\xEBR\x90NTFS    ", b"LABELONE", b"_BHRfS_M");
        for mark in [(0, &ntfs[..]), (512, &lvm[..]), (0x10040, &btrfs[..]), (4096, b"md")] {
            assert!(matches!(on(&[mark]), Content::Foreign), "{mark:?}");
        }
    }

    #[test]
    fn a_torn_superblock_is_seen_and_sealed() {
        let (magic, checksums) = (MAGIC.to_le_bytes(), METADATA_CSUM.to_le_bytes());
        let with = [
            (SUPERBLOCK + at::MAGIC, &magic[..]),
            (SUPERBLOCK + at::READ_ONLY_COMPATIBLE, &checksums[..]),
            (SUPERBLOCK + at::STATE, &[1]),
        ];
        let Content::Ext4(mut superblock) = on(&with) else { panic!("not seen") };
        assert!(!superblock.is_whole());
        superblock.seal();
        assert!(superblock.is_whole());
        // The next version's first sector, and this one's second.
        superblock.0[at::STATE] = 0;
        assert!(!superblock.is_whole());
        let Content::Ext4(without) = on(&with[..1]) else { panic!("not seen") };
        assert!(without.is_whole());
    }

    #[test]
    fn what_another_laid_over_ours_is_not_mended_into_ours() {
        let copy = 8193 * 1024 + at::MAGIC;
        let content = |start: &[u8], offset: u64| {
            let file = tempfile::tempfile().unwrap();
            file.set_len(16 << 20).unwrap();
            file.write_all_at(&MAGIC.to_le_bytes(), copy as u64).unwrap();
            file.write_all_at(start, offset).unwrap();
            look(&file).unwrap()
        };
        assert!(matches!(content(b"ruins", 1030), Content::Damaged));
        assert!(matches!(content(&[0x55, 0xAA], 510), Content::Foreign));
        assert!(matches!(content(b"_BHRfS_M", 0x10040), Content::Foreign));
    }

    #[test]
    fn errors_that_the_kernel_noted_are_seen() {
        let (magic, errors) = (MAGIC.to_le_bytes(), [1u8 | 2, 0]);
        let Content::Ext4(clean) = on(&[(SUPERBLOCK + at::MAGIC, &magic)]) else { panic!("not seen") };
        let noted = on(&[(SUPERBLOCK + at::MAGIC, &magic), (SUPERBLOCK + at::STATE, &errors)]);
        let Content::Ext4(noted) = noted else { panic!("not seen") };
        assert!(!clean.has_errors() && noted.has_errors());
    }
}

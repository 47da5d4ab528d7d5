//! The empty file system that `init` lays on a blank data partition: ext4, as a list of its blocks that are not zero.
//!
//! The box carries no `mke2fs`: the template is made here, `init` writes the listed blocks over zeroes, and the kernel
//! grows the file system to the partition's size while it is mounted (`EXT4_IOC_RESIZE_FS`).
//!
//! The list, repeated to the end of the file: offset in bytes (u64), length in bytes (u32), the bytes; little-endian,
//! offsets ascending. What lies between them inside the file system is zero.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;

/// Bytes of a block of the file system.
pub(crate) const BLOCK: usize = 4096;

/// Size of the template. Smaller than any data partition, large enough for the journal.
pub(crate) const SIZE: u64 = 64 << 20;

/// How far the file system can grow while mounted: the group descriptors of so many bytes have their room reserved.
const GROWS_TO: u64 = 256 << 30;

/// A journal cannot grow later: enough for what sled and the settings write between two commits.
const JOURNAL_MIB: u64 = 8;

/// Few and large files: an inode for so many bytes.
const BYTES_PER_INODE: u64 = 65_536;

/// Fixed, so that the template is always the same bytes; one box holds one such file system.
const UUID: &str = "7064a7f1-3f0a-5d0c-9a52-706f73746e01";
const HASH_SEED: &str = "7064a7f1-3f0a-5d0c-9a52-706f73746e02";

/// Seconds since 1970 (2020-01-01): no box's clock stands before it, so e2fsck never finds a check in the future.
const MADE: &str = "1577836800";

/// Every feature by name: the machine's own `mke2fs.conf` has no say.
const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,\
                        large_file,huge_file,dir_nlink,extra_isize,metadata_csum,metadata_csum_seed";

/// The template as the list of its blocks. `scratch` is a folder for its work.
pub(crate) fn make(scratch: &Path) -> Result<Vec<u8>> {
    let image = scratch.join("data.ext4");
    mke2fs(&image, scratch)?;
    let bytes = std::fs::read(&image).with_context(|| format!("cannot read {}", image.display()))?;
    std::fs::remove_file(&image)?;
    Ok(to_list(&bytes))
}

fn mke2fs(image: &Path, scratch: &Path) -> Result<()> {
    let settings = scratch.join("mke2fs.conf");
    std::fs::write(&settings, "[defaults]\n[fs_types]\n ext4 = {\n }\n")?;
    let file = std::fs::File::create(image).with_context(|| format!("cannot write {}", image.display()))?;
    file.set_len(SIZE)?;
    let extended = format!(
        "hash_seed={HASH_SEED},root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0,nodiscard,resize={}",
        GROWS_TO / BLOCK as u64
    );
    let program = command::find("mke2fs").context("mke2fs is missing: install e2fsprogs")?;
    command::output(
        Command::new(program)
            .env("MKE2FS_CONFIG", &settings)
            .env("E2FSPROGS_FAKE_TIME", MADE)
            .env("LC_ALL", "C")
            .args(["-q", "-F", "-t", "ext4", "-O", FEATURES, "-E", &extended])
            .args(["-b", &BLOCK.to_string(), "-i", &BYTES_PER_INODE.to_string(), "-I", "256"])
            .args(["-J", &format!("size={JOURNAL_MIB}"), "-m", "1", "-e", "remount-ro"])
            .args(["-L", "postern-data", "-U", UUID])
            .arg(image),
    )?;
    Ok(())
}

/// The blocks of `image` that are not zero, neighbours joined.
fn to_list(image: &[u8]) -> Vec<u8> {
    let mut list = Vec::new();
    let mut run: Option<(usize, usize)> = None;
    for (index, block) in image.chunks(BLOCK).enumerate() {
        let (start, end) = (index * BLOCK, index * BLOCK + block.len());
        match (&mut run, block.iter().any(|&byte| byte != 0)) {
            (Some((_, until)), true) => *until = end,
            (None, true) => run = Some((start, end)),
            (run, false) => append(&mut list, image, run.take()),
        }
    }
    append(&mut list, image, run);
    list
}

fn append(list: &mut Vec<u8>, image: &[u8], run: Option<(usize, usize)>) {
    let Some((start, end)) = run else { return };
    list.extend_from_slice(&(start as u64).to_le_bytes());
    let bytes = image.get(start..end).unwrap_or_default();
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX); // the whole image is 64 MiB
    list.extend_from_slice(&length.to_le_bytes());
    list.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use anyhow::ensure;

    use super::*;

    /// The image that a list stands for, `size` bytes long.
    fn from_list(list: &[u8], size: usize) -> Result<Vec<u8>> {
        let mut image = vec![0; size];
        let mut rest = list;
        while !rest.is_empty() {
            let (offset, after) = rest.split_first_chunk::<8>().context("the list ends within an offset")?;
            let (length, after) = after.split_first_chunk::<4>().context("the list ends within a length")?;
            let (offset, length) =
                (usize::try_from(u64::from_le_bytes(*offset))?, u32::from_le_bytes(*length) as usize);
            let bytes = after.get(..length).context("the list ends within a block")?;
            let place = offset.checked_add(length).and_then(|end| image.get_mut(offset..end));
            place
                .with_context(|| format!("a block lies outside the file system, at {offset}"))?
                .copy_from_slice(bytes);
            rest = after.get(length..).unwrap_or_default();
        }
        ensure!(!list.is_empty(), "the list is empty");
        Ok(image)
    }

    /// An independent reader.
    fn fsck(image: &Path) {
        let status =
            Command::new(command::find("e2fsck").unwrap()).args(["-fn"]).arg(image).output().unwrap();
        assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stdout));
    }

    #[test]
    fn the_template_is_small_sound_and_always_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let list = make(folder.path()).unwrap();
        assert!(list.len() < 512 << 10, "{} bytes", list.len());
        std::thread::sleep(std::time::Duration::from_millis(1100)); // no time in it
        assert!(list == make(folder.path()).unwrap());
        let image = folder.path().join("back");
        std::fs::write(&image, from_list(&list, usize::try_from(SIZE).unwrap()).unwrap()).unwrap();
        fsck(&image);
        let shown = Command::new(command::find("dumpe2fs").unwrap()).arg("-h").arg(&image).output().unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        for wanted in ["metadata_csum_seed", "has_journal", "postern-data", "Block size:               4096"]
        {
            assert!(shown.contains(wanted), "{wanted}: {shown}");
        }
        // Grown as init lets the kernel grow it, here by resize2fs: the reserved room is enough for 64 GiB.
        std::fs::File::options().write(true).open(&image).unwrap().set_len(64 << 30).unwrap();
        command::output(Command::new(command::find("resize2fs").unwrap()).arg(&image)).unwrap();
        fsck(&image);
    }

    #[test]
    fn a_list_gives_its_image_back() {
        let mut image = vec![0_u8; 10 * BLOCK];
        image[BLOCK] = 1;
        image[3 * BLOCK - 1] = 2;
        image[10 * BLOCK - 1] = 3;
        let list = to_list(&image);
        assert_eq!(list.len(), 2 * 12 + 3 * BLOCK);
        assert_eq!(from_list(&list, image.len()).unwrap(), image);
        assert!(from_list(&list, 9 * BLOCK).is_err());
        assert!(from_list(&list[..20], image.len()).is_err());
    }
}

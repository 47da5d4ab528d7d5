//! The boot partition: FAT32, made by dosfstools and mtools, which need neither root nor loop devices; no clock in it.
//! (The crate `fatfs` 0.3 gives every folder's `.` a long name, which `fsck.vfat` calls damage.)

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::command;

/// A serial number is asked for; a fixed one keeps the bytes the same.
const VOLUME: &str = "70570001";

/// Every file is as old as FAT itself (1980-01-01), in seconds since 1970.
const MADE: &str = "315532800";

/// Where firmware of the Unified Extensible Firmware Interface looks on a disk it does not know (UEFI §3.5.1.1).
pub(crate) const SELECTOR: &str = "EFI/BOOT/BOOTAA64.EFI";
/// Where the selector looks for the rescue firmware.
pub(crate) const RESCUE: &str = "postern/rescue.efi";
/// The folder that the box copies its factory settings from.
pub(crate) const SEED: &str = "postern/seed";

/// Files by their path in the partition, with `/` between names.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// Adds what a folder holds, below `prefix`. A factory's settings are files: a link or device among them is a mistake.
pub(crate) fn add_folder(files: &mut Files, prefix: &str, folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_str().with_context(|| format!("{} is no UTF-8 name", path.display()))?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            add_folder(files, &format!("{prefix}/{name}"), &path)?;
        } else if kind.is_file() {
            let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            files.insert(format!("{prefix}/{name}"), bytes);
        } else {
            bail!("{} is neither file nor folder: copy what it points to", path.display());
        }
    }
    Ok(())
}

/// A partition of `size` bytes with these files.
pub(crate) fn volume(size: u64, files: &Files) -> Result<Vec<u8>> {
    let total: u64 = files.values().map(|bytes| bytes.len() as u64).sum();
    ensure!(
        total < size / 16 * 15,
        "{} KiB of files do not fit a boot partition of {} MiB",
        total >> 10,
        size >> 20
    );
    let scratch = tempfile::tempdir().context("no folder for the boot partition")?;
    let (image, source) = (scratch.path().join("boot.fat"), scratch.path().join("file"));
    File::create(&image)?.set_len(size)?;
    // One sector a cluster: FAT32 wants at least 65,525 clusters, and 64 MiB would have too few otherwise.
    let mkfs = command::find("mkfs.vfat").context("mkfs.vfat is missing: install dosfstools")?;
    let mut format = Command::new(mkfs);
    format.args(["--invariant", "-F", "32", "-s", "1", "-i", VOLUME, "-n", "POSTERN"]).arg(&image);
    command::output(&mut format)?;
    let mut made = BTreeSet::new();
    for (path, content) in files {
        for (end, _) in path.match_indices('/') {
            let folder = &path[..end];
            if made.insert(folder) {
                command::output(mtools("mmd", &image).arg(format!("::/{folder}")))?;
            }
        }
        fs::write(&source, content)?;
        command::output(mtools("mcopy", &image).arg(&source).arg(format!("::/{path}")))?;
    }
    fs::read(&image).context("cannot read the boot partition back")
}

/// A command of mtools upon `image`, with nothing of this machine or hour in it.
fn mtools(program: &str, image: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env("MTOOLSRC", "/dev/null")
        .env("SOURCE_DATE_EPOCH", MADE)
        .env("TZ", "UTC")
        .env("LC_ALL", "C.UTF-8");
    command.arg("-i").arg(image);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Files {
        let mut files = Files::new();
        files.insert(SELECTOR.into(), vec![1; 40_000]);
        files.insert(RESCUE.into(), (0..=255).cycle().take(3_000_000).collect());
        files.insert(format!("{SEED}/settings.toml"), b"mode = \"observe\"\n".to_vec());
        files.insert(format!("{SEED}/certificates/mail.example.net chain.pem"), b"PEM".to_vec());
        files
    }

    #[test]
    fn fsck_and_mtools_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("boot.fat");
        let bytes = volume(64 << 20, &files()).unwrap();
        fs::write(&image, &bytes).unwrap();
        let fsck = command::find("fsck.vfat").expect("fsck.vfat is installed (dosfstools)");
        command::output(Command::new(fsck).args(["-n", "-V"]).arg(&image)).unwrap();
        for (path, content) in files() {
            let read = command::output(mtools("mtype", &image).arg(format!("::/{path}")));
            assert!(read.expect("mtools reads it") == content, "{path}");
        }
        std::thread::sleep(std::time::Duration::from_millis(2100)); // FAT's clock ticks every two seconds
        assert!(bytes == volume(64 << 20, &files()).unwrap());
    }

    #[test]
    fn a_seed_of_links_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("settings.toml")).unwrap();
        let error = add_folder(&mut Files::new(), SEED, folder.path()).unwrap_err().to_string();
        assert!(error.contains("is neither file nor folder"), "{error}");
    }

    #[test]
    fn too_much_is_refused() {
        let mut files = Files::new();
        files.insert(RESCUE.into(), vec![0; 70 << 20]);
        assert!(volume(64 << 20, &files).is_err());
    }
}

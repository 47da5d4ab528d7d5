//! What a box would find that starts from a disk as a power cut left it: its data partition, and in it its devices.
//!
//! The judge does what the box does, with the same programs: `e2fsck -p` replays the journal, the gateway opens its database.
//! Nothing is mounted: the partition lies in memory, `debugfs` takes the files out of it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use crc::{CRC_32_ISCSI, Crc};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::statvfs::statvfs;
use serde_json::Value;

use super::image::{Image, is_zero};
use crate::install;

/// Octets that the files of all threads may need.
const ROOM: u64 = 256 << 20;
/// The folders of the gateway and of the settings on the partition.
const FOLDERS: [&str; 2] = ["gateway", "settings"];

/// Where ext4 says that it is ext4, and how.
const MAGIC_AT: u64 = SUPERBLOCK_AT + 56;
const MAGIC: [u8; 2] = [0x53, 0xef];
const SUPERBLOCK_AT: u64 = 1024;
const SUPERBLOCK: usize = 1024;
const READ_ONLY_COMPATIBLE_AT: usize = 0x64;
const METADATA_CHECKSUMS: u32 = 0x400;
const CHECKSUM_AT: usize = 0x3fc;
const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// What init has in the first sector while it makes the file system, and how much must be zero for it to take a partition
/// for blank otherwise.
const MARK: &[u8] = b"postern: data is being laid out\n";
const START: usize = 128 << 10;

/// Judges data partitions. Each thread works on a [`Table`] of its own.
#[derive(Clone, Debug)]
pub struct Judge {
    /// The gateway that opens the database.
    gateway: PathBuf,
    /// The settings folder's files.
    settings: Vec<(String, Vec<u8>)>,
    /// Where small files are put.
    scratch: PathBuf,
}

/// What a box would find.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Found {
    /// No file system: the box makes a new one.
    pub is_blank: bool,
    /// Why the data partition cannot be used as it is, or holds what must not be.
    pub damage: Option<String>,
    /// What the journal alone did not mend, but the box does: it says `repaired`.
    pub repaired: Option<String>,
    /// Why the gateway would not start.
    pub refused: Option<String>,
    /// What the gateway mended when it opened its database.
    pub mended: Option<String>,
    /// The devices: account, and what the client called itself.
    pub devices: BTreeSet<(String, String)>,
}

/// A place to work: one image at a time.
#[derive(Debug)]
pub struct Table<'a> {
    judge: &'a Judge,
    partition: File,
    path: PathBuf,
    folder: tempfile::TempDir,
}

impl Judge {
    /// One that has databases opened by this gateway. `seed`: the folder of settings that the box was provisioned with, all
    /// of which must be on the partition, or nothing of it yet.
    ///
    /// # Errors
    /// The seed cannot be read.
    pub fn new(gateway: &Path, seed: Option<&Path>) -> Result<Self> {
        let mut settings = Vec::new();
        for entry in seed.map(fs::read_dir).transpose()?.into_iter().flatten() {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                settings.push((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?));
            }
        }
        // The gateway syncs what it opens: a disk would make that slow, memory does not.
        let memory = Path::new("/dev/shm");
        let has_room =
            statvfs(memory).is_ok_and(|disk| disk.blocks_available() * disk.fragment_size() > ROOM);
        let scratch = if has_room { memory.into() } else { std::env::temp_dir() };
        Ok(Self { gateway: gateway.into(), settings, scratch })
    }

    /// A place for one thread.
    ///
    /// # Errors
    /// No memory, no room for files, or e2fsprogs are not installed.
    pub fn table(&self) -> Result<Table<'_>> {
        for program in ["e2fsck", "debugfs"] {
            ensure!(
                install::find(program).is_some(),
                "{program} is not installed; `cargo box test` installs e2fsprogs"
            );
        }
        let partition = File::from(memfd_create("postern-data", MFdFlags::MFD_CLOEXEC)?);
        let path = format!("/proc/{}/fd/{}", std::process::id(), partition.as_raw_fd()).into();
        let folder = tempfile::Builder::new().prefix("cut-").tempdir_in(&self.scratch)?;
        Ok(Table { judge: self, partition, path, folder })
    }
}

impl Table<'_> {
    /// What a box would find on the data partition in these octets of an image.
    ///
    /// # Errors
    /// The judge itself fails; what is wrong with the image is in what it gives.
    pub fn judge(&self, image: &Image, data: &Range<u64>) -> Result<Found> {
        let mut found = Found::default();
        if image.get(data.start + MAGIC_AT, 2) != MAGIC {
            let start = image.get(data.start, START);
            found.is_blank = start.starts_with(MARK) || is_zero(&start);
            if !found.is_blank {
                found.damage =
                    Some("it is neither blank nor a file system: the box would not touch it".to_owned());
            }
            return Ok(found);
        }
        let superblock = image.get(data.start + SUPERBLOCK_AT, SUPERBLOCK);
        if let Some(sealed) = sealed(&superblock) {
            found.repaired = Some("the superblock was written in part".to_owned());
            let mut image = image.clone();
            image.write(data.start + SUPERBLOCK_AT, &sealed);
            image.store(data, &self.partition)?;
        } else {
            image.store(data, &self.partition)?;
        }
        // As the box does: 0 is sound, 1 is mended; where more than the journal is to be mended, all that can be is.
        let checked = self.run("e2fsck", &["-p"])?;
        if !matches!(checked.status.code(), Some(0 | 1)) {
            found.repaired = Some(said(&checked));
            let mended = self.run("e2fsck", &["-y"])?;
            if !matches!(mended.status.code(), Some(0 | 1)) {
                found.damage = Some(said(&mended));
                return Ok(found);
            }
        }
        let whole = self.run("e2fsck", &["-f", "-n"])?;
        if !whole.status.success() {
            found.damage = Some(said(&whole));
            return Ok(found);
        }
        let taken = self.folder.path().join("taken");
        if taken.exists() {
            fs::remove_dir_all(&taken)?;
        }
        fs::create_dir(&taken)?;
        let commands: String =
            FOLDERS.map(|folder| format!("rdump /{folder} \"{}\"\n", taken.display())).concat();
        let script = self.folder.path().join("commands");
        fs::write(&script, commands)?;
        let dumped = self.run("debugfs", &["-f", &script.display().to_string()])?;
        ensure!(dumped.status.success(), "debugfs failed: {}", said(&dumped));
        let [gateway, settings] = FOLDERS.map(|folder| taken.join(folder));
        if settings.exists() {
            found.damage = self.compare(&settings);
        }
        if gateway.join("devices").exists() || gateway.join("keys").exists() {
            self.open(&gateway, &mut found)?;
        }
        Ok(found)
    }

    /// What of the settings is not as it was provisioned.
    fn compare(&self, folder: &Path) -> Option<String> {
        let is_whole = |(name, content): &&(String, Vec<u8>)| {
            fs::read(folder.join(name)).is_ok_and(|found| found == *content)
        };
        let (name, _) = self.judge.settings.iter().find(|file| !is_whole(file))?;
        Some(format!("the settings folder is there, but {name} in it is not what it was made of"))
    }

    fn open(&self, data: &Path, found: &mut Found) -> Result<()> {
        let exported = Command::new(&self.judge.gateway)
            .arg("--export")
            .arg("--data")
            .arg(data)
            .stdin(Stdio::null())
            .output()
            .context("the gateway does not run")?;
        if !exported.status.success() {
            found.refused = Some(said(&exported));
            return Ok(());
        }
        let told = String::from_utf8_lossy(&exported.stderr);
        found.mended = (!told.trim().is_empty()).then(|| told.trim().to_owned());
        for line in String::from_utf8_lossy(&exported.stdout).lines() {
            let line: Value = serde_json::from_str(line).context("an export that is not JSON")?;
            let device = &line["device"];
            if let (Some(account), Some(client)) =
                (device["account"].as_str(), device["is"]["traits"]["client"].as_str())
            {
                found.devices.insert((account.to_owned(), client.to_owned()));
            }
        }
        Ok(())
    }

    /// Runs a program of e2fsprogs on the partition.
    fn run(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        let path = install::find(program).with_context(|| format!("{program} is not installed"))?;
        Command::new(path)
            .args(arguments)
            .arg(&self.path)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("{program} does not run"))
    }
}

/// The superblock with the checksum of what is in it, as init seals one of whose two sectors a power cut kept one; `None` if
/// it is whole (`struct ext4_super_block`: the kernel's CRC-32C is not inverted at its end).
fn sealed(superblock: &[u8]) -> Option<Vec<u8>> {
    let word = |at: usize| superblock.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let checksum = !CRC.checksum(superblock.get(..CHECKSUM_AT)?);
    if word(READ_ONLY_COMPATIBLE_AT)? & METADATA_CHECKSUMS == 0 || word(CHECKSUM_AT)? == checksum {
        return None;
    }
    Some([superblock.get(..CHECKSUM_AT)?, &checksum.to_le_bytes()].concat())
}

/// All that a program said, in one line.
fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    format!("{}: {}", output.status, lines.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 16 << 20;

    /// A partition made by mke2fs with these files, as init's template is.
    fn partition(files: &[(&str, &[u8])]) -> Image {
        let folder = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(SIZE).unwrap();
        let made = Command::new(install::find("mke2fs").unwrap())
            .args(["-q", "-t", "ext4", "-b", "4096", "-d"])
            .args([folder.path(), file.path()])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", said(&made));
        Image::read(file.path()).unwrap()
    }

    fn judged(image: &Image) -> Found {
        let seed = tempfile::tempdir().unwrap();
        fs::write(seed.path().join("settings.toml"), "schema = 1").unwrap();
        fs::write(seed.path().join("front.pem"), "a certificate").unwrap();
        // Stands for a gateway whose database does not open.
        let judge = Judge::new(Path::new("/bin/false"), Some(seed.path())).unwrap();
        judge.table().unwrap().judge(image, &(0..SIZE)).unwrap()
    }

    #[test]
    fn what_init_takes_for_blank_is_blank_and_nothing_else() {
        let mut image = Image::default();
        assert!(judged(&image).is_blank);
        image.write(0, MARK);
        image.write(9_000, &[7; 9_000]);
        assert!(judged(&image).is_blank);
        image.clear(0, 512);
        let found = judged(&image);
        assert!(!found.is_blank && found.damage.unwrap().contains("neither blank"));
    }

    #[test]
    fn a_superblock_written_in_part_is_sealed() {
        let whole = partition(&[]);
        let mut torn = whole.clone();
        // The time of the last write, in the first sector.
        torn.write(SUPERBLOCK_AT + 0x30, &[1, 2, 3, 4]);
        let found = judged(&torn);
        assert_eq!(
            (found.repaired.as_deref(), found.damage),
            (Some("the superblock was written in part"), None)
        );
        assert_eq!(judged(&whole), Found::default());
    }

    #[test]
    fn settings_are_whole_or_not_there_at_all() {
        let whole: [(&str, &[u8]); 2] =
            [("settings/settings.toml", b"schema = 1"), ("settings/front.pem", b"a certificate")];
        assert_eq!(judged(&partition(&[])), Found::default());
        assert_eq!(judged(&partition(&whole)), Found::default());
        let damage = |files: &[(&str, &[u8])]| judged(&partition(files)).damage.unwrap();
        assert!(damage(&whole[..1]).contains("front.pem"));
        assert!(damage(&[whole[0], ("settings/front.pem", b"")]).contains("front.pem"));
    }

    #[test]
    fn damage_and_a_database_that_does_not_open_are_told() {
        let mut image = partition(&[("gateway/keys", b"none")]);
        let found = judged(&image);
        assert!(found.refused.unwrap().contains("exit status: 1") && found.damage.is_none());
        // The root folder's inode, in the table that the first group's descriptor names: no journal mends that.
        let table = u32::from_le_bytes(image.get(4096 + 8, 4).try_into().unwrap());
        image.write(u64::from(table) * 4096, &[0x55; 1024]);
        assert!(judged(&image).damage.is_some());
    }
}

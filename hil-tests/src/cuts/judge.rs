//! What a box would find that starts from a disk as a power cut left it: its data partition, and in it its devices.
//!
//! The judge does what the box does, with the same programs: `e2fsck -p` replays the journal, the gateway opens its database.
//! Nothing is mounted: the partition lies in memory, `debugfs` takes the files out of it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde_json::Value;

use super::image::Image;
use crate::install;

/// Where ext4 says that it is ext4, and how.
const MAGIC_AT: u64 = 1024 + 56;
const MAGIC: [u8; 2] = [0x53, 0xef];

/// Judges images. Cheap to share; each thread works on a [`Table`] of its own.
#[derive(Clone, Debug)]
pub struct Judge {
    /// The gateway's folder on it, such as `/gateway`.
    pub folder: String,
    /// The gateway that opens the database.
    pub gateway: PathBuf,
    /// Files that must be there as they are here or not at all, by their paths on the partition.
    pub files: Vec<(String, Vec<u8>)>,
    /// Where small files may be put; best in memory, since the gateway syncs them.
    pub scratch: PathBuf,
}

/// What a box would find.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Found {
    /// No file system: the box makes a new one.
    pub is_blank: bool,
    /// Why the data partition cannot be used as it is, or holds what must not be.
    pub damage: Option<String>,
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
            found.is_blank = true;
            return Ok(found);
        }
        image.store(data, &self.partition)?;
        // As the box does: 0 is sound, 1 is mended; whatever is more is more than a journal can leave.
        let checked = self.run("e2fsck", &["-p"])?;
        if !matches!(checked.status.code(), Some(0 | 1)) {
            found.damage = Some(said(&checked));
            return Ok(found);
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
        self.take_out(&taken, &mut found)?;
        let folder = taken.join(self.judge.folder.trim_start_matches('/'));
        if folder.join("devices").exists() || folder.join("keys").exists() {
            self.open(&folder, &mut found)?;
        }
        Ok(found)
    }

    /// Copies the gateway's folder and the files to be compared out of the partition.
    fn take_out(&self, taken: &Path, found: &mut Found) -> Result<()> {
        let judge = self.judge;
        let mut commands = format!("rdump \"{}\" \"{}\"\n", judge.folder, taken.display());
        for (number, (path, _)) in judge.files.iter().enumerate() {
            let to = taken.join(format!("file.{number}"));
            let _ = writeln!(commands, "dump \"{path}\" \"{}\"", to.display());
        }
        let script = self.folder.path().join("commands");
        fs::write(&script, commands)?;
        let dumped = self.run("debugfs", &["-f", &script.display().to_string()])?;
        ensure!(dumped.status.success(), "debugfs failed: {}", said(&dumped));
        for (number, (path, wanted)) in judge.files.iter().enumerate() {
            // debugfs makes the file before it looks for the one to copy: an empty one may be none.
            let content = fs::read(taken.join(format!("file.{number}"))).unwrap_or_default();
            let is_absent = content.is_empty() && said(&dumped).contains(&format!("{path}: File not found"));
            if !is_absent && content != *wanted {
                found.damage =
                    Some(format!("{path} has {} octets that are not what it was made of", content.len()));
            }
        }
        Ok(())
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

/// All that a program said, in one line.
fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    format!("{}: {}", output.status, lines.join("; "))
}

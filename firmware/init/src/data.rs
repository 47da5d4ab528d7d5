//! The data partition: found, made, mended, or stood in for by memory. Whatever its state, the box serves and says how.

mod check;
mod ext4;
mod seed;
mod template;

use core::fmt::{self, Display};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use board::disk::{Disk, Growth, Role, grow_data};
use nix::sys::statvfs::{FsFlags, statvfs};

use crate::console::say;
use crate::kernel;
use crate::mount;
use ext4::Content;

/// The empty file system that a blank partition gets.
const TEMPLATE: &str = "/usr/share/postern/data.ext4";

/// Less than this, and the partition counts as full: the gateway's journal and one commit of its database.
const FULL: u64 = 1 << 20;

/// The file system grows by so much at a time, since the kernel writes the new part's tables meanwhile and the watchdog
/// wants to be fed.
const STEP: u64 = 4 << 30;

/// How the data is kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mode {
    /// As it should be.
    Ok,
    /// The partition was blank and is used from now on.
    Created,
    /// It was damaged; what could be read is there.
    Repaired,
    /// In memory: the partition is missing or left untouched, and what happens now is gone with the power.
    Volatile,
    /// There is no room left for anything new.
    Full,
}

impl Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Created => "created",
            Self::Repaired => "repaired",
            Self::Volatile => "volatile",
            Self::Full => "full",
        })
    }
}

/// What became of the data partition.
#[derive(Debug)]
pub(crate) struct Data {
    pub(crate) mode: Mode,
    /// Why, where the mode is not what one wants; else empty.
    pub(crate) reason: String,
}

/// Mounts the data at [`mount::DATA`] and puts its folders there. `feed` is called between things that take long.
pub(crate) fn open(disk: Option<&Disk>, feed: &dyn Fn()) -> Data {
    let opened = match disk {
        Some(disk) => from_partition(disk, feed),
        None => Err("there is no disk with the box's partitions".to_owned()),
    };
    let (mut mode, mut reason) = match opened {
        Ok(opened) => opened,
        Err(reason) => match mount::volatile_data() {
            Ok(()) => (Mode::Volatile, reason),
            // The root cannot be written, so nothing below this can work; it is said where it fails.
            Err(error) => (Mode::Volatile, format!("{reason}, and memory in its place: {}", error.desc())),
        },
    };
    if let Err(error) =
        seed::lay_out(Path::new(mount::DATA), disk.map(|disk| &disk.partition(Role::Boot).device))
    {
        say!("{}: {error}", mount::DATA);
        reason = if reason.is_empty() { error } else { format!("{reason}; {error}") };
    }
    if mode != Mode::Volatile
        && let Some(free) = free()
        && free < FULL
    {
        mode = Mode::Full;
        reason = format!("{} KiB are free", free >> 10);
    }
    Data { mode, reason }
}

/// Bytes that are free for everyone.
fn free() -> Option<u64> {
    let space = statvfs(mount::DATA).ok()?;
    Some(space.blocks_available() * space.fragment_size())
}

/// Whether the kernel has met an error and writes no more (`errors=remount-ro`). A check at the next start mends it.
pub(crate) fn has_failed() -> bool {
    statvfs(mount::DATA).is_ok_and(|space| space.flags().contains(FsFlags::ST_RDONLY))
}

fn from_partition(disk: &Disk, feed: &dyn Fn()) -> Result<(Mode, String), String> {
    let partition = &disk.partition(Role::Data).device;
    match grow_data(disk) {
        Ok(Growth::Already) => {}
        Ok(Growth::Grown { from, to }) => {
            say!("the data partition grew from {} to {} MiB", from >> 11, to >> 11);
        }
        // It is used as it is.
        Err(fault) => say!("{fault}"),
    }
    let name = partition.display();
    let device = OpenOptions::new().read(true).write(true).open(partition);
    let device = device.map_err(|error| format!("{name} cannot be opened: {error}"))?;
    let content = ext4::look(&device).map_err(|error| format!("{name} cannot be read: {error}"))?;
    let (mode, reason) = match content {
        Content::Blank => {
            create(&device, feed).map_err(|error| format!("{name} cannot be set up: {error}"))?;
            // The kernel lets nobody write to what is mounted.
            drop(device);
            mount::data(partition).map_err(|error| format!("{name} cannot be mounted: {}", error.desc()))?;
            (Mode::Created, String::new())
        }
        Content::Ext4(mut superblock) => {
            let damaged = if superblock.is_whole() {
                superblock.has_errors().then(|| "the file system has noted errors".to_owned())
            } else {
                seal(&device, &mut superblock)
                    .map_err(|error| format!("{name}: its superblock cannot be mended: {error}"))?;
                Some("the superblock was written in part".to_owned())
            };
            drop(device);
            mount_or_mend(partition, damaged, feed)?
        }
        Content::Damaged => {
            drop(device);
            mount_or_mend(partition, Some("the superblock is damaged".to_owned()), feed)?
        }
        Content::Foreign => {
            return Err(format!(
                "{name} holds something that is not this box's, and is left as it is; \
                 to give it to the box, overwrite its first MiB with zeroes"
            ));
        }
    };
    if let Err(error) = grow(partition, feed) {
        say!("{}: the file system cannot grow: {error}", mount::DATA);
    }
    Ok((mode, reason))
}

/// Gives a superblock of which a power cut kept only one sector of two the checksum of what is there: ext4 writes both as
/// one, changes hardly anything in the second but the checksum, and neither kernel nor e2fsck takes one whose checksum is
/// wrong. A young file system has no other copy, and a copy is older; the check that follows looks whether all of it fits.
fn seal(device: &File, superblock: &mut ext4::Superblock) -> io::Result<()> {
    superblock.seal();
    let second = superblock.bytes().get(ext4::LENGTH / 2..).unwrap_or_default();
    device.write_all_at(second, (ext4::SUPERBLOCK + ext4::LENGTH / 2) as u64)?;
    device.sync_all()
}

/// Makes the file system. Until the last write the partition counts as blank; a power cut means: again.
fn create(device: &File, feed: &dyn Fn()) -> io::Result<()> {
    let explained = |what: &str, error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
    let template = fs::read(TEMPLATE).map_err(|error| explained(TEMPLATE, error))?;
    let mut random = [0; 32];
    io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut random)
        .map_err(|error| explained("/dev/urandom", error))?;
    template::lay(device, &template, &random, feed)
}

/// Mounts, mending first where that is known to be needed and after a failure otherwise.
fn mount_or_mend(
    partition: &Path,
    damage: Option<String>,
    feed: &dyn Fn(),
) -> Result<(Mode, String), String> {
    let damage = match damage {
        Some(damage) => damage,
        // The kernel replays the journal here, which is all that a power cut needs.
        None => match mount::data(partition) {
            Ok(()) => return Ok((Mode::Ok, String::new())),
            Err(error) => format!("it could not be mounted: {}", error.desc()),
        },
    };
    let name = partition.display();
    say!("{name}: {damage}; checking it");
    let mended = check::mend(partition, feed);
    match (mended, mount::data(partition)) {
        (Ok(()), Ok(())) => Ok((Mode::Repaired, damage)),
        (mended, Ok(())) => Ok((Mode::Repaired, format!("{damage}; {}", mended.err().unwrap_or_default()))),
        (mended, Err(error)) => Err(format!(
            "{name}: {damage}; {}; it is left as it is: {}",
            mended.err().unwrap_or_else(|| "the check found nothing to mend".to_owned()),
            error.desc()
        )),
    }
}

/// Grows the mounted file system to its partition.
fn grow(partition: &Path, feed: &dyn Fn()) -> io::Result<()> {
    let device = File::open(partition)?;
    let size = kernel::device_size(&device)?;
    let Content::Ext4(superblock) = ext4::look(&device)? else { return Ok(()) };
    let wanted = size / superblock.block_size();
    let mut blocks = superblock.blocks();
    if wanted <= blocks {
        return Ok(());
    }
    let folder = File::open(mount::DATA)?;
    while blocks < wanted {
        blocks = wanted.min(blocks + STEP / superblock.block_size());
        feed();
        kernel::resize_ext4(&folder, blocks)?;
    }
    Ok(())
}

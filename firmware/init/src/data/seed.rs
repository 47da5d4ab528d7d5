//! The folders of the data partition, and the factory's settings for a box that has none.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::Path;

use crate::mount;

/// The gateway's user and group.
const GATEWAY: u32 = 101;

/// Folders of services, with their owners.
const OWN: [(&str, u32); 2] = [("gateway", GATEWAY), ("network", 100)];

/// Where the factory left its settings, on the boot partition.
const SEED: &str = "postern/seed";

/// Settings, certificates and keys of one box; more is a mistake, and would fill a small partition.
const MOST: u64 = 16 << 20;
/// Folders within folders.
const DEEPEST: u32 = 4;

/// Makes the folders that are missing. The settings folder appears with all of its files or not at all. Errors name what
/// could not be done, and how the box goes on.
pub(super) fn lay_out(data: &Path, boot: Option<&std::path::PathBuf>) -> Result<(), String> {
    let failed = |what: &str, error: io::Error| format!("{what} cannot be made: {error}");
    for (name, owner) in OWN {
        folder(&data.join(name), 0o700, owner).map_err(|error| failed(name, error))?;
    }
    let settings = data.join("settings");
    if settings.exists() {
        return Ok(());
    }
    let new = data.join("settings.new");
    if new.exists() {
        fs::remove_dir_all(&new).map_err(|error| failed("the settings folder", error))?;
    }
    settings_folder(&new).map_err(|error| failed("the settings folder", error))?;
    let seeded = boot.map_or(Ok(()), |boot| from_boot(boot, &new));
    let finished = sync_tree(&new).and_then(|()| fs::rename(&new, &settings)).and_then(|()| sync(data));
    finished.map_err(|error| failed("the settings folder", error))?;
    seeded.map_err(|error| format!("the factory's settings cannot be read: {error}"))
}

/// Copies the seed while the boot partition is open.
fn from_boot(boot: &Path, target: &Path) -> io::Result<()> {
    mount::boot(boot)?;
    let mut room = MOST;
    let seed = Path::new(mount::BOOT).join(SEED);
    let copied = if seed.is_dir() { copy(&seed, target, &mut room, DEEPEST) } else { Ok(()) };
    let closed = mount::close(mount::BOOT).map_err(io::Error::from);
    copied.and(closed)
}

fn copy(from: &Path, to: &Path, room: &mut u64, deeper: u32) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() && deeper > 0 {
            settings_folder(&target)?;
            copy(&entry.path(), &target, room, deeper - 1)?;
        } else if kind.is_file() {
            let mut source = File::open(entry.path())?.take(*room + 1);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(&target)?;
            let length = io::copy(&mut source, &mut file)?;
            *room = room.checked_sub(length).ok_or_else(|| {
                let what = format!("{SEED} holds more than {} MiB; take out what is no setting", MOST >> 20);
                io::Error::new(io::ErrorKind::FileTooLarge, what)
            })?;
            chown(&target, Some(0), Some(GATEWAY))?;
        }
    }
    Ok(())
}

/// A folder of settings: root writes, the gateway reads, nobody else.
fn settings_folder(path: &Path) -> io::Result<()> {
    folder(path, 0o750, 0)?;
    chown(path, Some(0), Some(GATEWAY))
}

/// Makes a folder, or sets an existing one right.
fn folder(path: &Path, mode: u32, owner: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        done => done?,
    }
    // The mask has no say.
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    chown(path, Some(owner), Some(owner))
}

/// Everything in a folder, then the folder.
fn sync_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { sync_tree(&entry.path())? } else { sync(&entry.path())? }
    }
    sync(path)
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    /// The owners cannot be set by another user.
    fn is_root() -> bool {
        nix::unistd::geteuid().is_root()
    }

    #[test]
    fn the_folders_are_made_once_and_left_alone_then() {
        if !is_root() {
            return;
        }
        let data = tempfile::tempdir().unwrap();
        lay_out(data.path(), None).unwrap();
        let seen = |name: &str| {
            let metadata = fs::metadata(data.path().join(name)).unwrap();
            (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
        };
        assert_eq!(seen("gateway"), (101, 101, 0o700));
        assert_eq!(seen("network"), (100, 100, 0o700));
        assert_eq!(seen("settings"), (0, 101, 0o750));
        fs::write(data.path().join("settings/settings.toml"), "kept").unwrap();
        lay_out(data.path(), None).unwrap();
        assert_eq!(fs::read_to_string(data.path().join("settings/settings.toml")).unwrap(), "kept");
    }

    #[test]
    fn what_a_power_cut_left_half_done_is_done_again() {
        if !is_root() {
            return;
        }
        let data = tempfile::tempdir().unwrap();
        fs::create_dir_all(data.path().join("settings.new/tls")).unwrap();
        fs::write(data.path().join("settings.new/settings.toml"), "half").unwrap();
        lay_out(data.path(), None).unwrap();
        assert!(!data.path().join("settings.new").exists());
        assert_eq!(fs::read_dir(data.path().join("settings")).unwrap().count(), 0);
    }

    #[test]
    fn a_seed_is_copied_with_its_folders_and_not_without_end() {
        if !is_root() {
            return;
        }
        let (seed, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(seed.path().join("tls")).unwrap();
        fs::write(seed.path().join("settings.toml"), "a").unwrap();
        fs::write(seed.path().join("tls/key.pem"), "b").unwrap();
        copy(seed.path(), target.path(), &mut 10, DEEPEST).unwrap();
        let key = fs::metadata(target.path().join("tls/key.pem")).unwrap();
        assert_eq!((key.uid(), key.gid(), key.mode() & 0o7777, key.len()), (0, 101, 0o640, 1));
        let error = copy(seed.path(), tempfile::tempdir().unwrap().path(), &mut 1, DEEPEST).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }
}

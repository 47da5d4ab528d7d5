//! Files that are whole or absent, folders whose entries last, and room left on the disk.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::error::StoreError;

/// `open` fails instead of following a symbolic link in the last component.
pub(crate) const NO_FOLLOW: i32 = nix::fcntl::OFlag::O_NOFOLLOW.bits();

/// Writes a file beside `path`, syncs it, renames it over `path` and syncs the folder: after a power cut there is the
/// old file or the new one, never a mixture.
pub(crate) fn replace(
    path: &Path,
    write: impl FnOnce(&mut io::BufWriter<File>) -> io::Result<()>,
) -> Result<(), StoreError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = Path::new(&temporary);
    // What an interrupted attempt left may have another's mode; `create_new` also follows no link.
    let _ = fs::remove_file(temporary);
    let written = (|| {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(NO_FOLLOW)
            .open(temporary)?;
        let mut buffer = io::BufWriter::with_capacity(64 * 1_024, file);
        write(&mut buffer)?;
        buffer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(temporary, path)
    })();
    if let Err(error) = written {
        let _ = fs::remove_file(temporary);
        return Err(StoreError::io(path, &error));
    }
    path.parent().map_or(Ok(()), sync_folder)
}

/// Makes the entries of a folder last.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| StoreError::io(folder, &error))
}

/// Makes a folder closed to others, if it is not there yet, and its entry in its parent last.
pub(crate) fn ensure_folder(folder: &Path) -> Result<(), StoreError> {
    if !folder.exists() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| StoreError::io(folder, &error))?;
        if let Some(parent) = folder.parent() {
            sync_folder(parent)?;
        }
    }
    Ok(())
}

/// Takes a folder for this process alone, until what is returned is dropped or the process ends.
pub(crate) fn lock(folder: &Path) -> Result<File, StoreError> {
    // The folder itself, not a file in it: a full disk must not keep anybody from opening what is there.
    let taken = File::open(folder).map_err(|error| StoreError::io(folder, &error))?;
    match taken.try_lock() {
        Ok(()) => Ok(taken),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse),
        Err(TryLockError::Error(error)) => Err(StoreError::io(folder, &error)),
    }
}

/// Refuses symbolic links at `path` and, if it is a folder, anywhere below it.
pub(crate) fn refuse_links(path: &Path) -> Result<(), StoreError> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if metadata.is_symlink() {
        return Err(StoreError::Symlink(path.file_name().unwrap_or_default().to_string_lossy().into_owned()));
    }
    if metadata.is_dir() {
        for entry in fs::read_dir(path).map_err(|error| StoreError::io(path, &error))? {
            refuse_links(&entry.map_err(|error| StoreError::io(path, &error))?.path())?;
        }
    }
    Ok(())
}

/// Octets of all files below `path`.
pub(crate) fn size_of_folder(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size_of_folder(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Octets an unprivileged process may still write on the disk of `path`.
pub(crate) fn free_space(path: &Path) -> u64 {
    // Where the file system does not say, the writes themselves will.
    nix::sys::statvfs::statvfs(path)
        .map_or(u64::MAX, |disk| disk.blocks_available().saturating_mul(disk.fragment_size()))
}

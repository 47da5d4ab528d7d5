//! What is built once and kept outside the clone: kernel trees, the userland's target folder, packages' files.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// The folder for all of it: `${XDG_CACHE_HOME:-$HOME/.cache}/postern/image`.
pub(crate) fn folder() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = match cache {
        Some(cache) => cache,
        None => PathBuf::from(
            std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME says where a cache may be")?,
        )
        .join(".cache"),
    };
    make(&cache.join("postern/image"))
}

/// Makes a folder and gives its path.
pub(crate) fn make(folder: &Path) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder.to_owned())
}

/// While this lives, no other `assemble` touches what the lock guards.
///
/// Programs that we start hold it as well: if we are killed, a compiler may go on for a while, and nobody else may begin
/// before the last of them is gone.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Nothing can be done about a failure, and the lock falls with the last process that has it.
        let _ = self.file.unlock();
    }
}

impl Lock {
    /// Takes the lock file at `path`, waiting for whoever has it, and saying that it waits.
    pub(crate) fn take(path: &Path) -> Result<Self> {
        let file = inherited(path).with_context(|| format!("cannot open the lock {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                eprintln!("waiting for another build ({})", path.display());
                file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        Ok(Self { file })
    }
}

/// Opens a file that the programs we start have open too.
fn inherited(path: &Path) -> Result<File> {
    let file = File::options().create(true).append(true).open(path)?;
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(file)
}

/// Writes a file that others may be reading: whole, then renamed into place. Keeps the old one if nothing changed.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    fs::write(&partial, bytes)
        .and_then(|()| fs::rename(&partial, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_second_build_waits_for_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = Lock::take(&path).unwrap();
        let waiting = std::thread::spawn({
            let path = path.clone();
            move || Lock::take(&path).map(|_| ())
        });
        std::thread::sleep(Duration::from_millis(200));
        assert!(!waiting.is_finished());
        drop(first);
        waiting.join().unwrap().unwrap();
    }

    #[test]
    fn what_a_killed_build_started_still_holds_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let lock = inherited(&path).unwrap();
        lock.lock().unwrap();
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        drop(lock); // as if we were killed: closed, not unlocked
        assert!(File::open(&path).unwrap().try_lock().is_err());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(File::open(&path).unwrap().try_lock().is_ok());
    }
}

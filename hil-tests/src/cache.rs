//! What is dear to make and depends on nothing in the clone, kept outside it.

use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};

/// A folder of the cache, made if need be: `$XDG_CACHE_HOME/postern/NAME`, else below `~/.cache`.
pub fn folder(name: &str) -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME says where the cache is")?;
    let folder = base.join("postern").join(name);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// Waits until no other process makes the same thing; the lock ends with the value.
pub fn lock(name: &str) -> Result<Flock<File>> {
    let path = folder("locks")?.join(name);
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .with_context(|| format!("cannot lock {}", path.display()))
}

//! Where the kernel shows the machine.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// The three trees in which the kernel shows the machine. Tests put recorded ones in their place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Machine {
    /// `/proc`.
    pub proc: PathBuf,
    /// `/sys`.
    pub sys: PathBuf,
    /// `/dev`.
    pub dev: PathBuf,
}

/// More than any attribute of sysfs, which is one page.
const ATTRIBUTE: u64 = 4096;

impl Machine {
    /// The machine that runs us.
    pub fn here() -> Self {
        Self::at(Path::new("/"))
    }

    /// The machine whose trees lie under `root`.
    pub fn at(root: &Path) -> Self {
        Self { proc: root.join("proc"), sys: root.join("sys"), dev: root.join("dev") }
    }

    /// A file of `/sys`, without the white space around it; `None` when it is not there or not to be read.
    pub(crate) fn attribute(&self, path: impl AsRef<Path>) -> Option<String> {
        let bytes = read_at_most(&self.sys.join(path), ATTRIBUTE).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// A number out of a file of `/sys`.
    pub(crate) fn number(&self, path: impl AsRef<Path>) -> Option<u64> {
        self.attribute(path)?.parse().ok()
    }

    /// The names in a folder of `/sys`, sorted; none when it is not there.
    pub(crate) fn names(&self, path: impl AsRef<Path>) -> Vec<String> {
        let entries = fs::read_dir(self.sys.join(path)).into_iter().flatten().flatten();
        let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect::<Vec<_>>();
        names.sort();
        names
    }
}

/// A file whose length nobody promises.
pub(crate) fn read_at_most(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

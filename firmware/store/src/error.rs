//! What can go wrong, and whose fault it is.

use std::io;
use std::path::Path;

/// Errors of the device database. None holds a token, a key or a password.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StoreError {
    /// The disk: nothing was written, everything can still be read, and writing works again once there is space.
    #[error("the disk is full: nothing was recorded")]
    Full,
    /// The disk or the database: the reason. Reading works. The store tries by itself to become writable again.
    #[error("the device database is read-only: {0}")]
    ReadOnly(String),
    /// The disk.
    #[error("{0}")]
    Io(String),
    /// The disk: what is there is not what was written.
    #[error("the device database is damaged: {0}")]
    Damaged(String),
    /// The database and all its exports are gone or unreadable, though there was one. Nobody may be let in on the strength
    /// of an empty database: put the folder back, or import an export.
    #[error("the device database is lost: {0}")]
    Lost(String),
    /// Another process has it open: a gateway that serves, or an export. Opening would mend what that one is writing.
    #[error("another process has it open: a gateway that serves can be asked (postern export), or stopped")]
    InUse,
    /// Somebody put a symbolic link where the database keeps its files.
    #[error("{0} is a symbolic link: refused")]
    Symlink(String),
    /// The key file is missing, unreadable, open to others, or not the one of this database.
    #[error("key file: {0}")]
    Keys(String),
    /// The caller: no such account.
    #[error("no such account")]
    NoAccount,
    /// The caller: no such device in that account.
    #[error("no such device")]
    NoDevice,
    /// The owner: the account has as many devices as a store keeps, none of which may give way.
    #[error("the account has too many devices")]
    AccountFull,
    /// The caller: this does not fit in a record.
    #[error("{0} is too large for the device database")]
    TooLarge(&'static str),
    /// The file given to `import`.
    #[error("line {line}: {reason}")]
    Import {
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// The store has been closed.
    #[error("the device database is closed")]
    Closed,
}

impl StoreError {
    /// An I/O error with the name of its file, without the folders above it.
    pub(crate) fn io(path: &Path, error: &io::Error) -> Self {
        // EFBIG: a quota by process instead of by disk. Both end when there is room again.
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full
            }
            _ => Self::Io(format!("{}: {error}", path.file_name().unwrap_or_default().to_string_lossy())),
        }
    }
}

impl From<sled::Error> for StoreError {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Io(error) => Self::io(Path::new("db"), &error),
            sled::Error::Corruption { .. } => Self::Damaged("sled reports corruption".to_owned()),
            sled::Error::CollectionNotFound(_)
            | sled::Error::Unsupported(_)
            | sled::Error::ReportableBug(_) => Self::Damaged(error.to_string()),
        }
    }
}

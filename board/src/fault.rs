//! What is wrong with a part of the machine.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// A part of the machine that is missing or does not do what it should: which, where, what, and the mend.
#[derive(Debug)]
pub struct Fault {
    /// `watchdog`, `console`, `disk` …
    pub part: &'static str,
    /// The device or file that was meant.
    pub device: PathBuf,
    /// What is wrong, without a full stop.
    pub what: String,
    /// How to mend it, without a full stop.
    pub mend: &'static str,
    /// What the kernel said, if it was asked.
    pub source: Option<io::Error>,
}

impl Fault {
    pub(crate) fn new(
        part: &'static str,
        device: impl Into<PathBuf>,
        what: impl Into<String>,
        mend: &'static str,
    ) -> Self {
        Self { part, device: device.into(), what: what.into(), mend, source: None }
    }

    pub(crate) fn io(
        part: &'static str,
        device: impl Into<PathBuf>,
        what: impl Into<String>,
        mend: &'static str,
        source: impl Into<io::Error>,
    ) -> Self {
        Self { source: Some(source.into()), ..Self::new(part, device, what, mend) }
    }
}

impl fmt::Display for Fault {
    /// `part DEVICE: what: reason; mend`, in one line for the console.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.part, self.device.display(), self.what)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        write!(f, "; {}", self.mend)
    }
}

impl std::error::Error for Fault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

//! Reads the log of a server while it is being written.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// A log file, read from a mark on.
#[derive(Clone, Debug)]
pub struct Log {
    path: PathBuf,
    from: usize,
}

impl Log {
    /// The whole file.
    pub const fn new(path: PathBuf) -> Self {
        Self { path, from: 0 }
    }

    /// The same file, but only what is written from now on.
    #[must_use]
    pub fn from_now(&self) -> Self {
        Self {
            path: self.path.clone(),
            from: fs::metadata(&self.path).map_or(0, |metadata| usize::try_from(metadata.len()).unwrap_or(0)),
        }
    }

    /// What it holds by now; empty where there is no file yet.
    pub fn text(&self) -> String {
        let octets = fs::read(&self.path).unwrap_or_default();
        String::from_utf8_lossy(octets.get(self.from..).unwrap_or_default()).into_owned()
    }

    /// Its last thirty lines, for a failure's message.
    pub fn end(&self) -> String {
        let text = self.text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// The lines that hold all of `parts`.
    pub fn lines(&self, parts: &[&str]) -> Vec<String> {
        self.text()
            .lines()
            .filter(|line| parts.iter().all(|part| line.contains(part)))
            .map(String::from)
            .collect()
    }

    /// Waits for a line that holds all of `parts`, and gives it.
    pub fn wait(&self, parts: &[&str], limit: Duration) -> Result<String> {
        let start = Instant::now();
        loop {
            if let Some(line) = self.lines(parts).into_iter().next() {
                return Ok(line);
            }
            if start.elapsed() > limit {
                bail!("no line with {parts:?} within {limit:?}; it ends with:\n{}", self.end());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

//! The local journal of events: JSON lines in two files of bounded size, of which the older is given up.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::error::StoreError;
use crate::file::NO_FOLLOW;

/// Octets of each of the two files.
const FILE_MAX: u64 = 1 << 20;
/// Octets of one event; a longer one is refused.
const EVENT_MAX: usize = 4 << 10;

/// See the module. An event is on the disk when the kernel gets round to it: a power cut may cost the last seconds.
#[derive(Debug)]
pub(crate) struct Events {
    folder: PathBuf,
    open: Mutex<Option<(File, u64)>>,
}

impl Events {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), open: Mutex::new(None) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn add(&self, event: &Value) -> Result<(), StoreError> {
        let mut line = event.to_string();
        line.push('\n');
        if line.len() > EVENT_MAX {
            return Err(StoreError::TooLarge("an event"));
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.path("events.new.jsonl");
        let added = (|| {
            if let Some((_, length)) = &*open
                && *length + line.len() as u64 > FILE_MAX
            {
                *open = None;
                fs::rename(&path, self.path("events.old.jsonl"))?;
            }
            if open.is_none() {
                let file = OpenOptions::new()
                    .append(true)
                    .create(true)
                    .mode(0o600)
                    .custom_flags(NO_FOLLOW)
                    .open(&path)?;
                let length = file.metadata()?.len();
                *open = Some((file, length));
            }
            if let Some((file, length)) = &mut *open {
                file.write_all(line.as_bytes())?;
                *length += line.len() as u64;
            }
            Ok(())
        })();
        added.map_err(|error: io::Error| StoreError::io(&path, &error))
    }

    /// The newest `limit` events that `wanted` wants, oldest first. Lines a power cut has torn are passed over.
    pub(crate) fn newest(&self, limit: usize, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        // Held while reading, so that no file is renamed under way.
        let _open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut newest = std::collections::VecDeque::new();
        for name in ["events.old.jsonl", "events.new.jsonl"] {
            let Ok(file) = OpenOptions::new().read(true).custom_flags(NO_FOLLOW).open(self.path(name)) else {
                continue;
            };
            for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
                if let Ok(event) = serde_json::from_slice::<Value>(&line)
                    && wanted(&event)
                {
                    if newest.len() == limit {
                        newest.pop_front();
                    }
                    newest.push_back(event);
                }
            }
        }
        newest.truncate(limit);
        newest.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_a_bounded_ring() {
        let folder = tempfile::tempdir().unwrap();
        let events = Events::new(folder.path());
        let text = "x".repeat(1_000);
        for n in 0..3_000 {
            events.add(&serde_json::json!({ "n": n, "text": text })).unwrap();
        }
        let size = crate::file::size_of_folder(folder.path());
        assert!(size <= 2 * FILE_MAX, "{size}");
        let newest = events.newest(10, |_| true);
        let numbers: Vec<_> = newest.iter().map(|event| event["n"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (2_990..3_000).collect::<Vec<_>>());
        assert_eq!(events.newest(10, |event| event["n"] == 2_995).len(), 1);
        assert!(events.newest(0, |_| true).is_empty());
    }

    #[test]
    fn a_torn_line_costs_that_line_only() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("events.new.jsonl"), "{\"n\":1}\n{\"n\":").unwrap();
        let events = Events::new(folder.path());
        events.add(&serde_json::json!({ "n": 2 })).unwrap();
        events.add(&serde_json::json!({ "n": 3 })).unwrap();
        let numbers: Vec<_> =
            events.newest(9, |_| true).iter().map(|event| event["n"].as_u64().unwrap()).collect();
        assert_eq!(numbers, [1, 3], "the line that joined the torn one is lost with it");
        assert!(events.add(&Value::String("x".repeat(5_000))).is_err());
    }
}

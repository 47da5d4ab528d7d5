//! The local journal of events: JSON lines in two files that replace each other, so that it is bounded.
//!
//! `events.jsonl` grows to its limit, then becomes `events.1.jsonl`. No fsync per event: after a power cut the last
//! seconds may be missing or torn, and a torn line is skipped. Nothing but people depends on this file.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::event::{Event, UnixSeconds};

const CURRENT: &str = "events.jsonl";
const OLDER: &str = "events.1.jsonl";
/// A line longer than this is not ours: the longest event has eight texts of 320 octets, escaped.
const LINE_MAX: u64 = 16 * 1024;

/// Where the journal is kept and how much of it.
#[derive(Clone, Debug)]
pub struct JournalSettings {
    /// The folder, such as `data/events`; made if missing.
    pub folder: PathBuf,
    /// Octets after which a file is replaced; together the two take at most twice that.
    pub size: u64,
    /// How long addresses are kept; [`Duration::MAX`] keeps them as long as the events.
    pub retention: Duration,
}

impl JournalSettings {
    /// Two files of 8 MiB hold about 80,000 events; addresses are kept for 30 days.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), size: 8 * 1024 * 1024, retention: Duration::from_hours(30 * 24) }
    }
}

/// The disk's fault.
#[derive(Debug, thiserror::Error)]
#[error("event journal {}: {source}", path.display())]
pub struct JournalError {
    path: PathBuf,
    source: io::Error,
}

/// Which events are wanted: the newest that match.
#[derive(Clone, Debug)]
pub struct Query {
    /// Of one account only.
    pub account: Option<String>,
    /// Not before this second.
    pub since: Option<UnixSeconds>,
    /// At most so many; never more than [`Query::MAX`].
    pub limit: usize,
}

impl Query {
    /// What one answer may hold.
    pub const MAX: usize = 10_000;

    fn wants(&self, event: &Event) -> bool {
        let account = self.account.as_deref();
        self.since.is_none_or(|since| event.at >= since)
            && account.is_none_or(|account| {
                event.subject.account.as_ref().is_some_and(|own| own.as_str() == account)
            })
    }
}

/// The journal, open for appending. One process has it.
#[derive(Debug)]
pub struct Journal {
    settings: JournalSettings,
    writer: BufWriter<File>,
    size: u64,
    /// Addresses of events before this are gone already.
    forgotten: UnixSeconds,
}

impl Journal {
    /// Opens the journal, mending a torn last line.
    pub fn open(settings: JournalSettings) -> Result<Self, JournalError> {
        let fail = |source| JournalError { path: settings.folder.clone(), source };
        fs::create_dir_all(&settings.folder).map_err(fail)?;
        let (file, size) = open_current(&settings.folder.join(CURRENT)).map_err(fail)?;
        Ok(Self { settings, writer: BufWriter::new(file), size, forgotten: 0 })
    }

    /// Adds one event. It is readable after [`Journal::flush`].
    pub fn append(&mut self, event: &Event) -> Result<(), JournalError> {
        let mut line = serde_json::to_vec(event).map_err(|error| self.error(error.into()))?;
        line.push(b'\n');
        self.writer.write_all(&line).map_err(|source| self.error(source))?;
        self.size += line.len() as u64;
        if self.size >= self.settings.size {
            self.rotate().map_err(|source| self.error(source))?;
        }
        Ok(())
    }

    /// Hands what was added to the operating system.
    pub fn flush(&mut self) -> Result<(), JournalError> {
        self.writer.flush().map_err(|source| self.error(source))
    }

    /// The newest events that match, oldest first.
    pub fn query(&mut self, query: &Query) -> Result<Vec<Event>, JournalError> {
        self.flush()?;
        let limit = query.limit.min(Query::MAX);
        let mut found = VecDeque::new();
        for name in [OLDER, CURRENT] {
            let mut take = |event: Event| {
                if limit > 0 && query.wants(&event) {
                    if found.len() == limit {
                        found.pop_front();
                    }
                    found.push_back(event);
                }
                Ok(())
            };
            each_event(&self.settings.folder.join(name), &mut take).map_err(|source| self.error(source))?;
        }
        Ok(found.into())
    }

    /// Removes addresses past their retention; rewrites a file only if it holds such. Returns how many events lost
    /// theirs. Call it once in a while, such as every hour.
    pub fn forget_addresses(&mut self, now: UnixSeconds) -> Result<usize, JournalError> {
        let before = now.saturating_sub(self.settings.retention.as_secs());
        if before == 0 {
            return Ok(0);
        }
        // Rewriting for each second's worth would wear out flash: a day's worth at a time.
        if before < self.forgotten.saturating_add(86_400) && self.forgotten != 0 {
            return Ok(0);
        }
        self.flush()?;
        let mut count = 0;
        for name in [OLDER, CURRENT] {
            let path = self.settings.folder.join(name);
            count += forget(&path, before).map_err(|source| self.error(source))?;
        }
        if count > 0 {
            self.reopen().map_err(|source| self.error(source))?;
        }
        self.forgotten = before;
        Ok(count)
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.writer.flush()?;
        fs::rename(self.settings.folder.join(CURRENT), self.settings.folder.join(OLDER))?;
        self.reopen()
    }

    fn reopen(&mut self) -> io::Result<()> {
        let (file, size) = open_current(&self.settings.folder.join(CURRENT))?;
        self.writer = BufWriter::new(file);
        self.size = size;
        Ok(())
    }

    fn error(&self, source: io::Error) -> JournalError {
        JournalError { path: self.settings.folder.clone(), source }
    }
}

/// Opens for appending; a last line without its end gets one, so that the next event starts a line.
fn open_current(path: &Path) -> io::Result<(File, u64)> {
    let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
    let mut size = file.seek(SeekFrom::End(0))?;
    if size > 0 {
        file.seek(SeekFrom::End(-1))?;
        let mut last = [0];
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            size += 1;
        }
    }
    Ok((file, size))
}

/// Gives each readable event of a file; a missing file has none.
fn each_event(path: &Path, take: &mut dyn FnMut(Event) -> io::Result<()>) -> io::Result<()> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut reader).take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        // A torn or foreign line is no event, and no reason to hide the others.
        if let Ok(event) = serde_json::from_slice(&line) {
            take(event)?;
        }
    }
}

/// Rewrites a file without the addresses of events before `before`, if it has any.
fn forget(path: &Path, before: UnixSeconds) -> io::Result<usize> {
    let mut count = 0;
    each_event(path, &mut |event| {
        count += usize::from(event.at < before && event.subject.address.is_some());
        Ok(())
    })?;
    if count == 0 {
        return Ok(0);
    }
    let fresh = path.with_extension("new");
    let mut writer = BufWriter::new(File::create(&fresh)?);
    each_event(path, &mut |mut event| {
        if event.at < before {
            event.subject.address = None;
        }
        serde_json::to_writer(&mut writer, &event)?;
        writer.write_all(b"\n")
    })?;
    let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    fs::rename(fresh, path)?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Kind, Subject};

    fn event(at: UnixSeconds, account: &str) -> Event {
        let address = Some("192.0.2.7".parse().unwrap());
        Event { at, kind: Kind::DeviceNew, subject: Subject { address, ..Subject::account(account) } }
    }

    fn all(limit: usize) -> Query {
        Query { account: None, since: None, limit }
    }

    fn journal(folder: &Path, size: u64) -> Journal {
        Journal::open(JournalSettings { size, ..JournalSettings::new(folder) }).unwrap()
    }

    #[test]
    fn newest_by_account_and_time() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = journal(folder.path(), 1 << 20);
        for at in 0..50 {
            journal.append(&event(at, if at % 2 == 0 { "ann" } else { "bob" })).unwrap();
        }
        let ats = |events: Vec<Event>| events.iter().map(|event| event.at).collect::<Vec<_>>();
        assert_eq!(ats(journal.query(&all(3)).unwrap()), [47, 48, 49]);
        let query = Query { account: Some("ann".into()), since: Some(45), limit: 10 };
        assert_eq!(ats(journal.query(&query).unwrap()), [46, 48]);
        assert!(journal.query(&all(0)).unwrap().is_empty());
    }

    #[test]
    fn two_files_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = journal(folder.path(), 2_000);
        for at in 0..1_000 {
            journal.append(&event(at, "ann")).unwrap();
        }
        let events = journal.query(&all(10_000)).unwrap();
        assert_eq!(events.last().unwrap().at, 999);
        assert!(events.len() >= 10, "the older file is still there");
        assert!(events.windows(2).all(|pair| pair[0].at + 1 == pair[1].at), "no hole at the border");
        let total: u64 =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        assert!(total <= 2 * 2_200, "{total}");
    }

    #[test]
    fn a_torn_line_costs_itself_only() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = journal(folder.path(), 1 << 20);
        first.append(&event(1, "ann")).unwrap();
        first.flush().unwrap();
        drop(first);
        let path = folder.path().join(CURRENT);
        let mut file = OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(b"{\"at\":2,\"event\":\"devi").unwrap();
        drop(file);
        let mut second = journal(folder.path(), 1 << 20);
        second.append(&event(3, "ann")).unwrap();
        let events = second.query(&all(10)).unwrap();
        assert_eq!(events.iter().map(|event| event.at).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn addresses_are_forgotten_and_events_stay() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = journal(folder.path(), 1 << 20);
        let day = 86_400;
        for at in [day, 35 * day, 60 * day] {
            journal.append(&event(at, "ann")).unwrap();
        }
        assert_eq!(journal.forget_addresses(61 * day).unwrap(), 1);
        assert_eq!(journal.forget_addresses(61 * day + 5).unwrap(), 0);
        journal.append(&event(61 * day, "bob")).unwrap();
        let events = journal.query(&all(10)).unwrap();
        let known = events.iter().map(|event| event.subject.address.is_some()).collect::<Vec<_>>();
        assert_eq!(known, [false, true, true, true]);
        assert_eq!(journal.forget_addresses(70 * day).unwrap(), 1);
    }
}

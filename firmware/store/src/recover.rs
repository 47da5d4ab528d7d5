//! Opening: what the exports, the tail and sled each say, and what is made of it.
//!
//! Exports and tail together say exactly what the database must hold. sled is believed only where it agrees: it is first
//! brought up to the end of the tail, then compared record by record. Any difference, error or panic, and it is built anew.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::iter::Peekable;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::engine::{Engine, Meta, Sled};
use crate::error::StoreError;
use crate::export::{self, Export, Records};
use crate::file::sync_folder;
use crate::key::{self, Kind};
use crate::keys::random_id;
use crate::record::{self, KeyValue};
use crate::tail::{self, JournalLine, Op, Point, Tail, journal_line, roll};

/// What opening the database found and did. All silent is the normal case.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct OpenReport {
    /// There was none: a new one was made.
    pub created: bool,
    /// Operations that the tail had and sled did not: normal after a power cut.
    pub replayed: u64,
    /// Records sled had wrong, put right from the export and the tail.
    pub repaired: u64,
    /// sled was built anew, and why.
    pub rebuilt: Option<String>,
    /// What may be lost, for the administrator. `None`: nothing.
    pub lost: Option<String>,
    /// Why nothing can be written, if so.
    pub read_only: Option<String>,
    /// Everything else the administrator should hear of.
    pub alarms: Vec<String>,
    /// Accounts recorded.
    pub accounts: u64,
    /// Devices recorded.
    pub devices: u64,
}

impl OpenReport {
    /// Whether anything is out of order: the operator should be told, and told what.
    pub fn is_alarming(&self) -> bool {
        self.repaired > 0
            || self.rebuilt.is_some()
            || self.lost.is_some()
            || self.read_only.is_some()
            || !self.alarms.is_empty()
    }
}

/// An open database, ready for the writer.
pub(crate) struct Opened {
    pub(crate) engine: Engine,
    /// `None` only when read-only.
    pub(crate) tail: Option<Tail>,
    pub(crate) meta: Meta,
    pub(crate) generation: u64,
    /// The newest export is not to be relied on alone: write another soon.
    pub(crate) export_due: bool,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) report: OpenReport,
}

/// Opens the database in `folder`, which is there and ours alone. `known`: the database the key file has served, if any.
pub(crate) fn open(folder: &Path, known: Option<[u8; 16]>) -> Result<Opened, StoreError> {
    remove_leftovers(folder)?;
    let history = History::read(folder);
    let generation = generations(folder).last().map(|(number, _)| *number);
    if history.base.is_none() && history.tails == 0 && generation.is_none() {
        if known.is_some() {
            return Err(StoreError::Lost("its folder is empty, and it was not before".to_owned()));
        }
        return create(folder);
    }
    if let (Some(known), Some(base)) = (known, &history.base)
        && known != base.database
    {
        return Err(StoreError::Keys("these keys belong to another database".to_owned()));
    }
    Opening { folder, known, history, report: OpenReport::default() }.go(generation)
}

/// Whether there is a database in `folder`, or what is left of one.
pub(crate) fn exists(folder: &Path) -> bool {
    !(export::list(folder).is_empty() && tail::list(folder).is_empty() && generations(folder).is_empty())
}

/// Makes an empty database: export and tail first, so that from the first record on there is something to recover from.
fn create(folder: &Path) -> Result<Opened, StoreError> {
    let meta = Meta { point: Point::default(), journal_from: Point::default(), database: random_id()? };
    let sled = build(folder, 1, &meta, std::iter::empty())?;
    export::write(folder, meta.point, meta.database, |_| Ok(()))?;
    let tail = Tail::create(folder, meta.point)?;
    Ok(Opened {
        engine: Engine::Sled(sled),
        tail: Some(tail),
        meta,
        generation: 1,
        export_due: false,
        records: 0,
        bytes: 0,
        report: OpenReport { created: true, ..OpenReport::default() },
    })
}

/// What exports and tails say.
struct History {
    base: Option<Export>,
    /// Operations since the base, in order.
    ops: Vec<Op>,
    /// The point after them.
    end: Point,
    /// Tail files found.
    tails: usize,
    /// The tail to go on with, and its sound length.
    last: Option<(PathBuf, u64)>,
    /// Something behind the last operation could not be read: an unfinished write, or damage.
    unfinished: bool,
    /// Neither the whole history is there nor an export that stands for its beginning.
    incomplete: bool,
    /// Exports that are damaged.
    bad: Vec<PathBuf>,
    /// Tails that are no part of this history: in the way of those to come.
    stray: Vec<PathBuf>,
    /// Tails cut off before anything was in them.
    begun: Vec<PathBuf>,
    alarms: Vec<String>,
}

impl History {
    fn read(folder: &Path) -> Self {
        let exports = export::list(folder);
        let mut alarms = Vec::new();
        let mut bad = Vec::new();
        let mut base = None;
        for (sequence, path) in exports.iter().rev() {
            if let Some(export) = Export::check(path).filter(|export| export.point.sequence == *sequence) {
                base = Some(export);
                break;
            }
            alarms.push(format!("export {sequence} is damaged"));
            bad.push(path.clone());
        }
        let all = tail::list(folder);
        let tails = all.len();
        let start = base.as_ref().map(|base| base.point);
        let mut history = Self {
            end: start.unwrap_or_default(),
            incomplete: base.is_none(),
            base,
            ops: Vec::new(),
            tails,
            last: None,
            unfinished: false,
            bad,
            stray: Vec::new(),
            begun: Vec::new(),
            alarms,
        };
        let first = history.end.sequence;
        for (sequence, path) in all.into_iter().filter(|(sequence, _)| *sequence >= first) {
            let follows = |read: &tail::TailRead| read.start == history.end && history.stray.is_empty();
            let Some(read) = tail::read(&path).filter(follows) else {
                // A tail cut off while it was begun has nothing in it. Any other may have held something.
                if tail::is_only_begun(&path) {
                    history.begun.push(path);
                } else {
                    history.unfinished = true;
                    history.alarms.push(format!("tail {sequence} does not follow what is before it"));
                    history.stray.push(path);
                }
                continue;
            };
            // Only a history from the very beginning stands without an export.
            history.incomplete &= read.start.sequence != 0;
            history.ops.extend(read.ops);
            history.end = read.end;
            history.unfinished = read.garbage > 0;
            history.last = Some((path, read.length));
        }
        history
    }

    /// What the database must hold, in the order of the keys.
    fn expected<'a>(&self, overlay: &'a Overlay) -> Result<Expected<'a>, StoreError> {
        let base = self.base.as_ref().map(Export::records).transpose()?;
        Ok(Expected { base: base.map(Iterator::peekable), overlay: overlay.iter().peekable() })
    }
}

/// The newest value of each record touched since the base; `None`: removed.
type Overlay = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Export and overlay as one sequence of records.
struct Expected<'a> {
    base: Option<Peekable<Records>>,
    overlay: Peekable<std::collections::btree_map::Iter<'a, Vec<u8>, Option<Vec<u8>>>>,
}

impl Iterator for Expected<'_> {
    type Item = Result<KeyValue, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let base = match self.base.as_mut().and_then(Peekable::peek) {
                Some(Err(error)) => return Some(Err(error.clone())),
                Some(Ok((key, _))) => Some(key),
                None => None,
            };
            let from_overlay = match (base, self.overlay.peek()) {
                (None, None) => return None,
                (Some(_), None) => false,
                (None, Some(_)) => true,
                (Some(base), Some((key, _))) => {
                    if base == *key {
                        self.base.as_mut().and_then(Iterator::next);
                        true
                    } else {
                        *key < base
                    }
                }
            };
            if !from_overlay {
                return self.base.as_mut().and_then(Iterator::next);
            }
            if let Some((key, Some(value))) = self.overlay.next() {
                return Some(Ok((key.clone(), value.clone())));
            }
        }
    }
}

struct Opening<'a> {
    folder: &'a Path,
    known: Option<[u8; 16]>,
    history: History,
    report: OpenReport,
}

impl Opening<'_> {
    fn go(mut self, generation: Option<u64>) -> Result<Opened, StoreError> {
        self.report.alarms.append(&mut self.history.alarms);
        let mut overlay: Overlay = Overlay::new();
        for op in &self.history.ops {
            overlay.insert(op.key.clone(), op.value.clone());
        }
        let number = generation.unwrap_or(0);
        let opened = match generation {
            None => Err(StoreError::Damaged("its folder was missing".to_owned())),
            Some(_) => {
                Sled::open(&self.folder.join(format!("db.{number:08}"))).and_then(|sled| self.believe(sled))
            }
        };
        let (sled, meta) = match opened {
            Ok(pair) => pair,
            Err(error @ (StoreError::Symlink(_) | StoreError::Keys(_))) => return Err(error),
            Err(error) => return self.rebuild(&error.to_string(), number, &overlay, None),
        };
        let engine = Engine::Sled(sled);
        let ahead = meta.point.sequence > self.history.end.sequence;
        if self.history.incomplete {
            return self.without_history(engine, meta, number);
        }
        let compared = self.compare(&engine, &mut overlay, ahead.then_some(meta));
        match compared {
            Ok(counts) if counts.differences == 0 => {
                if ahead {
                    self.report
                        .alarms
                        .push("the tail was behind the database: a new export is made".to_owned());
                }
                Ok(self.finish(engine, meta, number, counts, ahead))
            }
            Ok(counts) => {
                self.report.repaired = counts.differences;
                if ahead {
                    self.report.lost =
                        Some("perhaps the newest operations: tail and database were both damaged".to_owned());
                }
                drop(engine);
                let why = format!("{} records were not as written", counts.differences);
                self.rebuild(&why, number, &overlay, ahead.then_some(meta.point))
            }
            Err(error) => {
                drop(engine);
                self.rebuild(&error.to_string(), number, &overlay, None)
            }
        }
    }

    /// Checks sled's own journal, then replays what only the tail has.
    fn believe(&mut self, sled: Sled) -> Result<(Sled, Meta), StoreError> {
        let engine = Engine::Sled(sled);
        let mut meta = Meta::read(&engine)?.ok_or_else(|| StoreError::Damaged("it is empty".to_owned()))?;
        let database = self.history.base.as_ref().map(|base| base.database).or(self.known);
        if database.is_some_and(|database| database != meta.database) {
            return Err(StoreError::Keys("these keys belong to another database".to_owned()));
        }
        check_journal(&engine, &meta)?;
        let Engine::Sled(sled) = engine else {
            return Err(StoreError::Closed);
        };
        let start = self.history.base.as_ref().map_or(0, |base| base.point.sequence);
        if !self.history.incomplete && meta.point.sequence < start {
            return Err(StoreError::Damaged("it is older than its export".to_owned()));
        }
        // The same history, or another that happens to be as long?
        let mut chain = self.history.base.as_ref().map_or([0; 16], |base| base.point.chain);
        if meta.point.sequence == start && !self.history.incomplete && chain != meta.point.chain {
            return Err(StoreError::Damaged("its history is not that of its export".to_owned()));
        }
        for op in &self.history.ops {
            chain = roll(&chain, op);
            if op.sequence == meta.point.sequence && !self.history.incomplete && chain != meta.point.chain {
                return Err(StoreError::Damaged("its history is not that of its tail".to_owned()));
            }
        }
        let missing: Vec<Op> =
            self.history.ops.iter().filter(|op| op.sequence > meta.point.sequence).cloned().collect();
        for ops in missing.chunks(1_000) {
            meta = apply(&sled, ops, meta)?;
            self.report.replayed += ops.len() as u64;
        }
        Ok((sled, meta))
    }

    /// Compares every record with what it must be. Where sled is `ahead` of a damaged tail its newer records are right, and
    /// are put into the overlay.
    fn compare(
        &self,
        engine: &Engine,
        overlay: &mut Overlay,
        ahead: Option<Meta>,
    ) -> Result<Counts, StoreError> {
        let mut counts = Counts::default();
        let mut newer = Vec::new();
        let removed = match ahead {
            Some(meta) => removals(engine, &meta)?,
            None => HashMap::new(),
        };
        let end = self.history.end.sequence;
        {
            let mut expected = self.history.expected(overlay)?.peekable();
            // An expected record that sled does not have: wrong, unless sled removed it after the tail broke off.
            let missing = |(key, value): KeyValue, counts: &mut Counts, newer: &mut Vec<_>| {
                let sequence = record::open(&key, &value).map_or(0, |(sequence, _)| sequence);
                if removed.get(&key).is_some_and(|removal| *removal > sequence) {
                    newer.push((key, None));
                } else {
                    counts.differences += 1;
                }
            };
            engine.from(&[], &mut |key, value| {
                if key::is_local(key) {
                    return Ok(ControlFlow::Continue(()));
                }
                while let Some(next) =
                    expected.next_if(|next| next.as_ref().is_ok_and(|(other, _)| &other[..] < key))
                {
                    missing(next?, &mut counts, &mut newer);
                }
                let same_key = expected.next_if(|next| next.as_ref().is_ok_and(|(other, _)| other == key));
                if let Some(Err(error)) = expected.next_if(Result::is_err) {
                    return Err(error);
                }
                let sound = record::open(key, value);
                if sound.is_some_and(|(sequence, _)| sequence > end) && ahead.is_some() {
                    newer.push((key.to_vec(), Some(value.to_vec())));
                } else if same_key.transpose()?.is_none_or(|(_, expected)| expected != value) {
                    counts.differences += 1;
                    return Ok(ControlFlow::Continue(()));
                }
                counts.add(key, value);
                Ok(ControlFlow::Continue(()))
            })?;
            for next in expected {
                missing(next?, &mut counts, &mut newer);
            }
        }
        overlay.extend(newer);
        Ok(counts)
    }

    /// No export that could be read and no tail from the beginning: sled alone, as far as its own checksums go.
    fn without_history(mut self, engine: Engine, meta: Meta, generation: u64) -> Result<Opened, StoreError> {
        let mut counts = Counts::default();
        let mut sound = Overlay::new();
        let mut bad = 0_u64;
        engine.from(&[], &mut |key, value| {
            if !key::is_local(key) {
                if record::open(key, value).is_some() {
                    counts.add(key, value);
                } else {
                    bad += 1;
                    sound.insert(key.to_vec(), None);
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        self.report.alarms.push("no export could be read: a new one is made".to_owned());
        if bad > 0 {
            self.report.lost = Some(format!("{bad} records were damaged, and no export could be read"));
            if let Engine::Sled(sled) = &engine {
                sled.apply(sound.into_iter())?;
                sled.fence()?;
            }
        }
        Ok(self.finish(engine, meta, generation, counts, true))
    }

    /// Builds sled anew from exports and tail.
    fn rebuild(
        mut self,
        why: &str,
        generation: u64,
        overlay: &Overlay,
        ahead: Option<Point>,
    ) -> Result<Opened, StoreError> {
        if self.history.incomplete {
            return Err(StoreError::Lost(format!("{why}, and no export could be read")));
        }
        if self.history.unfinished && ahead.is_none() {
            self.report.lost = Some(format!(
                "operations after number {}, if any were acknowledged: the tail breaks off there",
                self.history.end.sequence
            ));
        }
        let point = ahead.unwrap_or(self.history.end);
        let database = self.history.base.as_ref().map(|base| base.database).or(self.known);
        let database = database.map_or_else(random_id, Ok)?;
        let meta = Meta { point, journal_from: point, database };
        let mut counts = Counts::default();
        for next in self.history.expected(overlay)? {
            let (key, value) = next?;
            counts.add(&key, &value);
        }
        self.report.rebuilt = Some(why.to_owned());
        match build(self.folder, generation + 1, &meta, self.history.expected(overlay)?) {
            Ok(sled) => Ok(self.finish(Engine::Sled(sled), meta, generation + 1, counts, ahead.is_some())),
            Err(error) => {
                // A full or failing disk: serve what there is from memory, and write nothing.
                self.report.read_only = Some(error.to_string());
                let records = self.history.expected(overlay)?.collect::<Result<BTreeMap<_, _>, _>>()?;
                Ok(self.finish(Engine::Memory(records), meta, generation, counts, ahead.is_some()))
            }
        }
    }

    fn finish(
        mut self,
        engine: Engine,
        meta: Meta,
        generation: u64,
        counts: Counts,
        new_tail: bool,
    ) -> Opened {
        let resumed = if let Engine::Memory(_) = engine {
            None
        } else {
            remove_generations_but(self.folder, generation);
            // Of no use, and in the way: two generations are kept, and these are none.
            // Tails of another history would be in the way of this one's; without a history they may be of use to somebody.
            let History { bad, stray, begun, incomplete, .. } = &self.history;
            let stray = stray.iter().filter(|_| !incomplete);
            for path in bad.iter().chain(begun).chain(stray) {
                if let Err(error) = fs::remove_file(path) {
                    tracing::warn!(%error, "a useless export or tail cannot be removed");
                }
            }
            let tail = match &self.history.last {
                Some((path, length)) if !new_tail => Tail::resume(path, *length),
                Some(_) | None => Tail::create(self.folder, meta.point),
            };
            match tail {
                Ok(tail) => Some(tail),
                Err(error) => {
                    self.report.read_only = Some(error.to_string());
                    None
                }
            }
        };
        self.report.accounts = counts.accounts;
        self.report.devices = counts.devices;
        Opened {
            engine,
            tail: resumed,
            meta,
            generation,
            export_due: new_tail || !self.report.alarms.is_empty(),
            records: counts.records,
            bytes: counts.bytes,
            report: self.report,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    records: u64,
    bytes: u64,
    accounts: u64,
    devices: u64,
    differences: u64,
}

impl Counts {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.records += 1;
        self.bytes += (key.len() + value.len()) as u64;
        self.accounts += u64::from(key.first() == Some(&(Kind::Account as u8)));
        self.devices += u64::from(key.first() == Some(&(Kind::Device as u8)));
    }
}

/// Applies operations to sled, with its journal and its meta record, and fences.
pub(crate) fn apply(sled: &Sled, ops: &[Op], before: Meta) -> Result<Meta, StoreError> {
    let mut meta = before;
    let mut changes: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
    for op in ops {
        meta.point = Point { sequence: op.sequence, chain: roll(&meta.point.chain, op) };
        changes.insert(op.key.clone(), op.value.clone());
        let slot = key::journal(op.sequence);
        let line = record::seal(&slot, op.sequence, &journal_line(op, &meta.point.chain));
        changes.insert(slot.to_vec(), Some(line));
    }
    changes.insert(key::META.to_vec(), Some(meta.seal()));
    sled.apply(changes.into_iter())?;
    sled.fence()?;
    Ok(meta)
}

/// sled's journal: whole, in one piece, ending where the meta record says, and each record as its newest line says.
fn check_journal(engine: &Engine, meta: &Meta) -> Result<(), StoreError> {
    let bad = |what: &str| StoreError::Damaged(format!("its journal {what}"));
    let lines = journal_lines(engine, meta)?;
    let expected = meta.point.sequence.saturating_sub(meta.journal_from.sequence).min(256);
    if lines.len() as u64 != expected {
        return Err(bad("has gaps"));
    }
    let mut newest: HashMap<&[u8], &JournalLine> = HashMap::new();
    let mut before: Option<[u8; 16]> = (expected < 256).then_some(meta.journal_from.chain);
    for (line, sequence) in lines.iter().zip(meta.point.sequence - expected + 1..) {
        if line.sequence != sequence || before.is_some_and(|before| !line.follows(&before)) {
            return Err(bad("does not hang together"));
        }
        before = Some(line.chain);
        newest.insert(&line.key, line);
    }
    if before.is_some_and(|last| last != meta.point.chain) {
        return Err(bad("does not end where it should"));
    }
    for (key, line) in newest {
        match engine.get(key)? {
            None if line.removed => {}
            Some((sequence, _)) if sequence == line.sequence && !line.removed => {}
            None | Some(_) => return Err(bad("knows of a newer record than there is")),
        }
    }
    Ok(())
}

fn journal_lines(engine: &Engine, meta: &Meta) -> Result<Vec<JournalLine>, StoreError> {
    let mut lines = Vec::new();
    engine.scan(&[Kind::Journal as u8], &mut |_, body| {
        lines.extend(JournalLine::decode(body));
        ControlFlow::Continue(())
    })?;
    // Slots of before the journal's beginning hold nothing (a new generation starts with none).
    lines.retain(|line| line.sequence > meta.journal_from.sequence);
    lines.sort_by_key(|line| line.sequence);
    Ok(lines)
}

/// The newest removal of each key that the journal knows of.
fn removals(engine: &Engine, meta: &Meta) -> Result<HashMap<Vec<u8>, u64>, StoreError> {
    let lines = journal_lines(engine, meta)?;
    Ok(lines.into_iter().filter(|line| line.removed).map(|line| (line.key, line.sequence)).collect())
}

/// Builds a generation of sled from records, beside the others, and opens it. It counts once it has its final name.
pub(crate) fn build(
    folder: &Path,
    generation: u64,
    meta: &Meta,
    records: impl Iterator<Item = Result<KeyValue, StoreError>>,
) -> Result<Sled, StoreError> {
    let path = folder.join(format!("db.{generation:08}"));
    let building = folder.join(format!("db.{generation:08}.building"));
    for old in [&path, &building] {
        if old.exists() {
            fs::remove_dir_all(old).map_err(|error| StoreError::io(old, &error))?;
        }
    }
    let built = (|| {
        let sled = Sled::open(&building)?;
        let mut records = records.peekable();
        while records.peek().is_some() {
            let chunk: Vec<_> = records.by_ref().take(1_000).collect::<Result<_, _>>()?;
            sled.apply(chunk.into_iter().map(|(key, value)| (key, Some(value))))?;
        }
        sled.apply(std::iter::once((key::META.to_vec(), Some(meta.seal()))))?;
        sled.fence()?;
        drop(sled);
        fs::rename(&building, &path).map_err(|error| StoreError::io(&path, &error))?;
        sync_folder(folder)?;
        Sled::open(&path)
    })();
    if built.is_err() {
        let _ = fs::remove_dir_all(&building);
    }
    built
}

/// The finished generations of sled, oldest first.
fn generations(folder: &Path) -> Vec<(u64, PathBuf)> {
    let mut found: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let number = name.to_str()?.strip_prefix("db.")?.parse().ok()?;
            Some((number, entry.path()))
        })
        .collect();
    found.sort();
    found
}

/// Removes every other generation; one that cannot be removed is only in the way of space.
pub(crate) fn remove_generations_but(folder: &Path, keep: u64) {
    for (_, path) in generations(folder).into_iter().filter(|(number, _)| *number != keep) {
        if let Err(error) = fs::remove_dir_all(&path) {
            tracing::warn!(%error, "an old generation of the database cannot be removed");
        }
    }
}

/// Removes what an interrupted build or export left.
fn remove_leftovers(folder: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(folder).map_err(|error| StoreError::io(folder, &error))?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let removed = if name.ends_with(".building") {
            fs::remove_dir_all(entry.path())
        } else if name.ends_with(".new") {
            fs::remove_file(entry.path())
        } else {
            Ok(())
        };
        removed.map_err(|error| StoreError::io(&entry.path(), &error))?;
    }
    Ok(())
}

/// Keeps the two newest sound exports and the tails from the older of them on.
pub(crate) fn remove_old_exports(folder: &Path) {
    let exports = export::list(folder);
    let Some((oldest_kept, _)) = exports.iter().rev().nth(1) else {
        return;
    };
    let old_exports = exports.iter().filter(|(sequence, _)| sequence < oldest_kept);
    let tails = tail::list(folder);
    let old_tails = tails.iter().filter(|(sequence, _)| sequence < oldest_kept);
    for (_, path) in old_exports.chain(old_tails) {
        if let Err(error) = fs::remove_file(path) {
            tracing::warn!(%error, "an old export or tail cannot be removed");
        }
    }
}

/// Every record exports and tail hold, in memory.
pub(crate) fn history(folder: &Path) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, StoreError> {
    let history = History::read(folder);
    if history.incomplete {
        return Err(StoreError::Lost("no export could be read".to_owned()));
    }
    let overlay: Overlay = history.ops.iter().map(|op| (op.key.clone(), op.value.clone())).collect();
    history.expected(&overlay)?.collect()
}

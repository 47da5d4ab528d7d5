//! The one thread that writes. It gathers what is asked for at the same time into one group, so that one fence covers many
//! callers, and answers each only after it.
//!
//! A group is appended to the tail and synced, then applied to sled and fenced. What is *lazy* (counters, sightings of known
//! devices, refused attempts) is answered at once and waits in memory for the next group, at most [`Options::lazy`].

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::codec::sha256_16;
use crate::engine::{Engine, Meta};
use crate::error::StoreError;
use crate::export;
use crate::file::{free_space, size_of_folder};
use crate::record::{self, KeyValue};
use crate::recover::{self, Opened};
use crate::tail::{Op, Point, Tail, roll};

/// How the store behaves. The defaults are for a box; tests turn the screws.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Longest wait of lazy changes for company: what a power cut may cost of counters and sightings.
    pub lazy: Duration,
    /// Time between exports, if anything changed.
    pub export_every: Duration,
    /// The tail's length in octets past which an export is made sooner, if the last export is no longer than that itself.
    pub tail_max: u64,
    /// Octets that must stay free on the disk: below, writes are refused before anything is touched, so that neither sled
    /// nor the tail ever meets a full disk half-way.
    pub reserve: u64,
    /// Octets of sled's file that are always fine; it is compacted past this and four times its live data.
    pub db_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lazy: Duration::from_secs(30),
            export_every: Duration::from_hours(1),
            tail_max: 4 << 20,
            reserve: 16 << 20,
            db_max: 14 << 20,
        }
    }
}

/// What writer and readers share.
pub(crate) struct Shared {
    engine: RwLock<Arc<Engine>>,
    read_only: Mutex<Option<String>>,
    /// A reader met a damaged record: the writer must rebuild.
    pub(crate) damaged: AtomicBool,
    pub(crate) sequence: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) exported: AtomicU64,
    /// Lazy changes given up because the disk would not take them.
    pub(crate) dropped: AtomicU64,
    pub(crate) folder: PathBuf,
}

impl Shared {
    pub(crate) fn new(folder: PathBuf, opened: &mut Opened) -> Self {
        let engine = std::mem::replace(&mut opened.engine, Engine::Memory(BTreeMap::new()));
        Self {
            engine: RwLock::new(Arc::new(engine)),
            read_only: Mutex::new(opened.report.read_only.clone()),
            damaged: AtomicBool::new(false),
            sequence: AtomicU64::new(opened.meta.point.sequence),
            records: AtomicU64::new(opened.records),
            bytes: AtomicU64::new(opened.bytes),
            exported: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            folder,
        }
    }

    /// Where to read. A reader keeps what it got for as long as one question takes.
    pub(crate) fn engine(&self) -> Arc<Engine> {
        self.engine.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_engine(&self, engine: Engine) {
        *self.engine.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(engine);
    }

    pub(crate) fn read_only(&self) -> Option<String> {
        self.read_only.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_read_only(&self, why: Option<String>) {
        if let Some(why) = &why {
            tracing::error!(%why, "the device database is read-only");
        }
        *self.read_only.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Passes a reader's result on, and makes damage known to the writer.
    pub(crate) fn noting<R>(&self, result: Result<R, StoreError>) -> Result<R, StoreError> {
        if let Err(StoreError::Damaged(_)) = &result {
            self.damaged.store(true, Ordering::Relaxed);
        }
        result
    }
}

/// The records as one caller sees them: what is on disk, what waits, and its own changes.
pub(crate) struct Tx<'a> {
    engine: &'a Engine,
    waiting: &'a Overlay,
    own: Overlay,
}

/// New bodies of records; `None`: removed.
type Overlay = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

impl Tx<'_> {
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(body) = self.own.get(key).or_else(|| self.waiting.get(key)) {
            return Ok(body.clone());
        }
        Ok(self.engine.get(key)?.map(|(_, body)| body))
    }

    /// Every record whose key begins with `prefix`, in order.
    pub(crate) fn scan(&self, prefix: &[u8]) -> Result<Vec<KeyValue>, StoreError> {
        let mut found = BTreeMap::new();
        self.engine.scan(prefix, &mut |key, body| {
            found.insert(key.to_vec(), Some(body.to_vec()));
            ControlFlow::Continue(())
        })?;
        for overlay in [self.waiting, &self.own] {
            for (key, body) in overlay.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix))
            {
                found.insert(key.clone(), body.clone());
            }
        }
        Ok(found.into_iter().filter_map(|(key, body)| Some((key, body?))).collect())
    }

    pub(crate) fn put(&mut self, key: Vec<u8>, body: Vec<u8>) -> Result<(), StoreError> {
        if key.len() > 64 || body.len() > record::BODY_MAX {
            return Err(StoreError::TooLarge("a record"));
        }
        self.own.insert(key, Some(body));
        Ok(())
    }

    pub(crate) fn remove(&mut self, key: Vec<u8>) {
        self.own.insert(key, None);
    }
}

/// Tells a caller how its change fared.
pub(crate) type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// Work in the writer's thread. It says how urgent its changes are (`None`: they do not count); the answer is called when
/// they are as safe as that asks for.
pub(crate) type Work = Box<dyn FnOnce(&mut Tx<'_>) -> (Option<Urgency>, Answer) + Send>;

/// When a change must be safe.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Urgency {
    /// Before anyone hears of it.
    Now,
    /// Within [`Options::lazy`].
    Lazy,
}

/// What the writer is asked.
pub(crate) enum Request {
    Work(Work),
    /// Write what waits.
    Flush(Answer),
    /// Write an export now.
    Export(Answer),
    /// Build sled anew, small.
    Compact(Answer),
    /// Replace everything by these records (key and body, in the order of the keys).
    Replace(Vec<KeyValue>, Answer),
    /// An export begun in the background has ended.
    Exported(Result<Point, StoreError>),
    /// Write what waits, and end.
    Stop,
}

/// Most requests in one group: beyond, callers at the end would wait for longer than one fence.
const GROUP_MAX: usize = 256;
/// Most lazy changes waiting in memory (2 KiB each at most).
const WAITING_MAX: usize = 1_024;
/// Between attempts to become writable again, and between other chores.
const CHORES_EVERY: Duration = Duration::from_secs(1);

pub(crate) struct Writer {
    shared: Arc<Shared>,
    options: Options,
    meta: Meta,
    tail: Option<Tail>,
    generation: u64,
    waiting: Overlay,
    /// Since when the oldest lazy change waits.
    waiting_since: Option<Instant>,
    answers: Vec<Answer>,
    /// The sequence at the last export, and when that was.
    exported: (u64, Instant),
    export_due: bool,
    exporting: bool,
    /// To ourselves, for the end of background exports.
    requests: SyncSender<Request>,
    chores_at: Instant,
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        opened: Opened,
        options: Options,
        requests: SyncSender<Request>,
    ) -> Self {
        Self {
            shared,
            options,
            exported: (opened.meta.point.sequence, Instant::now()),
            export_due: opened.export_due,
            meta: opened.meta,
            tail: opened.tail,
            generation: opened.generation,
            waiting: Overlay::new(),
            waiting_since: None,
            answers: Vec::new(),
            exporting: false,
            requests,
            chores_at: Instant::now(),
        }
    }

    /// Until [`Request::Stop`].
    pub(crate) fn run(mut self, requests: &Receiver<Request>) {
        // Before anything is promised: what stands behind the database is not as it should be.
        if self.export_due
            && self.shared.read_only().is_none()
            && let Err(error) = self.export_here()
        {
            tracing::error!(%error, "no export could be made");
        }
        loop {
            let mut next = match requests.recv_timeout(CHORES_EVERY) {
                Ok(request) => Some(request),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return self.stop(requests),
            };
            let mut urgent = false;
            for _ in 0..GROUP_MAX {
                match next.take() {
                    None => break,
                    Some(Request::Stop) => return self.stop(requests),
                    Some(Request::Work(work)) => urgent |= self.work(work),
                    Some(Request::Flush(answer)) => {
                        self.answers.push(answer);
                        urgent = true;
                    }
                    Some(other) => {
                        self.commit();
                        urgent = false;
                        self.serve(other);
                    }
                }
                next = requests.try_recv().ok();
            }
            let ripe = self.waiting_since.is_some_and(|since| since.elapsed() >= self.options.lazy);
            if urgent || ripe || self.waiting.len() >= WAITING_MAX {
                self.commit();
            }
            // `next` was taken from the queue but not served: never drop it.
            match next {
                None => {}
                Some(Request::Stop) => return self.stop(requests),
                Some(other) => self.serve(other),
            }
            if self.chores_at.elapsed() >= CHORES_EVERY {
                self.chores();
                self.chores_at = Instant::now();
            }
        }
    }

    /// Runs one caller's work on top of what waits. True if it must be made safe now.
    fn work(&mut self, work: Work) -> bool {
        let engine = self.shared.engine();
        let mut tx = Tx { engine: &engine, waiting: &self.waiting, own: Overlay::new() };
        let (urgency, answer) = work(&mut tx);
        let own = tx.own;
        let Some(urgency) = urgency.filter(|_| !own.is_empty()) else {
            answer(Ok(()));
            return false;
        };
        if let Some(why) = self.shared.read_only() {
            // A counter is not worth refusing a login for.
            self.shared.dropped.fetch_add(own.len() as u64, Ordering::Relaxed);
            answer(match urgency {
                Urgency::Now => Err(StoreError::ReadOnly(why)),
                Urgency::Lazy => Ok(()),
            });
            return false;
        }
        self.waiting.extend(own);
        match urgency {
            Urgency::Now => {
                self.answers.push(answer);
                true
            }
            Urgency::Lazy => {
                self.waiting_since.get_or_insert_with(Instant::now);
                answer(Ok(()));
                false
            }
        }
    }

    fn serve(&mut self, request: Request) {
        match request {
            Request::Export(answer) => answer(self.export_here()),
            Request::Compact(answer) => answer(self.rebuild()),
            Request::Replace(records, answer) => answer(self.replace(records)),
            Request::Exported(result) => self.exported(result),
            Request::Flush(answer) => {
                self.answers.push(answer);
                self.commit();
            }
            Request::Work(work) => {
                if self.work(work) {
                    self.commit();
                }
            }
            Request::Stop => {}
        }
    }

    /// Makes everything that waits safe, then answers.
    fn commit(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting_since = None;
        let answers = std::mem::take(&mut self.answers);
        let changes = waiting.len() as u64;
        let result = if waiting.is_empty() { Ok(()) } else { self.write(waiting) };
        if let Err(error) = &result {
            self.shared.dropped.fetch_add(changes, Ordering::Relaxed);
            tracing::error!(%error, "the device database could not be written");
        }
        for answer in answers {
            answer(result.clone());
        }
    }

    fn write(&mut self, changes: Overlay) -> Result<(), StoreError> {
        if let Some(why) = self.shared.read_only() {
            return Err(StoreError::ReadOnly(why));
        }
        if free_space(&self.shared.folder) < self.options.reserve {
            return Err(StoreError::Full);
        }
        let engine = self.shared.engine();
        let mut point = self.meta.point;
        let (mut records, mut bytes) = (0_i64, 0_i64);
        let mut ops = Vec::with_capacity(changes.len());
        for (key, body) in changes {
            let before = self.shared.noting(engine.get(&key))?;
            let sequence = point.sequence + 1;
            let value = body.map(|body| record::seal(&key, sequence, &body));
            let size = |value: usize| i64::try_from(key.len() + value).unwrap_or(0);
            if let Some((_, body)) = &before {
                records -= 1;
                bytes -= size(record::seal(&key, 0, body).len());
            }
            if let Some(value) = &value {
                records += 1;
                bytes += size(value.len());
            } else if before.is_none() {
                continue; // made and removed within one group
            }
            let op = Op { sequence, key, value };
            point = Point { sequence, chain: roll(&point.chain, &op) };
            ops.push(op);
        }
        if ops.is_empty() {
            return Ok(());
        }
        let Some(tail) = &mut self.tail else {
            return Err(StoreError::ReadOnly("there is no tail".to_owned()));
        };
        match tail.append(&ops, point) {
            Ok(()) => {}
            Err(StoreError::ReadOnly(why)) => {
                self.tail = None;
                self.shared.set_read_only(Some(why.clone()));
                return Err(StoreError::ReadOnly(why));
            }
            Err(error) => return Err(error),
        }
        // From here on the operations are safe: recovery would find them in the tail.
        let applied = match engine.as_ref() {
            Engine::Sled(sled) => recover::apply(sled, &ops, self.meta).inspect(|_| {
                if sled.has_blobs() {
                    self.shared
                        .set_read_only(Some("sled has made blob files, which it does not sync".to_owned()));
                }
            }),
            Engine::Memory(_) => Err(StoreError::ReadOnly("sled is not open".to_owned())),
        };
        let wanted = |bytes: u64, change: i64| bytes.saturating_add_signed(change);
        self.shared
            .records
            .store(wanted(self.shared.records.load(Ordering::Relaxed), records), Ordering::Relaxed);
        self.shared.bytes.store(wanted(self.shared.bytes.load(Ordering::Relaxed), bytes), Ordering::Relaxed);
        self.shared.sequence.store(point.sequence, Ordering::Relaxed);
        match applied {
            Ok(meta) => self.meta = meta,
            Err(error) => {
                self.meta.point = point;
                drop(engine);
                self.fail_over(&error);
            }
        }
        Ok(())
    }

    /// sled failed under way: serve from exports and tail until it can be built anew.
    fn fail_over(&mut self, error: &StoreError) {
        match recover::history(&self.shared.folder) {
            Ok(records) => self.shared.set_engine(Engine::Memory(records)),
            Err(error) => tracing::error!(%error, "exports and tail cannot be read either"),
        }
        self.shared.set_read_only(Some(error.to_string()));
    }

    /// What needs doing now and then.
    fn chores(&mut self) {
        if self.shared.damaged.swap(false, Ordering::Relaxed) {
            self.fail_over(&StoreError::Damaged("a reader met a damaged record".to_owned()));
        }
        if self.shared.read_only().is_some() {
            self.heal();
            return;
        }
        let changed = self.meta.point.sequence != self.exported.0;
        let long = self.tail.as_ref().is_some_and(|tail| {
            tail.length > self.options.tail_max.max(self.shared.bytes.load(Ordering::Relaxed).min(16 << 20))
        });
        if !self.exporting
            && (self.export_due
                || long
                || (changed && self.exported.1.elapsed() >= self.options.export_every))
        {
            self.export_behind();
        }
        let length = match self.shared.engine().as_ref() {
            Engine::Sled(sled) => sled.length(),
            Engine::Memory(_) => 0,
        };
        let live = self.shared.bytes.load(Ordering::Relaxed);
        if length > self.options.db_max.max(live.saturating_mul(4)) && self.waiting.is_empty() {
            tracing::info!(length, live, "compacting the device database");
            if let Err(error) = self.rebuild() {
                tracing::error!(%error, "compacting failed");
            }
        }
    }

    /// Tries to become writable again: a fresh export and tail, and a fresh generation of sled.
    fn heal(&mut self) {
        let needed =
            self.options.reserve.saturating_add(self.shared.bytes.load(Ordering::Relaxed).saturating_mul(4));
        if free_space(&self.shared.folder) < needed {
            return;
        }
        let healed = self.rebuild().and_then(|()| self.export_here());
        match healed {
            Ok(()) => {
                tracing::warn!("the device database is writable again");
                self.shared.set_read_only(None);
            }
            Err(error) => tracing::error!(%error, "the device database stays read-only"),
        }
    }

    /// Builds a new generation of sled from what is read now, and takes it into use.
    fn rebuild(&mut self) -> Result<(), StoreError> {
        let engine = self.shared.engine();
        let records = Walk { engine: engine.clone(), from: Some(Vec::new()), read: VecDeque::new() };
        let meta = Meta { journal_from: self.meta.point, ..self.meta };
        let generation = self.generation + 1;
        let sled = recover::build(&self.shared.folder, generation, &meta, records)?;
        self.meta = meta;
        self.generation = generation;
        self.shared.set_engine(Engine::Sled(sled));
        drop(engine);
        recover::remove_generations_but(&self.shared.folder, generation);
        Ok(())
    }

    /// Begins a new tail and writes the export before it, here and now.
    fn export_here(&mut self) -> Result<(), StoreError> {
        let point = self.begin_export()?;
        let result = write_export(&self.shared, point, self.meta.database);
        self.exported(result.clone().map(|()| point));
        result
    }

    /// The same, with the writing in another thread.
    fn export_behind(&mut self) {
        let point = match self.begin_export() {
            Ok(point) => point,
            Err(error) => {
                self.exported.1 = Instant::now();
                tracing::error!(%error, "no export could be begun");
                return;
            }
        };
        let (shared, database, requests) = (self.shared.clone(), self.meta.database, self.requests.clone());
        let spawned = std::thread::Builder::new().name("store-export".to_owned()).spawn(move || {
            let result = write_export(&shared, point, database);
            let _ = requests.send(Request::Exported(result.map(|()| point)));
        });
        self.exporting = spawned.is_ok();
    }

    fn begin_export(&mut self) -> Result<Point, StoreError> {
        if free_space(&self.shared.folder) < self.options.reserve {
            return Err(StoreError::Full);
        }
        self.tail = Some(Tail::create(&self.shared.folder, self.meta.point)?);
        Ok(self.meta.point)
    }

    fn exported(&mut self, result: Result<Point, StoreError>) {
        self.exporting = false;
        self.exported.1 = Instant::now();
        match result {
            Ok(point) => {
                self.exported.0 = point.sequence;
                self.export_due = false;
                self.shared.exported.store(point.sequence, Ordering::Relaxed);
                recover::remove_old_exports(&self.shared.folder);
            }
            Err(error) => tracing::error!(%error, "the export failed; the older one stands"),
        }
    }

    /// Makes these records the whole database. The export decides: once it has its name, the change is made.
    fn replace(&mut self, records: Vec<KeyValue>) -> Result<(), StoreError> {
        if let Some(why) = self.shared.read_only() {
            return Err(StoreError::ReadOnly(why));
        }
        let size: u64 = records.iter().map(|(key, body)| (key.len() + body.len() + 32) as u64).sum();
        if free_space(&self.shared.folder) < self.options.reserve.saturating_add(size.saturating_mul(5)) {
            return Err(StoreError::Full);
        }
        let mut sequence = self.meta.point.sequence;
        let sealed: Vec<_> = records
            .into_iter()
            .map(|(key, body)| {
                sequence += 1;
                let value = record::seal(&key, sequence, &body);
                (key, value)
            })
            .collect();
        // One more, so that an empty replacement is a step forward too.
        let chain = sha256_16(&[b"replaced", &self.meta.point.chain, &sequence.to_le_bytes()]);
        let point = Point { sequence: sequence + 1, chain };
        let meta = Meta { point, journal_from: point, database: self.meta.database };
        export::write(&self.shared.folder, point, meta.database, |sink| {
            for (key, value) in &sealed {
                sink(key, value).map_err(|error| StoreError::io(&self.shared.folder, &error))?;
            }
            Ok(())
        })?;
        self.meta = meta;
        self.tail = Some(Tail::create(&self.shared.folder, point)?);
        self.shared.sequence.store(point.sequence, Ordering::Relaxed);
        self.shared.records.store(sealed.len() as u64, Ordering::Relaxed);
        self.shared.bytes.store(size, Ordering::Relaxed);
        self.shared.set_engine(Engine::Memory(sealed.into_iter().collect()));
        self.exported = (point.sequence, Instant::now());
        self.rebuild().inspect_err(|error| self.shared.set_read_only(Some(error.to_string())))
    }

    /// Writes what waits, and sees a background export to its end. Whoever still asks gets no answer, which is one.
    fn stop(mut self, requests: &Receiver<Request>) {
        self.commit();
        while self.exporting {
            match requests.recv() {
                Ok(Request::Exported(result)) => self.exported(result),
                Ok(_) => {}
                Err(_) => break,
            }
        }
    }
}

/// Every record that belongs into an export, sealed, in the order of the keys. Reads some at a time: two copies of a large
/// database in memory would be more than a small board has.
struct Walk {
    engine: Arc<Engine>,
    /// Where to read on; `None`: at the end.
    from: Option<Vec<u8>>,
    read: VecDeque<KeyValue>,
}

impl Iterator for Walk {
    type Item = Result<KeyValue, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.read.is_empty()
            && let Some(from) = self.from.take()
        {
            let read = &mut self.read;
            let walked = self.engine.from(&from, &mut |key, value| {
                if !crate::key::is_local(key) {
                    record::open(key, value).ok_or_else(|| crate::engine::damaged(key))?;
                    read.push_back((key.to_vec(), value.to_vec()));
                }
                Ok(if read.len() < 1_000 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            });
            if let Err(error) = walked {
                self.read.clear();
                return Some(Err(error));
            }
            if self.read.len() >= 1_000 {
                // The smallest key behind the last one read.
                self.from = self.read.back().map(|(key, _)| [&key[..], &[0]].concat());
            }
        }
        self.read.pop_front().map(Ok)
    }
}

fn write_export(shared: &Shared, point: Point, database: [u8; 16]) -> Result<(), StoreError> {
    let engine = shared.engine();
    // An export twice over must still fit, or it would take the last room from the tail.
    if free_space(&shared.folder) < size_of_folder(&shared.folder) / 4 {
        return Err(StoreError::Full);
    }
    export::write(&shared.folder, point, database, |sink| {
        engine.from(&[], &mut |key, value| {
            if !crate::key::is_local(key) {
                // Damage must not be copied over the last good export.
                record::open(key, value).ok_or_else(|| crate::engine::damaged(key))?;
                sink(key, value).map_err(|error| StoreError::io(&shared.folder, &error))?;
            }
            Ok(ControlFlow::Continue(()))
        })
    })
}

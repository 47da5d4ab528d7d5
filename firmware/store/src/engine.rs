//! The only file that speaks to sled, and the stand-in for it when it fails.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::codec::{Put, Take};
use crate::error::StoreError;
use crate::file::{NO_FOLLOW, ensure_folder, refuse_links, sync_folder};
use crate::key::META;
use crate::record;
use crate::tail::Point;

/// Called with key and body of a record.
pub(crate) type EachBody<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Called with key and sealed value of a record.
pub(crate) type EachValue<'a> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, StoreError> + 'a;

/// Where records are read.
pub(crate) enum Engine {
    /// As it should be.
    Sled(Sled),
    /// sled failed: everything its exports and tail hold, in memory, until it can be built anew. Read only.
    Memory(BTreeMap<Vec<u8>, Vec<u8>>),
}

impl Engine {
    /// Sequence and body of a record.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        let sound = |value: &[u8]| {
            let (sequence, body) = record::open(key, value).ok_or_else(|| damaged(key))?;
            Ok((sequence, body.to_vec()))
        };
        match self {
            Self::Sled(sled) => guard(|| Ok(sled.db()?.get(key)?))?.map(|value| sound(&value)).transpose(),
            Self::Memory(records) => records.get(key).map(|value| sound(value)).transpose(),
        }
    }

    /// Calls `each` with key and body of every record whose key begins with `prefix`, in order.
    pub(crate) fn scan(&self, prefix: &[u8], each: &mut EachBody<'_>) -> Result<(), StoreError> {
        self.from(prefix, &mut |key, value| {
            if !key.starts_with(prefix) {
                return Ok(ControlFlow::Break(()));
            }
            let (_, body) = record::open(key, value).ok_or_else(|| damaged(key))?;
            Ok(each(key, body))
        })
    }

    /// The first key at or after `from`.
    pub(crate) fn first_from(&self, from: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let mut found = None;
        self.from(from, &mut |key, _| {
            found = Some(key.to_vec());
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    /// Calls `each` with key and sealed value of every record from `from` on, in order, unchecked.
    pub(crate) fn from(&self, from: &[u8], each: &mut EachValue<'_>) -> Result<(), StoreError> {
        match self {
            Self::Sled(sled) => {
                let mut records = guard(|| Ok(sled.db()?.range(from..)))?;
                while let Some(record) = guard(|| Ok(records.next().transpose()?))? {
                    if each(&record.0, &record.1)?.is_break() {
                        break;
                    }
                }
            }
            Self::Memory(records) => {
                for (key, value) in records.range(from.to_vec()..) {
                    if each(key, value)?.is_break() {
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The error for a record that is not what was written.
pub(crate) fn damaged(key: &[u8]) -> StoreError {
    let kind = key.first().map_or('?', |kind| char::from(*kind));
    StoreError::Damaged(format!("a record of kind {kind} fails its checksum"))
}

/// sled answers damage with panics as often as with errors: here both are errors.
fn guard<R>(work: impl FnOnce() -> Result<R, StoreError>) -> Result<R, StoreError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(StoreError::Damaged("sled panicked".to_owned())))
}

/// One sled database, with what it lacks: a fence.
pub(crate) struct Sled {
    /// `None` only while it is being dropped, by hand: its destructor may panic on a failing disk.
    db: Option<sled::Db>,
    /// Our own descriptor of `db`, to sync (sled's flush is no fsync on Linux).
    fence: File,
    pub(crate) folder: PathBuf,
}

impl Drop for Sled {
    fn drop(&mut self) {
        let db = self.db.take();
        if catch_unwind(AssertUnwindSafe(move || drop(db))).is_err() {
            tracing::error!("sled panicked while closing");
        }
    }
}

impl Sled {
    /// Opens or makes a database, in a thread of its own, and makes its files last.
    pub(crate) fn open(folder: &Path) -> Result<Self, StoreError> {
        refuse_links(folder)?;
        let fresh = !folder.join("db").exists();
        ensure_folder(folder)?;
        remove_generating(folder)?;
        let path = folder.to_owned();
        let db = std::thread::Builder::new()
            .name("sled-open".to_owned())
            .spawn(move || guard(|| open_patiently(&path)))
            .map_err(|error| StoreError::Io(format!("thread: {error}")))?
            .join()
            .unwrap_or_else(|_| Err(StoreError::Damaged("sled panicked while opening".to_owned())))?;
        let at = folder.join("db");
        let fence = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(NO_FOLLOW)
            .open(&at)
            .map_err(|error| StoreError::io(&at, &error))?;
        let sled = Self { db: Some(db), fence, folder: folder.to_owned() };
        if fresh {
            sled.fence()?;
            let conf = folder.join("conf");
            File::open(&conf)
                .and_then(|conf| conf.sync_all())
                .map_err(|error| StoreError::io(&conf, &error))?;
            sync_folder(folder)?;
            folder.parent().map_or(Ok(()), sync_folder)?;
        }
        Ok(sled)
    }

    fn db(&self) -> Result<&sled::Db, StoreError> {
        self.db.as_ref().ok_or(StoreError::Closed)
    }

    /// Applies changes as one; they last after the next [`Self::fence`].
    pub(crate) fn apply(
        &self,
        changes: impl Iterator<Item = (Vec<u8>, Option<Vec<u8>>)>,
    ) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        guard(|| Ok(self.db()?.apply_batch(batch)?))
    }

    /// Everything applied is on the disk when this returns.
    pub(crate) fn fence(&self) -> Result<(), StoreError> {
        guard(|| Ok(self.db()?.flush()?))?;
        self.fence.sync_all().map_err(|error| StoreError::io(Path::new("db"), &error))
    }

    /// Whether sled has put a value into a file of its own, which it would never sync.
    pub(crate) fn has_blobs(&self) -> bool {
        fs::read_dir(self.folder.join("blobs")).is_ok_and(|mut blobs| blobs.next().is_some())
    }

    /// Octets of the data file.
    pub(crate) fn length(&self) -> u64 {
        self.fence.metadata().map_or(0, |metadata| metadata.len())
    }
}

/// Opens with the values of appliance.md §7.3. A database closed a moment ago may still hold its lock.
fn open_patiently(folder: &Path) -> Result<sled::Db, StoreError> {
    let config = sled::Config::new()
        .path(folder)
        .segment_size(512 * 1_024)
        .cache_capacity(4 * 1_024 * 1_024)
        .flush_every_ms(None)
        .use_compression(false)
        .mode(sled::Mode::LowSpace);
    let mut waited = 0;
    loop {
        match config.open() {
            Err(sled::Error::Io(error))
                if waited < 50 && error.to_string().contains("could not acquire lock") =>
            {
                waited += 1;
                std::thread::sleep(Duration::from_millis(100));
            }
            opened => return Ok(opened?),
        }
    }
}

/// A snapshot cut short is taken for a whole one by sled, which then refuses to open (sled #1533).
fn remove_generating(folder: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(folder).map_err(|error| StoreError::io(folder, &error))?.flatten() {
        if entry.file_name().to_string_lossy().ends_with(".generating") {
            fs::remove_file(entry.path()).map_err(|error| StoreError::io(&entry.path(), &error))?;
        }
    }
    Ok(())
}

/// What a copy of the database knows of itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Meta {
    /// The last operation applied.
    pub(crate) point: Point,
    /// The operation before the journal's first.
    pub(crate) journal_from: Point,
    /// Which database this is.
    pub(crate) database: [u8; 16],
}

impl Meta {
    /// Its sealed record.
    pub(crate) fn seal(&self) -> Vec<u8> {
        let mut put = Put::default();
        for point in [self.point, self.journal_from] {
            put.bytes(&point.sequence.to_le_bytes());
            put.bytes(&point.chain);
        }
        put.bytes(&self.database);
        record::seal(META, self.point.sequence, &put.0)
    }

    pub(crate) fn read(engine: &Engine) -> Result<Option<Self>, StoreError> {
        let Some((_, body)) = engine.get(META)? else {
            return Ok(None);
        };
        let take = &mut Take(&body);
        let mut point = || Some(Point { sequence: take.u64()?, chain: take.array()? });
        let read = point().zip(point());
        let meta = read
            .and_then(|(point, journal_from)| Some(Self { point, journal_from, database: take.array()? }));
        meta.map(Some).ok_or_else(|| damaged(META))
    }
}

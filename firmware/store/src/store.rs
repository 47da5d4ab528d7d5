//! The device database as the gateway sees it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use mail::ClientId;
use policy::UnixSeconds;
use policy::device::{Alias, Device, Mark, Sighting, Standing};
use policy::login::Traits;
use policy::rules::{Layer, Mode};
use policy::simulate::{Outcome, Report};

use crate::devices::{self, Listing, Noted, Recorded, Success, effective};
use crate::engine::{Engine, damaged};
use crate::error::StoreError;
use crate::export;
use crate::file::{ensure_folder, free_space, lock, refuse_links, size_of_folder};
use crate::key::{Kind, Place};
use crate::keys::Keys;
use crate::portable::{self, Imported};
use crate::record::{AccountRecord, decode_device, decode_standing, device_has_mark, mac};
use crate::recover::{self, OpenReport};
use crate::strangers::Strangers;
use crate::tail;
use crate::writer::{Options, Request, Shared, Tx, Urgency, Writer};

/// The device database. Cheap look-ups from any thread; changes return when they are safe on the disk. Every method blocks
/// for as long as it says; none needs an async runtime. Dropping it writes what waits.
pub struct Store {
    shared: Arc<Shared>,
    keys: Mutex<Keys>,
    requests: SyncSender<Request>,
    writer: Option<JoinHandle<()>>,
    /// Octets that stay free on the disk: [`Options::reserve`].
    reserve: u64,
    strangers: Strangers,
    /// Keeps other processes out; the last to be dropped.
    _lock: File,
}

/// What the database knows about a login that is about to be decided.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lookup {
    /// Whether the account is recorded at all.
    pub known: bool,
    /// The device these marks belong to.
    pub device: Option<Device>,
    /// Devices approved now.
    pub approved: usize,
    /// Devices waiting for their owner.
    pub pending: usize,
    /// The account's own layer of rules.
    pub layer: Layer,
}

/// One line of a list of accounts.
#[derive(Clone, Debug, PartialEq)]
pub struct Overview {
    /// Name and rules.
    pub account: AccountRecord,
    /// Devices approved now.
    pub approved: usize,
    /// Devices waiting for their owner.
    pub pending: usize,
    /// Devices revoked.
    pub revoked: usize,
}

/// How the database fares.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// Records.
    pub records: u64,
    /// Octets in them, keys and headers included.
    pub live_bytes: u64,
    /// Octets on the disk, exports and tails included.
    pub bytes_on_disk: u64,
    /// Octets of sled's data file.
    pub database_bytes: u64,
    /// The last operation.
    pub sequence: u64,
    /// The last operation in an export made since the start; 0: none yet.
    pub exported: u64,
    /// Counters and sightings given up because the disk would not take them.
    pub dropped: u64,
    /// Why nothing can be written, if so: alarm the operator.
    pub read_only: Option<String>,
}

impl Store {
    /// Opens the database in `folder`, or makes one. `keys`: the key file, outside of it. May take a second per 100,000
    /// records. An error means: let nobody into a mailbox that may be locked, and say so.
    pub fn open(folder: &Path, keys: &Path) -> Result<(Self, OpenReport), StoreError> {
        Self::open_with(folder, keys, Options::default())
    }

    /// [`Self::open`], with other timing and limits.
    pub fn open_with(folder: &Path, keys: &Path, options: Options) -> Result<(Self, OpenReport), StoreError> {
        if keys.starts_with(folder) {
            return Err(StoreError::Keys("must not be kept in the database's folder".to_owned()));
        }
        // New keys for an old database would recognise none of its devices: its owners would be locked out for good.
        if std::fs::symlink_metadata(keys).is_err() && recover::exists(folder) {
            return Err(StoreError::Keys("missing, though the database is there: put it back".to_owned()));
        }
        refuse_links(folder)?;
        ensure_folder(folder)?;
        // sled's own lock comes too late: whoever does not get it would take the database for a broken one and mend it.
        let lock = lock(folder)?;
        let mut keys = Keys::open(keys)?;
        let mut opened = recover::open(folder, keys.database)?;
        if keys.database != Some(opened.meta.database) {
            keys.bind(opened.meta.database)?;
        }
        let report = opened.report.clone();
        let shared = Arc::new(Shared::new(folder.to_owned(), &mut opened));
        let (requests, queue) = mpsc::sync_channel(1_024);
        let reserve = options.reserve;
        let writer = Writer::new(shared.clone(), opened, options, requests.clone());
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run(&queue))
            .map_err(|error| StoreError::Io(format!("thread: {error}")))?;
        let store = Self {
            shared,
            keys: Mutex::new(keys),
            requests,
            writer: Some(writer),
            reserve,
            strangers: Strangers::default(),
            _lock: lock,
        };
        Ok((store, report))
    }

    // --- Identity -----------------------------------------------------------------------------------------------------

    /// The mark of a token, under the newest key.
    pub fn token_mac(&self, account: &str, id: &ClientId) -> Mark {
        let mut marks = self.token_marks(account, id);
        marks.swap_remove(0)
    }

    /// The marks of a token, one per key version, newest first: pass them all to [`Self::lookup`] and [`Self::record_success`],
    /// so that devices recorded under an older key are recognised and moved to the newest.
    pub fn token_marks(&self, account: &str, id: &ClientId) -> Vec<Mark> {
        self.keys().token_marks(account, &id.kind, id.token.expose())
    }

    /// The mark of a cluster of traits, under the newest key. Weak: see [`Mark::strength`].
    pub fn cluster_mark(&self, account: &str, traits: &Traits) -> Mark {
        let mut marks = self.keys().cluster_marks(account, traits);
        marks.swap_remove(0)
    }

    /// The marks of a cluster, one per key version, newest first.
    pub fn cluster_marks(&self, account: &str, traits: &Traits) -> Vec<Mark> {
        self.keys().cluster_marks(account, traits)
    }

    /// Puts a new key version in front. Devices move to it with their next login.
    pub fn rotate_keys(&self) -> Result<(), StoreError> {
        self.keys().rotate()
    }

    fn keys(&self) -> std::sync::MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // --- Look-ups: no disk, no waiting --------------------------------------------------------------------------------

    /// Everything about a login in one question. For an account that is not recorded it looks up somebody else's records and
    /// throws them away, so that the cost does not tell.
    pub fn lookup(&self, account: &str, marks: &[Mark], now: UnixSeconds) -> Result<Lookup, StoreError> {
        let engine = self.shared.engine();
        let macs: Vec<_> = effective(marks).iter().filter_map(mac).collect();
        let place = Place::of(account);
        let looked = look(&engine, place, &macs, now).and_then(|found| {
            if !found.known {
                let _ = look(&engine, stand_in(&engine, place)?, &macs, now)?;
            }
            Ok(found)
        });
        self.shared.noting(looked)
    }

    /// The device of an account that one of these marks belongs to.
    pub fn find(&self, account: &str, marks: &[Mark]) -> Result<Option<Device>, StoreError> {
        self.lookup(account, marks, 0).map(|found| found.device)
    }

    /// All accounts with counts of their devices. Reads the whole database: for consoles.
    pub fn accounts(&self, now: UnixSeconds) -> Result<Vec<Overview>, StoreError> {
        self.shared.noting(overviews(&self.shared.engine(), now))
    }

    // --- Logins -------------------------------------------------------------------------------------------------------

    /// Records a successful login. Returns when a new device, a change of standing or a new account is safe on the disk; for
    /// a device that is known it returns at once and lets counters and sighting wait (at most [`Options::lazy`]).
    pub fn record_success(&self, login: Success) -> Result<Recorded, StoreError> {
        self.change(move |tx| devices::success(tx, &login))
    }

    /// [`Self::record_success`] of a device that is known, for callers who need no answer and wait for nothing but room in
    /// the writer's queue. It may be lost as sightings may.
    pub fn note_success(&self, login: Success) {
        let work = Box::new(move |tx: &mut Tx<'_>| {
            let urgency = devices::success(tx, &login).ok().map(|(_, urgency)| urgency);
            let answer: crate::writer::Answer = Box::new(|_| {});
            (urgency, answer)
        });
        // A store that is closed is told to those who ask it something.
        let _ = self.requests.send(Request::Work(work));
    }

    /// Keeps a refused attempt for the owner to approve; at once, without the disk. `None` where the session showed nothing
    /// to recognise it by. Attempts at accounts that are not recorded are kept in memory, up to 1,024.
    pub fn pending_from_refusal(
        &self,
        account: &str,
        marks: &[Mark],
        traits: &Traits,
        sighting: &Sighting,
    ) -> Result<Option<Noted>, StoreError> {
        let (name, shown, says, seen) =
            (account.to_owned(), marks.to_vec(), traits.clone(), sighting.clone());
        match self.change(move |tx| devices::refusal(tx, &name, &shown, &says, &seen)) {
            Err(StoreError::NoAccount) => Ok(self.strangers.note(account, marks, traits, sighting)),
            other => other,
        }
    }

    /// Notes what the probe of an attempt's password found: `true`: the stranger knows it.
    pub fn password_known(&self, account: &str, alias: &Alias, known: bool) -> Result<(), StoreError> {
        let (account, alias) = (account.to_owned(), alias.clone());
        self.change(move |tx| devices::password_known(tx, &account, &alias, known))
    }

    /// When an alert about `what` (such as `device abcdef`) last went out, and that one goes out now.
    pub fn alerted(
        &self,
        account: &str,
        what: &str,
        now: UnixSeconds,
    ) -> Result<Option<UnixSeconds>, StoreError> {
        let (account, what) = (account.to_owned(), what.to_owned());
        self.change(move |tx| devices::alerted(tx, &account, &what, now))
    }

    // --- Owners and operators: each returns when it is safe on the disk -----------------------------------------------

    /// Approves a device, or turns an attempt into an approved device.
    pub fn approve(
        &self,
        account: &str,
        alias: &Alias,
        until: Option<UnixSeconds>,
        now: UnixSeconds,
    ) -> Result<Device, StoreError> {
        let standing = Standing::Approved { until };
        let (name, which) = (account.to_owned(), alias.clone());
        let approved = self.change(move |tx| devices::approve(tx, &name, &which, until, now));
        self.or_stranger(approved, account, alias, standing, now)
    }

    /// Revokes a device, or an attempt: it is refused from now on, in every mode. The caller ends its live sessions.
    pub fn revoke(&self, account: &str, alias: &Alias, now: UnixSeconds) -> Result<Device, StoreError> {
        let (name, which) = (account.to_owned(), alias.clone());
        let revoked = self.change(move |tx| devices::revoke(tx, &name, &which, now));
        self.or_stranger(revoked, account, alias, Standing::Revoked, now)
    }

    fn or_stranger(
        &self,
        result: Result<Device, StoreError>,
        account: &str,
        alias: &Alias,
        standing: Standing,
        now: UnixSeconds,
    ) -> Result<Device, StoreError> {
        if result != Err(StoreError::NoDevice) {
            return result;
        }
        let attempt = self.strangers.take(account, alias).ok_or(StoreError::NoDevice)?;
        let (name, adopted) = (account.to_owned(), attempt.clone());
        self.change(move |tx| devices::adopt(tx, &name, adopted, standing, now))
            .inspect_err(|_| self.strangers.put_back(account, attempt))
    }

    /// Gives a device a name: up to 64 characters, control characters left out.
    pub fn rename(&self, account: &str, alias: &Alias, name: &str) -> Result<Device, StoreError> {
        let (account, alias, name) = (account.to_owned(), alias.clone(), name.to_owned());
        self.change(move |tx| devices::rename(tx, &account, &alias, &name))
    }

    /// Removes a device or attempt: its next login is that of a new device.
    pub fn forget(&self, account: &str, alias: &Alias) -> Result<(), StoreError> {
        let (account, alias) = (account.to_owned(), alias.clone());
        self.change(move |tx| devices::forget(tx, &account, &alias))
    }

    /// Makes two entries one device: `into` keeps name and standing and gains the marks of `from`.
    pub fn merge(&self, account: &str, into: &Alias, from: &Alias) -> Result<Device, StoreError> {
        let (account, into, from) = (account.to_owned(), into.clone(), from.clone());
        self.change(move |tx| devices::merge(tx, &account, &into, &from))
    }

    /// One account with its devices and attempts.
    pub fn list(&self, account: &str) -> Result<Listing, StoreError> {
        let name = account.to_owned();
        let strangers = self.strangers.of(account);
        match self.change(move |tx| Ok((devices::listing(tx, &name)?, Urgency::Lazy))) {
            Err(StoreError::NoAccount) if !strangers.is_empty() => Ok(Listing {
                account: AccountRecord { name: account.to_owned(), ..AccountRecord::default() },
                devices: Vec::new(),
                attempts: strangers,
            }),
            other => other,
        }
    }

    /// Replaces an account's own layer of rules, making the account if need be.
    pub fn set_account_layer(&self, account: &str, layer: Layer, now: UnixSeconds) -> Result<(), StoreError> {
        let account = account.to_owned();
        self.change(move |tx| devices::set_layer(tx, &account, layer, now))
    }

    /// Changes the mode in an account's own layer, and nothing else of it. `None`: leave it to the layers above.
    pub fn set_account_mode(
        &self,
        account: &str,
        mode: Option<Mode>,
        now: UnixSeconds,
    ) -> Result<(), StoreError> {
        let account = account.to_owned();
        self.change(move |tx| {
            let layer = match devices::listing(tx, &account) {
                Ok(listing) => listing.account.layer,
                Err(StoreError::NoAccount) => Layer::default(),
                Err(error) => return Err(error),
            };
            devices::set_layer(tx, &account, Layer { mode, ..layer }, now)
        })
    }

    /// Removes an account with its devices, attempts and log.
    pub fn forget_account(&self, account: &str) -> Result<(), StoreError> {
        let account = account.to_owned();
        self.change(move |tx| devices::forget_account(tx, &account))
    }

    /// The account's log of successful logins, for the simulation.
    pub fn logins(&self, account: &str) -> Result<Vec<Outcome>, StoreError> {
        let account = account.to_owned();
        self.change(move |tx| Ok((devices::logins(tx, Place::of(&account))?, Urgency::Lazy)))
    }

    /// What locking the account now would have meant for the logins it had.
    pub fn simulate(&self, account: &str, now: UnixSeconds) -> Result<Report, StoreError> {
        let log = self.logins(account)?;
        let listing = self.list(account)?;
        let standing = |alias: &Alias| {
            listing.devices.iter().find(|device| device.alias == *alias).map(|device| device.standing)
        };
        Ok(Report::new(&log, standing, now))
    }

    // --- Upkeep -------------------------------------------------------------------------------------------------------

    /// Writes what waits; returns when it is safe on the disk.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.ask(Request::Flush)
    }

    /// Writes an export now, as before the trial boot of new firmware.
    pub fn export_now(&self) -> Result<(), StoreError> {
        self.ask(Request::Export)
    }

    /// Builds sled's file anew, small. Done by itself when it has grown out of proportion.
    pub fn compact(&self) -> Result<(), StoreError> {
        self.ask(Request::Compact)
    }

    /// Writes the whole database as one readable file.
    pub fn export(&self, to: &mut dyn Write) -> Result<(), StoreError> {
        // What cannot be written now is not on the disk, and so not in the file.
        match self.flush() {
            Ok(()) | Err(StoreError::Full | StoreError::ReadOnly(_)) => {}
            Err(error) => return Err(error),
        }
        let fingerprint = self.keys().fingerprint();
        self.shared.noting(portable::export(&self.shared.engine(), &fingerprint, to))
    }

    /// Replaces the whole database by such a file. Everything in it is checked before anything is changed, and the change is
    /// made at one instant: a power cut leaves the old database or the new one.
    pub fn import(&self, from: &mut dyn BufRead) -> Result<Imported, StoreError> {
        let fingerprint = self.keys().fingerprint();
        let (records, imported) = portable::read(&fingerprint, from)?;
        self.ask(|answer| Request::Replace(records, answer))?;
        Ok(imported)
    }

    /// Strips addresses (and the networks derived from them) last seen before a time; returns how many records had one.
    pub fn strip_addresses(&self, before: UnixSeconds) -> Result<u64, StoreError> {
        self.flush()?;
        let engine = self.shared.engine();
        let mut places = Vec::new();
        engine.scan(&[Kind::Account as u8], &mut |key, _| {
            places.extend(Place::of_key(key));
            ControlFlow::Continue(())
        })?;
        drop(engine);
        let mut stripped = 0;
        // In pieces, so that logins are not kept waiting.
        for places in places.chunks(64) {
            let places = places.to_vec();
            stripped += self.change(move |tx| devices::strip_addresses(tx, &places, before))?;
        }
        Ok(stripped)
    }

    /// How the database fares.
    pub fn stats(&self) -> Stats {
        let shared = &self.shared;
        Stats {
            records: shared.records.load(Ordering::Relaxed),
            live_bytes: shared.bytes.load(Ordering::Relaxed),
            bytes_on_disk: size_of_folder(&shared.folder),
            database_bytes: match shared.engine().as_ref() {
                Engine::Sled(sled) => sled.length(),
                Engine::Memory(_) => 0,
            },
            sequence: shared.sequence.load(Ordering::Relaxed),
            exported: shared.exported.load(Ordering::Relaxed),
            dropped: shared.dropped.load(Ordering::Relaxed),
            // A full disk refuses the next urgent change, whether or not one has been tried.
            read_only: shared.read_only().or_else(|| {
                (free_space(&shared.folder) < self.reserve).then(|| StoreError::Full.to_string())
            }),
        }
    }

    /// Exports and tails on the disk, for a support report: their names carry their sequences.
    pub fn safety_copies(&self) -> (usize, usize) {
        (export::list(&self.shared.folder).len(), tail::list(&self.shared.folder).len())
    }

    /// Has one change made in the writer's thread and waits for it.
    fn change<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<(R, Urgency), StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        let (tell, told) = mpsc::sync_channel(1);
        let work = Box::new(move |tx: &mut Tx<'_>| match work(tx) {
            Ok((result, urgency)) => {
                let answer: crate::writer::Answer = Box::new(move |safe: Result<(), StoreError>| {
                    let _ = tell.send(safe.map(|()| result));
                });
                (Some(urgency), answer)
            }
            Err(error) => {
                let answer: crate::writer::Answer = Box::new(move |_| {
                    let _ = tell.send(Err(error));
                });
                (None, answer)
            }
        });
        self.requests.send(Request::Work(work)).map_err(|_| StoreError::Closed)?;
        self.shared.noting(told.recv().unwrap_or(Err(StoreError::Closed)))
    }

    fn ask(&self, request: impl FnOnce(crate::writer::Answer) -> Request) -> Result<(), StoreError> {
        let (tell, told) = mpsc::sync_channel(1);
        let answer = Box::new(move |result| {
            let _ = tell.send(result);
        });
        self.requests.send(request(answer)).map_err(|_| StoreError::Closed)?;
        told.recv().unwrap_or(Err(StoreError::Closed))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.requests.send(Request::Stop);
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the store's writer panicked");
        }
    }
}

/// One pass over one account's devices.
fn look(engine: &Engine, place: Place, macs: &[[u8; 32]], now: UnixSeconds) -> Result<Lookup, StoreError> {
    let key = place.key(Kind::Account);
    let mut found = Lookup::default();
    if let Some((_, body)) = engine.get(&key)? {
        found.known = true;
        found.layer = AccountRecord::decode(&body).ok_or_else(|| damaged(&key))?.layer;
    }
    let mut bad = None;
    engine.scan(&place.key(Kind::Device), &mut |key, body| {
        let read = (|| {
            match decode_standing(body)? {
                Standing::Pending => found.pending += 1,
                Standing::Approved { until } => {
                    found.approved += usize::from(until.is_none_or(|until| now < until));
                }
                Standing::Revoked => {}
            }
            if device_has_mark(body, macs)? {
                found.device = Some(decode_device(body)?);
            }
            Some(())
        })();
        if read.is_none() {
            bad = Some(damaged(key));
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    bad.map_or(Ok(found), Err)
}

/// The account whose records are looked up in place of one that is not there: the next in the order of hashes, so that
/// what it costs is spread as over real accounts.
fn stand_in(engine: &Engine, place: Place) -> Result<Place, StoreError> {
    let kind = Kind::Device as u8;
    for from in [place.key(Kind::Device), vec![kind]] {
        if let Some(key) = engine.first_from(&from)?
            && key.first() == Some(&kind)
            && let Some(place) = Place::of_key(&key)
        {
            return Ok(place);
        }
    }
    Ok(place)
}

fn overviews(engine: &Engine, now: UnixSeconds) -> Result<Vec<Overview>, StoreError> {
    let mut bad = None;
    let mut all = Vec::new();
    let mut at = HashMap::new();
    engine.scan(&[Kind::Account as u8], &mut |key, body| {
        match (Place::of_key(key), AccountRecord::decode(body)) {
            (Some(place), Some(account)) => {
                at.insert(place.0, all.len());
                all.push(Overview { account, approved: 0, pending: 0, revoked: 0 });
            }
            (_, _) => bad = Some(damaged(key)),
        }
        ControlFlow::Continue(())
    })?;
    engine.scan(&[Kind::Device as u8], &mut |key, body| {
        let overview = Place::of_key(key).and_then(|place| all.get_mut(*at.get(&place.0)?));
        match (overview, decode_standing(body)) {
            (Some(overview), Some(Standing::Pending)) => overview.pending += 1,
            (Some(overview), Some(Standing::Approved { until })) => {
                overview.approved += usize::from(until.is_none_or(|until| now < until));
            }
            (Some(overview), Some(Standing::Revoked)) => overview.revoked += 1,
            (None, _) | (_, None) => bad = Some(damaged(key)),
        }
        ControlFlow::Continue(())
    })?;
    all.sort_by(|a, b| a.account.name.cmp(&b.account.name));
    bad.map_or(Ok(all), Err)
}

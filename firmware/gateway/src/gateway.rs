//! What all sessions share: the settings in force, the device database, budgets, events, and the list of the living.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use board::crypto::Aes;
use policy::abuse::{self, Guard, Key};
use policy::sending::SendingBudget;
use ring::rand::{SecureRandom, SystemRandom};
use rustls::ServerConfig;
use rustls::server::ProducesTickets;
use settings::{MinVersion, Settings, Suites};
use store::Store;
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::admit::Seat;
use crate::alert::{Alerts, Outbox};
use crate::auth_http::{RouteSettings, Routes};
use crate::dial::Roots;
use crate::event::{Event, Kind, Recorder, Subject};
use crate::geo::Countries;
use crate::http_client::HttpError;
use crate::listen::Permits;
use crate::metrics::Metrics;
use crate::names::Names;
use crate::process::Source;
use crate::refused;
use crate::sessions::Sessions;
use crate::tls::{self, Certificates};
use crate::upstream::Upstreams;

/// How long an answer of the route look-up is good for.
const ROUTE_KEPT: Duration = Duration::from_secs(30);
/// Password probes of one account: three an hour (design §2, step 7).
const PROBES: (u32, Duration) = (3, Duration::from_hours(1));
/// Accounts whose probes are counted; more are not probed at all.
const PROBED: usize = 4096;
/// Sightings that wait; some seconds' worth of the busiest box.
const SIGHTINGS: usize = 4096;
/// How long they are gathered.
const SIGHTINGS_GATHER: Duration = Duration::from_millis(300);
/// How often their thread looks whether there still is a database.
const SIGHTINGS_CHECK: Duration = Duration::from_secs(30);
/// How many refusals of the backend are remembered to know how slow they are.
const REFUSALS: usize = 64;

/// The settings in force and what is made of them. Replaced whole by a reload; sessions keep what they began with.
pub struct Current {
    /// As read.
    pub settings: Settings,
    /// The backends.
    pub upstreams: Arc<Upstreams>,
    /// Asks an HTTP server where accounts are.
    pub look_up: Option<Routes>,
    tls: Arc<ServerConfig>,
    /// Ends the probes of these settings.
    stop: watch::Sender<bool>,
}

impl Current {
    /// What the next handshake uses.
    pub fn tls(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.tls)
    }
}

/// What all sessions share.
pub struct Gateway {
    current: RwLock<Arc<Current>>,
    /// Where the settings are read from again.
    pub source: Source,
    ticketer: Arc<dyn ProducesTickets>,
    /// The device database.
    pub store: Arc<Store>,
    /// Logins of known devices on their way to the database.
    sightings: Arc<Sightings>,
    /// Live sessions.
    pub sessions: Arc<Sessions>,
    /// Connections allowed.
    pub permits: Arc<Permits>,
    /// The journal.
    pub events: Recorder,
    /// Mail to owners, word to the operator.
    pub alerts: Option<(Alerts, Outbox)>,
    /// Counters.
    pub metrics: Metrics,
    /// Countries of addresses.
    pub countries: Countries,
    /// The name service.
    pub names: Names,
    guard: Mutex<Guard>,
    sending: Mutex<SendingBudget>,
    /// Keys the truncated hashes that tell a repeated wrong password from another one; gone with the process.
    tag_key: ring::hmac::Key,
    /// How long the backend's last refusals took.
    refusals: Mutex<VecDeque<Duration>>,
    /// When accounts were last probed for a known password.
    probes: Mutex<HashMap<Box<str>, Vec<Instant>>>,
    /// Whether the database was in trouble when last heard of.
    trouble: Mutex<Option<String>>,
    started: Instant,
    /// Unix seconds of the start.
    pub since: u64,
    /// Counts the reloads.
    reloads: watch::Sender<u64>,
    /// Turns true when the gateway is going down.
    pub draining: watch::Sender<bool>,
}

/// Settings that could not be put in force; the old ones stay.
#[derive(Debug, thiserror::Error)]
pub enum NotInForce {
    /// The document is wrong; each line names its place and its mend.
    #[error("{}", lines(.0))]
    Settings(Vec<settings::SettingsError>),
    /// A certificate or CA.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// The route look-up's address.
    #[error("[routes.http] url: {0}")]
    Look(#[from] HttpError),
}

fn lines(errors: &[settings::SettingsError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// What the gateway is put together from.
pub struct Parts {
    /// Where the settings came from.
    pub source: Source,
    /// As read.
    pub settings: Settings,
    /// The device database, open.
    pub store: Arc<Store>,
    /// The journal, running.
    pub events: Recorder,
    /// Alerts, running.
    pub alerts: Option<(Alerts, Outbox)>,
    /// Countries of addresses.
    pub countries: Countries,
    /// The name service.
    pub names: Names,
}

impl Gateway {
    /// Puts the gateway together; nothing listens and nothing is probed yet.
    ///
    /// # Errors
    /// A certificate or CA that cannot be used.
    pub fn new(parts: Parts) -> Result<Arc<Self>, NotInForce> {
        let Parts { source, settings, store, events, alerts, countries, names } = parts;
        let ticketer = tls::ticketer()?;
        let guard = Guard::new(settings.abuse.budgets, settings.abuse.allow.clone(), seed());
        let sending = SendingBudget::new(&settings.submission.sending, seed());
        let permits = Permits::new(settings.limits.connections);
        let current = make(settings, &ticketer, &names)?;
        let (draining, _) = watch::channel(false);
        Ok(Arc::new(Self {
            current: RwLock::new(Arc::new(current)),
            source,
            ticketer,
            sightings: Sightings::start(&store),
            store,
            sessions: Arc::default(),
            permits,
            events,
            alerts,
            metrics: Metrics::new(),
            countries,
            names,
            guard: Mutex::new(guard),
            sending: Mutex::new(sending),
            tag_key: ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &seed().map(u64::to_be_bytes).concat()),
            refusals: Mutex::default(),
            probes: Mutex::default(),
            trouble: Mutex::default(),
            since: crate::event::now(),
            reloads: watch::channel(0).0,
            started: Instant::now(),
            draining,
        }))
    }

    /// The settings in force.
    pub fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The backends in force.
    pub fn upstreams(&self) -> Arc<Upstreams> {
        Arc::clone(&self.current().upstreams)
    }

    /// Starts the probes of the settings in force.
    pub fn watch_upstreams(&self) {
        let current = self.current();
        current.upstreams.watch(&current.settings, &self.names, &self.events, &current.stop.subscribe());
    }

    /// Reads settings and certificates again. Live sessions stay; new ones begin under the new settings.
    ///
    /// # Errors
    /// What is wrong; the old settings stay in force.
    pub fn reload(&self, by: &str) -> Result<Vec<String>, NotInForce> {
        let result = self
            .source
            .load()
            .map_err(NotInForce::Settings)
            .and_then(|settings| make(settings, &self.ticketer, &self.names));
        let new = match result {
            Ok(new) => new,
            Err(error) => {
                warn!(%error, "settings refused; the old ones stay in force");
                let what = error.to_string();
                self.record(Kind::SettingsRefused { what: what.as_str().into() }, Subject::default());
                return Err(error);
            }
        };
        let old = self.current();
        let mut later = Vec::new();
        let mut needs_restart = |what: &str, differs: bool| {
            if differs {
                later.push(what.to_owned());
            }
        };
        needs_restart("[box] data", old.settings.host.data != new.settings.host.data);
        needs_restart("[control] socket", old.settings.control.socket != new.settings.control.socket);
        needs_restart(
            "[limits] connections",
            old.settings.limits.connections != new.settings.limits.connections,
        );
        needs_restart("[metrics]", old.settings.metrics.listen != new.settings.metrics.listen);
        needs_restart(
            "[alerts]",
            format!("{:?}", old.settings.alerts) != format!("{:?}", new.settings.alerts),
        );
        needs_restart("[log]", format!("{:?}", old.settings.log) != format!("{:?}", new.settings.log));
        new.upstreams.inherit(&old.upstreams);
        lock(&self.guard).set_allowed(new.settings.abuse.allow.clone());
        if let Err(error) = self.countries.reload(new.settings.geo.country.as_deref()) {
            warn!(%error, "the country table stays as it was");
        }
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        self.watch_upstreams();
        // The old settings' probes end; sessions that began under them keep their targets.
        old.stop.send_replace(true);
        self.reloads.send_modify(|count| *count += 1);
        info!(by, "settings reloaded");
        self.record(Kind::SettingsReloaded { by: by.into() }, Subject::default());
        Ok(later)
    }

    /// Changes whenever new settings are in force.
    pub fn reloads(&self) -> watch::Receiver<u64> {
        self.reloads.subscribe()
    }

    /// The rules of the settings for an account; what its own layer in the database adds is the caller's.
    pub fn rules(&self, settings: &Settings, account: &mail::Account) -> policy::Rules {
        let (box_, domain, own) = settings.layers(account);
        policy::Rules::merge(box_, domain, own)
    }

    /// Notes the login of a known device, soon and without waiting.
    pub fn sighted(&self, success: store::Success) {
        self.sightings.add(success);
    }

    /// Hands waiting sightings to the database now, so that whoever asks next sees them. May wait for the disk.
    pub fn settle_sightings(&self) {
        self.sightings.settle(&self.store);
    }

    /// Whether this account's refused password may be tried against the backend now; counts it.
    pub fn may_probe(&self, account: &str) -> bool {
        let mut probes = lock(&self.probes);
        let fresh = |at: &Instant| at.elapsed() < PROBES.1;
        if probes.len() >= PROBED {
            probes.retain(|_, times| times.iter().any(fresh));
        }
        if probes.len() >= PROBED && !probes.contains_key(account) {
            return false;
        }
        let times = probes.entry(account.into()).or_default();
        times.retain(fresh);
        if times.len() >= usize::try_from(PROBES.0).unwrap_or(usize::MAX) {
            return false;
        }
        times.push(Instant::now());
        true
    }

    /// The database could not do what it should: told once until it is well again.
    pub fn store_trouble(&self, what: &str) {
        let mut trouble = lock(&self.trouble);
        if trouble.is_none() {
            error!(what, "device database in trouble: locked mailboxes stay locked");
            self.record(Kind::StoreTrouble { what: what.into() }, Subject::default());
        }
        *trouble = Some(what.to_owned());
    }

    fn read_only(&self) -> Option<String> {
        self.store.stats().read_only
    }

    /// What is wrong with the database; `None`: nothing.
    pub fn store_state(&self) -> Option<String> {
        self.read_only().or_else(|| lock(&self.trouble).clone())
    }

    /// Looks whether the database is in trouble or well again, and says so either way.
    pub fn check_store(&self) {
        match self.read_only() {
            Some(what) => self.store_trouble(&what),
            None => {
                if lock(&self.trouble).take().is_some() {
                    info!("device database is well again");
                    self.record(Kind::StoreBack, Subject::default());
                }
            }
        }
    }

    /// An account's sending budget ran out: the journal and the owner hear of it.
    pub fn sending_stopped(&self, seat: &Seat) {
        let subject = Subject::client(&seat.connection, seat.protocol, seat.address.ip());
        self.record(
            Kind::SendingStopped,
            subject.with_account(seat.account.as_str()).with_device(seat.device.as_deref()),
        );
        refused::tell_sending_stopped(self, seat);
    }

    /// Keeps an event.
    pub fn record(&self, kind: Kind, subject: Subject) {
        self.events.record(Event::new(kind, subject));
    }

    /// Milliseconds since the start: the clock of budgets, which must not jump with the calendar.
    fn millis(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether this source may try to log in now.
    pub fn may_try(&self, key: &Key<'_>) -> abuse::Budget {
        lock(&self.guard).check(key, self.millis())
    }

    /// A login failed, for whatever reason. `true` if it was charged: a repeated password is not.
    pub fn charge(&self, key: &Key<'_>, secret: &[u8]) -> bool {
        let mut context = ring::hmac::Context::with_key(&self.tag_key);
        context.update(key.account.as_bytes());
        context.update(&[0]);
        context.update(secret);
        let tag = context.sign();
        let tag = tag.as_ref().first_chunk::<2>().map_or(0, |bytes| u16::from_be_bytes(*bytes) & 0x0fff);
        lock(&self.guard).failure(key, tag, self.millis())
    }

    /// A login succeeded.
    pub fn cleared(&self, key: &Key<'_>) {
        lock(&self.guard).success(key, self.millis());
    }

    /// Takes one message from an account's sending budget.
    pub fn may_send(&self, account: &str, recipients: u32) -> abuse::Budget {
        lock(&self.sending).charge(account, recipients, self.millis())
    }

    /// How long after its start a failed login of this source is answered: above what the backend itself takes to
    /// refuse (or a refusal of ours would be told apart by its speed), and more after repeated failures.
    pub fn deadline(&self, key: &Key<'_>) -> Duration {
        let current = self.current();
        let (base, most) =
            (current.settings.abuse.failure_deadline, current.settings.abuse.failure_deadline_max);
        let slowest = lock(&self.refusals).iter().max().copied().unwrap_or_default();
        // A quarter above the slowest seen, in steps of 100 ms so that the figure itself says little.
        let above = (slowest + slowest / 4).as_millis().div_ceil(100) * 100;
        let base =
            base.max(Duration::from_millis(u64::try_from(above).unwrap_or(u64::MAX))).min(most.max(base));
        let step = lock(&self.guard).delay_step(key, self.millis()).min(abuse::MAX_DELAY_STEP);
        base + most.saturating_sub(base) * step / abuse::MAX_DELAY_STEP
    }

    /// The backend took this long to refuse.
    pub fn refused_after(&self, took: Duration) {
        let mut refusals = lock(&self.refusals);
        if refusals.len() == REFUSALS {
            refusals.pop_front();
        }
        refusals.push_back(took);
    }
}

/// Logins of known devices that the database has yet to hear of. They go there in batches: a wake-up of two threads for
/// each login would cost more than the record.
#[derive(Default)]
struct Sightings {
    waiting: Mutex<Vec<store::Success>>,
    some: Condvar,
}

impl Sightings {
    /// Starts the thread that hands them over; it ends when the database is gone.
    fn start(store: &Arc<Store>) -> Arc<Self> {
        let (sightings, store) = (Arc::new(Self::default()), Arc::downgrade(store));
        let mine = Arc::clone(&sightings);
        let spawned = std::thread::Builder::new().name("sightings".into()).spawn(move || {
            loop {
                let waiting = lock(&mine.waiting);
                let (waiting, _) = mine
                    .some
                    .wait_timeout_while(waiting, SIGHTINGS_CHECK, |waiting| waiting.is_empty())
                    .unwrap_or_else(PoisonError::into_inner);
                let some = !waiting.is_empty();
                drop(waiting);
                let Some(store) = store.upgrade() else { return };
                if some {
                    std::thread::sleep(SIGHTINGS_GATHER);
                    mine.settle(&store);
                }
            }
        });
        if let Err(error) = spawned {
            error!(%error, "no thread for sightings: last logins are noted only when asked for");
        }
        sightings
    }

    fn add(&self, success: store::Success) {
        let mut waiting = lock(&self.waiting);
        // More means that the disk is slow; a sighting is a convenience, and the login goes on.
        if waiting.len() < SIGHTINGS {
            waiting.push(success);
            if waiting.len() == 1 {
                self.some.notify_one();
            }
        }
    }

    fn settle(&self, store: &Store) {
        let batch = std::mem::take(&mut *lock(&self.waiting));
        for success in batch {
            store.note_success(success);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these guard are counters; a panic between two of them leaves nothing worse than a count off by one.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn seed() -> [u64; 2] {
    let mut bytes = [0u8; 16];
    // Without randomness TLS does not work, and nothing gets as far as a budget.
    let _ = SystemRandom::new().fill(&mut bytes);
    let (one, two) = bytes.split_at(8);
    [one, two].map(|half| half.try_into().map_or(0, u64::from_be_bytes))
}

fn make(
    settings: Settings,
    ticketer: &Arc<dyn ProducesTickets>,
    names: &Names,
) -> Result<Current, NotInForce> {
    let aes = match settings.tls.suites {
        Suites::Auto => Aes::detect(),
        Suites::Aes => Aes::Hardware,
        Suites::ChaCha => Aes::Software,
    };
    let files = settings.tls.certificates.iter().map(|files| (files.chain.as_path(), files.key.as_path()));
    let (certificates, failed) = Certificates::load(files)?;
    for error in failed {
        warn!(%error, "a certificate is left out; the others serve");
    }
    let tls13_only = settings.tls.min_version == MinVersion::Tls13;
    let tls = tls::server_config(aes, tls13_only, certificates, Arc::clone(ticketer))?;
    let (first, _) = tls::suites(aes);
    let order = first.first().map(|suite| format!("{:?}", suite.suite())).unwrap_or_default();
    info!("tls aes={} order={order}", aes.name());
    let upstreams = Arc::new(Upstreams::new(&settings, aes)?);
    let look_up = settings.routes.http.as_ref().map(|http| {
        let settings = RouteSettings {
            url: http.url.to_string(),
            roots: Roots::Public,
            // A look-up tells no secret, and its server stands beside the box.
            clear: true,
            timeout: http.timeout,
            keep: ROUTE_KEPT,
            send_password: false,
        };
        Routes::new(settings, names.clone())
    });
    let look_up = look_up.transpose()?;
    let (stop, _) = watch::channel(false);
    Ok(Current { settings, upstreams, look_up, tls, stop })
}

impl crate::metrics::Source for Gateway {
    fn metrics(&self) -> String {
        for protocol in mail::session::Protocol::ALL {
            let live = self.sessions.list().iter().filter(|session| session.protocol == protocol).count();
            self.metrics.set_live(protocol, live);
        }
        for upstream in self.upstreams().all() {
            let target = upstream.target();
            self.metrics
                .set_backend(&format!("{} {}", target.name, target.protocol.name()), upstream.is_up());
        }
        self.metrics
            .set_table("events-dropped", usize::try_from(self.events.dropped()).unwrap_or(usize::MAX));
        self.metrics.text()
    }

    fn health(&self) -> Result<(), String> {
        self.store_state().map_or(Ok(()), Err)
    }
}

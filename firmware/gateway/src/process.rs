//! The process from start to end: open, listen, serve, reload, drain.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use mail::session::{Protocol, Transport};
use settings::{Listener, Places, Settings, SettingsError};
use store::{OpenReport, Store};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::event::{Event, Journal, JournalSettings, Kind, Recorder, Subject};
use crate::gateway::{Gateway, NotInForce, Parts};
use crate::geo::Countries;
use crate::listen::{self, Bound};
use crate::manager::{self, Passed};
use crate::names::Names;
use crate::relay::Kill;
use crate::{alerting, connection, desk, log, metrics};

/// How long the start waits for the backends' first answers, so that listeners offer what these have.
const FIRST_PROBES: Duration = Duration::from_secs(3);
/// How often old addresses are forgotten and the database is exported.
const HOUSEKEEPING: Duration = Duration::from_hours(1);
/// How often the database is asked how it is: trouble is told within 10 s (design §4).
const CHECK: Duration = Duration::from_secs(5);

/// The settings document, and what this machine decides instead of it.
#[derive(Clone, Debug)]
pub struct Source {
    /// The document.
    pub file: PathBuf,
    /// Where things are here, whatever it says.
    pub places: Places,
}

impl Source {
    /// Reads it.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn load(&self) -> Result<Settings, Vec<SettingsError>> {
        Settings::load_at(&self.file, &self.places)
    }
}

/// Runs the gateway until a signal ends it.
///
/// # Errors
/// What kept it from starting, with the mend.
pub async fn run(source: Source) -> anyhow::Result<()> {
    let settings = match source.load() {
        Ok(settings) => settings,
        Err(errors) => return Err(NotInForce::Settings(errors).into()),
    };
    log::start(&alerting::log(&settings))?;
    raise_descriptor_limit(settings.limits.connections);
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let (gateway, socket, bound) = open(source, settings).await?;
    let (stop, stopped) = watch::channel(false);
    gateway.watch_upstreams();
    wait_for_backends(&gateway).await;

    let mut listeners =
        Listeners { gateway: Arc::clone(&gateway), running: HashMap::new(), tasks: JoinSet::new() };
    let ready = ready_line(&bound, &gateway);
    for bound in bound {
        listeners.start(bound);
    }
    let control = tokio::spawn(socket.run(Arc::clone(&gateway), stopped.clone()));
    let metrics = metrics_page(&gateway, stopped.clone()).await?;
    let keeper = tokio::spawn(housekeeping(Arc::clone(&gateway), stopped.clone()));
    let version = env!("CARGO_PKG_VERSION");
    gateway.record(Kind::Started { version: version.into() }, Subject::default());
    info!(version, "serving");
    println!("{ready}");
    io::stdout().flush().context("the ready line cannot be written")?;
    manager::ready().await;
    let life_signs = tokio::spawn(manager::life_signs(Arc::clone(&gateway), stopped.clone()));

    let mut reloads = gateway.reloads();
    loop {
        tokio::select! {
            _ = hangup.recv() => {
                if let Ok(later) = gateway.reload("SIGHUP") {
                    report_restart(&later);
                }
            }
            _ = reloads.changed() => listeners.follow_settings(),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    manager::stopping().await;
    drain(&gateway, listeners).await;
    stop.send_replace(true);
    let _ = control.await;
    let _ = keeper.await;
    let _ = life_signs.await;
    if let Some(metrics) = metrics {
        metrics.abort();
    }
    if let Some((alerts, outbox)) = &gateway.alerts {
        // What waits for a digest is written now rather than lost; what cannot be sent stays in its folder.
        alerts.stop().await;
        outbox.settle().await;
    }
    gateway.settle_sightings();
    let store = Arc::clone(&gateway.store);
    if let Ok(Err(error)) = tokio::task::spawn_blocking(move || store.flush()).await {
        error!(%error, "the device database did not close cleanly; what was acknowledged is safe");
    }
    let _ = gateway.events.flush().await;
    info!("stopped");
    Ok(())
}

/// Opens everything that can fail before anything serves.
async fn open(
    source: Source,
    settings: Settings,
) -> anyhow::Result<(Arc<Gateway>, desk::Socket, Vec<Bound>)> {
    let data = settings.host.data.clone();
    std::fs::create_dir_all(&data)
        .with_context(|| format!("cannot make the data folder {}", data.display()))?;
    let journal = JournalSettings {
        // Two files share what the journal may fill.
        size: settings.events.journal_size / 2,
        retention: settings.events.address_retention,
        ..JournalSettings::new(data.join("events"))
    };
    let events = Recorder::start(Journal::open(journal)?).context("cannot start the journal's thread")?;
    let folder = data.clone();
    let opened =
        tokio::task::spawn_blocking(move || Store::open(&folder.join("devices"), &folder.join("keys")))
            .await?;
    let (store, report) =
        opened.with_context(|| format!("cannot open the device database in {}", data.display()))?;
    if report.is_alarming() {
        let what = alarm(&report);
        error!(what, "the device database was recovered");
        events.record(Event::new(Kind::StoreTrouble { what: what.as_str().into() }, Subject::default()));
    }
    info!(accounts = report.accounts, devices = report.devices, "device database open");
    let countries = Countries::open(settings.geo.country.as_deref())?;
    let names = Names::new(&alerting::name_servers(&settings))?;
    let alerts = alerting::start(&settings, &names, &events, &data)?;
    let wanted: Vec<Listener> = settings.listen.all().collect();
    if wanted.is_empty() {
        bail!("[listen] switches every listener off: nothing to serve");
    }
    let socket = desk::bind(&settings.control.socket)?;
    let bound = bind_all(wanted)?;
    let store = Arc::new(store);
    let parts = Parts { source, settings, store, events, alerts, countries, names };
    Ok((Gateway::new(parts)?, socket, bound))
}

/// Listens on everything that is wanted, on sockets passed to us where there are such.
fn bind_all(wanted: Vec<Listener>) -> io::Result<Vec<Bound>> {
    let mut passed = Passed::from_environment();
    let bound = wanted
        .into_iter()
        .map(|listener| match passed.take(listener.address) {
            Some(socket) => listen::adopt(listener, socket),
            None => listen::bind(listener),
        })
        .collect();
    passed.report_unused();
    bound
}

/// What recovery had to do, in one line.
pub(crate) fn alarm(report: &OpenReport) -> String {
    let rebuilt = report.rebuilt.iter().map(|why| format!("rebuilt from its safety copies: {why}"));
    let lost = report.lost.iter().map(|what| format!("lost: {what}"));
    let read_only = report.read_only.iter().map(|why| format!("read-only: {why}"));
    rebuilt.chain(lost).chain(read_only).chain(report.alarms.iter().cloned()).collect::<Vec<_>>().join("; ")
}

/// The listeners that run, and the sessions they started.
struct Listeners {
    gateway: Arc<Gateway>,
    running: HashMap<Listener, watch::Sender<bool>>,
    tasks: JoinSet<()>,
}

impl Listeners {
    fn start(&mut self, bound: Bound) {
        let (stop, stopped) = watch::channel(false);
        self.running.insert(bound.listener, stop);
        let gateway = Arc::clone(&self.gateway);
        self.tasks.spawn(bound.run(stopped, move |socket, remote, listener| {
            let current = gateway.current();
            let exempt = current
                .settings
                .abuse
                .allow
                .iter()
                .any(|network| network.contains(&remote.ip().to_canonical()));
            gateway.metrics.accepted(listener.protocol);
            match gateway.permits.take(current.settings.limits.connections_per_network, exempt) {
                Some(permit) => {
                    tokio::spawn(connection::serve(Arc::clone(&gateway), socket, listener, permit));
                }
                // Closing says "busy" to every client; a word in clear would confuse those that expect TLS.
                None => gateway.metrics.turned_away(listener.protocol),
            }
        }));
    }

    /// After a reload: starts what is new in `[listen]`, ends what is gone. Sessions stay.
    fn follow_settings(&mut self) {
        let current = self.gateway.current();
        let wanted: Vec<Listener> = current.settings.listen.all().collect();
        self.running.retain(|listener, stop| {
            // A listener asked for with port 0 runs under the port it got.
            let kept = wanted
                .iter()
                .any(|w| w == listener || w.address.port() == 0 && w.protocol == listener.protocol);
            if !kept {
                info!(address = %listener.address, "listener ends");
                stop.send_replace(true);
            }
            kept
        });
        for listener in wanted {
            if listener.address.port() == 0 || self.running.contains_key(&listener) {
                continue;
            }
            match listen::bind(listener) {
                Ok(bound) => {
                    info!(address = %listener.address, "listener starts");
                    self.start(bound);
                }
                Err(error) => error!(%error, "listener left out"),
            }
        }
    }
}

/// Stops accepting, gives sessions their time, then ends them with a word.
async fn drain(gateway: &Gateway, mut listeners: Listeners) {
    let limit = gateway.current().settings.limits.drain;
    gateway.draining.send_replace(true);
    gateway.record(Kind::Stopping, Subject::default());
    for stop in listeners.running.values() {
        stop.send_replace(true);
    }
    while listeners.tasks.join_next().await.is_some() {}
    let live = gateway.sessions.count();
    info!(live, "draining");
    let deadline = tokio::time::Instant::now() + limit;
    // IMAP clients would stay for days: they are told at once, and reconnect elsewhere or later. Submissions finish
    // their message first; their own machine sees to that.
    gateway.sessions.end(Kill::Drain, |_| true);
    while gateway.permits.held() > 0 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let left = gateway.permits.held();
    if left > 0 {
        warn!(left, "connections cut at the end of [limits] drain");
    }
}

async fn wait_for_backends(gateway: &Gateway) {
    let deadline = tokio::time::Instant::now() + FIRST_PROBES;
    while !gateway.upstreams().all().all(|upstream| upstream.is_probed())
        && tokio::time::Instant::now() < deadline
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn metrics_page(
    gateway: &Arc<Gateway>,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<Option<tokio::task::JoinHandle<()>>> {
    let Some(address) = gateway.current().settings.metrics.listen else { return Ok(None) };
    let page =
        metrics::Page::bind(address).await.with_context(|| format!("cannot serve metrics on {address}"))?;
    let gateway = Arc::clone(gateway);
    Ok(Some(tokio::spawn(async move { page.run(gateway, stop).await })))
}

async fn housekeeping(gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
    let mut last = tokio::time::Instant::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep(CHECK) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        gateway.check_store();
        if last.elapsed() < HOUSEKEEPING {
            continue;
        }
        last = tokio::time::Instant::now();
        let store = Arc::clone(&gateway.store);
        let retention = gateway.current().settings.events.address_retention;
        let before = crate::event::now().saturating_sub(retention.as_secs());
        let kept = tokio::task::spawn_blocking(move || store.strip_addresses(before)).await;
        if let Ok(Err(error)) = kept {
            gateway.store_trouble(&error.to_string());
        }
    }
}

/// One JSON object with the real addresses, for whoever started the process.
fn ready_line(bound: &[Bound], gateway: &Gateway) -> String {
    let address = |protocol: Protocol, transport: Transport| -> Option<String> {
        let of = |b: &&Bound| b.listener.protocol == protocol && b.listener.transport == transport;
        bound.iter().find(of).map(|b| reachable(b.listener.address).to_string())
    };
    let control = gateway.current().settings.control.socket.clone();
    serde_json::json!({
        "ready": true,
        "imaps": address(Protocol::Imap, Transport::Tls),
        "pop3s": address(Protocol::Pop3, Transport::Tls),
        "submissions": address(Protocol::Submission, Transport::Tls),
        "imap": address(Protocol::Imap, Transport::Clear),
        "pop3": address(Protocol::Pop3, Transport::Clear),
        "submission": address(Protocol::Submission, Transport::Clear),
        "control": control,
    })
    .to_string()
}

/// The address under which this machine reaches a listener on "every address".
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() { SocketAddr::from(([127, 0, 0, 1], address.port())) } else { address }
}

/// Two descriptors a session, and some for files.
fn raise_descriptor_limit(connections: u32) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let wanted = u64::from(connections) * 2 + 256;
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < wanted
    {
        let new = wanted.min(hard);
        if setrlimit(Resource::RLIMIT_NOFILE, new, hard).is_err() || new < wanted {
            warn!(
                wanted,
                have = new.max(soft),
                "fewer descriptors than [limits] connections needs: raise the limit (ulimit -n)"
            );
        }
    }
}

fn report_restart(later: &[String]) {
    if !later.is_empty() {
        warn!(what = later.join(", "), "these settings take effect at the next start");
    }
}

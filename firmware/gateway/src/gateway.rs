//! What all sessions share: the settings in force, the device database, budgets, events, and the list of the living.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use board::crypto::Aes;
use rustls::ServerConfig;
use rustls::server::ProducesTickets;
use settings::{MinVersion, Settings, Suites};
use store::Store;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::alert::Alerts;
use crate::event::{Event, Kind, Recorder, Subject};
use crate::geo::Countries;
use crate::listen::Permits;
use crate::metrics::Metrics;
use crate::names::Names;
use crate::sessions::Sessions;
use crate::tls::{self, Certificates};
use crate::upstream::Upstreams;

/// How many refusals of the backend are remembered to know how slow they are.
const REFUSALS: usize = 64;

/// The settings in force and what is made of them. Replaced whole by a reload; sessions keep what they began with.
pub struct Current {
    /// As read.
    pub settings: Settings,
    /// The backends.
    pub upstreams: Arc<Upstreams>,
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
    pub settings_file: PathBuf,
    ticketer: Arc<dyn ProducesTickets>,
    /// The device database.
    pub store: Arc<Store>,
    /// Live sessions.
    pub sessions: Arc<Sessions>,
    /// Connections allowed.
    pub permits: Arc<Permits>,
    /// The journal.
    pub events: Recorder,
    /// Mail to owners, word to the operator.
    pub alerts: Alerts,
    /// Counters.
    pub metrics: Metrics,
    /// Countries of addresses.
    pub countries: Countries,
    /// The name service.
    pub names: Names,
    guard: Mutex<policy::abuse::Guard>,
    sending: Mutex<policy::abuse::Sending>,
    /// How long the backend's last refusals took.
    refusals: Mutex<VecDeque<Duration>>,
    started: Instant,
    /// Turns true when the gateway is going down.
    pub draining: watch::Sender<bool>,
}

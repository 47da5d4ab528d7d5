//! What is counted, and the local page that shows it to Prometheus.
//!
//! Labels are protocols, reasons and names from the settings: nothing that a client chooses, so their number is bounded.
//! No account, address or device ever becomes a label.

pub mod page;

use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use mail::session::Protocol;
use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::event::Reason;

pub use page::{Page, Source};

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct By {
    protocol: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Failure {
    protocol: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Handshake {
    protocol: &'static str,
    kind: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Flow {
    protocol: &'static str,
    direction: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Named {
    name: String,
}

type PerProtocol<M> = Family<By, M>;

/// All counters of the gateway. Every method is cheap and takes `&self`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    accepted: PerProtocol<Counter>,
    turned_away: PerProtocol<Counter>,
    handshakes: Family<Handshake, Counter>,
    handshake_time: PerProtocol<Histogram>,
    closed_early: PerProtocol<Counter>,
    hostile: PerProtocol<Counter>,
    admitted: PerProtocol<Counter>,
    failed: Family<Failure, Counter>,
    backend_login: PerProtocol<Histogram>,
    relayed: Family<Flow, Counter<u64, AtomicU64>>,
    messages: Counter,
    store_writes: Histogram,
    events: Family<Named, Counter>,
    // Set when the page is asked for.
    live: PerProtocol<Gauge>,
    backends: Family<Named, Gauge>,
    tables: Family<Named, Gauge>,
    total: Totals,
}

/// Sums over all labels, for `postern` without a registry walk.
#[derive(Debug, Default)]
struct Totals {
    connections: AtomicU64,
    logins: AtomicU64,
    failures: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// From 0.1 ms to 26 s, a factor of 4 between: enough to see a slow disk or backend.
fn seconds() -> Histogram {
    Histogram::new([0.0001, 0.0004, 0.0016, 0.0064, 0.025, 0.1, 0.4, 1.6, 6.4, 26.0])
}

impl Metrics {
    /// Everything at zero.
    pub fn new() -> Self {
        let per_protocol = || PerProtocol::<Histogram>::new_with_constructor(seconds as fn() -> Histogram);
        let mut metrics = Self {
            registry: Registry::with_prefix("postern"),
            accepted: Family::default(),
            turned_away: Family::default(),
            handshakes: Family::default(),
            handshake_time: per_protocol(),
            closed_early: Family::default(),
            hostile: Family::default(),
            admitted: Family::default(),
            failed: Family::default(),
            backend_login: per_protocol(),
            relayed: Family::default(),
            messages: Counter::default(),
            store_writes: seconds(),
            events: Family::default(),
            live: Family::default(),
            backends: Family::default(),
            tables: Family::default(),
            total: Totals::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let to = &mut self.registry;
        to.register("connections", "Connections accepted", self.accepted.clone());
        to.register(
            "connections_turned_away",
            "Connections closed for want of a permit",
            self.turned_away.clone(),
        );
        to.register("handshakes", "TLS handshakes by kind: full, resumed, failed", self.handshakes.clone());
        to.register("handshake_seconds", "Time of a TLS handshake", self.handshake_time.clone());
        to.register(
            "closed_before_login",
            "Connections that ended before a login",
            self.closed_early.clone(),
        );
        to.register("hostile_closes", "Connections closed for what they sent", self.hostile.clone());
        to.register("logins", "Logins let through", self.admitted.clone());
        to.register(
            "login_failures",
            "Logins refused, by the reason that the client is not told",
            self.failed.clone(),
        );
        to.register("backend_login_seconds", "Time of a login at the backend", self.backend_login.clone());
        to.register("relayed_bytes", "Octets relayed in ended sessions", self.relayed.clone());
        to.register("messages", "Messages that a backend accepted", self.messages.clone());
        to.register(
            "store_write_seconds",
            "Time until a write to the device database is durable",
            self.store_writes.clone(),
        );
        to.register("events", "Events by kind", self.events.clone());
        to.register("live_sessions", "Sessions after login", self.live.clone());
        to.register("backend_up", "Whether the last health probe was answered", self.backends.clone());
        to.register("table_entries", "Entries of bounded tables and queues", self.tables.clone());
    }

    /// A connection was accepted.
    pub fn accepted(&self, protocol: Protocol) {
        add(&self.total.connections);
        self.accepted.get_or_create(&by(protocol)).inc();
    }

    /// A connection was closed at once: too many, of all or of its network.
    pub fn turned_away(&self, protocol: Protocol) {
        self.turned_away.get_or_create(&by(protocol)).inc();
    }

    /// A TLS handshake is done.
    pub fn handshake(&self, protocol: Protocol, resumed: bool, took: Duration) {
        let kind = if resumed { "resumed" } else { "full" };
        self.handshakes.get_or_create(&Handshake { protocol: protocol.name(), kind }).inc();
        self.handshake_time.get_or_create(&by(protocol)).observe(took.as_secs_f64());
    }

    /// A TLS handshake failed.
    pub fn handshake_failed(&self, protocol: Protocol) {
        self.handshakes.get_or_create(&Handshake { protocol: protocol.name(), kind: "failed" }).inc();
    }

    /// A connection ended before a login.
    pub fn closed_before_login(&self, protocol: Protocol) {
        self.closed_early.get_or_create(&by(protocol)).inc();
    }

    /// A connection was closed for what it sent.
    pub fn hostile(&self, protocol: Protocol) {
        self.hostile.get_or_create(&by(protocol)).inc();
    }

    /// A login went through.
    pub fn login_admitted(&self, protocol: Protocol) {
        add(&self.total.logins);
        self.admitted.get_or_create(&by(protocol)).inc();
    }

    /// A login was refused.
    pub fn login_failed(&self, protocol: Protocol, reason: Reason) {
        add(&self.total.failures);
        self.failed.get_or_create(&Failure { protocol: protocol.name(), reason: reason.name() }).inc();
    }

    /// A backend answered a login, with yes or no.
    pub fn backend_login(&self, protocol: Protocol, took: Duration) {
        self.backend_login.get_or_create(&by(protocol)).observe(took.as_secs_f64());
    }

    /// A session ended after so many octets from and to its client.
    pub fn relayed(&self, protocol: Protocol, from_client: u64, to_client: u64) {
        for (direction, octets) in [("up", from_client), ("down", to_client)] {
            self.relayed.get_or_create(&Flow { protocol: protocol.name(), direction }).inc_by(octets);
        }
    }

    /// A backend accepted a message.
    pub fn message_accepted(&self) {
        self.messages.inc();
    }

    /// A write to the device database is durable.
    pub fn store_write(&self, took: Duration) {
        self.store_writes.observe(took.as_secs_f64());
    }

    /// An event was recorded; `name` is [`crate::event::Kind::name`].
    pub fn event(&self, name: &'static str) {
        self.events.get_or_create(&Named { name: name.into() }).inc();
    }

    /// How many sessions live after login now.
    pub fn set_live(&self, protocol: Protocol, count: usize) {
        set(&self.live.get_or_create(&by(protocol)), count);
    }

    /// Whether a backend's service answers, by its name in the settings.
    pub fn set_backend(&self, name: &str, up: bool) {
        set(&self.backends.get_or_create(&Named { name: name.into() }), usize::from(up));
    }

    /// How full a bounded table or queue is: `abuse`, `alerts`, `events-dropped` and the like.
    pub fn set_table(&self, name: &'static str, entries: usize) {
        set(&self.tables.get_or_create(&Named { name: name.into() }), entries);
    }

    /// Connections accepted since the start.
    pub fn connections(&self) -> u64 {
        read(&self.total.connections)
    }

    /// Logins let through since the start.
    pub fn logins(&self) -> u64 {
        read(&self.total.logins)
    }

    /// Logins refused since the start.
    pub fn failures(&self) -> u64 {
        read(&self.total.failures)
    }

    /// Messages that a backend accepted since the start.
    pub fn messages(&self) -> u64 {
        self.messages.get()
    }

    /// `OpenMetrics` text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

const fn by(protocol: Protocol) -> By {
    By { protocol: protocol.name() }
}

fn add(total: &AtomicU64) {
    total.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
}

fn read(total: &AtomicU64) -> u64 {
    total.load(std::sync::atomic::Ordering::Relaxed)
}

fn set(gauge: &Gauge<i64, AtomicI64>, value: usize) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_what_was_counted() {
        let metrics = Metrics::default();
        for _ in 0..3 {
            metrics.accepted(Protocol::Imap);
        }
        metrics.handshake(Protocol::Imap, true, Duration::from_millis(2));
        metrics.login_failed(Protocol::Pop3, Reason::UnknownDevice);
        metrics.login_admitted(Protocol::Imap);
        metrics.relayed(Protocol::Submission, 10, 20);
        metrics.relayed(Protocol::Submission, 1, 2);
        metrics.backend_login(Protocol::Imap, Duration::from_millis(50));
        metrics.set_live(Protocol::Imap, 7);
        metrics.set_backend("dovecot", true);
        metrics.message_accepted();
        let text = metrics.text();
        for line in [
            "postern_connections_total{protocol=\"imap\"} 3",
            "postern_handshakes_total{protocol=\"imap\",kind=\"resumed\"} 1",
            "postern_login_failures_total{protocol=\"pop3\",reason=\"unknown-device\"} 1",
            "postern_relayed_bytes_total{protocol=\"submission\",direction=\"up\"} 11",
            "postern_relayed_bytes_total{protocol=\"submission\",direction=\"down\"} 22",
            "postern_backend_login_seconds_bucket{le=\"0.1\",protocol=\"imap\"} 1",
            "postern_live_sessions{protocol=\"imap\"} 7",
            "postern_backend_up{name=\"dovecot\"} 1",
            "postern_messages_total 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is missing in:\n{text}");
        }
        assert_eq!(
            (metrics.connections(), metrics.logins(), metrics.failures(), metrics.messages()),
            (3, 1, 1, 1)
        );
    }
}

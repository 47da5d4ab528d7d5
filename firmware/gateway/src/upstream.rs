//! The backends as they are now: where, whether they answer, and what they offer.
//!
//! A probe reads greeting and capabilities of every service at its interval. What a listener offers is made from
//! that; a capability is never invented. A service that fails a probe, or a login's connection, counts as away until
//! the next good probe, for every login alike: refused devices must not be told apart by it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use mail::session::Protocol;
use rustls::pki_types::ServerName;
use settings::{BackendTls, Endpoint, LoginForm, Service, Settings};
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use crate::backend::{self, Security, Target};
use crate::event::{Event, Kind, Recorder, Subject};
use crate::names::Names;
use crate::tls::{self, TlsError};

/// Pause between probes of a service that is away: its return must not wait for a long interval.
const AWAY_INTERVAL: Duration = Duration::from_secs(1);
/// What is offered until the first answer of a backend: the base protocol, and a login.
const IMAP_BASE: &[u8] = b"IMAP4rev1 AUTH=PLAIN";
const POP3_BASE: &[u8] = b"USER\r\nSASL PLAIN";
const SMTP_BASE: &[u8] = b"AUTH PLAIN LOGIN";

/// All services of all backends.
pub struct Upstreams {
    services: HashMap<(Box<str>, Protocol), Arc<Upstream>>,
    offers: Offers,
}

struct Offers {
    imap: RwLock<Arc<imap::Offer>>,
    pop3: RwLock<Arc<pop3::Offer>>,
    smtp: RwLock<Arc<smtp::Offer>>,
}

/// One service.
pub struct Upstream {
    /// Where it is and how it is spoken to; the address may change with the name service.
    target: RwLock<Target>,
    endpoint: Endpoint,
    interval: Duration,
    /// How logins are spelled there.
    pub login_form: LoginForm,
    state: RwLock<State>,
    wake: Notify,
}

#[derive(Clone, Debug, Default)]
struct State {
    up: bool,
    /// Why it is away.
    why: String,
    probed: bool,
}

/// What a new offer is made with.
#[derive(Clone)]
struct Terms {
    hostname: Arc<str>,
    size_limit: u64,
}

impl Upstreams {
    /// All services of the settings, none of them probed yet.
    ///
    /// # Errors
    /// A CA file that cannot be used.
    pub fn new(settings: &Settings, aes: board::crypto::Aes) -> Result<Self, TlsError> {
        let hostname: Arc<str> = settings.host.hostname.as_str().into();
        let mut services = HashMap::new();
        for (name, backend) in &settings.backends {
            for protocol in Protocol::ALL {
                let Some(service) = backend.service(protocol) else { continue };
                let target = target(name, protocol, service, &hostname, aes)?;
                let upstream = Upstream {
                    target: RwLock::new(target),
                    endpoint: service.address.clone(),
                    interval: service.health_interval,
                    login_form: backend.login_form,
                    state: RwLock::default(),
                    wake: Notify::new(),
                };
                services.insert((name.as_str().into(), protocol), Arc::new(upstream));
            }
        }
        let host = settings.host.hostname.as_str();
        let offers = Offers {
            imap: RwLock::new(Arc::new(imap::Offer::from_backend(IMAP_BASE, host, true))),
            pop3: RwLock::new(Arc::new(pop3::Offer::from_backend(POP3_BASE, host))),
            smtp: RwLock::new(Arc::new(smtp::Offer::from_backend(
                SMTP_BASE,
                host,
                true,
                Some(settings.submission.size_limit),
            ))),
        };
        Ok(Self { services, offers })
    }

    /// The service of a backend.
    pub fn get(&self, backend: &str, protocol: Protocol) -> Option<&Arc<Upstream>> {
        self.services.get(&(backend.into(), protocol))
    }

    /// Every service.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.services.values()
    }

    /// What IMAP listeners offer.
    pub fn imap_offer(&self) -> Arc<imap::Offer> {
        Arc::clone(&self.offers.imap.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What POP3 listeners offer.
    pub fn pop3_offer(&self) -> Arc<pop3::Offer> {
        Arc::clone(&self.offers.pop3.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What submission listeners offer.
    pub fn smtp_offer(&self) -> Arc<smtp::Offer> {
        Arc::clone(&self.offers.smtp.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps the offers of the settings these replace, until the first probe: a reload must not shrink them.
    pub fn inherit(&self, old: &Self) {
        let put = |new: &RwLock<_>, old| *new.write().unwrap_or_else(PoisonError::into_inner) = old;
        put(&self.offers.imap, old.imap_offer());
        *self.offers.pop3.write().unwrap_or_else(PoisonError::into_inner) = old.pop3_offer();
        *self.offers.smtp.write().unwrap_or_else(PoisonError::into_inner) = old.smtp_offer();
        for (key, new) in &self.services {
            if let Some(old) = old.services.get(key).filter(|old| old.endpoint == new.endpoint) {
                let state = old.state.read().unwrap_or_else(PoisonError::into_inner).clone();
                *new.state.write().unwrap_or_else(PoisonError::into_inner) = state;
                let address = old.target().address;
                new.target.write().unwrap_or_else(PoisonError::into_inner).address = address;
            }
        }
    }

    /// Probes every service until `stop`; the first round is done when the returned receiver says so.
    pub fn watch(
        self: &Arc<Self>,
        settings: &Settings,
        names: &Names,
        events: &Recorder,
        stop: &watch::Receiver<bool>,
    ) -> Vec<tokio::task::JoinHandle<()>> {
        let terms = Terms {
            hostname: settings.host.hostname.as_str().into(),
            size_limit: settings.submission.size_limit,
        };
        let default = settings.routes.default.as_deref();
        let speaks_for = |protocol| {
            // Listeners cannot know the account yet, so they offer what the default backend offers.
            let has =
                |name: &&str| settings.backends.get(*name).is_some_and(|b| b.service(protocol).is_some());
            default
                .filter(has)
                .or_else(|| settings.backends.keys().map(String::as_str).find(has))
                .map(str::to_owned)
        };
        let mut tasks = Vec::new();
        for ((name, protocol), upstream) in &self.services {
            let offers = speaks_for(*protocol).as_deref() == Some(&**name);
            let (all, upstream) = (Arc::clone(self), Arc::clone(upstream));
            let (terms, names, events, mut stop) =
                (terms.clone(), names.clone(), events.clone(), stop.clone());
            tasks.push(tokio::spawn(async move {
                loop {
                    let capabilities = upstream.probe(&names, &events).await;
                    if offers && let Some(capabilities) = capabilities {
                        all.offer(upstream.target().protocol, &capabilities, &terms);
                    }
                    let pause = if upstream.is_up() {
                        upstream.interval
                    } else {
                        AWAY_INTERVAL.min(upstream.interval)
                    };
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = upstream.wake.notified() => {}
                        _ = stop.wait_for(|stop| *stop) => return,
                    }
                }
            }));
        }
        tasks
    }

    fn offer(&self, protocol: Protocol, capabilities: &[u8], terms: &Terms) {
        match protocol {
            Protocol::Imap => {
                let offer = imap::Offer::from_backend(capabilities, &terms.hostname, true);
                *self.offers.imap.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(offer);
            }
            Protocol::Pop3 => {
                let offer = pop3::Offer::from_backend(capabilities, &terms.hostname);
                *self.offers.pop3.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(offer);
            }
            Protocol::Submission => {
                let offer =
                    smtp::Offer::from_backend(capabilities, &terms.hostname, true, Some(terms.size_limit));
                *self.offers.smtp.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(offer);
            }
        }
    }
}

fn target(
    name: &str,
    protocol: Protocol,
    service: &Service,
    hostname: &Arc<str>,
    aes: board::crypto::Aes,
) -> Result<Target, TlsError> {
    let certificate = || -> Result<ServerName<'static>, TlsError> {
        let text = service.name.as_ref().map_or(service.address.host.as_str(), |name| name.as_str());
        ServerName::try_from(text.to_owned()).map_err(|_| TlsError::Content {
            path: format!("backends.{name}.{}", protocol.name()).into(),
            what: format!("{text:?} is no name a certificate can hold: set name = \"…\""),
        })
    };
    let config = || tls::client_config(aes, service.ca.as_deref());
    let security = match service.tls {
        BackendTls::None => Security::Clear,
        BackendTls::StartTls => Security::StartTls(config()?, certificate()?),
        BackendTls::Implicit => Security::Implicit(config()?, certificate()?),
    };
    // A name is looked up at the first probe; until then the service counts as away.
    let ip = service.address.ip().unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into());
    Ok(Target {
        name: name.into(),
        protocol,
        address: SocketAddr::new(ip, service.address.port),
        security,
        identity: service.identity,
        timeout: service.timeout,
        hostname: Arc::clone(hostname),
    })
}

impl Upstream {
    /// Where and how to reach it now.
    pub fn target(&self) -> Target {
        self.target.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the last probe or login got through. Before the first probe: yes, so that a start is not an outage.
    pub fn is_up(&self) -> bool {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.up || !state.probed
    }

    /// Whether it has been probed at all.
    pub fn is_probed(&self) -> bool {
        self.state.read().unwrap_or_else(PoisonError::into_inner).probed
    }

    /// How it wants an account spelled.
    pub fn user<'a>(&self, account: &'a mail::Account) -> &'a str {
        match self.login_form {
            LoginForm::Address => account.as_str(),
            LoginForm::LocalPart => account.local(),
        }
    }

    /// Why it is away; empty if it is not.
    pub fn trouble(&self) -> String {
        self.state.read().unwrap_or_else(PoisonError::into_inner).why.clone()
    }

    /// A login could not get through: away for everybody, until a probe says otherwise.
    pub fn failed(&self, why: &str, events: &Recorder) {
        self.set(Err(why.to_owned()), events);
        self.wake.notify_one();
    }

    async fn probe(&self, names: &Names, events: &Recorder) -> Option<Vec<u8>> {
        if self.endpoint.ip().is_none() {
            match names.addresses(&self.endpoint.host).await {
                Ok(list) => {
                    if let Some(ip) = list.first() {
                        self.target.write().unwrap_or_else(PoisonError::into_inner).address.set_ip(*ip);
                    }
                }
                Err(error) => {
                    self.set(Err(error.to_string()), events);
                    return None;
                }
            }
        }
        let target = self.target();
        let result = match target.protocol {
            Protocol::Imap => backend::probe(Box::new(imap::Client::new()), &target).await,
            Protocol::Pop3 => backend::probe(Box::new(pop3::Client::new()), &target).await,
            Protocol::Submission => backend::probe(Box::new(smtp::Client::new()), &target).await,
        };
        let (state, capabilities) = match result {
            Ok(list) => (Ok(()), Some(list)),
            Err(why) => (Err(why), None),
        };
        self.set(state, events);
        capabilities
    }

    fn set(&self, result: Result<(), String>, events: &Recorder) {
        let target = self.target();
        let (backend, protocol) = (&*target.name, target.protocol.name());
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let was = state.up || !state.probed;
        let before = std::mem::replace(
            &mut *state,
            State { up: result.is_ok(), why: result.err().unwrap_or_default(), probed: true },
        );
        let subject = || Subject { protocol: Some(protocol.into()), ..Subject::default() };
        if state.up && before.probed && !was {
            info!(backend, protocol, "backend is back");
            events.record(Event::new(Kind::BackendBack { backend: backend.into() }, subject()));
        } else if !state.up && was {
            warn!(backend, protocol, why = state.why, address = %target.address, "backend is away");
            let what = format!("{protocol}: {}", state.why);
            events.record(Event::new(
                Kind::BackendAway { backend: backend.into(), what: what.as_str().into() },
                subject(),
            ));
        }
    }
}

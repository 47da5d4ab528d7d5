//! One login, from facts to answer (design §2): canonical name, budget, policy, backend, record, reply.
//!
//! What the client can observe of a refusal is one constant line at one deadline, whatever its cause. A refused
//! device's credentials never reach the backend before that reply.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mail::sasl::Mechanism;
use mail::session::{Label, Peer, Protocol, Task};
use mail::{Account, ClientId};
use policy::{Admitted, Decision, Facts, Identity, Mark, Rules, Traits, Verdict};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::alert::What;
use crate::auth_http::Question;
use crate::backend::{self, LoggedIn, Target};
use crate::event::{Kind, Reason, Subject, now};
use crate::gateway::{Current, Gateway};
use crate::listen::Permit;
use crate::refused;
use crate::relay::Kill;
use crate::sessions::{Listed, Octets, Session};
use crate::stream::Stream;
use crate::upstream::Upstream;

/// A client, as far as its connection shows.
#[derive(Clone, Debug)]
pub struct Client {
    /// Connection id, on every line of the log.
    pub id: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// Its address, from a load balancer's header where there is one.
    pub address: SocketAddr,
    /// The address it connected to.
    pub local: SocketAddr,
    /// Whether it is under TLS.
    pub tls: bool,
    /// The server name it asked for.
    pub sni: Option<String>,
    /// JA4 without what resumption changes.
    pub ja4: String,
}

impl Client {
    /// A client that has shown nothing yet.
    pub fn new(id: String, protocol: Protocol, address: SocketAddr, local: SocketAddr) -> Self {
        Self { id, protocol, address, local, tls: false, sni: None, ja4: String::new() }
    }

    /// For events.
    pub fn subject(&self) -> Subject {
        Subject::client(&self.id, self.protocol, self.address.ip())
    }
}

/// One login attempt, out of the session's buffer. Its secret is wiped when it is dropped.
pub struct Attempt {
    /// How.
    pub mechanism: Mechanism,
    /// The name as sent.
    pub user: Vec<u8>,
    /// A differing authorization identity.
    pub authzid: Option<Vec<u8>>,
    /// Password or token.
    pub secret: Zeroizing<Vec<u8>>,
    /// The device's name.
    pub clientid: Option<ClientId>,
    /// What the client says of itself.
    pub label: Box<Label>,
}

/// Who sits in a session after login.
#[derive(Clone, Debug)]
pub struct Seat {
    /// Connection id.
    pub connection: String,
    /// Canonical account.
    pub account: Account,
    /// The device's alias, if it is recorded.
    pub device: Option<String>,
    /// What is spoken.
    pub protocol: Protocol,
    /// From where.
    pub address: SocketAddr,
}

/// A session behind its login.
pub struct Live {
    /// The client's side; in clear and closed until the connection puts its own here.
    pub client: Option<Stream>,
    /// The backend's side.
    pub backend: Stream,
    /// Octets of the client that belong to the backend.
    pub up: Vec<u8>,
    /// Octets of the backend that follow its answer to the login.
    pub down: Vec<u8>,
    /// Lines for the client ahead of that answer.
    pub untagged: Vec<u8>,
    /// Text of that answer.
    pub text: Vec<u8>,
    /// Who.
    pub seat: Seat,
    /// Octets moved, for the list.
    pub moved: Arc<Octets>,
    /// Takes the session off the list when dropped.
    pub listed: Listed,
    /// Says when it is to end.
    pub kill: oneshot::Receiver<Kill>,
    /// Given back when dropped.
    pub permit: Option<Permit>,
}

/// The answer to a login.
pub enum Outcome {
    /// Logged in; the client has yet to be told.
    In(Box<Live>),
    /// The constant failure line is due now.
    Failed,
    /// The temporary error is due now.
    Unavailable,
}

/// What one login is about, looked up once and without the backend.
pub(crate) struct Case {
    pub(crate) current: Arc<Current>,
    /// `None`: no name an account can have.
    pub(crate) account: Option<Account>,
    pub(crate) upstream: Option<Arc<Upstream>>,
    pub(crate) marks: Vec<Mark>,
    pub(crate) traits: Traits,
    pub(crate) country: Option<String>,
    pub(crate) clientid_type: Option<String>,
    pub(crate) device: Option<policy::Device>,
    /// Whether the account is known to exist: its owner may be told.
    known: bool,
    decision: Decision,
    max_devices: u32,
    /// The database could not be read: nobody is let in on a guess.
    trouble: Option<String>,
}

/// What is to be done with a login.
enum Course {
    Ask(Admitted),
    Fail(Reason),
    Away,
}

/// Decides one login and carries it out. Returns when the client's answer is due.
pub async fn admit(gateway: &Arc<Gateway>, client: &Client, attempt: Attempt) -> Outcome {
    let start = Instant::now();
    let case = Case::open(gateway, client, &attempt);
    // Approved strong identities have budgets of their own; everything else can be imitated or made up.
    let strong = matches!(case.marks.first(), Some(Mark::Token { .. }));
    let approved =
        case.device.as_ref().filter(|d| strong && matches!(d.standing, policy::Standing::Approved { .. }));
    let device = approved.map(|device| device.alias.0.clone());
    // Names that no account can have are charged under what was sent, cut: unknown accounts take the same path.
    let sent = String::from_utf8_lossy(&attempt.user).chars().take(64).collect::<String>();
    let name = case.account.as_ref().map_or(sent.as_str(), Account::as_str);
    let key = policy::abuse::Key { account: name, device: device.as_deref(), address: client.address.ip() };
    let deadline = start + gateway.deadline(&key);
    if let Some(what) = &case.trouble {
        gateway.store_trouble(what);
    }
    let course = match (&case.upstream, gateway.may_try(&key), case.decision.verdict) {
        (Some(upstream), _, _) if !upstream.is_up() => Course::Away,
        _ if case.trouble.is_some() => Course::Away,
        (_, policy::abuse::Budget::Exhausted { .. }, _) => Course::Fail(Reason::Budget),
        (None, _, _) => Course::Fail(Reason::BadName),
        (Some(_), policy::abuse::Budget::Ok, Verdict::Admit(why)) => Course::Ask(why),
        (Some(_), policy::abuse::Budget::Ok, Verdict::Hold(held)) => Course::Fail(held.into()),
        (Some(_), policy::abuse::Budget::Ok, Verdict::Refuse(refused)) => Course::Fail(refused.into()),
    };
    let reason = match course {
        Course::Ask(why) => match ask(gateway, client, &case, &attempt, why).await {
            Asked::In(live) => {
                gateway.cleared(&key);
                gateway.metrics.login_admitted(client.protocol);
                let device = live.seat.device.as_deref();
                let subject = client.subject().with_account(name).with_device(device);
                gateway.record(
                    Kind::LoginAdmitted { why: why.into() },
                    subject.with_country(case.country.as_deref()),
                );
                info!(account = name, device, ?why, "logged in");
                return Outcome::In(live);
            }
            Asked::Rejected => {
                gateway.refused_after(start.elapsed());
                Reason::Credentials
            }
            Asked::Refused(reason) => reason,
            Asked::Away => Reason::Unavailable,
        },
        Course::Fail(reason) => reason,
        Course::Away => Reason::Unavailable,
    };
    gateway.metrics.login_failed(client.protocol, reason);
    if reason == Reason::Unavailable {
        // As slow as a failure, so that the backend's absence cannot be timed either.
        sleep_until(deadline).await;
        info!(account = name, "login: temporary error");
        return Outcome::Unavailable;
    }
    let charged = gateway.charge(&key, &attempt.secret);
    sleep_until(deadline).await;
    let held = matches!(case.decision.verdict, Verdict::Hold(_)) && reason != Reason::Budget;
    info!(account = name, reason = reason.name(), device = device.as_deref(), "login refused");
    let subject =
        client.subject().with_account(name).with_device(case.device.as_ref().map(|d| d.alias.0.as_str()));
    let subject = subject.with_country(case.country.as_deref());
    let kind = if held { Kind::LoginHeld { reason } } else { Kind::LoginRefused { reason } };
    gateway.record(kind, subject);
    if charged && case.concerns_owner(reason) {
        // Behind the reply: what is written down and whom it is told to must not be timed.
        let (gateway, client) = (Arc::clone(gateway), client.clone());
        tokio::spawn(async move { refused::follow_up(gateway, client, case, attempt, reason).await });
    }
    Outcome::Failed
}

impl Case {
    fn open(gateway: &Gateway, client: &Client, attempt: &Attempt) -> Self {
        let current = gateway.current();
        let country = gateway.countries.country(client.address.ip());
        let traits = traits(client, &attempt.label, country.as_deref());
        let settings = &current.settings;
        // A second name to act as is delegation, which would need the rules of both; it fails like any other login.
        let named = if attempt.authzid.is_none() { settings.canonical(&attempt.user).ok() } else { None };
        let backend = named.as_ref().and_then(|account| settings.route(account));
        let upstream = backend.and_then(|name| current.upstreams.get(name, client.protocol)).cloned();
        let account = named.filter(|_| upstream.is_some());
        // Without a route there is still a service that others log in to: its absence is everybody's.
        let upstream = upstream.or_else(|| {
            let default = settings.routes.default.as_deref()?;
            current.upstreams.get(default, client.protocol).filter(|upstream| !upstream.is_up()).cloned()
        });
        let filed = account.as_ref().map_or("", Account::as_str);
        let store = &gateway.store;
        let marks = match &attempt.clientid {
            // What an SMTP client sends in quotes, an IMAP client may send without (clientid.md §6.2): one device.
            Some(id) => {
                let bare = id.unquoted().map(|id| store.token_marks(filed, &id)).unwrap_or_default();
                store.token_marks(filed, id).into_iter().chain(bare).collect()
            }
            None => store.cluster_marks(filed, &traits),
        };
        let (found, trouble) = match store.lookup(filed, &marks, now()) {
            Ok(found) => (found, None),
            Err(error) => (store::Lookup::default(), Some(error.to_string())),
        };
        let mut rules = match &account {
            Some(account) => gateway.rules(settings, account),
            None => Rules::merge(&settings.policy, None, None),
        };
        if let Some(mode) = found.layer.mode {
            rules.mode = rules.mode.tighter(mode);
        }
        let max_devices = rules.max_devices;
        let clientid_type = attempt.clientid.as_ref().map(|id| id.kind.as_str().to_owned());
        let facts = Facts {
            protocol: client.protocol,
            address: client.address.ip(),
            country: country.as_deref(),
            identity: match &clientid_type {
                Some(kind) => Identity::ClientId { kind },
                None => Identity::Traits,
            },
            device: found.device.as_ref(),
            approved: found.approved,
            pending: found.pending,
            now: now(),
        };
        let decision = policy::decide(&rules, &facts);
        let known =
            found.known || account.as_ref().is_some_and(|account| settings.accounts.contains_key(account));
        let device = found.device;
        Self {
            current,
            account,
            upstream,
            marks,
            traits,
            country,
            clientid_type,
            device,
            known,
            decision,
            max_devices,
            trouble,
        }
    }

    /// Whether a refusal is the owner's business: a device of theirs may have been kept out. A wrong password at the
    /// backend is not, and what a spent budget hides has been told before.
    fn concerns_owner(&self, reason: Reason) -> bool {
        self.known
            && self.account.is_some()
            && !matches!(reason, Reason::Credentials | Reason::Budget | Reason::BadName)
    }

    pub(crate) fn sighting(&self, client: &Client) -> policy::device::Sighting {
        policy::device::Sighting {
            at: now(),
            protocol: client.protocol.name().into(),
            address: Some(client.address.ip()),
            country: self.country.clone(),
        }
    }
}

/// What the client shows of itself, in the words of policy.
fn traits(client: &Client, label: &Label, country: Option<&str>) -> Traits {
    Traits {
        client: label.name.as_str().into(),
        version: label.version.as_str().into(),
        os: label.os.as_str().into(),
        ehlo: Traits::ehlo_form(label.ehlo.as_str()).into(),
        ja4: client.ja4.clone(),
        network: trait_network(client.address.ip()),
        country: country.unwrap_or_default().into(),
    }
}

/// The network of a weak identity: an IPv4 /24, an IPv6 /64. A single address would change with every lease.
fn trait_network(address: IpAddr) -> String {
    let network = policy::abuse::network(address);
    match address.to_canonical() {
        IpAddr::V4(address) => ipnet::Ipv4Net::new_assert(address, 24).trunc().to_string(),
        IpAddr::V6(_) => network.to_string(),
    }
}

/// What came of asking the backend.
enum Asked {
    In(Box<Live>),
    Rejected,
    Refused(Reason),
    Away,
}

/// Replays the credentials to the backend; on its yes, records the device and lists the session, in this order, before
/// the client hears of it.
async fn ask(
    gateway: &Arc<Gateway>,
    client: &Client,
    case: &Case,
    attempt: &Attempt,
    why: Admitted,
) -> Asked {
    let (Some(account), Some(upstream)) = (&case.account, &case.upstream) else {
        return Asked::Refused(Reason::BadName);
    };
    let target = match route(client, case, account, &upstream.target()).await {
        Ok(target) => target,
        Err(error) => {
            warn!(account = account.as_str(), %error, "route look-up failed");
            gateway.record(
                Kind::RouteTrouble { what: error.as_str().into() },
                Subject::account(account.as_str()),
            );
            return Asked::Away;
        }
    };
    let asked = Instant::now();
    let done = match login(client, case, attempt, account, upstream, &target).await {
        backend::Login::Accepted(done) => done,
        backend::Login::Rejected => return Asked::Rejected,
        backend::Login::Away(why) => {
            upstream.failed(&why, &gateway.events);
            return Asked::Away;
        }
        backend::Login::Violation(what) => {
            warn!(backend = &*target.name, what, "the backend broke its protocol");
            let kind = Kind::BackendViolation { backend: (&*target.name).into(), what: what.into() };
            gateway.record(kind, client.subject().with_account(account.as_str()));
            return Asked::Away;
        }
    };
    gateway.metrics.backend_login(client.protocol, asked.elapsed());
    let device = match remember(gateway, client, case, account, why).await {
        Ok(device) => device,
        Err(asked) => return asked,
    };
    seat(gateway, client, account, device, case, &target.name, done)
}

async fn login(
    client: &Client,
    case: &Case,
    attempt: &Attempt,
    account: &Account,
    upstream: &Upstream,
    target: &Target,
) -> backend::Login {
    let user = upstream.user(account);
    let task = Task::Login { mechanism: attempt.mechanism, user: user.as_bytes(), secret: &attempt.secret };
    let peer = Peer {
        client: client.address,
        local: client.local,
        session: &client.id,
        tls: client.tls,
        sni: client.sni.as_deref(),
        device: case.device.as_ref().map(|device| device.alias.0.as_str()),
        helo: attempt.label.ehlo.as_str(),
    };
    match client.protocol {
        Protocol::Imap => backend::login(Box::new(imap::Client::new()), target, task, &peer).await,
        Protocol::Pop3 => backend::login(Box::new(pop3::Client::new()), target, task, &peer).await,
        Protocol::Submission => backend::login(Box::new(smtp::Client::new()), target, task, &peer).await,
    }
}

/// The target, or another address of it where the settings ask an HTTP server.
async fn route(client: &Client, case: &Case, account: &Account, target: &Target) -> Result<Target, String> {
    let settings = &case.current.settings;
    let asks = !settings.routes.accounts.contains_key(account);
    let Some(look_up) = case.current.look_up.as_ref().filter(|_| asks) else { return Ok(target.clone()) };
    let question = Question {
        account: account.as_str(),
        protocol: client.protocol,
        attempt: 1,
        client: client.address.ip(),
        client_host: None,
        tls: client.tls,
    };
    let address = look_up.backend(&question, None).await.map_err(|error| error.to_string())?;
    Ok(Target { address, ..target.clone() })
}

/// Writes the device down; durable when it returns, if anything new was learnt.
async fn remember(
    gateway: &Arc<Gateway>,
    client: &Client,
    case: &Case,
    account: &Account,
    why: Admitted,
) -> Result<Option<String>, Asked> {
    let success = store::Success {
        account: account.as_str().into(),
        marks: case.marks.clone(),
        traits: case.traits.clone(),
        sighting: case.sighting(client),
        admitted: why,
        max_devices: case.max_devices,
        if_locked: case.decision.if_locked,
    };
    if let (Some(device), Admitted::Approved | Admitted::Observed) = (&case.device, why) {
        // Known, and nothing about it changes: its sighting need not wait for anything.
        gateway.sighted(success);
        return Ok(Some(device.alias.0.clone()));
    }
    let store = Arc::clone(&gateway.store);
    let asked = Instant::now();
    let recorded = tokio::task::spawn_blocking(move || store.record_success(success)).await;
    match recorded.unwrap_or_else(|error| Err(store::StoreError::Io(error.to_string()))) {
        Ok(recorded) => {
            gateway.metrics.store_write(asked.elapsed());
            if recorded.new {
                let alias = recorded.alias.as_ref().map(|alias| alias.0.as_str());
                gateway.record(
                    Kind::DeviceNew,
                    client.subject().with_account(account.as_str()).with_device(alias),
                );
                if let Admitted::Provisional { days } = why {
                    refused::tell(
                        gateway,
                        client,
                        case,
                        recorded.alias.as_ref(),
                        What::NewDevice { days: Some(days) },
                    );
                }
            }
            Ok(recorded.alias.map(|alias| alias.0))
        }
        Err(error) => {
            gateway.store_trouble(&error.to_string());
            match why {
                // Nothing was promised: the approval is on disk, or nobody asked for one.
                Admitted::Approved | Admitted::Observed => {
                    Ok(case.device.as_ref().map(|device| device.alias.0.clone()))
                }
                // Letting it in would tell the owner of an approval that a power cut takes back.
                Admitted::Learning | Admitted::Provisional { .. } => Err(Asked::Away),
            }
        }
    }
}

/// Lists the session, and looks once more: a device revoked while the backend was asked must not slip in.
fn seat(
    gateway: &Arc<Gateway>,
    client: &Client,
    account: &Account,
    device: Option<String>,
    case: &Case,
    backend: &Arc<str>,
    done: LoggedIn,
) -> Asked {
    let LoggedIn { stream, untagged, text, rest } = done;
    let limit = usize::try_from(case.current.settings.limits.sessions_per_account).unwrap_or(usize::MAX);
    let moved = Arc::<Octets>::default();
    let session = Session {
        connection: client.id.clone(),
        account: account.as_str().into(),
        device: device.as_deref().map(Into::into),
        protocol: client.protocol,
        client: client.address,
        backend: Arc::clone(backend),
        since: now(),
        moved: Arc::clone(&moved),
    };
    let Some((listed, kill)) = gateway.sessions.add(session, limit) else {
        info!(account = account.as_str(), "as many live sessions as [limits] sessions-per-account allows");
        return Asked::Away;
    };
    let again = gateway.store.find(account.as_str(), &case.marks);
    if matches!(again.ok().flatten().map(|device| device.standing), Some(policy::Standing::Revoked)) {
        return Asked::Refused(Reason::Revoked);
    }
    let seat = Seat {
        connection: client.id.clone(),
        account: account.clone(),
        device,
        protocol: client.protocol,
        address: client.address,
    };
    let live = Live {
        client: None,
        backend: stream,
        up: Vec::new(),
        down: rest,
        untagged,
        text,
        seat,
        moved,
        listed,
        kill,
        permit: None,
    };
    Asked::In(Box::new(live))
}

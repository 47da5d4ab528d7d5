//! Answers the control socket: devices, accounts, sessions, the journal, the simulation, and the box's own state.

use std::sync::Arc;

use control::{
    AccountRow, AttemptRow, Chunk, ControlError, DeviceRow, ErrorCode, EventRow, Health, Imported, Page,
    Part, Request, Response, SessionRow, Simulation, SimulationRow, State, Stats,
};
use mail::Account;
use policy::{Alias, Device, Layer, Mode, Rules, Standing};
use tokio::sync::broadcast;
use tracing::info;

use crate::event::{Event, Kind, Query, Subject, now};
use crate::gateway::Gateway;
use crate::relay::Kill;
use crate::self_test;

/// Octets an import may have: 200,000 devices with room to spare.
const IMPORT: usize = 512 << 20;
/// A device's name, in characters.
const NAME: usize = 64;

/// Answers one caller.
pub struct Desk {
    gateway: Arc<Gateway>,
    /// Who asks, for the journal.
    caller: String,
    import: Option<String>,
}

type Answer = Result<Vec<Response>, ControlError>;

impl Desk {
    /// For one connection of `caller`.
    pub fn new(gateway: Arc<Gateway>, caller: String) -> Self {
        Self { gateway, caller, import: None }
    }

    /// Answers one request, in one or more frames.
    pub async fn answer(&mut self, request: Request) -> Vec<Response> {
        let answer = match request {
            Request::Import(chunk) => self.import(chunk).await,
            Request::Reload => self.reload(),
            Request::SelfTest => {
                let findings = self_test::run(&self.gateway).await;
                Ok(Page::all(findings).map(Response::SelfTest).collect())
            }
            Request::Events { account, since, limit, follow: _ } => self.events(account, since, limit).await,
            Request::Health => Ok(vec![Response::Health(health(&self.gateway))]),
            request => {
                // What is left reads and writes the database: on a thread that may wait for the disk.
                let (gateway, caller) = (Arc::clone(&self.gateway), self.caller.clone());
                tokio::task::spawn_blocking(move || Books { gateway, caller }.answer(request))
                    .await
                    .unwrap_or_else(|error| Err(internal(&error.to_string())))
            }
        };
        answer.unwrap_or_else(|error| vec![Response::from(error)])
    }

    fn reload(&self) -> Answer {
        match self.gateway.reload(&self.caller) {
            Ok(later) if later.is_empty() => {
                Ok(vec![Response::Done { text: "settings and certificates are in force".into() }])
            }
            Ok(later) => {
                let text = format!("in force, except what needs a restart: {}", later.join(", "));
                Ok(vec![Response::Done { text }])
            }
            Err(error) => {
                let mend = "mend the file (postern check FILE shows where); the old settings stay in force";
                Err(ControlError::new(ErrorCode::Settings, error.to_string(), mend))
            }
        }
    }

    async fn events(&self, account: Option<String>, since: Option<u64>, limit: u32) -> Answer {
        let account = account.map(|name| canonical(&self.gateway, &name)).transpose()?;
        let query = Query {
            account: account.map(|account| account.as_str().to_owned()),
            since,
            limit: if limit == 0 { Query::MAX } else { usize::try_from(limit).unwrap_or(Query::MAX) },
        };
        let found = self.gateway.events.query(query).await.map_err(|error| internal(&error.to_string()))?;
        Ok(Page::all(found.iter().map(event_row).collect()).map(Response::Events).collect())
    }

    /// Every event from now on.
    pub fn listen(&self) -> broadcast::Receiver<Event> {
        self.gateway.events.listen()
    }

    /// The tail that a follower begins with, and whose events it wants.
    ///
    /// # Errors
    /// A name that is no account.
    pub async fn follow_start(
        &self,
        account: Option<String>,
        since: Option<u64>,
        limit: u32,
    ) -> Result<(Option<String>, Vec<Response>), ControlError> {
        let name = account.as_deref().map(|name| canonical(&self.gateway, name)).transpose()?;
        let mut pages = self.events(account, since, limit).await?;
        for page in &mut pages {
            if let Response::Events(page) = page {
                page.more = true;
            }
        }
        Ok((name.map(|account| account.as_str().to_owned()), pages))
    }

    /// One new event as a page, if the follower wants it.
    pub fn news(event: &Event, account: Option<&str>) -> Option<Response> {
        let row = event_row(event);
        let wanted = account.is_none_or(|account| row.account.as_deref() == Some(account));
        wanted.then(|| Response::Events(Page { rows: vec![row], more: true }))
    }

    async fn import(&mut self, chunk: Chunk) -> Answer {
        let text = self.import.get_or_insert_default();
        if text.len() + chunk.text.len() > IMPORT {
            self.import = None;
            let mend = "this is more than any box exports; check the file";
            return Err(ControlError::new(ErrorCode::Invalid, "the import is too large", mend));
        }
        text.push_str(&chunk.text);
        if !chunk.last {
            return Ok(vec![Response::Done { text: "go on".into() }]);
        }
        let text = self.import.take().unwrap_or_default();
        let store = Arc::clone(&self.gateway.store);
        let done = tokio::task::spawn_blocking(move || store.import(&mut text.as_bytes())).await;
        let report = done.map_err(|error| internal(&error.to_string()))?.map_err(|error| storage(&error))?;
        info!(by = self.caller, devices = report.devices, "import");
        // Everything else was replaced: nobody stays on the strength of the old database.
        let imported = Imported { accounts: count(report.accounts), devices: count(report.devices), kept: 0 };
        Ok(vec![Response::Imported(imported)])
    }
}

/// The verbs that read and write the database.
struct Books {
    gateway: Arc<Gateway>,
    caller: String,
}

impl Books {
    fn answer(self, request: Request) -> Answer {
        let store = &self.gateway.store;
        self.gateway.settle_sightings();
        match request {
            Request::DevicesList { account } => {
                let account = self.account(&account)?;
                let devices = self.devices(&account)?;
                let rows = devices.iter().map(|device| DeviceRow::new(account.as_str(), device)).collect();
                Ok(Page::all(rows).map(Response::Devices).collect())
            }
            Request::DevicesShow { account, device } => {
                let account = self.account(&account)?;
                let device = self.device(&account, &device)?;
                Ok(vec![Response::Device(DeviceRow::new(account.as_str(), &device))])
            }
            Request::DevicesApprove { account, device, until } => {
                let account = self.account(&account)?;
                if until.is_some_and(|until| until <= now()) {
                    let mend = "give a time to come, or leave --until out";
                    return Err(ControlError::new(ErrorCode::Invalid, "that time has passed", mend));
                }
                let alias = self.device(&account, &device)?.alias;
                self.has_room(&account)?;
                let device =
                    store.approve(account.as_str(), &alias, until, now()).map_err(|error| storage(&error))?;
                self.event(Kind::DeviceApproved { by: self.caller.as_str().into() }, &account, &alias);
                Ok(vec![Response::Device(DeviceRow::new(account.as_str(), &device))])
            }
            Request::DevicesRename { account, device, name } => {
                let account = self.account(&account)?;
                let alias = self.device(&account, &device)?.alias;
                if name.chars().count() > NAME || name.chars().any(char::is_control) {
                    let mend = format!("use at most {NAME} printable characters");
                    return Err(ControlError::new(ErrorCode::Invalid, "that is no name for a device", mend));
                }
                let device =
                    store.rename(account.as_str(), &alias, &name).map_err(|error| storage(&error))?;
                self.event(Kind::DeviceRenamed { by: self.caller.as_str().into() }, &account, &alias);
                Ok(vec![Response::Device(DeviceRow::new(account.as_str(), &device))])
            }
            Request::DevicesRevoke { account, device } => {
                let account = self.account(&account)?;
                let alias = self.device(&account, &device)?.alias;
                let device =
                    store.revoke(account.as_str(), &alias, now()).map_err(|error| storage(&error))?;
                let sessions_ended = self.end_device(&account, &alias);
                self.event(Kind::DeviceRevoked { by: self.caller.as_str().into() }, &account, &alias);
                Ok(vec![Response::Revoked {
                    device: DeviceRow::new(account.as_str(), &device),
                    sessions_ended,
                }])
            }
            Request::DevicesForget { account, device } => {
                let account = self.account(&account)?;
                let alias = self.device(&account, &device)?.alias;
                store.forget(account.as_str(), &alias).map_err(|error| storage(&error))?;
                if self.rules(&account).mode == Mode::Lock {
                    self.end_device(&account, &alias);
                }
                let text = format!("{} is forgotten; it is a new device when it comes again", alias.0);
                Ok(vec![Response::Done { text }])
            }
            Request::AccountsList => {
                let known = store.accounts(now()).map_err(|error| storage(&error))?;
                let mut names = known.into_iter().map(|known| known.account.name).collect::<Vec<_>>();
                let current = self.gateway.current();
                names.extend(current.settings.accounts.keys().map(|account| account.as_str().to_owned()));
                names.sort_unstable();
                names.dedup();
                let accounts = names.iter().filter_map(|name| Account::parse(name.as_bytes(), None).ok());
                let rows =
                    accounts.map(|account| self.account_row(&account)).collect::<Result<Vec<_>, _>>()?;
                Ok(Page::all(rows).map(Response::Accounts).collect())
            }
            Request::AccountsShow { account } => {
                let account = self.account(&account)?;
                Ok(vec![Response::Account(self.account_row(&account)?)])
            }
            Request::AccountsLock { account } => self.set_mode(&account, Mode::Lock),
            Request::AccountsObserve { account } => self.set_mode(&account, Mode::Observe),
            Request::AccountsLearn { account, until } => {
                if until <= now() {
                    let mend = "give a time to come; to lock at once, use lock";
                    return Err(ControlError::new(ErrorCode::Invalid, "that time has passed", mend));
                }
                self.set_mode(&account, Mode::Learn { until })
            }
            Request::Attempts { account } => self.attempts(account.as_deref()),
            Request::SessionsList { account } => {
                let account = account.map(|name| self.account(&name)).transpose()?;
                let wanted = |name: &str| account.as_ref().is_none_or(|account| account.as_str() == name);
                let rows =
                    self.gateway.sessions.list().into_iter().filter(|session| wanted(&session.account));
                Ok(Page::all(rows.map(session_row).collect()).map(Response::Sessions).collect())
            }
            Request::SessionsKill { session } => {
                if self.gateway.sessions.end(Kill::Revoked, |live| live.connection == session) == 0 {
                    let mend = "list the live ones with: postern sessions";
                    return Err(ControlError::new(
                        ErrorCode::NoSuchSession,
                        format!("no session {session} is live"),
                        mend,
                    ));
                }
                Ok(vec![Response::Done { text: format!("session {session} is being ended") }])
            }
            Request::Simulate { account } => self.simulate(account.as_deref()),
            Request::Export => {
                let mut out = Vec::new();
                store.export(&mut out).map_err(|error| storage(&error))?;
                let text = String::from_utf8(out).map_err(|error| internal(&error.to_string()))?;
                Ok(Chunk::all(&text).map(Response::Export).collect())
            }
            Request::Stats => Ok(vec![Response::Stats(self.stats())]),
            Request::Health
            | Request::Events { .. }
            | Request::Import(_)
            | Request::Reload
            | Request::SelfTest => Err(internal("this verb is answered elsewhere")),
        }
    }

    fn account(&self, name: &str) -> Result<Account, ControlError> {
        canonical(&self.gateway, name)
    }

    /// The devices, and behind them the refused attempts that can become one: both are approved by their alias.
    fn devices(&self, account: &Account) -> Result<Vec<Device>, ControlError> {
        let listing = match self.gateway.store.list(account.as_str()) {
            Ok(listing) => listing,
            Err(store::StoreError::NoAccount) => return Ok(Vec::new()),
            Err(error) => return Err(storage(&error)),
        };
        let attempts = listing.attempts.into_iter().map(|attempt| Device {
            alias: attempt.alias,
            name: String::new(),
            standing: Standing::Pending,
            marks: attempt.marks,
            traits: attempt.traits,
            first_seen: attempt.first_seen,
            last_seen: attempt.last_seen,
            logins: 0,
        });
        Ok(listing.devices.into_iter().chain(attempts).collect())
    }

    fn device(&self, account: &Account, alias: &str) -> Result<Device, ControlError> {
        let alias = Alias(alias.to_ascii_lowercase());
        let found = self.devices(account)?.into_iter().find(|device| device.alias == alias);
        found.ok_or_else(|| {
            let text = format!("{} has no device {}", account.as_str(), alias.0);
            let mend = format!("list its devices with: postern devices list {}", account.as_str());
            ControlError::new(ErrorCode::NoSuchDevice, text, mend)
        })
    }

    /// The account's own layer in the database.
    fn stored(&self, account: &Account) -> Layer {
        self.gateway.store.list(account.as_str()).map(|listing| listing.account.layer).unwrap_or_default()
    }

    fn rules(&self, account: &Account) -> Rules {
        let mut rules = self.gateway.rules(&self.gateway.current().settings, account);
        if let Some(mode) = self.stored(account).mode {
            rules.mode = rules.mode.tighter(mode);
        }
        rules.mode = rules.mode.at(now());
        rules
    }

    fn has_room(&self, account: &Account) -> Result<(), ControlError> {
        let most = self.rules(account).max_devices;
        let devices = self.devices(account)?;
        let approved = devices.iter().filter(|device| is_approved(device)).count();
        if approved < usize::try_from(most).unwrap_or(usize::MAX) {
            return Ok(());
        }
        let text =
            format!("{} has {approved} approved devices, and the rules allow {most}", account.as_str());
        Err(ControlError::new(
            ErrorCode::NotAllowed,
            text,
            "revoke one it no longer uses, or raise max-devices",
        ))
    }

    fn event(&self, kind: Kind, account: &Account, alias: &Alias) {
        info!(account = account.as_str(), device = alias.0, by = self.caller, "{}", kind.name());
        self.gateway.record(kind, Subject::account(account.as_str()).with_device(Some(&alias.0)));
    }

    fn end_device(&self, account: &Account, alias: &Alias) -> u32 {
        let is = |live: &crate::sessions::Session| {
            &*live.account == account.as_str() && live.device.as_deref() == Some(alias.0.as_str())
        };
        u32::try_from(self.gateway.sessions.end(Kill::Revoked, is)).unwrap_or(u32::MAX)
    }

    fn set_mode(&self, name: &str, mode: Mode) -> Answer {
        let account = self.account(name)?;
        let current = self.gateway.current();
        let (box_, domain, own) = current.settings.layers(&account);
        let above = Rules::merge(box_, domain, own).mode.at(now());
        if above.tighter(mode) != mode && mode != Mode::Lock {
            let text = format!("the settings already ask for {} for {}", mode_name(above), account.as_str());
            let mend = "an account may tighten what box and domain say, never loosen it; change the settings";
            return Err(ControlError::new(ErrorCode::NotAllowed, text, mend));
        }
        self.gateway
            .store
            .set_account_mode(account.as_str(), Some(mode), now())
            .map_err(|error| storage(&error))?;
        if mode == Mode::Lock {
            // Sessions of devices that could not log in now end, also those opened without a token.
            let devices = self.devices(&account)?;
            let stays = |live: &crate::sessions::Session| {
                live.device.as_deref().is_some_and(|alias| {
                    devices.iter().any(|device| device.alias.0 == alias && is_approved(device))
                })
            };
            self.gateway
                .sessions
                .end(Kill::Revoked, |live| &*live.account == account.as_str() && !stays(live));
        }
        let by = self.caller.as_str().into();
        self.gateway.record(
            Kind::AccountMode { mode: mode_name(mode).into(), by },
            Subject::account(account.as_str()),
        );
        info!(account = account.as_str(), mode = mode_name(mode), by = self.caller, "mode set");
        Ok(vec![Response::Account(self.account_row(&account)?)])
    }

    fn account_row(&self, account: &Account) -> Result<AccountRow, ControlError> {
        let current = self.gateway.current();
        let (box_, domain, own) = current.settings.layers(account);
        let stored = self.stored(account);
        let mode = self.rules(account).mode;
        let says = |layer: Option<&Layer>| {
            layer.and_then(|layer| layer.mode).is_some_and(|said| said.at(now()) == mode)
        };
        let mode_from = if says(Some(box_)) {
            "box"
        } else if says(domain) {
            "domain"
        } else if says(own) || says(Some(&stored)) {
            "account"
        } else {
            "default"
        };
        let devices = self.devices(account)?;
        let count = |wanted: fn(&Device) -> bool| {
            u32::try_from(devices.iter().filter(|d| wanted(d)).count()).unwrap_or(u32::MAX)
        };
        let live = self.gateway.sessions.list();
        let sessions = live.iter().filter(|live| &*live.account == account.as_str()).count();
        Ok(AccountRow {
            account: account.as_str().to_owned(),
            mode,
            mode_from: mode_from.into(),
            backend: current.settings.route(account).map(str::to_owned),
            approved: count(is_approved),
            pending: count(|device| matches!(device.standing, Standing::Pending)),
            revoked: count(|device| matches!(device.standing, Standing::Revoked)),
            sessions: u32::try_from(sessions).unwrap_or(u32::MAX),
            last_seen: devices
                .iter()
                .filter_map(|device| device.last_seen.as_ref())
                .map(|seen| seen.at)
                .max(),
        })
    }

    fn attempts(&self, account: Option<&str>) -> Answer {
        let account = account.map(|name| self.account(name)).transpose()?;
        let names = self.names(account.as_ref())?;
        let mut rows = Vec::new();
        for name in names {
            let Ok(listing) = self.gateway.store.list(&name) else { continue };
            rows.extend(listing.attempts.into_iter().map(|attempt| {
                let seen = attempt.last_seen;
                AttemptRow {
                    account: Some(name.clone()),
                    network: attempt.traits.network,
                    country: seen.as_ref().and_then(|seen| seen.country.clone()),
                    failures: attempt.count,
                    first: attempt.first_seen,
                    last: seen.map_or(attempt.first_seen, |seen| seen.at),
                    blocked_until: None,
                }
            }));
        }
        rows.sort_by_key(|row| std::cmp::Reverse(row.failures));
        Ok(Page::all(rows).map(Response::Attempts).collect())
    }

    /// The one account, or all that the database knows.
    fn names(&self, account: Option<&Account>) -> Result<Vec<String>, ControlError> {
        if let Some(account) = account {
            return Ok(vec![account.as_str().to_owned()]);
        }
        let known = self.gateway.store.accounts(now()).map_err(|error| storage(&error))?;
        Ok(known.into_iter().map(|known| known.account.name).collect())
    }

    fn simulate(&self, account: Option<&str>) -> Answer {
        let account = account.map(|name| self.account(name)).transpose()?;
        let names = self.names(account.as_ref())?;
        let (mut logins, mut would_refuse, mut since, mut rows) = (0, 0, None::<u64>, Vec::new());
        for name in names {
            let report = match self.gateway.store.simulate(&name, now()) {
                Ok(report) => report,
                Err(store::StoreError::NoAccount) => continue,
                Err(error) => return Err(storage(&error)),
            };
            let first = self
                .gateway
                .store
                .logins(&name)
                .map_err(|error| storage(&error))?
                .iter()
                .map(|outcome| outcome.first)
                .min();
            logins += report.logins;
            would_refuse += report.refused;
            since = [since, first].into_iter().flatten().min();
            rows.extend(report.lines.into_iter().map(|line| {
                let (device, client) = match line.outcome.client {
                    policy::simulate::Client::Device(alias) => (Some(alias), String::new()),
                    policy::simulate::Client::Traits(text) => (None, text),
                };
                SimulationRow {
                    account: name.clone(),
                    device,
                    client,
                    protocol: line.outcome.protocol,
                    address: line.outcome.address,
                    reason: line.reason,
                    logins: line.outcome.count,
                    last: line.outcome.last,
                }
            }));
        }
        rows.sort_by_key(|row| std::cmp::Reverse(row.logins));
        let account = account.map(|account| account.as_str().to_owned());
        let page = |refused| {
            Response::Simulation(Simulation {
                account: account.clone(),
                since,
                logins,
                would_refuse,
                refused,
            })
        };
        Ok(Page::all(rows).map(page).collect())
    }

    fn stats(&self) -> Stats {
        let (gateway, metrics) = (&self.gateway, &self.gateway.metrics);
        let store = gateway.store.stats();
        let accounts = gateway.store.accounts(now()).unwrap_or_default();
        Stats {
            version: env!("CARGO_PKG_VERSION").into(),
            started: gateway.since,
            connections: metrics.connections(),
            open: u64::from(gateway.permits.held()),
            sessions: count(gateway.sessions.count()),
            logins: metrics.logins(),
            failures: metrics.failures(),
            messages: metrics.messages(),
            accounts: count(accounts.len()),
            devices: accounts.iter().map(|known| count(known.approved + known.pending + known.revoked)).sum(),
            database_octets: store.bytes_on_disk,
            memory_octets: resident(),
        }
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn canonical(gateway: &Gateway, name: &str) -> Result<Account, ControlError> {
    gateway.current().settings.canonical(name.as_bytes()).map_err(|_| {
        let text = format!("{name:?} is not the name of an account");
        ControlError::new(ErrorCode::NoSuchAccount, text, "write it as alice@example.net")
    })
}

fn is_approved(device: &Device) -> bool {
    matches!(device.standing, Standing::Approved { until } if until.is_none_or(|until| now() < until))
}

const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Observe => "observe",
        Mode::Learn { .. } => "learn",
        Mode::Lock => "lock",
    }
}

fn storage(error: &store::StoreError) -> ControlError {
    use store::StoreError as E;
    match error {
        E::NoAccount => {
            return ControlError::new(
                ErrorCode::NoSuchAccount,
                error.to_string(),
                "it has not logged in yet",
            );
        }
        E::NoDevice => {
            let mend = "list its devices with: postern devices list ACCOUNT";
            return ControlError::new(ErrorCode::NoSuchDevice, error.to_string(), mend);
        }
        E::AccountFull => {
            let mend = "forget devices it no longer uses";
            return ControlError::new(ErrorCode::NotAllowed, error.to_string(), mend);
        }
        E::Import { .. } | E::TooLarge(_) => {
            let mend = "use an export of this box or its twin, whole and unchanged; nothing was changed";
            return ControlError::new(ErrorCode::Invalid, error.to_string(), mend);
        }
        E::Full
        | E::ReadOnly(_)
        | E::Io(_)
        | E::Damaged(_)
        | E::Lost(_)
        | E::InUse
        | E::Symlink(_)
        | E::Keys(_)
        | E::Closed => {}
    }
    let mend = "look for free space and errors of the disk, then try again; nothing was changed";
    ControlError::new(ErrorCode::Storage, error.to_string(), mend)
}

fn internal(what: &str) -> ControlError {
    ControlError::new(ErrorCode::Internal, what, "tell the makers of Postern, with the log")
}

fn session_row(session: crate::sessions::Session) -> SessionRow {
    SessionRow {
        session: session.connection,
        account: session.account.into(),
        device: session.device.map(|alias| Alias(alias.into())),
        protocol: session.protocol.name().into(),
        address: session.client,
        backend: session.backend.to_string(),
        since: session.since,
        octets_in: session.moved.up(),
        octets_out: session.moved.down(),
    }
}

fn event_row(event: &Event) -> EventRow {
    let text = |value: &Option<crate::event::Text>| value.as_ref().map(|text| text.as_str().to_owned());
    EventRow {
        at: event.at,
        kind: event.kind.name().into(),
        account: text(&event.subject.account),
        device: text(&event.subject.device).map(Alias),
        protocol: text(&event.subject.protocol),
        address: event.subject.address,
        country: text(&event.subject.country),
        session: text(&event.subject.connection),
        text: crate::event_text::sentence(&event.kind),
    }
}

fn health(gateway: &Gateway) -> Health {
    let mut parts = vec![match gateway.store_state() {
        None => Part { name: "database".into(), state: State::Well, text: String::new() },
        Some(text) => Part { name: "database".into(), state: State::Failing, text },
    }];
    let upstreams = gateway.upstreams();
    for upstream in upstreams.all() {
        let target = upstream.target();
        let state = match (upstream.is_probed(), upstream.is_up()) {
            (false, _) => State::Ready,
            (true, true) => State::Well,
            (true, false) => State::Failing,
        };
        let name = format!("backend {} {}", target.name, target.protocol.name());
        parts.push(Part { name, state, text: upstream.trouble() });
    }
    parts.sort_by(|a, b| a.name.cmp(&b.name));
    Health::of(parts)
}

/// Octets of memory this process holds, from the kernel's own count; 0 where it does not say.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
    pages * 4096
}

//! What follows a refused login, behind its reply: the attempt is written down so that it can be approved, the owner is
//! told, and, where the domain wants it, the password is tried to tell "guessed" from "known".

use std::sync::Arc;
use std::time::Duration;

use mail::session::{Peer, Protocol, Task};
use policy::Alias;
use ring::rand::{SecureRandom, SystemRandom};
use tracing::{debug, warn};

use crate::admit::{Attempt, Case, Client, Seat};
use crate::alert::{Incident, What};
use crate::backend;
use crate::event::{Kind, Reason, now};
use crate::gateway::Gateway;

/// The probe waits this long behind the reply and up to as long again, at random: the backend's own delays must not be
/// visible in the client's next attempt.
const PROBE_AFTER: Duration = Duration::from_secs(2);

/// Does all of it. Nothing here can be observed by the client.
pub(crate) async fn follow_up(
    gateway: Arc<Gateway>,
    client: Client,
    case: Case,
    attempt: Attempt,
    reason: Reason,
) {
    let alias = write_down(&gateway, &client, &case, None).await;
    tell(&gateway, &client, &case, alias.as_ref(), What::Refused(reason));
    let Some(account) = &case.account else { return };
    let wanted =
        case.current.settings.domain_of(account).is_some_and(|domain| domain.probe_refused_passwords);
    if !wanted || !attempt.mechanism.is_password() || !gateway.may_probe(account.as_str()) {
        return;
    }
    tokio::time::sleep(PROBE_AFTER + jitter(PROBE_AFTER)).await;
    let Some(known) = password_known(&client, &case, &attempt).await else { return };
    let subject = client.subject().with_account(account.as_str());
    gateway.record(Kind::PasswordProbed { known }, subject);
    if known {
        warn!(account = account.as_str(), "a refused client knows the password");
        let alias = write_down(&gateway, &client, &case, Some(true)).await.or(alias);
        tell(&gateway, &client, &case, alias.as_ref(), What::PasswordKnown);
    } else {
        tell(&gateway, &client, &case, alias.as_ref(), What::Guessed(reason));
    }
}

/// Keeps the attempt, so that its device can be approved by its alias.
async fn write_down(
    gateway: &Arc<Gateway>,
    client: &Client,
    case: &Case,
    known: Option<bool>,
) -> Option<Alias> {
    let account = case.account.as_ref()?.as_str().to_owned();
    if let (Some(device), None) = (&case.device, known) {
        return Some(device.alias.clone());
    }
    let (store, marks, traits, sighting) =
        (Arc::clone(&gateway.store), case.marks.clone(), case.traits.clone(), case.sighting(client));
    let device = case.device.as_ref().map(|device| device.alias.clone());
    let noted = tokio::task::spawn_blocking(move || {
        let alias = match device {
            Some(alias) => Some(alias),
            None => {
                store.pending_from_refusal(&account, &marks, &traits, &sighting)?.map(|noted| noted.alias)
            }
        };
        if let (Some(alias), Some(known)) = (&alias, known) {
            store.password_known(&account, alias, known)?;
        }
        Ok::<_, store::StoreError>(alias)
    });
    match noted.await {
        Ok(Ok(alias)) => alias,
        Ok(Err(error)) => {
            gateway.store_trouble(&error.to_string());
            None
        }
        Err(_) => None,
    }
}

/// Reports an incident to the owner.
pub(crate) fn tell(gateway: &Gateway, client: &Client, case: &Case, alias: Option<&Alias>, what: What) {
    let (Some((alerts, _)), Some(account)) = (&gateway.alerts, &case.account) else { return };
    let settings = &case.current.settings;
    let second = settings.accounts.get(account).and_then(|account| account.alert_to.as_ref());
    // A client without marks is told apart by what it shows.
    let device = match case.marks.first() {
        Some(policy::Mark::Token { mac, .. } | policy::Mark::Cluster { mac }) => mac.clone(),
        None => format!("{}/{}", case.traits.client, case.traits.network),
    };
    let incident = Incident {
        at: now(),
        account: account.as_str().into(),
        also: second.map(|address| address.to_string().as_str().into()).into_iter().collect(),
        device: device.as_str().into(),
        alias: alias.map(|alias| alias.0.as_str().into()),
        page: alias.map(|alias| alias.0.as_str().into()),
        protocol: client.protocol,
        traits: case.traits.clone(),
        clientid: case.clientid_type.as_deref().map(Into::into),
        address: client.address.ip(),
        country: case.country.as_deref().map(Into::into),
        what,
    };
    if !alerts.report(incident) {
        debug!("so many incidents at once that this one is in the journal only");
    }
}

/// Reports to the owner that an account's sending budget ran out.
pub(crate) fn tell_sending_stopped(gateway: &Gateway, seat: &Seat) {
    let Some((alerts, _)) = &gateway.alerts else { return };
    let current = gateway.current();
    let second = current.settings.accounts.get(&seat.account).and_then(|account| account.alert_to.as_ref());
    let country = gateway.countries.country(seat.address.ip());
    let alias = seat.device.as_deref();
    alerts.report(Incident {
        at: now(),
        account: seat.account.as_str().into(),
        also: second.map(|address| address.to_string().as_str().into()).into_iter().collect(),
        device: alias.unwrap_or("sending").into(),
        alias: alias.map(Into::into),
        page: alias.map(Into::into),
        protocol: seat.protocol,
        traits: policy::Traits::default(),
        clientid: None,
        address: seat.address.ip(),
        country: country.as_deref().map(Into::into),
        what: What::SendingStopped,
    });
}

/// Whether the backend takes the password; `None` when it cannot say.
async fn password_known(client: &Client, case: &Case, attempt: &Attempt) -> Option<bool> {
    let (account, upstream) = (case.account.as_ref()?, case.upstream.as_ref()?);
    let user = upstream.user(account);
    let target = upstream.target();
    let task = Task::Login { mechanism: attempt.mechanism, user: user.as_bytes(), secret: &attempt.secret };
    let peer = Peer {
        client: client.address,
        local: client.local,
        session: &client.id,
        tls: client.tls,
        sni: None,
        device: None,
        helo: attempt.label.ehlo.as_str(),
    };
    let answer = match client.protocol {
        Protocol::Imap => backend::login(Box::new(imap::Client::new()), &target, task, &peer).await,
        Protocol::Pop3 => backend::login(Box::new(pop3::Client::new()), &target, task, &peer).await,
        Protocol::Submission => backend::login(Box::new(smtp::Client::new()), &target, task, &peer).await,
    };
    match answer {
        // Dropping the connection ends the session before it has touched a message.
        backend::Login::Accepted(_) => Some(true),
        backend::Login::Rejected => Some(false),
        backend::Login::Away(_) | backend::Login::Violation(_) => None,
    }
}

fn jitter(most: Duration) -> Duration {
    let mut bytes = [0u8; 2];
    // Without randomness the probe is merely punctual.
    let _ = SystemRandom::new().fill(&mut bytes);
    most * u32::from(u16::from_be_bytes(bytes)) / u32::from(u16::MAX)
}

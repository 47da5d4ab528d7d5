//! How each figure is made: one proxy, one round.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::account;
use super::client::{Client, Handshake, Imap, Suite, Target};
use super::figure::{Figure, Work};
use super::identity::Identity;
use super::load::{self, Tally, closed, open};
use super::payload::LITERAL_SIZE;
use super::peers::{DIRECT, Peer};

/// How much of each work one round does.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rounds; the figure is the median of them.
    pub rounds: u32,
    /// Logins of a round, and attempts of an attack.
    pub logins: u32,
    /// How long logins are started at a modest rate.
    pub latency: Duration,
    /// Fetches of 20 MB.
    pub fetches: u32,
    /// Messages submitted.
    pub messages: u32,
    /// Sessions parked at once.
    pub parked: u32,
    /// How long a proxy is left alone before its memory is read: buffers of idle sessions may be given back late.
    pub rest: Duration,
    /// How long good logins are started, once quiet and once in the storm.
    pub storm: Duration,
}

impl Plan {
    /// About ten minutes with five proxies.
    pub const WHOLE: Self = Self {
        rounds: 3,
        logins: 500,
        latency: Duration::from_secs(4),
        fetches: 10,
        messages: 1000,
        parked: 2000,
        rest: Duration::from_millis(1500),
        storm: Duration::from_secs(5),
    };
    /// Under three minutes.
    pub const QUICK: Self = Self {
        rounds: 3,
        logins: 80,
        latency: Duration::from_secs(1),
        fetches: 2,
        messages: 100,
        parked: 300,
        rest: Duration::from_secs(1),
        storm: Duration::from_secs(1),
    };
}

/// Clients at a time where CPU is measured: enough to keep the proxy busy, few enough not to measure queues.
const WORKERS: u32 = 8;
/// Attackers at a time: a proxy that delays its refusals must not slow the bench.
const ATTACKERS: u32 = 100;
/// Logins a second where latency is measured.
const MODEST_RATE: u32 = 50;
/// Good logins a second, quiet and in the storm; nine attacks come on each.
const GOOD_RATE: u32 = 25;
/// Sessions that are being opened at a time, before they park.
const OPENING: usize = 32;
/// How long a proxy is left alone before its CPU clock is read, so that what it does late is counted too.
const SETTLE: Duration = Duration::from_millis(150);

/// What one round of one work with one proxy gave.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The figures; fewer than the work has if too little succeeded.
    pub values: Vec<(Figure, f64)>,
    /// Operations done and failed.
    pub tally: Tally,
}

impl Work {
    /// Does one round with one proxy.
    pub async fn run(self, plan: &Plan, peer: &Peer, identity: &Identity) -> Result<Outcome> {
        let ca = &identity.ca;
        let full = || Client::new(ca, Suite::Aes128Gcm, Handshake::Full);
        match self {
            Self::LoginFull => logins(Figure::LoginFull, plan, peer, &[full()?]).await,
            Self::LoginRsa => logins(Figure::LoginRsa, plan, peer, &[full()?]).await,
            Self::LoginResumed => {
                // A client each, since tickets serve once: a worker's next login uses what its last one brought.
                let clients = (0..WORKERS)
                    .map(|_| Client::new(ca, Suite::Aes128Gcm, Handshake::Resumed))
                    .collect::<Result<Vec<_>>>()?;
                logins(Figure::LoginResumed, plan, peer, &clients).await
            }
            Self::LoginLatency => {
                let client = if peer.name == DIRECT { Client::clear() } else { full()? };
                latency(plan, peer, client).await
            }
            Self::RelayAes => relay(Figure::RelayAes, plan, peer, &full()?).await,
            Self::RelayChacha20 => {
                let client = Client::new(ca, Suite::ChaCha20, Handshake::Full)?;
                relay(Figure::RelayChacha20, plan, peer, &client).await
            }
            Self::Submission => submissions(plan, peer, full()?).await,
            Self::Parked => parked(plan, peer, full()?).await,
            Self::Attack => attack(plan, peer, full()?).await,
            Self::Storm => storm(plan, peer, full()?).await,
        }
    }
}

/// CPU of whole IMAP sessions that log in, open the mailbox and leave.
async fn logins(figure: Figure, plan: &Plan, peer: &Peer, clients: &[Client]) -> Result<Outcome> {
    let target = peer.target;
    for client in clients {
        client.warm_up(target, &account::owner(load::number())).await.context("warming up")?;
    }
    let clients: Arc<[Client]> = clients.into();
    measured(figure, peer, plan.logins, 1000.0 / f64::from(plan.logins), async {
        closed(plan.logins, WORKERS, move |worker| {
            let client = clients[usize::try_from(worker).unwrap_or(0) % clients.len()].clone();
            async move { whole_session(&client, target).await }
        })
        .await
    })
    .await
}

/// Time of logins that start at a modest rate, each with a full handshake.
async fn latency(plan: &Plan, peer: &Peer, client: Client) -> Result<Outcome> {
    let target = peer.target;
    client.warm_up(target, &account::owner(load::number())).await.context("warming up")?;
    let tally = open(MODEST_RATE, plan.latency, || {
        let client = client.clone();
        async move { whole_session(&client, target).await }
    })
    .await;
    let values = [(Figure::LoginP50, 0.50), (Figure::LoginP99, 0.99)]
        .into_iter()
        .filter_map(|(figure, share)| Some((figure, quantile_ms(&tally.times, share)?)))
        .collect();
    Ok(Outcome { values, tally })
}

/// CPU of fetching large messages in one session, its login left out.
async fn relay(figure: Figure, plan: &Plan, peer: &Peer, client: &Client) -> Result<Outcome> {
    let mut session = client.imap(peer.target, &account::owner(load::number())).await?;
    session.select().await?;
    session.fetch().await.context("the first fetch, which is not counted")?;
    let octets = f64::from(plan.fetches) * f64::from(u32::try_from(LITERAL_SIZE)?);
    measured(figure, peer, plan.fetches, 1e9 / octets, async {
        let mut tally = Tally::default();
        for _ in 0..plan.fetches {
            let start = Instant::now();
            let fetched = tokio::time::timeout(load::PATIENCE, session.fetch()).await;
            let outcome = fetched.map_err(Into::into).and_then(|fetched| fetched);
            let failed = outcome.is_err();
            tally.count(outcome.map(|()| start.elapsed()));
            if failed {
                break; // the session is out of step; what was not fetched lacks in the count
            }
        }
        tally
    })
    .await
}

/// CPU of messages that are submitted on a connection each.
async fn submissions(plan: &Plan, peer: &Peer, client: Client) -> Result<Outcome> {
    let target = peer.target;
    let submit = move |_| {
        let client = client.clone();
        async move {
            let number = load::number();
            let start = Instant::now();
            client.submit(target, &account::owner(number), number).await?;
            Ok(start.elapsed())
        }
    };
    submit(0).await.context("the first message, which is not counted")?;
    measured(Figure::Submission, peer, plan.messages, 1000.0 / f64::from(plan.messages), async {
        closed(plan.messages, WORKERS, submit).await
    })
    .await
}

/// Memory of sessions in IDLE: what the proxy has with all of them, less what it had before the first.
async fn parked(plan: &Plan, peer: &Peer, client: Client) -> Result<Outcome> {
    let target = peer.target;
    for _ in 0..10 {
        client.warm_up(target, &account::owner(load::number())).await.context("warming up")?;
    }
    tokio::time::sleep(plan.rest).await;
    let base = peer.memory()?;

    let permits = Arc::new(Semaphore::new(OPENING));
    let mut opening = JoinSet::new();
    for _ in 0..plan.parked {
        let (client, permits) = (client.clone(), permits.clone());
        opening.spawn(async move {
            let _permit = permits.acquire().await?;
            tokio::time::timeout(load::PATIENCE, park(&client, target)).await?
        });
    }
    let mut tally = Tally::default();
    let mut sessions = Vec::new();
    while let Some(opened) = opening.join_next().await {
        match opened? {
            Ok(session) => sessions.push(session),
            Err(error) => tally.fail(format!("{error:#}")),
        }
    }
    tokio::time::sleep(plan.rest).await;
    let full = peer.memory()?;
    let count = f64::from(u32::try_from(sessions.len())?);

    // All must still be alive, or the memory was that of fewer.
    let mut leaving = JoinSet::new();
    for mut session in sessions {
        leaving.spawn(tokio::time::timeout(load::PATIENCE, async move {
            session.done().await?;
            session.leave().await
        }));
    }
    while let Some(left) = leaving.join_next().await {
        let left = left?.map_err(Into::into).and_then(|left| left);
        tally.count(left.context("a parked session").map(|()| Duration::ZERO));
    }
    let grown = f64::from(u32::try_from(full.saturating_sub(base) / 1024)?);
    let base = f64::from(u32::try_from(base / 1024)?) / 1024.0;
    let mut values = vec![(Figure::Base, base)];
    if tally.failed == 0 {
        values.push((Figure::Parked, grown / count));
    }
    Ok(Outcome { values, tally })
}

/// CPU of logins that are refused.
async fn attack(plan: &Plan, peer: &Peer, client: Client) -> Result<Outcome> {
    let target = peer.target;
    client.warm_up(target, &account::owner(load::number())).await.context("warming up")?;
    measured(Figure::Attack, peer, plan.logins, 1000.0 / f64::from(plan.logins), async {
        closed(plan.logins, ATTACKERS, move |_| refused(client.clone(), target)).await
    })
    .await
}

/// Time of good logins, first alone, then with nine attacks on each.
async fn storm(plan: &Plan, peer: &Peer, client: Client) -> Result<Outcome> {
    let target = peer.target;
    client.warm_up(target, &account::owner(load::number())).await.context("warming up")?;
    let good = || {
        let client = client.clone();
        async move { whole_session(&client, target).await }
    };
    let quiet = open(GOOD_RATE, plan.storm, good).await;
    let attacks = open(9 * GOOD_RATE, plan.storm, || refused(client.clone(), target));
    let (among, attacks) = tokio::join!(open(GOOD_RATE, plan.storm, good), attacks);
    let mut values = Vec::new();
    if let (Some(quiet), Some(among)) = (quantile_ms(&quiet.times, 0.99), quantile_ms(&among.times, 0.99)) {
        values =
            vec![(Figure::QuietP99, quiet), (Figure::StormP99, among), (Figure::StormRatio, among / quiet)];
    }
    let mut tally = quiet;
    tally.add(among);
    tally.add(attacks);
    Ok(Outcome { values, tally })
}

/// Reads the proxy's CPU clock around some load. The value is CPU seconds times `scale`, and is only given if all
/// `count` operations were done: the CPU time of failures says nothing.
async fn measured(
    figure: Figure,
    peer: &Peer,
    count: u32,
    scale: f64,
    load: impl Future<Output = Tally>,
) -> Result<Outcome> {
    tokio::time::sleep(SETTLE).await;
    let before = peer.cpu()?;
    let tally = load.await;
    tokio::time::sleep(SETTLE).await;
    let used =
        peer.cpu()?.checked_sub(before).context("a CPU clock went backwards: a process was replaced")?;
    let whole = tally.done == count && tally.failed == 0;
    let values = if whole { vec![(figure, used.as_secs_f64() * scale)] } else { Vec::new() };
    Ok(Outcome { values, tally })
}

/// Logs in, opens the mailbox, leaves; gives the time from connect to the login's OK.
async fn whole_session(client: &Client, target: Target) -> Result<Duration> {
    let who = account::owner(load::number());
    let start = Instant::now();
    let mut session = client.imap(target, &who).await?;
    let time = start.elapsed();
    session.select().await?;
    session.leave().await?;
    Ok(time)
}

async fn refused(client: Client, target: Target) -> Result<Duration> {
    let who = account::attacker(load::number());
    let start = Instant::now();
    client.imap_refused(target, &who).await?;
    Ok(start.elapsed())
}

async fn park(client: &Client, target: Target) -> Result<Imap> {
    let mut session = client.imap(target, &account::owner(load::number())).await?;
    session.select().await?;
    session.idle().await?;
    Ok(session)
}

/// The time that `share` of `times` do not exceed, in ms; none of none.
fn quantile_ms(times: &[Duration], share: f64) -> Option<f64> {
    let mut times: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1000.0).collect();
    quantile(&mut times, share)
}

/// The smallest of `values` that at least `share` (0 to 1) of them do not exceed; none of none.
pub fn quantile(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let count = u32::try_from(values.len()).ok()?;
    let covered = (1..=count).find(|&rank| f64::from(rank) >= share * f64::from(count))?;
    values.get(usize::try_from(covered).ok()? - 1).copied()
}

/// The middle value, or the mean of the two in the middle; none of none.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) {
        Some(f64::midpoint(*values.get(middle.checked_sub(1)?)?, *values.get(middle)?))
    } else {
        values.get(middle).copied()
    }
}

/// Refuses a plan that no machine can hold.
pub fn check_descriptors(plan: &Plan, limit: u64) -> Result<()> {
    let needed = 2 * u64::from(plan.parked) + 200;
    ensure!(limit >= needed, "this user may open {limit} files; {needed} are needed (ulimit -n)");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_medians_are_of_the_values() {
        let mut hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(quantile(&mut hundred, 0.99), Some(99.0));
        assert_eq!(quantile(&mut hundred, 0.50), Some(50.0));
        assert_eq!(quantile(&mut [7.0], 0.99), Some(7.0));
        assert_eq!(quantile(&mut [], 0.5), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }
}

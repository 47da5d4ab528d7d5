//! Many clients at once: as fast as a few workers can, or at a fixed rate. Every operation is counted, done or failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// The longest that one operation may take; more is a failure.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How many different errors of one kind of work are kept for the report.
const ERRORS_KEPT: usize = 3;

/// What came of a number of operations.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Operations that did all they should.
    pub done: u32,
    /// Operations that did not.
    pub failed: u32,
    /// Why, the first few different reasons.
    pub errors: Vec<String>,
    /// How long each of the done ones took to what matters in it (the login's OK).
    pub times: Vec<Duration>,
}

impl Tally {
    /// Counts one operation.
    pub fn count(&mut self, outcome: Result<Duration>) {
        match outcome {
            Ok(time) => {
                self.done += 1;
                self.times.push(time);
            }
            Err(error) => self.fail(format!("{error:#}")),
        }
    }

    /// Counts one failure.
    pub fn fail(&mut self, error: String) {
        self.failed += 1;
        self.note(error);
    }

    /// Adds another tally.
    pub fn add(&mut self, other: Self) {
        self.done += other.done;
        self.failed += other.failed;
        self.times.extend(other.times);
        other.errors.into_iter().for_each(|error| self.note(error));
    }

    fn note(&mut self, error: String) {
        if self.errors.len() < ERRORS_KEPT && !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }
}

/// A number that no other operation of this run has: it picks the account and makes every wrong password new.
pub fn number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Does `count` operations with `workers` at a time, each worker the next one as soon as its last is over. The
/// operation is told its worker and gives the time that matters.
pub async fn closed<F, O>(count: u32, workers: u32, operation: F) -> Tally
where
    F: Fn(u32) -> O + Send + Sync + 'static,
    O: Future<Output = Result<Duration>> + Send + 'static,
{
    let operation = Arc::new(operation);
    let left = Arc::new(AtomicU32::new(count));
    let mut tasks = JoinSet::new();
    for worker in 0..workers {
        let (operation, left) = (operation.clone(), left.clone());
        tasks.spawn(async move {
            let mut tally = Tally::default();
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
            {
                tally.count(patiently(operation(worker)).await);
            }
            tally
        });
    }
    joined(tasks).await
}

/// Starts `rate` operations a second for `time`, whether or not earlier ones are over, and waits for all.
pub async fn open<F, O>(rate: u32, time: Duration, operation: F) -> Tally
where
    F: Fn() -> O,
    O: Future<Output = Result<Duration>> + Send + 'static,
{
    let mut ticks = interval(Duration::from_secs(1) / rate.max(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    while start.elapsed() < time {
        ticks.tick().await;
        let operation = operation();
        tasks.spawn(async move {
            let mut tally = Tally::default();
            tally.count(patiently(operation).await);
            tally
        });
    }
    joined(tasks).await
}

async fn patiently<O: Future<Output = Result<Duration>>>(operation: O) -> Result<Duration> {
    timeout(PATIENCE, operation).await.unwrap_or_else(|_| Err(anyhow::anyhow!("took more than {PATIENCE:?}")))
}

async fn joined(mut tasks: JoinSet<Tally>) -> Tally {
    let mut tally = Tally::default();
    while let Some(part) = tasks.join_next().await {
        match part {
            Ok(part) => tally.add(part),
            Err(error) => tally.fail(format!("a client's task: {error}")),
        }
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_operation_is_counted_once() {
        let tally = closed(100, 7, |worker| async move {
            if worker == 3 {
                anyhow::bail!("worker three always fails")
            }
            tokio::task::yield_now().await;
            Ok(Duration::from_millis(1))
        })
        .await;
        assert_eq!(tally.done + tally.failed, 100);
        assert!(tally.failed > 0);
        assert_eq!(tally.errors, ["worker three always fails"]);
        assert_eq!(tally.times.len(), usize::try_from(tally.done).unwrap());
    }
}

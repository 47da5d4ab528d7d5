//! Takes events from every session without ever making one wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use tokio::sync::{broadcast, oneshot};

use crate::event::journal::{Journal, JournalError, Query};
use crate::event::{Event, now};

/// Events on their way to the disk; more are counted and dropped.
const BACKLOG: usize = 4_096;
/// How long events are gathered before the thread looks again.
const GATHER: Duration = Duration::from_millis(25);
/// How often addresses past their retention are looked for.
const RETENTION_EVERY: u64 = 3_600;

/// A handle on the journal's own thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Recorder {
    orders: SyncSender<Order>,
    dropped: Arc<AtomicU64>,
    listeners: broadcast::Sender<Event>,
}

enum Order {
    Record(Box<Event>),
    Query(Query, oneshot::Sender<Result<Vec<Event>, JournalError>>),
}

/// The journal's thread is gone.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The disk's fault.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The backlog is full, or the thread has ended.
    #[error("the event journal is busy")]
    Busy,
}

impl Recorder {
    /// Starts the thread that writes `journal`. It ends, with everything written, when the last handle is dropped.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(journal: Journal) -> std::io::Result<Self> {
        let (orders, inbox) = sync_channel(BACKLOG);
        // Listeners that fall behind lose events, never slow down a session.
        let (listeners, _) = broadcast::channel(1_024);
        thread::Builder::new().name("events".into()).spawn(move || write(journal, &inbox))?;
        Ok(Self { orders, dropped: Arc::default(), listeners })
    }

    /// Keeps an event. Never blocks; under a flood that the disk cannot take, events are counted instead.
    pub fn record(&self, event: Event) {
        tracing::debug!(
            event = event.kind.name(),
            account = event.subject.account.as_ref().map(super::Text::as_str)
        );
        // No listener is no error.
        let _ = self.listeners.send(event.clone());
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.orders.try_send(Order::Record(Box::new(event)))
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Every event from now on, as the operator's alerts want them.
    pub fn listen(&self) -> broadcast::Receiver<Event> {
        self.listeners.subscribe()
    }

    /// The newest events that match, oldest first, including those recorded before this call.
    pub async fn query(&self, query: Query) -> Result<Vec<Event>, QueryError> {
        let (reply, answer) = oneshot::channel();
        self.orders.try_send(Order::Query(query, reply)).map_err(|_| QueryError::Busy)?;
        Ok(answer.await.map_err(|_| QueryError::Busy)??)
    }

    /// Waits until everything recorded before is with the operating system: for the end of the process.
    pub async fn flush(&self) -> Result<(), QueryError> {
        self.query(Query { account: None, since: None, limit: 0 }).await.map(|_| ())
    }

    /// Events that were not kept since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

fn write(mut journal: Journal, inbox: &Receiver<Order>) {
    // A full disk is said once, not once an event.
    let mut failing = false;
    let mut swept = 0;
    let mut rested = false;
    loop {
        let order = match inbox.try_recv() {
            Ok(order) => Ok(order),
            // Events come in bursts, and waking for each would cost more than writing it.
            Err(TryRecvError::Empty) if !rested => {
                thread::sleep(GATHER);
                rested = true;
                continue;
            }
            Err(_) => {
                rested = false;
                inbox.recv_timeout(Duration::from_millis(200))
            }
        };
        let result = match order {
            Ok(Order::Record(event)) => journal.append(&event),
            Ok(Order::Query(query, reply)) => {
                // The one who asked may have gone.
                let _ = reply.send(journal.query(&query));
                Ok(())
            }
            Err(RecvTimeoutError::Timeout) => {
                let now = now();
                if now >= swept + RETENTION_EVERY {
                    swept = now;
                    journal.forget_addresses(now).map(|_| ())
                } else {
                    journal.flush()
                }
            }
            Err(RecvTimeoutError::Disconnected) => {
                if let Err(error) = journal.flush() {
                    tracing::error!(%error, "event journal not written to its end");
                }
                return;
            }
        };
        match result {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                failing = true;
                tracing::error!(%error, "event journal cannot be written");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{JournalSettings, Kind, Subject};

    #[tokio::test]
    async fn what_was_recorded_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let recorder = Recorder::start(Journal::open(JournalSettings::new(folder.path())).unwrap()).unwrap();
        let mut listener = recorder.listen();
        for _ in 0..100 {
            recorder.record(Event::new(Kind::DeviceNew, Subject::account("ann")));
        }
        let query = Query { account: Some("ann".into()), since: None, limit: 1_000 };
        assert_eq!(recorder.query(query.clone()).await.unwrap().len(), 100);
        assert_eq!(listener.recv().await.unwrap().kind, Kind::DeviceNew);
        assert_eq!(recorder.dropped(), 0);
        drop(recorder);
        // A second life reads what the first one wrote.
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        loop {
            let mut journal = Journal::open(JournalSettings::new(folder.path())).unwrap();
            if journal.query(&query).unwrap().len() == 100 {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "events lost at the end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

//! Mail that waits to be taken: a bounded queue, on disk, so that neither a reboot nor a broken mail server loses it.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::alert::relay::{Relay, RelayError};
use crate::event::{Event, Kind, Recorder, Subject, Text, now};

/// Mails in the queue. One is about 6 KiB: 6 MiB at most, in memory and on disk.
const ROOM: usize = 1_000;
/// First pause after a failure; doubles each time.
const PAUSE: Duration = Duration::from_secs(15);
/// Longest pause.
const LONGEST: Duration = Duration::from_mins(30);
/// Seconds after which a mail is given up: an alert older than two days helps nobody.
const GIVE_UP: u64 = 2 * 86_400;

/// One mail with its envelope.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Mail {
    /// Unique; names its file.
    pub id: String,
    /// Envelope sender; empty is the null sender.
    pub from: String,
    /// Envelope recipients.
    pub to: Vec<String>,
    /// Header and body with CRLF.
    #[serde(with = "text")]
    pub message: Vec<u8>,
}

/// Messages are UTF-8, mostly ASCII: as text their files are half as long and can be read.
mod text {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(message: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&String::from_utf8_lossy(message))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        String::deserialize(deserializer).map(String::into_bytes)
    }
}

/// A mail, for whom, and since when.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Waiting {
    mail: Mail,
    account: Text,
    since: u64,
}

/// Takes mail and sees to it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Outbox {
    orders: mpsc::Sender<Order>,
    recorder: Recorder,
    waiting: Arc<AtomicUsize>,
}

#[derive(Debug)]
enum Order {
    Keep(Box<Waiting>),
    Settle(oneshot::Sender<()>),
}

impl Outbox {
    /// Starts the task that delivers, with what an earlier run left in `folder` (`None`: in memory only).
    pub fn start(folder: Option<PathBuf>, relay: Relay, recorder: Recorder) -> io::Result<Self> {
        if let Some(folder) = &folder {
            fs::create_dir_all(folder)?;
        }
        let queue = folder.as_deref().map(load).transpose()?.unwrap_or_default();
        let (orders, inbox) = mpsc::channel(ROOM);
        let waiting = Arc::new(AtomicUsize::new(queue.len()));
        let courier = Courier {
            folder,
            relay,
            recorder: recorder.clone(),
            queue,
            waiting: Arc::clone(&waiting),
            closed_until: Instant::now(),
            pause: PAUSE,
            said: false,
        };
        tokio::spawn(courier.run(inbox));
        Ok(Self { orders, recorder, waiting })
    }

    /// Queues a mail about an account (empty for operators). Never blocks; without room it is an event.
    pub fn send(&self, mail: Mail, account: &Text) {
        let full = self.waiting.load(Ordering::Relaxed) >= ROOM;
        let waiting = Waiting { mail, account: account.clone(), since: now() };
        if full || self.orders.try_send(Order::Keep(Box::new(waiting))).is_err() {
            failed(&self.recorder, account, "the queue is full", false);
        } else {
            self.waiting.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// For the end of the process: waits until every mail sent before is on disk (or, without a folder, in memory: then
    /// it goes with the process).
    pub async fn settle(&self) {
        let (done, wait) = oneshot::channel();
        if self.orders.send(Order::Settle(done)).await.is_ok() {
            // An error means that the task has ended already.
            let _ = wait.await;
        }
    }

    /// Mails that wait now, for the metrics.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

/// A mail in the queue.
#[derive(Debug)]
struct Entry {
    waiting: Waiting,
    /// Not tried before this.
    after: Instant,
    /// The next pause, if it is put off once more.
    pause: Duration,
}

impl From<Waiting> for Entry {
    fn from(waiting: Waiting) -> Self {
        Self { waiting, after: Instant::now(), pause: PAUSE }
    }
}

struct Courier {
    folder: Option<PathBuf>,
    relay: Relay,
    recorder: Recorder,
    queue: VecDeque<Entry>,
    waiting: Arc<AtomicUsize>,
    /// Trouble of the relay itself holds up everything.
    closed_until: Instant,
    pause: Duration,
    said: bool,
}

impl Courier {
    async fn run(mut self, mut inbox: mpsc::Receiver<Order>) {
        // One try at a time, beside the inbox: a slow relay must not keep mail from being put on disk.
        let mut tries = JoinSet::new();
        loop {
            let next =
                self.queue.iter().map(|entry| entry.after).min().map(|first| first.max(self.closed_until));
            tokio::select! {
                biased;
                order = inbox.recv() => match order {
                    Some(Order::Keep(waiting)) => {
                        self.keep(&waiting);
                        self.queue.push_back((*waiting).into());
                    }
                    Some(Order::Settle(done)) => {
                        // Nobody may be left to hear it.
                        let _ = done.send(());
                    }
                    None => return,
                },
                Some(ended) = tries.join_next() => {
                    // A task that panicked has lost its mail from memory; it is still on disk.
                    if let Ok((entry, result)) = ended {
                        self.conclude(entry, result);
                    }
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if tries.is_empty() && next.is_some() => {
                    let now = Instant::now();
                    let first = self.queue.iter().position(|entry| entry.after <= now);
                    if let Some(entry) = first.and_then(|first| self.queue.remove(first)) {
                        let relay = self.relay.clone();
                        tries.spawn(async move {
                            let result = relay.send(&entry.waiting.mail).await;
                            (entry, result)
                        });
                    }
                }
            }
        }
    }

    /// What the end of a try means.
    fn conclude(&mut self, mut entry: Entry, result: Result<(), RelayError>) {
        let account = &entry.waiting.account;
        match result {
            Ok(()) => {
                let to = if account.as_str().is_empty() { "operator" } else { "owner" };
                self.recorder.record(Event::new(Kind::AlertSent { to: to.into() }, subject(account)));
                (self.pause, self.said) = (PAUSE, false);
                self.forget(&entry.waiting);
            }
            Err(error) if error.is_permanent() || now().saturating_sub(entry.waiting.since) > GIVE_UP => {
                failed(&self.recorder, account, &error.to_string(), false);
                self.forget(&entry.waiting);
            }
            Err(error) if error.is_relay() => {
                // Said once when the trouble starts, not once a try.
                if !std::mem::replace(&mut self.said, true) {
                    failed(&self.recorder, &Text::default(), &error.to_string(), true);
                }
                self.queue.push_front(entry);
                self.closed_until = Instant::now() + self.pause;
                tracing::warn!(%error, waiting = self.queue.len(), pause = ?self.pause, "alert mail cannot be sent");
                self.pause = (self.pause * 2).min(LONGEST);
            }
            Err(error) => {
                if entry.pause == PAUSE {
                    failed(&self.recorder, account, &error.to_string(), true);
                }
                entry.after = Instant::now() + entry.pause;
                entry.pause = (entry.pause * 2).min(LONGEST);
                self.queue.push_back(entry);
            }
        }
    }

    fn file(&self, waiting: &Waiting) -> Option<PathBuf> {
        let plain =
            !waiting.mail.id.is_empty() && waiting.mail.id.bytes().all(|octet| octet.is_ascii_alphanumeric());
        self.folder.as_ref().filter(|_| plain).map(|folder| folder.join(format!("{}.json", waiting.mail.id)))
    }

    fn keep(&self, waiting: &Waiting) {
        let Some(path) = self.file(waiting) else { return };
        // Written aside and renamed: a power cut leaves a whole mail or none.
        let write = || {
            let aside = path.with_extension("new");
            fs::write(&aside, serde_json::to_vec(waiting)?)?;
            fs::File::open(&aside)?.sync_all()?;
            fs::rename(&aside, &path)
        };
        if let Err(error) = write() {
            tracing::warn!(%error, "alert mail kept in memory only");
        }
    }

    fn forget(&self, waiting: &Waiting) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        if let Some(path) = self.file(waiting)
            && let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "sent alert mail not removed");
        }
    }
}

/// What an earlier run left, oldest first, as much as there is room for.
fn load(folder: &Path) -> io::Result<VecDeque<Entry>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json")
            && let Ok(octets) = fs::read(&path)
            && let Ok(waiting) = serde_json::from_slice::<Waiting>(&octets)
            && found.len() < ROOM
        {
            found.push(waiting);
        } else if path.is_file() {
            // Torn, or more than there is room for.
            fs::remove_file(&path)?;
        }
    }
    found.sort_by_key(|waiting| waiting.since);
    Ok(found.into_iter().map(Entry::from).collect())
}

fn subject(account: &Text) -> Subject {
    if account.as_str().is_empty() { Subject::default() } else { Subject::account(account.as_str()) }
}

fn failed(recorder: &Recorder, account: &Text, what: &str, retry: bool) {
    let to = "mail".into();
    recorder.record(Event::new(Kind::AlertFailed { to, what: what.into(), retry }, subject(account)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::relay::RelaySettings;
    use crate::alert::relay::tests::{Script, mail, server};
    use crate::event::{Journal, JournalSettings};
    use crate::names::{NameServers, Names};

    fn recorder(folder: &Path) -> Recorder {
        Recorder::start(Journal::open(JournalSettings::new(folder.join("events"))).unwrap()).unwrap()
    }

    fn relay(settings: RelaySettings) -> Relay {
        Relay::new(settings, Names::new(&NameServers::Off).unwrap()).unwrap()
    }

    fn files(folder: &Path) -> usize {
        fs::read_dir(folder.join("alerts")).unwrap().count()
    }

    #[tokio::test]
    async fn what_could_not_be_sent_is_sent_by_the_next_run() {
        let folder = tempfile::tempdir().unwrap();
        let recorder = recorder(folder.path());
        let mut events = recorder.listen();
        let (settings, mut hear) = server(Script::default()).await;
        // A port that nobody listens on.
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut broken = settings.clone();
        broken.target.port = closed;
        let outbox =
            Outbox::start(Some(folder.path().join("alerts")), relay(broken), recorder.clone()).unwrap();
        outbox.send(mail(&["ann@isp.example"]), &"ann@isp.example".into());
        let event = events.recv().await.unwrap();
        assert!(matches!(event.kind, Kind::AlertFailed { retry: true, .. }), "{event:?}");
        assert_eq!((outbox.waiting(), files(folder.path())), (1, 1));
        drop(outbox);

        fs::write(folder.path().join("alerts/torn.json"), b"{\"mail\":").unwrap();
        let outbox =
            Outbox::start(Some(folder.path().join("alerts")), relay(settings), recorder.clone()).unwrap();
        let event = loop {
            let event = events.recv().await.unwrap();
            if !matches!(event.kind, Kind::AlertFailed { .. }) {
                break event;
            }
        };
        assert_eq!(event.kind, Kind::AlertSent { to: "owner".into() });
        assert_eq!(event.subject.account.unwrap().as_str(), "ann@isp.example");
        assert_eq!((outbox.waiting(), files(folder.path())), (0, 0));
        let mut lines = Vec::new();
        while let Ok(line) = hear.try_recv() {
            lines.push(line);
        }
        assert_eq!(lines.iter().filter(|line| *line == "Subject: x").count(), 1, "sent once");
    }

    #[tokio::test]
    async fn a_refused_mail_does_not_hold_up_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let recorder = recorder(folder.path());
        let mut events = recorder.listen();
        let (settings, _hear) = server(Script { rcpt: Some("550 5.1.1 no"), ..Script::default() }).await;
        let outbox = Outbox::start(None, relay(settings), recorder).unwrap();
        outbox.send(mail(&["ann@isp.example"]), &"ann@isp.example".into());
        outbox.send(mail(&["bob@isp.example"]), &Text::default());
        assert!(matches!(events.recv().await.unwrap().kind, Kind::AlertFailed { retry: false, .. }));
        assert_eq!(events.recv().await.unwrap().kind, Kind::AlertSent { to: "operator".into() });
        assert_eq!(outbox.waiting(), 0);
    }

    #[tokio::test]
    async fn a_deferred_mail_waits_alone() {
        let folder = tempfile::tempdir().unwrap();
        let recorder = recorder(folder.path());
        let mut events = recorder.listen();
        let (settings, _hear) =
            server(Script { rcpt: Some("450 4.7.1 greylisted"), ..Script::default() }).await;
        let outbox = Outbox::start(None, relay(settings), recorder).unwrap();
        outbox.send(mail(&["ann@isp.example"]), &"ann@isp.example".into());
        outbox.send(mail(&["bob@isp.example"]), &"bob@isp.example".into());
        assert!(matches!(events.recv().await.unwrap().kind, Kind::AlertFailed { retry: true, .. }));
        let event =
            tokio::time::timeout(Duration::from_secs(5), events.recv()).await.expect("no pause for others");
        assert_eq!(event.unwrap().subject.account.unwrap().as_str(), "bob@isp.example");
        assert_eq!(outbox.waiting(), 1);
    }
}

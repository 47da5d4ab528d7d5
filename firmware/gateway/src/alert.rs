//! Tells owners and operators what happened to them.
//!
//! [`Alerts`] takes incidents from sessions without ever making one wait; [`Ledger`] decides, purely, which of them is
//! told at once and which waits for a digest; [`Letter`] writes it down; [`Outbox`] keeps it until the ISP's own mail
//! server has taken it. [`operator`] is the other half, over ways that do not depend on that mail server.

pub mod ledger;
pub mod letter;
pub mod operator;
pub mod outbox;
pub mod relay;
pub mod syslog;
pub mod webhook;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mail::session::Protocol;
use policy::Traits;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::event::{Event, Kind, Reason, Recorder, Subject, Text, UnixSeconds, now};
use crate::ptr::Pointers;

pub use ledger::{Answer, Digest, DigestDevice, Ledger, Limits};
pub use letter::{Letter, LetterSettings};
pub use outbox::{Mail, Outbox};
pub use relay::{Relay, RelaySettings};

/// Something that the owner of a mailbox may want to know. Never made for an account that may not exist.
#[derive(Clone, Debug)]
pub struct Incident {
    /// When.
    pub at: UnixSeconds,
    /// Canonical account name; mail goes to it if it is an address.
    pub account: Text,
    /// More addresses that are told, for the case that the mailbox itself is what was broken into.
    pub also: Vec<Text>,
    /// What tells this device from others of the account, such as its mark or, without one, its traits and network.
    /// Not shown.
    pub device: Text,
    /// The device's alias, if it has one: shown, and what `postern devices approve` takes.
    pub alias: Option<Text>,
    /// Opaque id of the device's page; letters, digits, `-` and `_`.
    pub page: Option<Text>,
    /// The protocol it used.
    pub protocol: Protocol,
    /// What the device says of itself.
    pub traits: Traits,
    /// Its CLIENTID type, if it sent one.
    pub clientid: Option<Text>,
    /// Where it came from.
    pub address: IpAddr,
    /// ISO 3166-1 alpha-2.
    pub country: Option<Text>,
    /// What happened.
    pub what: What,
}

/// What happened to a mailbox.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum What {
    /// A login was refused or held.
    Refused(Reason),
    /// The same, and the probe off the wire found that the password was wrong: somebody guesses.
    Guessed(Reason),
    /// A device that had never logged in before did so, and may go on for this many days (`None`: for good).
    NewDevice {
        /// Days of approval.
        days: Option<u32>,
    },
    /// A refused client had the right password: the probe off the wire found out.
    PasswordKnown,
    /// The account's sending budget ran out.
    SendingStopped,
}

impl What {
    /// Incidents of one class are told together; of another class they are news.
    pub(crate) const fn class(self) -> Class {
        match self {
            Self::Refused(_) | Self::Guessed(_) => Class::Refused,
            Self::NewDevice { .. } => Class::NewDevice,
            Self::PasswordKnown => Class::PasswordKnown,
            Self::SendingStopped => Class::SendingStopped,
        }
    }
}

/// See [`What::class`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Class {
    Refused,
    NewDevice,
    PasswordKnown,
    SendingStopped,
}

/// How owners are told.
#[derive(Clone, Debug)]
pub struct AlertSettings {
    /// When, and how often.
    pub limits: Limits,
    /// What the mail says.
    pub letter: LetterSettings,
}

/// Incidents that wait for the ledger; more are counted by the journal only.
const BACKLOG: usize = 1_024;
/// Letters being written at once: each may wait two seconds for a pointer.
const WRITING: usize = 8;

/// Takes incidents. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Alerts {
    orders: mpsc::Sender<Order>,
}

#[derive(Debug)]
enum Order {
    Incident(Box<Incident>),
    Stop(oneshot::Sender<()>),
}

impl Alerts {
    /// Starts the task that decides and writes.
    pub fn start(settings: AlertSettings, pointers: Pointers, outbox: Outbox, recorder: Recorder) -> Self {
        let (orders, inbox) = mpsc::channel(BACKLOG);
        let writer = Writer {
            letters: Arc::new(Letter::new(settings.letter)),
            pointers,
            outbox,
            recorder,
            permits: Arc::new(Semaphore::new(WRITING)),
            writing: JoinSet::new(),
        };
        tokio::spawn(run(Ledger::new(settings.limits), inbox, writer));
        Self { orders }
    }

    /// Reports an incident. Never blocks; `false` when so much happens at once that it was dropped.
    pub fn report(&self, incident: Incident) -> bool {
        self.orders.try_send(Order::Incident(Box::new(incident))).is_ok()
    }

    /// For the end of the process: what waits for a digest is written now rather than lost. What is reported later is
    /// dropped. Then settle the outbox.
    pub async fn stop(&self) {
        let (done, wait) = oneshot::channel();
        if self.orders.send(Order::Stop(done)).await.is_ok() {
            // An error means that the task has ended already.
            let _ = wait.await;
        }
    }
}

async fn run(mut ledger: Ledger, mut inbox: mpsc::Receiver<Order>, mut writer: Writer) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            order = inbox.recv() => match order {
                Some(Order::Incident(incident)) => match ledger.note(&incident, now()) {
                    Answer::Now => writer.tell(*incident),
                    Answer::Later => {}
                    Answer::Throttled => {
                        writer.recorder.record(Event::new(Kind::AlertsThrottled, Subject::default()));
                    }
                },
                Some(Order::Stop(done)) => {
                    // Letters under way are waited for; pointers of new ones are not.
                    while writer.writing.join_next().await.is_some() {}
                    for digest in ledger.close() {
                        let mail = writer.letters.digest(&digest, &[], now());
                        writer.outbox.send(mail, &digest.account);
                    }
                    // Nobody may be left to hear it.
                    let _ = done.send(());
                    return;
                }
                None => return,
            },
            _ = tick.tick() => {
                for digest in ledger.due(now()) {
                    writer.sum_up(digest);
                }
                while writer.writing.try_join_next().is_some() {}
            }
        }
    }
}

struct Writer {
    letters: Arc<Letter>,
    pointers: Pointers,
    outbox: Outbox,
    recorder: Recorder,
    permits: Arc<Semaphore>,
    writing: JoinSet<()>,
}

impl Writer {
    fn tell(&mut self, incident: Incident) {
        let (letters, pointers, outbox) =
            (Arc::clone(&self.letters), self.pointers.clone(), self.outbox.clone());
        let permits = Arc::clone(&self.permits);
        self.writing.spawn(async move {
            let _permit = permits.acquire().await;
            let pointer = pointers.name(incident.address).await;
            let mail = letters.first(&incident, pointer.as_deref(), now());
            outbox.send(mail, &incident.account);
        });
    }

    fn sum_up(&mut self, digest: Digest) {
        let (letters, pointers, outbox) =
            (Arc::clone(&self.letters), self.pointers.clone(), self.outbox.clone());
        let permits = Arc::clone(&self.permits);
        self.writing.spawn(async move {
            let _permit = permits.acquire().await;
            let mut names = Vec::with_capacity(digest.devices.len());
            for device in &digest.devices {
                names.push(pointers.name(device.last.address).await);
            }
            let mail = letters.digest(&digest, &names, now());
            outbox.send(mail, &digest.account);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::ledger::tests::incident;
    use crate::alert::letter::tests::settings as letter_settings;
    use crate::alert::relay::tests::{Script, server};
    use crate::event::{Journal, JournalSettings};
    use crate::names::{NameServers, Names};

    #[tokio::test]
    async fn an_attack_makes_one_mail_and_one_digest() {
        let folder = tempfile::tempdir().unwrap();
        let recorder = Recorder::start(Journal::open(JournalSettings::new(folder.path())).unwrap()).unwrap();
        let mut events = recorder.listen();
        let names = Names::new(&NameServers::Off).unwrap();
        let (relay, mut hear) = server(Script::default()).await;
        let outbox =
            Outbox::start(None, Relay::new(relay, names.clone()).unwrap(), recorder.clone()).unwrap();
        let settings = AlertSettings {
            limits: Limits { digest_after: 2, digest_longest: 2, ..Limits::default() },
            letter: letter_settings(),
        };
        let alerts =
            Alerts::start(settings, Pointers::new(names, Duration::from_secs(2)), outbox.clone(), recorder);
        let start = now();
        for _ in 0..500 {
            assert!(alerts.report(incident("ann@example.net", "stranger", start)));
        }
        for _ in 0..2 {
            let event = events.recv().await.unwrap();
            assert_eq!(event.kind, Kind::AlertSent { to: "owner".into() });
        }
        // One more waits for a digest when the box stops.
        assert!(alerts.report(incident("ann@example.net", "stranger", now())));
        alerts.stop().await;
        outbox.settle().await;
        assert_eq!(outbox.waiting(), 1);
        assert_eq!(events.recv().await.unwrap().kind, Kind::AlertSent { to: "owner".into() });
        assert!(!alerts.report(incident("ann@example.net", "stranger", now())), "stopped");
        let mut subjects = Vec::new();
        while let Ok(line) = hear.try_recv() {
            if line.starts_with("Subject:") {
                subjects.push(line);
            }
        }
        assert_eq!(
            subjects,
            [
                "Subject: A login to your mailbox was refused",
                "Subject: Summary: 499 refused logins to your mailbox",
                "Subject: Summary: 1 refused login to your mailbox",
            ]
        );
    }
}

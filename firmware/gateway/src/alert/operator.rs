//! Tells the operator, by up to three ways, and never only along the one that is broken.
//!
//! Syslog gets every event from its severity on. Webhook and mail get news: the first of its kind at once, then a
//! summary per interval. Trouble with one way is told by the others.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::MissedTickBehavior;

use crate::alert::syslog::Syslog;
use crate::alert::webhook::Webhook;
use crate::alert::{Letter, Outbox};
use crate::event::{Event, Kind, Recorder, Severity, Subject, Text, UnixSeconds, now};

/// The ways to an operator. Any may be missing; without all of them the journal still has everything.
#[derive(Debug, Default)]
pub struct Ways {
    /// RFC 5424.
    pub syslog: Option<Syslog>,
    /// JSON by HTTP.
    pub webhook: Option<Webhook>,
    /// Mail through the ISP's own server.
    pub mail: Option<MailWay>,
}

/// Mail to operators.
#[derive(Debug)]
pub struct MailWay {
    /// Addresses.
    pub to: Vec<String>,
    /// Writes it.
    pub letter: Letter,
    /// Sends it.
    pub outbox: Outbox,
}

/// What is news to an operator, and how often.
#[derive(Clone, Copy, Debug)]
pub struct NewsSettings {
    /// The least severe events that webhook and mail tell. Recoveries are always told.
    pub from: Severity,
    /// Seconds from the first of its kind to the summary.
    pub digest_after: u64,
}

impl Default for NewsSettings {
    fn default() -> Self {
        Self { from: Severity::Warning, digest_after: 900 }
    }
}

/// Starts telling what `recorder` records from now on, for as long as the runtime lives.
pub fn start(recorder: &Recorder, settings: NewsSettings, ways: Ways) {
    let reports = Reports { recorder: recorder.clone(), syslog_fails: false };
    tokio::spawn(run(recorder.listen(), settings, ways, reports));
}

async fn run(
    mut events: tokio::sync::broadcast::Receiver<Event>,
    settings: NewsSettings,
    mut ways: Ways,
    mut reports: Reports,
) {
    let mut desk = Desk::new(settings);
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let news = tokio::select! {
            event = events.recv() => match event {
                Ok(event) => {
                    reports.syslog(&mut ways, &event);
                    desk.note(event, now()).into_iter().collect()
                }
                // Under a flood some events are only in the journal; its first of each kind came through.
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return,
            },
            _ = tick.tick() => desk.due(now()),
        };
        if !news.is_empty() {
            tell(&ways, &news, &reports);
        }
    }
}

/// Trouble with the ways themselves becomes an event like any other.
struct Reports {
    recorder: Recorder,
    syslog_fails: bool,
}

impl Reports {
    fn syslog(&mut self, ways: &mut Ways, event: &Event) {
        let Some(syslog) = &mut ways.syslog else { return };
        match syslog.send(event) {
            Ok(()) => self.syslog_fails = false,
            // Said once until it works again: the report itself comes back here.
            Err(error) if !self.syslog_fails => {
                self.syslog_fails = true;
                self.failed("syslog", &error.to_string());
            }
            Err(_) => {}
        }
    }

    fn failed(&self, way: &str, what: &str) {
        let kind = Kind::AlertFailed { to: way.into(), what: what.into(), retry: false };
        self.recorder.record(Event::new(kind, Subject::default()));
    }
}

/// One line of news.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct News {
    /// How many such events since they were last told; 1 for the first.
    pub count: u64,
    /// The newest of them.
    pub last: Event,
}

impl News {
    /// Trouble with a way is not told along that way.
    fn goes_by(&self, way: &str) -> bool {
        !matches!(&self.last.kind, Kind::AlertFailed { to, .. } if to.as_str() == way)
    }

    fn line(&self) -> String {
        // An event is always JSON.
        let json = serde_json::to_string(&self.last).unwrap_or_default();
        if self.count == 1 { json } else { format!("{} times, the last: {json}", self.count) }
    }
}

fn tell(ways: &Ways, news: &[News], reports: &Reports) {
    if let Some(webhook) = &ways.webhook {
        let news = news.iter().filter(|news| news.goes_by("webhook")).collect::<Vec<_>>();
        if !news.is_empty() {
            let body = serde_json::json!({ "software": "postern", "news": news });
            if !webhook.send(body.to_string().into_bytes()) {
                reports.failed("webhook", "too much waits already");
            }
        }
    }
    if let Some(mail) = &ways.mail {
        let lines = news.iter().filter(|news| news.goes_by("mail")).map(News::line).collect::<Vec<_>>();
        if let Some(first) = news.iter().find(|news| news.goes_by("mail")) {
            let subject = format!("Postern: {}", first.last.kind.name());
            let letter = mail.letter.operator(&mail.to, &subject, &lines, now());
            mail.outbox.send(letter, &Text::default());
        }
    }
}

/// Kinds of news remembered: a backend or an account each has its own line until there are too many.
const LINES: usize = 256;

/// Decides what is news. Pure: time is an argument.
#[derive(Debug)]
pub struct Desk {
    settings: NewsSettings,
    lines: HashMap<(&'static str, Text), Line>,
}

#[derive(Debug)]
struct Line {
    due: UnixSeconds,
    waiting: Option<News>,
}

impl Desk {
    /// Nothing told yet.
    pub fn new(settings: NewsSettings) -> Self {
        Self { settings, lines: HashMap::new() }
    }

    /// Takes an event; gives it back as news if it is the first of its kind in the interval.
    pub fn note(&mut self, event: Event, now: UnixSeconds) -> Option<News> {
        let recovery = matches!(event.kind, Kind::BackendBack { .. } | Kind::StoreBack);
        if event.kind.severity() < self.settings.from && !recovery {
            return None;
        }
        let mut key = (event.kind.name(), whose(&event));
        if self.lines.len() >= LINES && !self.lines.contains_key(&key) {
            key.1 = Text::default(); // all further ones of this kind on one line
        }
        if let Some(line) = self.lines.get_mut(&key) {
            let count = line.waiting.as_ref().map_or(0, |news| news.count) + 1;
            line.waiting = Some(News { count, last: event });
            return None;
        }
        self.lines.insert(key, Line { due: now.saturating_add(self.settings.digest_after), waiting: None });
        Some(News { count: 1, last: event })
    }

    /// The summary of what has come since, for lines whose time it is.
    pub fn due(&mut self, now: UnixSeconds) -> Vec<News> {
        let mut news = Vec::new();
        let after = self.settings.digest_after;
        self.lines.retain(|_, line| {
            if line.due > now {
                return true;
            }
            let waiting = line.waiting.take();
            let active = waiting.is_some();
            news.extend(waiting);
            line.due = now.saturating_add(after);
            active // a line without anything new is forgotten: the next one is told at once
        });
        news.sort_by_key(|news| news.last.at);
        news
    }
}

/// What tells two pieces of news of one kind apart.
fn whose(event: &Event) -> Text {
    match &event.kind {
        Kind::BackendViolation { backend, .. }
        | Kind::BackendAway { backend, .. }
        | Kind::BackendBack { backend } => backend.clone(),
        Kind::AlertFailed { to, .. } => to.clone(),
        _ => event.subject.account.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use http_body_util::{BodyExt, Full};
    use hyper::body::{Bytes, Incoming};
    use hyper::{Request, Response, service::service_fn};
    use tokio::sync::mpsc;

    use super::*;
    use crate::alert::letter::tests::settings as letter_settings;
    use crate::alert::relay::Relay;
    use crate::alert::relay::tests::{Script, server};
    use crate::alert::syslog::{Receiver, SyslogSettings};
    use crate::alert::webhook::WebhookSettings;
    use crate::dial::Roots;
    use crate::event::{Journal, JournalSettings};
    use crate::names::{NameServers, Names};

    fn away(at: UnixSeconds, backend: &str) -> Event {
        let kind = Kind::BackendAway { backend: backend.into(), what: "connect".into() };
        Event { at, kind, subject: Subject::default() }
    }

    #[test]
    fn first_at_once_then_summaries() {
        let mut desk = Desk::new(NewsSettings::default());
        assert_eq!(desk.note(away(1, "a"), 1).unwrap().count, 1);
        assert!(desk.note(away(1, "b"), 1).is_some(), "another backend is other news");
        for at in 2..1_000 {
            assert!(desk.note(away(at, "a"), at.min(900)).is_none());
        }
        assert!(desk.due(900).is_empty());
        let news = desk.due(901);
        assert_eq!((news.len(), news[0].count, news[0].last.at), (1, 998, 999));
        assert!(desk.due(1_801).is_empty(), "quiet for an interval");
        assert!(desk.note(away(1_900, "a"), 1_900).is_some(), "so it is news again");
        assert!(
            desk.note(Event::new(Kind::DeviceNew, Subject::default()), 1).is_none(),
            "every day's business"
        );
        assert!(desk.note(Event::new(Kind::StoreBack, Subject::default()), 1).is_some(), "a recovery");
    }

    #[test]
    fn lines_are_bounded() {
        let mut desk = Desk::new(NewsSettings::default());
        let stopped = |number| Event {
            at: 1,
            kind: Kind::SendingStopped,
            subject: Subject::account(&format!("{number}")),
        };
        let told = (0..10_000).filter(|number| desk.note(stopped(*number), 1).is_some()).count();
        assert!(told <= LINES + 1 && desk.lines.len() <= LINES + 1, "{told}");
        let news = desk.due(1 + 900);
        assert_eq!(told as u64 + news.iter().map(|news| news.count).sum::<u64>(), 10_000);
    }

    /// A service that takes webhooks.
    async fn service() -> (String, mpsc::UnboundedReceiver<(String, serde_json::Value)>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let (heard, hear) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let heard = heard.clone();
                let answer = service_fn(move |request: Request<Incoming>| {
                    let heard = heard.clone();
                    async move {
                        let line = format!(
                            "{} {} {:?}",
                            request.method(),
                            request.uri(),
                            request.headers()["authorization"].to_str()
                        );
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        heard.send((line, serde_json::from_slice(&body).unwrap())).unwrap();
                        Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::new())))
                    }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(hyper_util::rt::TokioIo::new(stream), answer);
                tokio::spawn(connection);
            }
        });
        (url, hear)
    }

    #[tokio::test]
    async fn by_all_ways_and_never_only_by_the_broken_one() {
        let folder = tempfile::tempdir().unwrap();
        let recorder = Recorder::start(Journal::open(JournalSettings::new(folder.path())).unwrap()).unwrap();
        let names = Names::new(&NameServers::Off).unwrap();
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let syslog = Syslog::new(SyslogSettings {
            to: Receiver::Udp(receiver.local_addr().unwrap()),
            facility: 10,
            hostname: "postern".into(),
            from: Severity::Info,
        });
        let (url, mut hooks) = service().await;
        let hook = WebhookSettings { url, roots: Roots::Public, token: Some("t0ken".into()) };
        assert!(!format!("{hook:?}").contains("t0ken"));
        let webhook = Webhook::start(&hook, names.clone(), recorder.clone()).unwrap();
        // Mail is broken: the relay takes nobody.
        let (relay, _) = server(Script { greeting: Some("421 closed\r\n"), ..Script::default() }).await;
        let outbox = Outbox::start(None, Relay::new(relay, names).unwrap(), recorder.clone()).unwrap();
        let mail = MailWay {
            to: vec!["noc@isp.example".into()],
            letter: Letter::new(letter_settings()),
            outbox: outbox.clone(),
        };
        start(
            &recorder,
            NewsSettings::default(),
            Ways { syslog: Some(syslog), webhook: Some(webhook), mail: Some(mail) },
        );
        recorder.record(away(5, "dovecot"));
        let (line, body) = hooks.recv().await.unwrap();
        assert_eq!(line, "POST /hook Ok(\"Bearer t0ken\")");
        assert_eq!(body["news"][0]["last"]["backend"], "dovecot");
        // The mail about it cannot be sent, and that is told by the webhook.
        let (_, body) = hooks.recv().await.unwrap();
        assert_eq!(body["news"][0]["last"]["event"], "alert-failed");
        assert_eq!(body["news"][0]["last"]["to"], "mail");
        assert_eq!(outbox.waiting(), 1, "no mail about mail");
        let mut packet = [0; 8_192];
        let first = receiver.recv(&mut packet).unwrap();
        assert!(String::from_utf8_lossy(&packet[..first]).contains("backend-away"));
        let second = receiver.recv(&mut packet).unwrap();
        assert!(String::from_utf8_lossy(&packet[..second]).contains("alert-failed"));
    }
}

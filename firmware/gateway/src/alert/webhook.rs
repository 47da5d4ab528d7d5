//! Tells an operator's web service: a POST of JSON for each piece of news, tried again a few times.

use std::time::Duration;

use hyper::Method;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::dial::Roots;
use crate::event::{Event, Kind, Recorder, Subject};
use crate::http_client::{Endpoint, HttpError};
use crate::names::Names;

/// One try.
const LIMIT: Duration = Duration::from_secs(10);
/// Tries of one piece of news, with pauses of 2, 4, 8 and 16 seconds between.
const TRIES: u32 = 5;
/// News that wait; more are dropped with an event.
const BACKLOG: usize = 64;

/// Where news are posted to.
#[derive(Clone)]
pub struct WebhookSettings {
    /// `https`, or `http` to this machine.
    pub url: String,
    /// Whom we trust there.
    pub roots: Roots,
    /// Sent as `Authorization: Bearer …`; `Debug` does not show it.
    pub token: Option<String>,
}

impl std::fmt::Debug for WebhookSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The path of many services' URLs is itself a secret.
        f.debug_struct("WebhookSettings").field("roots", &self.roots).finish_non_exhaustive()
    }
}

/// Takes news. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Webhook {
    bodies: mpsc::Sender<Vec<u8>>,
}

impl Webhook {
    /// Starts the task that posts.
    pub fn start(settings: &WebhookSettings, names: Names, recorder: Recorder) -> Result<Self, HttpError> {
        let endpoint = Endpoint::new(&settings.url, &settings.roots, names, false)?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("postern/", env!("CARGO_PKG_VERSION"))));
        if let Some(token) = &settings.token {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| HttpError::Url("a webhook token that cannot stand in a header"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let (bodies, inbox) = mpsc::channel(BACKLOG);
        tokio::spawn(post(endpoint, headers, inbox, recorder));
        Ok(Self { bodies })
    }

    /// Posts one JSON body. Never blocks; `false` when too much waits already.
    pub fn send(&self, body: Vec<u8>) -> bool {
        self.bodies.try_send(body).is_ok()
    }
}

async fn post(
    endpoint: Endpoint,
    headers: HeaderMap,
    mut inbox: mpsc::Receiver<Vec<u8>>,
    recorder: Recorder,
) {
    while let Some(body) = inbox.recv().await {
        let mut what = String::new();
        for attempt in 1..=TRIES {
            match endpoint.ask(Method::POST, headers.clone(), body.clone().into(), LIMIT).await {
                Ok(reply) if reply.status.is_success() => {
                    what.clear();
                    break;
                }
                Ok(reply) => what = format!("the service answered {}", reply.status),
                Err(error) => what = error.to_string(),
            }
            if attempt < TRIES {
                sleep(Duration::from_secs(1 << attempt)).await;
            }
        }
        if !what.is_empty() {
            let kind = Kind::AlertFailed { to: "webhook".into(), what: what.into(), retry: false };
            recorder.record(Event::new(kind, Subject::default()));
        }
    }
}

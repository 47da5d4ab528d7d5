//! Asks the ISP's own script which backend holds a mailbox, as nginx's mail proxy does (`auth_http`, clientid.md §5.8).
//!
//! Only the route is taken from the answer. Whether the login succeeds is the backend's word, and whether the device may
//! try is ours: so by default the password is not sent, and `Auth-Pass` in an answer is not believed.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use mail::session::Protocol;
use tokio::sync::Semaphore;

use crate::dial::Roots;
use crate::http_client::{Endpoint, HttpError};
use crate::names::Names;

/// Routes kept; about 400 octets each.
const CACHE: usize = 10_000;
/// Look-ups under way at once; more wait within their own limit.
const AT_ONCE: usize = 64;

/// How routes are asked for.
#[derive(Clone, Debug)]
pub struct RouteSettings {
    /// The script: `https`, or `http` to this machine or where `clear` is set.
    pub url: String,
    /// Whom we trust there.
    pub roots: Roots,
    /// Whether the way there is trusted in clear.
    pub clear: bool,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// How long an answer is believed; a session opens several connections at once.
    pub keep: Duration,
    /// Whether the script gets the password. Only for scripts that answer nobody without one.
    pub send_password: bool,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Canonical account name.
    pub account: &'a str,
    /// What is spoken.
    pub protocol: Protocol,
    /// Login attempts on this connection, from 1.
    pub attempt: u32,
    /// The client.
    pub client: IpAddr,
    /// The client's confirmed name, if it was looked up.
    pub client_host: Option<&'a str>,
    /// Whether the client is under TLS.
    pub tls: bool,
}

/// Why there is no route. All but [`RouteError::Refused`] are temporary: the client gets a temporary error, never
/// "wrong password".
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The script knows no such account, or does not want it. Treated as a wrong password, like at nginx.
    #[error("the route script refuses: {0}")]
    Refused(String),
    /// No answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// An answer that is none.
    #[error("the route script's answer has {0}")]
    Answer(&'static str),
    /// A name or password that cannot stand in a header.
    #[error("cannot be asked in HTTP")]
    Unaskable,
}

/// Answers by account and protocol, with the time they are believed until.
type Known = HashMap<(String, Protocol), (SocketAddr, Instant)>;

/// Asks, and remembers for a little while. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Routes {
    endpoint: Endpoint,
    settings: Arc<RouteSettings>,
    cache: Arc<Mutex<Known>>,
    permits: Arc<Semaphore>,
}

impl Routes {
    /// Reads the URL; asks nobody yet.
    pub fn new(settings: RouteSettings, names: Names) -> Result<Self, HttpError> {
        let endpoint = Endpoint::new(&settings.url, &settings.roots, names, settings.clear)?;
        Ok(Self {
            endpoint,
            settings: Arc::new(settings),
            cache: Arc::default(),
            permits: Arc::new(Semaphore::new(AT_ONCE)),
        })
    }

    /// The backend of an account. `password` is used only if the settings say so; answers got with a password are not
    /// remembered, as they may depend on it.
    pub async fn backend(
        &self,
        question: &Question<'_>,
        password: Option<&[u8]>,
    ) -> Result<SocketAddr, RouteError> {
        let key = (question.account.to_owned(), question.protocol);
        if let Some(backend) = self.cached(&key) {
            return Ok(backend);
        }
        let password = password.filter(|_| self.settings.send_password);
        let headers = headers(question, password).ok_or(RouteError::Unaskable)?;
        let limit = self.settings.timeout;
        // Waiting for a place counts as waiting for the answer.
        let reply = tokio::time::timeout(limit, async {
            let _permit = self.permits.acquire().await.map_err(|_| HttpError::Late(limit))?;
            self.endpoint.ask(Method::GET, headers, Bytes::new(), limit).await
        });
        let reply = reply.await.map_err(|_| HttpError::Late(limit))??;
        if reply.status != StatusCode::OK {
            return Err(RouteError::Answer("another status than 200"));
        }
        let backend = backend(&reply.headers)?;
        if password.is_none() {
            self.keep(key, backend);
        }
        Ok(backend)
    }

    /// Forgets every answer, after a reload.
    pub fn forget(&self) {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn cached(&self, key: &(String, Protocol)) -> Option<SocketAddr> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.get(key).filter(|(_, until)| *until > Instant::now()).map(|(backend, _)| *backend)
    }

    fn keep(&self, key: (String, Protocol), backend: SocketAddr) {
        if self.settings.keep.is_zero() {
            return;
        }
        let now = Instant::now();
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHE {
            cache.retain(|_, (_, until)| *until > now);
            if cache.len() >= CACHE {
                cache.clear(); // forgetting costs a look-up, not memory
            }
        }
        cache.insert(key, (backend, now + self.settings.keep));
    }
}

/// The request, in nginx's words (`ngx_mail_auth_http_module.c`). `None` when a value has no place in a header:
/// `HeaderValue` refuses CR, LF and other control characters, so nothing can be smuggled through a user name.
fn headers(question: &Question<'_>, password: Option<&[u8]>) -> Option<HeaderMap> {
    let protocol = match question.protocol {
        Protocol::Imap => "imap",
        Protocol::Pop3 => "pop3",
        Protocol::Submission => "smtp",
    };
    let mut headers = HeaderMap::new();
    let mut put = |name: &'static str, value: &[u8]| {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_bytes(value).ok()?);
        Some(())
    };
    put("auth-method", if password.is_some() { b"plain" } else { b"none" })?;
    // As nginx writes them: `%`, space and control characters escaped, so that a script can read them back.
    put("auth-user", escape(question.account.as_bytes()).as_bytes())?;
    if let Some(password) = password {
        let value = zeroize::Zeroizing::new(escape(password));
        let mut value = HeaderValue::from_bytes(value.as_bytes()).ok()?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_static("auth-pass"), value);
    }
    let mut put = |name: &'static str, value: &[u8]| {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_bytes(value).ok()?);
        Some(())
    };
    put("auth-protocol", protocol.as_bytes())?;
    put("auth-login-attempt", question.attempt.to_string().as_bytes())?;
    put("client-ip", question.client.to_canonical().to_string().as_bytes())?;
    // nginx says [UNAVAILABLE] when it has no name.
    put("client-host", question.client_host.unwrap_or("[UNAVAILABLE]").as_bytes())?;
    if question.tls {
        put("auth-ssl", b"on")?;
    }
    Some(headers)
}

/// `%XX` for everything that is not printable ASCII, and for `%` and space.
fn escape(value: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(value.len());
    for octet in value {
        if octet.is_ascii_graphic() && *octet != b'%' {
            text.push(char::from(*octet));
        } else {
            // Writing into a String does not fail.
            let _ = write!(text, "%{octet:02X}");
        }
    }
    text
}

/// The backend in an answer. `Auth-Server` must be an address, as nginx wants it too: no name is looked up here.
fn backend(headers: &HeaderMap) -> Result<SocketAddr, RouteError> {
    let one = |name: &'static str, missing: &'static str, twice: &'static str| {
        let mut values = headers.get_all(name).iter();
        let value = values.next().ok_or(RouteError::Answer(missing))?;
        if values.next().is_some() {
            return Err(RouteError::Answer(twice));
        }
        value.to_str().map_err(|_| RouteError::Answer("a header with strange characters"))
    };
    let status = one("auth-status", "no Auth-Status", "two Auth-Status")?;
    if status != "OK" {
        // Somebody else's text: for the log, shortened, never for the client.
        return Err(RouteError::Refused(status.chars().take(100).collect()));
    }
    let server = one("auth-server", "no Auth-Server", "two Auth-Server")?;
    let bare = server.strip_prefix('[').and_then(|server| server.strip_suffix(']')).unwrap_or(server);
    let server: IpAddr = bare.parse().map_err(|_| RouteError::Answer("an Auth-Server that is no address"))?;
    let port = one("auth-port", "no Auth-Port", "two Auth-Port")?;
    let digits = port.bytes().all(|octet| octet.is_ascii_digit());
    let port: u16 = port
        .parse()
        .ok()
        .filter(|port| digits && *port != 0)
        .ok_or(RouteError::Answer("no good Auth-Port"))?;
    Ok(SocketAddr::new(server, port))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU32, Ordering};

    use http_body_util::Full;
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use hyper_util::rt::TokioIo;

    use super::*;
    use crate::names::NameServers;

    type Heard = Arc<Mutex<Vec<HeaderMap>>>;

    /// A script as an ISP would have it; the account name says what it answers.
    async fn script() -> (String, Heard) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/auth", listener.local_addr().unwrap());
        let heard: Heard = Arc::default();
        let hear = Arc::clone(&heard);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let hear = Arc::clone(&hear);
                let answer = service_fn(move |request: Request<Incoming>| {
                    let hear = Arc::clone(&hear);
                    async move {
                        let user = request.headers()["auth-user"].to_str().unwrap().to_owned();
                        hear.lock().unwrap().push(request.headers().clone());
                        let mut reply = Response::new(Full::new(Bytes::new()));
                        let mut put = |name: &'static str, value: &'static str| {
                            reply.headers_mut().append(name, HeaderValue::from_static(value));
                        };
                        put("auth-status", if user == "nobody" { "Invalid login or password" } else { "OK" });
                        match user.as_str() {
                            "nameless" => put("auth-server", "imap.isp.example"),
                            "v6" => put("auth-server", "[2001:db8::5]"),
                            "twice" => {
                                put("auth-server", "192.0.2.5");
                                put("auth-server", "203.0.113.66");
                            }
                            _ => put("auth-server", "192.0.2.5"),
                        }
                        put("auth-port", if user == "portless" { "+143" } else { "143" });
                        put("auth-pass", "not-believed");
                        match user.as_str() {
                            "broken" => *reply.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
                            "slow" => tokio::time::sleep(Duration::from_secs(30)).await,
                            "huge" => *reply.body_mut() = Full::new(vec![b'x'; 1 << 20].into()),
                            _ => {}
                        }
                        Ok::<_, Infallible>(reply)
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer),
                );
            }
        });
        (url, heard)
    }

    fn settings(url: String) -> RouteSettings {
        RouteSettings {
            url,
            roots: Roots::Public,
            clear: false,
            timeout: Duration::from_millis(500),
            keep: Duration::from_secs(10),
            send_password: false,
        }
    }

    fn routes(settings: RouteSettings) -> Routes {
        Routes::new(settings, Names::new(&NameServers::Off).unwrap()).unwrap()
    }

    fn question(account: &str) -> Question<'_> {
        let client = "203.0.113.7".parse().unwrap();
        Question { account, protocol: Protocol::Submission, attempt: 1, client, client_host: None, tls: true }
    }

    #[tokio::test]
    async fn asks_as_nginx_does_and_remembers() {
        let (url, heard) = script().await;
        let routes = routes(settings(url));
        for _ in 0..3 {
            let backend = routes.backend(&question("ann@example.net"), Some(b"s3cret")).await.unwrap();
            assert_eq!(backend, "192.0.2.5:143".parse().unwrap());
        }
        let asked = heard.lock().unwrap().clone();
        assert_eq!(asked.len(), 1, "remembered");
        for (name, value) in [
            ("auth-method", "none"),
            ("auth-user", "ann@example.net"),
            ("auth-protocol", "smtp"),
            ("auth-login-attempt", "1"),
            ("client-ip", "203.0.113.7"),
            ("client-host", "[UNAVAILABLE]"),
            ("auth-ssl", "on"),
        ] {
            assert_eq!(asked[0][name], value);
        }
        assert!(!asked[0].contains_key("auth-pass"));
        routes.forget();
        routes.backend(&question("ann@example.net"), None).await.unwrap();
        assert_eq!(heard.lock().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_password_only_when_told_so() {
        let (url, heard) = script().await;
        let routes = routes(RouteSettings { send_password: true, ..settings(url) });
        for _ in 0..2 {
            routes.backend(&question("ann"), Some("s3 %é\r\n".as_bytes())).await.unwrap();
        }
        let asked = heard.lock().unwrap().clone();
        assert_eq!(asked.len(), 2, "not remembered");
        assert_eq!(asked[0]["auth-pass"], "s3%20%25%C3%A9%0D%0A");
        assert_eq!(asked[0]["auth-method"], "plain");
    }

    #[tokio::test]
    async fn names_cannot_smuggle_headers() {
        let (url, heard) = script().await;
        routes(settings(url)).backend(&question("a\r\nAuth-Pass: x"), None).await.unwrap();
        let asked = heard.lock().unwrap().clone();
        assert_eq!(asked[0]["auth-user"], "a%0D%0AAuth-Pass:%20x");
        assert!(!asked[0].contains_key("auth-pass"));
    }

    #[tokio::test]
    async fn answers_that_are_none() {
        let (url, _) = script().await;
        let routes = routes(settings(url));
        let ask = async |account: &'static str| routes.backend(&question(account), None).await;
        assert_eq!(ask("v6").await.unwrap(), "[2001:db8::5]:143".parse().unwrap());
        assert!(matches!(ask("nobody").await, Err(RouteError::Refused(_))));
        for account in ["nameless", "twice", "portless", "broken"] {
            assert!(matches!(ask(account).await, Err(RouteError::Answer(_))), "{account}");
        }
        for account in ["slow", "huge"] {
            assert!(matches!(ask(account).await, Err(RouteError::Http(_))), "{account}");
        }
        let nobody = self::routes(settings("http://127.0.0.1:1/auth".into()));
        assert!(matches!(nobody.backend(&question("ann"), None).await, Err(RouteError::Http(_))));
    }

    #[tokio::test]
    async fn a_stuck_script_does_not_gather_sessions() {
        let (url, _) = script().await;
        let routes = routes(settings(url));
        let started = Instant::now();
        let done = Arc::new(AtomicU32::new(0));
        let mut tasks = Vec::new();
        for _ in 0..200 {
            let (routes, done) = (routes.clone(), Arc::clone(&done));
            tasks.push(tokio::spawn(async move {
                assert!(routes.backend(&question("slow"), None).await.is_err());
                done.fetch_add(1, Ordering::Relaxed);
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(done.load(Ordering::Relaxed), 200);
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }
}

//! `GET /metrics` and `GET /health` on a local port: HTTP/1.1 with limits, no login, nothing else.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

/// Connections at once: a scraper, a monitor, and a few more.
const AT_ONCE: usize = 16;
/// All of one connection, however many requests.
const LIFE: Duration = Duration::from_mins(1);
/// From the first octet to the end of a request's head.
const HEAD: Duration = Duration::from_secs(2);

/// What the page shows.
pub trait Source: Send + Sync + 'static {
    /// `OpenMetrics` text.
    fn metrics(&self) -> String;

    /// Whether the gateway serves as it should; an error says in one line what is wrong.
    fn health(&self) -> Result<(), String>;
}

/// The page, bound and not yet served.
#[derive(Debug)]
pub struct Page {
    listener: TcpListener,
}

impl Page {
    /// Binds the port, so that a port in use is an error at the start.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await? })
    }

    /// The address it got.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` becomes true.
    pub async fn run<S: Source>(self, source: Arc<S>, mut stop: watch::Receiver<bool>) {
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: trying at once would only burn the CPU.
                    tracing::warn!(%error, "metrics page cannot accept");
                    sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { continue };
            let source = Arc::clone(&source);
            tokio::spawn(async move {
                let _permit = permit;
                serve(stream, source).await;
            });
        }
    }
}

async fn serve<S: Source>(stream: TcpStream, source: Arc<S>) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let source = Arc::clone(&source);
        async move { Ok::<_, Infallible>(answer(&request, source.as_ref())) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), answer);
    // A broken or late scraper is no news: the next scrape comes by itself.
    let _ = timeout(LIFE, connection).await;
}

fn answer<S: Source>(request: &Request<Incoming>, source: &S) -> Response<Full<Bytes>> {
    const PLAIN: &str = "text/plain; charset=utf-8";
    const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let known = matches!(request.uri().path(), "/metrics" | "/health");
    let (status, kind, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, METRICS, source.metrics()),
        (&Method::GET | &Method::HEAD, "/health") => match source.health() {
            Ok(()) => (StatusCode::OK, PLAIN, "ok\n".into()),
            Err(what) => (StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{what}\n")),
        },
        _ if known => (StatusCode::METHOD_NOT_ALLOWED, PLAIN, "GET only\n".into()),
        _ => (StatusCode::NOT_FOUND, PLAIN, "only /metrics and /health are here\n".into()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

#[cfg(test)]
mod tests {
    use mail::session::Protocol;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::metrics::Metrics;

    struct Box_ {
        metrics: Metrics,
        well: std::sync::atomic::AtomicBool,
    }

    impl Source for Box_ {
        fn metrics(&self) -> String {
            self.metrics.text()
        }

        fn health(&self) -> Result<(), String> {
            let well = self.well.load(std::sync::atomic::Ordering::Relaxed);
            if well { Ok(()) } else { Err("the device database cannot be read".into()) }
        }
    }

    async fn ask(to: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn serves_two_paths_and_stops() {
        let page = Page::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let here = page.address().unwrap();
        let source = Arc::new(Box_ { metrics: Metrics::default(), well: true.into() });
        let (stop, stopped) = watch::channel(false);
        let served = tokio::spawn(page.run(Arc::clone(&source), stopped));
        source.metrics.accepted(Protocol::Pop3);
        let get = async |path: &str| {
            ask(here, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await
        };
        let text = get("/metrics").await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(text.contains("content-type: application/openmetrics-text; version=1.0.0"), "{text}");
        assert!(text.contains("postern_connections_total{protocol=\"pop3\"} 1\n"), "{text}");
        assert!(get("/health").await.ends_with("\r\n\r\nok\n"));
        source.well.store(false, std::sync::atomic::Ordering::Relaxed);
        assert!(get("/health").await.starts_with("HTTP/1.1 503"));
        assert!(get("/").await.starts_with("HTTP/1.1 404"));
        let post =
            ask(here, "POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                .await;
        assert!(post.starts_with("HTTP/1.1 405"), "{post}");
        // A head without end is cut off, and does not disturb the others.
        let endless = format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(20_000));
        assert!(ask(here, &endless).await.starts_with("HTTP/1.1 431"));
        stop.send_replace(true);
        served.await.unwrap();
        assert!(TcpStream::connect(here).await.is_err());
    }

    #[tokio::test]
    async fn a_silent_peer_is_cut_off() {
        let page = Page::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let here = page.address().unwrap();
        let source = Arc::new(Box_ { metrics: Metrics::default(), well: true.into() });
        let (_stop, stopped) = watch::channel(false);
        tokio::spawn(page.run(source, stopped));
        let mut stream = TcpStream::connect(here).await.unwrap();
        stream.write_all(b"GET /met").await.unwrap();
        let mut rest = Vec::new();
        timeout(Duration::from_secs(30), stream.read_to_end(&mut rest)).await.expect("cut off").unwrap();
    }
}

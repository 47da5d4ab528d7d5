//! One HTTP/1.1 request and its bounded answer: for webhooks and route look-ups.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{HOST, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::time::timeout;

use crate::dial::{self, DialError, Roots, Target};
use crate::names::Names;

/// Octets of an answer's head.
const HEAD: usize = 16 * 1024;
/// Octets of an answer's body.
const BODY: usize = 64 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// An address in the settings that cannot be used.
    #[error("{0}")]
    Url(&'static str),
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// Not HTTP, or too much of it.
    #[error("HTTP answer: {0}")]
    Answer(String),
    /// Nothing in time.
    #[error("no HTTP answer within {0:?}")]
    Late(Duration),
}

/// A server and how to reach it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    target: Target,
    authority: HeaderValue,
    path: String,
    tls: Option<Arc<ClientConfig>>,
    names: Names,
}

/// A whole answer.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers, at most 16 KiB.
    pub headers: HeaderMap,
    /// Its body, at most 64 KiB.
    pub body: Bytes,
}

impl Endpoint {
    /// Reads a URL. `https` anywhere; `http` to this machine, and elsewhere only where `clear` says that the wire is
    /// trusted.
    pub fn new(url: &str, roots: &Roots, names: Names, clear: bool) -> Result<Self, HttpError> {
        let uri: Uri = url.parse().map_err(|_| HttpError::Url("not a URL"))?;
        let host = uri.host().ok_or(HttpError::Url("a URL without a host"))?.to_owned();
        let authority = uri.authority().ok_or(HttpError::Url("a URL without a host"))?;
        if authority.as_str().contains('@') {
            return Err(HttpError::Url("a URL with a name or password in it"));
        }
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if clear || is_here(&host) => false,
            Some("http") => return Err(HttpError::Url("http is for this machine only: use https")),
            _ => return Err(HttpError::Url("neither http nor https")),
        };
        let tls = secure.then(|| dial::tls_config(roots)).transpose()?;
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let authority = HeaderValue::from_str(authority.as_str()).map_err(|_| HttpError::Url("not a URL"))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { target: Target { host, port }, authority, path, tls, names })
    }

    /// Sends one request and reads the whole answer, on a connection of its own, within `limit`.
    pub async fn ask(
        &self,
        method: hyper::Method,
        headers: HeaderMap,
        body: Bytes,
        limit: Duration,
    ) -> Result<Reply, HttpError> {
        timeout(limit, self.exchange(method, headers, body, limit))
            .await
            .map_err(|_| HttpError::Late(limit))?
    }

    async fn exchange(
        &self,
        method: hyper::Method,
        headers: HeaderMap,
        body: Bytes,
        limit: Duration,
    ) -> Result<Reply, HttpError> {
        let fail = |error: hyper::Error| HttpError::Answer(error.to_string());
        let tcp = dial::tcp(&self.names, &self.target, limit).await?;
        let stream: Box<dyn dial::Stream> = match &self.tls {
            Some(tls) => dial::tls(tls, &self.target.host, tcp, limit).await?,
            None => Box::new(tcp),
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.path.parse().map_err(|_| HttpError::Url("not a URL"))?;
        *request.headers_mut() = headers;
        request.headers_mut().insert(HOST, self.authority.clone());
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(HEAD)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(fail)?;
        // Driven beside the request, so that it ends with it.
        let exchange = async {
            let answer = sender.send_request(request).await.map_err(fail)?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, BODY).collect().await;
            let body = body.map_err(|error| HttpError::Answer(error.to_string()))?.to_bytes();
            Ok(Reply { status: head.status, headers: head.headers, body })
        };
        tokio::pin!(exchange);
        tokio::select! {
            reply = &mut exchange => reply,
            ended = connection => match ended {
                // The connection may end in good order just before its last octets are handed over.
                Ok(()) => exchange.await,
                Err(error) => Err(fail(error)),
            },
        }
    }
}

fn is_here(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::NameServers;

    #[test]
    fn urls() {
        let names = Names::new(&NameServers::Off).unwrap();
        let new = |url: &str, clear| Endpoint::new(url, &Roots::Public, names.clone(), clear);
        for good in
            ["http://127.0.0.1:9/x?y=z", "http://localhost/", "http://[::1]:80/", "https://hooks.example/a"]
        {
            new(good, false).unwrap();
        }
        assert_eq!(new("https://hooks.example", false).unwrap().path, "/");
        assert!(new("http://10.0.0.1/auth", true).is_ok());
        for bad in [
            "http://10.0.0.1/auth",
            "ftp://localhost/",
            "/x",
            "https://a:b@hooks.example/",
            "http://exa mple/",
        ] {
            assert!(new(bad, false).is_err(), "{bad}");
        }
    }
}

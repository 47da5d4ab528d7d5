//! Connections that the box opens itself: alert mail, webhooks, route look-ups.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::names::Names;

/// A host as people write it, and a port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Target {
    /// Name or address; brackets around IPv6 are allowed.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// Whom the box trusts when it dials.
#[derive(Clone, Debug, Default)]
pub enum Roots {
    /// The public roots of Mozilla's list.
    #[default]
    Public,
    /// Certificates from a PEM file, and nobody else.
    Pem(Vec<u8>),
}

/// Either side of TLS.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No address.
    #[error(transparent)]
    Name(#[from] crate::names::NamesError),
    /// No connection.
    #[error("cannot connect to {host}: {source}")]
    Connect {
        /// Whom.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// No trust, or no TLS.
    #[error("TLS with {host} failed: {source}")]
    Tls {
        /// Whom.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// The CA file in the settings holds no certificate.
    #[error("the CA file holds no usable certificate")]
    Roots,
}

/// TLS settings for dialling, made once. TLS 1.2 and 1.3 on ring, no client certificate.
pub fn tls_config(roots: &Roots) -> Result<Arc<ClientConfig>, DialError> {
    let mut store = RootCertStore::empty();
    match roots {
        Roots::Public => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Roots::Pem(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                store.add(certificate.map_err(|_| DialError::Roots)?).map_err(|_| DialError::Roots)?;
            }
        }
    }
    if store.is_empty() {
        return Err(DialError::Roots);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = versions.map_err(|_| DialError::Roots)?.with_root_certificates(store).with_no_client_auth();
    Ok(Arc::new(config))
}

/// A TCP connection, trying every address of the target within `limit` all told.
pub async fn tcp(names: &Names, target: &Target, limit: Duration) -> Result<TcpStream, DialError> {
    let fail = |source| DialError::Connect { host: target.host.clone(), source };
    let dial = async {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        let addresses = names.addresses(&target.host).await?;
        // One dead address must not use up the time of the others.
        let share = limit / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        for address in addresses {
            match timeout(share, TcpStream::connect((address, target.port))).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true).map_err(fail)?;
                    return Ok(stream);
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(fail(last))
    };
    match timeout(limit, dial).await {
        Ok(result) => result,
        Err(_) => Err(fail(io::ErrorKind::TimedOut.into())),
    }
}

/// Puts TLS over a connection to `host`.
pub async fn tls(
    config: &Arc<ClientConfig>,
    host: &str,
    stream: impl Stream + 'static,
    limit: Duration,
) -> Result<Box<dyn Stream>, DialError> {
    let fail = |source| DialError::Tls { host: host.into(), source };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let name = ServerName::try_from(bare.to_owned()).map_err(|error| fail(io::Error::other(error)))?;
    let connect = TlsConnector::from(Arc::clone(config)).connect(name, stream);
    match timeout(limit, connect).await {
        Ok(Ok(stream)) => Ok(Box::new(stream)),
        Ok(Err(error)) => Err(fail(error)),
        Err(_) => Err(fail(io::ErrorKind::TimedOut.into())),
    }
}

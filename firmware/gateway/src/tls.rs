//! The server's side of TLS: which suites in which order, and which certificate for which name.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use board::crypto::Aes;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{self, cipher_suite};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedCipherSuite};

/// TLS settings that could not be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("cannot read {path}: {error}. Check the path and that the gateway's user may read it")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: String,
    },
    /// A file holds nothing usable.
    #[error("{path} {what}")]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong, and the mend.
        what: String,
    },
    /// rustls refused the combination.
    #[error("TLS settings: {0}")]
    Rustls(#[from] rustls::Error),
    /// No certificate at all.
    #[error("no certificate is configured: name a chain and a key under [tls]")]
    NoCertificate,
}

/// Suites in the order offered.
///
/// With AES in hardware, AES-128-GCM comes first and the client's order is respected, because a phone without it puts
/// ChaCha20 first and knows best. Without, ChaCha20 comes first and our order wins. Pure: the capability is an argument.
pub fn suites(aes: Aes) -> (Vec<SupportedCipherSuite>, bool) {
    let aes_first = [
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ];
    match aes {
        Aes::Hardware => (aes_first.to_vec(), false),
        Aes::Software => {
            let is_chacha =
                |suite: &SupportedCipherSuite| format!("{:?}", suite.suite()).contains("CHACHA20");
            let (mut chacha, rest): (Vec<_>, Vec<_>) = aes_first.into_iter().partition(is_chacha);
            chacha.extend(rest);
            (chacha, true)
        }
    }
}

fn provider(suites: Vec<SupportedCipherSuite>) -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { cipher_suites: suites, ..ring::default_provider() })
}

/// Certificates by name, with the first as the default.
#[derive(Debug)]
pub struct Certificates {
    entries: Vec<(Vec<String>, Arc<CertifiedKey>)>,
}

impl Certificates {
    /// Reads chains and keys. Those that fail are returned beside the ones that work: one bad name never blocks
    /// another.
    ///
    /// # Errors
    /// Only when none works.
    pub fn load<'a>(
        files: impl IntoIterator<Item = (&'a Path, &'a Path)>,
    ) -> Result<(Self, Vec<TlsError>), TlsError> {
        let mut entries = Vec::new();
        let mut failed = Vec::new();
        for (chain, key) in files {
            match load_one(chain, key) {
                Ok(entry) => entries.push(entry),
                Err(error) => failed.push(error),
            }
        }
        if entries.is_empty() {
            return Err(failed.pop().unwrap_or(TlsError::NoCertificate));
        }
        Ok((Self { entries }, failed))
    }

    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let exact = |names: &Vec<String>| names.contains(&name);
        let parent = name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        let wildcard = |names: &Vec<String>| parent.as_ref().is_some_and(|p| names.contains(p));
        let by = |matches: &dyn Fn(&Vec<String>) -> bool| {
            self.entries.iter().find(|(names, _)| matches(names)).map(|(_, key)| key)
        };
        by(&exact).or_else(|| by(&wildcard))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // An unknown name gets the default: many mail clients connect by a name nobody told the operator of, and
        // their own check says it better than an alert.
        let named = hello.server_name().and_then(|name| self.find(name));
        named.or_else(|| self.entries.first().map(|(_, key)| key)).cloned()
    }
}

fn load_one(chain: &Path, key: &Path) -> Result<(Vec<String>, Arc<CertifiedKey>), TlsError> {
    let certificates = read_certificates(chain)?;
    let pem = fs::read(key).map_err(|error| TlsError::Read { path: key.into(), error: error.to_string() })?;
    let der = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| TlsError::Content {
        path: key.into(),
        what: format!("holds no PEM private key ({error}): expected BEGIN PRIVATE KEY"),
    })?;
    let key_pair = ring::sign::any_supported_type(&der).map_err(|error| TlsError::Content {
        path: key.into(),
        what: format!(
            "is not a key this box can use ({error}): use ECDSA P-256, Ed25519 or RSA of 2,048 bits or more"
        ),
    })?;
    let names = certificates
        .first()
        .and_then(|leaf| webpki::EndEntityCert::try_from(leaf).ok())
        .map(|leaf| leaf.valid_dns_names().map(str::to_ascii_lowercase).collect::<Vec<_>>())
        .unwrap_or_default();
    let certified = CertifiedKey::new(certificates, key_pair);
    certified.keys_match().map_err(|error| TlsError::Content {
        path: key.into(),
        what: format!("is not the key of {} ({error}): both must come from one request", chain.display()),
    })?;
    Ok((names, Arc::new(certified)))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem =
        fs::read(path).map_err(|error| TlsError::Read { path: path.into(), error: error.to_string() })?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(list) if !list.is_empty() => Ok(list),
        Ok(_) => Err(TlsError::Content {
            path: path.into(),
            what: "holds no certificate: expected PEM with BEGIN CERTIFICATE".into(),
        }),
        Err(error) => Err(TlsError::Content { path: path.into(), what: format!("is not PEM: {error}") }),
    }
}

/// Session tickets whose keys live in memory, rotate by themselves, and outlive a reload of the settings.
///
/// # Errors
/// The system's random source failed.
pub fn ticketer() -> Result<Arc<dyn ProducesTickets>, TlsError> {
    Ok(ring::Ticketer::new()?)
}

/// What the listeners use: suites by capability, certificates by SNI, stateless tickets, no 0-RTT, no client
/// certificates.
///
/// # Errors
/// rustls refused the combination.
pub fn server_config(
    aes: Aes,
    tls13_only: bool,
    certificates: Certificates,
    ticketer: Arc<dyn ProducesTickets>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let (suites, ours_first) = suites(aes);
    let versions: &[&rustls::SupportedProtocolVersion] = if tls13_only {
        &[&rustls::version::TLS13]
    } else {
        &[&rustls::version::TLS13, &rustls::version::TLS12]
    };
    let mut config = ServerConfig::builder_with_provider(provider(suites))
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificates));
    config.ignore_client_order = ours_first;
    config.ticketer = ticketer;
    // One ticket is what mail clients use; two cost every full handshake another record.
    config.send_tls13_tickets = 1;
    config.max_early_data_size = 0;
    // Tickets are stateless; a session cache beside them would only hold memory.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// What connections to backends and web hooks use: the roots of `ca`, or the public ones.
///
/// # Errors
/// `ca` cannot be read or holds no certificate.
pub fn client_config(aes: Aes, ca: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in read_certificates(path)? {
                roots.add(certificate).map_err(|error| TlsError::Content {
                    path: path.into(),
                    what: format!("holds a certificate that cannot be a root: {error}"),
                })?;
            }
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    let config = ClientConfig::builder_with_provider(provider(suites(aes).0))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chacha_leads_without_aes_instructions() {
        let (order, ours_first) = suites(Aes::Software);
        assert_eq!(order[0], cipher_suite::TLS13_CHACHA20_POLY1305_SHA256);
        assert!(ours_first);
        let (order, ours_first) = suites(Aes::Hardware);
        assert_eq!(order[0], cipher_suite::TLS13_AES_128_GCM_SHA256);
        assert!(!ours_first);
    }

    #[test]
    fn a_bad_certificate_does_not_block_a_good_one() {
        let folder = tempfile::tempdir().unwrap();
        let made =
            rcgen::generate_simple_self_signed(["*.example.net".to_owned(), "mx.test".to_owned()]).unwrap();
        let (chain, key, missing) =
            (folder.path().join("c.pem"), folder.path().join("k.pem"), folder.path().join("none.pem"));
        fs::write(&chain, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let (loaded, failed) = Certificates::load([(&*missing, &*key), (&*chain, &*key)]).unwrap();
        assert_eq!(failed.len(), 1);
        assert!(loaded.find("imap.Example.net").is_some());
        assert!(loaded.find("a.b.example.net").is_none());
        assert!(loaded.find("mx.test.").is_some());
    }

    #[test]
    fn a_key_of_another_certificate_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let one = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        let two = rcgen::generate_simple_self_signed(["b.test".to_owned()]).unwrap();
        let (chain, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
        fs::write(&chain, one.cert.pem()).unwrap();
        fs::write(&key, two.signing_key.serialize_pem()).unwrap();
        let error = Certificates::load([(&*chain, &*key)]).unwrap_err().to_string();
        assert!(error.contains("is not the key of"), "{error}");
    }
}

//! `[tls]`: certificates and what is negotiated.

use std::path::PathBuf;

use crate::reader::{Read, Table, Value, choice};

/// `[tls]`.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Certificates; a client gets the one whose names hold its SNI, else the first. Never empty.
    pub certificates: Vec<CertificateFiles>,
    /// Which suites come first.
    pub suites: Suites,
    /// The oldest version spoken.
    pub min_version: MinVersion,
}

/// One certificate with its key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CertificateFiles {
    /// PEM: the certificate, then its intermediates.
    pub chain: PathBuf,
    /// PEM: its private key (PKCS #8, SEC 1 or PKCS #1).
    pub key: PathBuf,
}

/// Which suites come first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Suites {
    /// By what the CPU speeds up.
    Auto,
    /// AES-128-GCM first.
    Aes,
    /// ChaCha20-Poly1305 first.
    ChaCha,
}

/// The oldest TLS version spoken (RFC 8997: nothing below 1.2).
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum MinVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

impl Tls {
    pub(crate) fn read(table: &mut Table<'_>) -> Option<Self> {
        let mend = "add certificates = [{ chain = \"chain.pem\", key = \"key.pem\" }] to [tls]";
        let certificates = table.required("certificates", mend);
        let suites = table.or("suites", Suites::Auto);
        let min_version = table.or("min-version", MinVersion::Tls12);
        Some(Self { certificates: certificates?, suites, min_version })
    }
}

impl Read for CertificateFiles {
    fn read(value: &Value<'_>) -> Option<Self> {
        let mut table = value.table()?;
        let chain = table.required("chain", "add chain = \"chain.pem\": certificate, then intermediates");
        let key = table.required("key", "add key = \"key.pem\": the private key");
        table.finish();
        Some(Self { chain: chain?, key: key? })
    }
}

impl Read for Suites {
    fn read(value: &Value<'_>) -> Option<Self> {
        choice(value, &[("auto", Self::Auto), ("aes", Self::Aes), ("chacha", Self::ChaCha)])
    }
}

impl Read for MinVersion {
    fn read(value: &Value<'_>) -> Option<Self> {
        choice(value, &[("1.2", Self::Tls12), ("1.3", Self::Tls13)])
    }
}

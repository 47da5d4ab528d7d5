//! The certificate that all proxies of a run show: P-256 as Postern recommends it, or RSA-2048 as ISPs still have it.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::CertificateDer;

use crate::guard::Workshop;

/// Kind of the server's key; the CA's is always P-256, since it costs the client alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyKind {
    /// ECDSA with P-256.
    P256,
    /// RSA, 2,048 bits.
    Rsa2048,
}

/// PEM files in the form that each proxy wants, and the CA for the client.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The CA's certificate.
    pub ca: CertificateDer<'static>,
    /// The server's certificate.
    pub chain: PathBuf,
    /// Its key, PKCS#8.
    pub key: PathBuf,
    /// Both in one file, for HAProxy.
    pub both: PathBuf,
}

impl Identity {
    /// Makes a CA and a certificate for `localhost`, in files called `NAME-…`.
    pub fn new(workshop: &Workshop, name: &str, kind: KeyKind) -> Result<Self> {
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.distinguished_name.push(DnType::CommonName, "Bench CA");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (ca.not_before, ca.not_after) = (date_time_ymd(2024, 1, 1), date_time_ymd(2044, 1, 1));
        let ca_key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let ca_certificate = ca.self_signed(&ca_key)?;

        let mut leaf = CertificateParams::new(vec!["localhost".to_owned()])?;
        leaf.distinguished_name.push(DnType::CommonName, "localhost");
        (leaf.not_before, leaf.not_after) = (date_time_ymd(2024, 1, 1), date_time_ymd(2044, 1, 1));
        let key = match kind {
            KeyKind::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?,
            KeyKind::Rsa2048 => rsa_2048()?,
        };
        let chain = leaf.signed_by(&key, &Issuer::new(ca, ca_key))?.pem();
        let key = key.serialize_pem();
        Ok(Self {
            ca: ca_certificate.der().clone(),
            chain: workshop.write(&format!("{name}-chain.pem"), 0o644, &chain)?,
            // Readable to all: some proxies change their user first, and the key dies with the folder.
            key: workshop.write(&format!("{name}-key.pem"), 0o644, &key)?,
            both: workshop.write(&format!("{name}-both.pem"), 0o644, format!("{chain}{key}"))?,
        })
    }
}

/// ring makes no RSA keys, so the `openssl` program does, which Dovecot's package brings along.
fn rsa_2048() -> Result<KeyPair> {
    let output = Command::new("openssl")
        .args(["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
        .stderr(Stdio::null())
        .output()
        .context("cannot start openssl")?;
    ensure!(output.status.success(), "openssl made no RSA key");
    KeyPair::from_pem(&String::from_utf8(output.stdout)?).context("cannot read the RSA key")
}

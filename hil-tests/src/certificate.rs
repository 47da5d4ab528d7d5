//! A demonstration CA and the server certificate it signs.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::CertificateDer;

use crate::guard::Workshop;

/// Names that every certificate of the bench is good for.
pub const NAMES: [&str; 5] = ["localhost", "127.0.0.1", "::1", "mail.example.test", "mail.example.net"];

/// PEM files of a CA and of a server certificate (P-256) with its key.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The CA's certificate, for clients to trust.
    pub ca: PathBuf,
    /// The server's certificate.
    pub chain: PathBuf,
    /// The server's key.
    pub key: PathBuf,
    /// The CA's certificate as rustls wants it.
    pub ca_der: CertificateDer<'static>,
}

impl Certificate {
    /// Makes both and writes them to `NAME-ca.pem`, `NAME.pem` and `NAME.key` of the workshop.
    pub fn new(workshop: &Workshop, name: &str) -> Result<Self> {
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.distinguished_name.push(DnType::CommonName, "Postern bench CA");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        validity(&mut ca);
        let ca_key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let ca_certificate = ca.self_signed(&ca_key)?;
        let issuer = Issuer::new(ca, ca_key);

        let mut leaf = CertificateParams::new(NAMES.map(String::from))?;
        leaf.distinguished_name.push(DnType::CommonName, "mail.example.test");
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.use_authority_key_identifier_extension = true;
        validity(&mut leaf);
        let leaf_key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let leaf_certificate = leaf.signed_by(&leaf_key, &issuer)?;

        Ok(Self {
            ca: workshop.write(&format!("{name}-ca.pem"), 0o644, ca_certificate.pem())?,
            chain: workshop.write(&format!("{name}.pem"), 0o644, leaf_certificate.pem())?,
            key: workshop.write(&format!("{name}.key"), 0o600, leaf_key.serialize_pem())?,
            ca_der: ca_certificate.der().clone(),
        })
    }

    /// Puts another certificate's chain and key in the place of this one's, each in one rename.
    pub fn replace_with(&self, other: &Self) -> Result<()> {
        fs::rename(&other.key, &self.key).context("cannot replace the key")?;
        fs::rename(&other.chain, &self.chain).context("cannot replace the certificate")
    }
}

/// rcgen's own default runs to the year 4096, which some clients cannot read.
fn validity(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2024, 1, 1);
    params.not_after = date_time_ymd(2034, 1, 1);
}

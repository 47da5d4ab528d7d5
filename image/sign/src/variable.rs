//! The variables that tell firmware whom to trust (UEFI specification §8.2, §32.4).

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use base64ct::{Base64, Encoding};

use crate::key::{Keys, Role};

/// An EFI variable.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Variable {
    /// Its name, in ASCII here.
    pub(crate) name: &'static str,
    /// The GUID that the name belongs to.
    pub(crate) vendor: [u8; 16],
    /// How it is kept and who may read and change it.
    pub(crate) attributes: u32,
    /// Its value.
    pub(crate) data: Vec<u8>,
}

impl Variable {
    /// Its name as firmware keeps it: UTF-16 with a 0 at the end.
    pub(crate) fn name_utf16(&self) -> Vec<u8> {
        self.name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
    }
}

/// Kept over resets, readable before and after the system starts.
pub(crate) const NON_VOLATILE: u32 = 1;
/// Readable before the system starts.
pub(crate) const BOOT: u32 = 2;
/// Readable while the system runs.
pub(crate) const RUNTIME: u32 = 4;
/// Changed only by whom its signature allows, with a time that goes on.
pub(crate) const AUTHENTICATED: u32 = 0x20;

/// A GUID as it lies in memory: the first three numbers little-endian.
pub(crate) const fn guid(a: u32, b: u16, c: u16, d: [u8; 8]) -> [u8; 16] {
    let ([a0, a1, a2, a3], [b0, b1], [c0, c1]) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
    [a0, a1, a2, a3, b0, b1, c0, c1, d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

/// `EFI_GLOBAL_VARIABLE`.
const GLOBAL: [u8; 16] = guid(0x8be4_df61, 0x93ca, 0x11d2, [0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c]);
/// `EFI_IMAGE_SECURITY_DATABASE_GUID`.
const DATABASE: [u8; 16] =
    guid(0xd719_b2cb, 0x3d3a, 0x4596, [0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f]);
/// `EFI_CERT_X509_GUID`.
const X509: [u8; 16] = guid(0xa5c0_59a1, 0x94e4, 0x4aa7, [0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72]);
/// Postern, as the owner of signatures.
const OWNER: [u8; 16] = guid(0x5f3c_1a0e, 0x8b7d, 0x4c55, [0x9d, 0x2a, 0x70, 0x6f, 0x73, 0x74, 0x65, 0x72]);

/// PK, KEK and db, each with the one certificate of its role.
pub(crate) fn secure_boot(keys: &Keys) -> Result<Vec<Variable>> {
    let variable = |role: Role| {
        let path = keys.certificate(role);
        let pem = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let certificate = der(&pem).with_context(|| path.display().to_string())?;
        Ok(Variable {
            name: role.name(),
            vendor: if role == Role::Signature { DATABASE } else { GLOBAL },
            attributes: NON_VOLATILE | BOOT | RUNTIME | AUTHENTICATED,
            data: signature_list(&certificate)?,
        })
    };
    Role::ALL.into_iter().map(variable).collect()
}

/// Writes each variable's value, and its certificate, as files for a firmware's own set-up program.
pub(crate) fn write_files(variables: &[Variable], keys: &Keys, out: &Path) -> Result<()> {
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    for (variable, role) in variables.iter().zip(Role::ALL) {
        let file = out.join(variable.name);
        fs::write(file.with_extension("esl"), &variable.data).with_context(|| out.display().to_string())?;
        let pem = fs::read_to_string(keys.certificate(role))?;
        fs::write(file.with_extension("der"), der(&pem)?).with_context(|| out.display().to_string())?;
    }
    Ok(())
}

/// `EFI_SIGNATURE_LIST` with one X.509 certificate.
fn signature_list(certificate: &[u8]) -> Result<Vec<u8>> {
    let signature = u32::try_from(16 + certificate.len()).context("the certificate is too long")?;
    let mut list = X509.to_vec();
    for size in [28 + signature, 0, signature] {
        list.extend(size.to_le_bytes());
    }
    list.extend(OWNER);
    list.extend(certificate);
    Ok(list)
}

/// The one certificate of a PEM file.
fn der(pem: &str) -> Result<Vec<u8>> {
    let (_, rest) = pem.split_once("-----BEGIN CERTIFICATE-----").context("no PEM certificate")?;
    let (text, rest) =
        rest.split_once("-----END CERTIFICATE-----").context("its PEM certificate has no end")?;
    ensure!(!rest.contains("-----BEGIN"), "more than one certificate");
    let text: String = text.split_ascii_whitespace().collect();
    let der = Base64::decode_vec(&text).ok().context("its PEM certificate is not base64")?;
    ensure!(der.first() == Some(&0x30), "its PEM certificate holds no certificate");
    Ok(der)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_pem() {
        assert_eq!(
            der("x\n-----BEGIN CERTIFICATE-----\nMAEC\n-----END CERTIFICATE-----\n").unwrap(),
            [0x30, 1, 2]
        );
        for bad in [
            "",
            "-----BEGIN CERTIFICATE-----\nMAEC\n",
            "-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----",
            "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----",
        ] {
            assert!(der(bad).is_err(), "{bad}");
        }
        let list = signature_list(&[0x30, 1, 2]).unwrap();
        assert_eq!(list.len(), 16 + 12 + 16 + 3);
        assert_eq!(list[..4], [0xa1, 0x59, 0xc0, 0xa5]);
        assert_eq!(list[16..28], [47, 0, 0, 0, 0, 0, 0, 0, 19, 0, 0, 0]);
        assert!(list.ends_with(&[0x30, 1, 2]));
    }
}

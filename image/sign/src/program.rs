//! Signing and verifying EFI programs.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::tool::{SBSIGN, SBVERIFY};
use crate::{key, pe};

/// Signs `input`, verifies what came out, and only then puts it at `out`.
pub(crate) fn sign(key: &Path, input: &Path, out: &Path) -> Result<()> {
    let bytes = fs::read(input).with_context(|| input.display().to_string())?;
    let program = pe::Program::parse(&bytes).with_context(|| input.display().to_string())?;
    ensure!(
        !program.is_signed,
        "{} is signed already; sign the file as it was built, so that it has one signature",
        input.display()
    );
    key::ensure_private(key)?;
    let certificate = key.with_extension("crt");
    ensure!(certificate.is_file(), "no certificate at {}", certificate.display());
    let mut name = OsString::from(".");
    name.push(out.file_name().context("--out must name a file")?);
    name.push(".signing");
    let draft = out.with_file_name(name);
    let signed = SBSIGN
        .command()
        .and_then(|mut sbsign| {
            sbsign.arg("--key").arg(key).arg("--cert").arg(&certificate).arg("--output").arg(&draft);
            SBSIGN.run(sbsign.arg(input))
        })
        .and_then(|()| verify(&certificate, &draft))
        .and_then(|()| fs::rename(&draft, out).with_context(|| out.display().to_string()));
    if signed.is_err() {
        let _ = fs::remove_file(&draft); // may not be there; the first error says more
    }
    signed
}

/// Fails unless `file` is signed by the holder of `certificate`.
pub(crate) fn verify(certificate: &Path, file: &Path) -> Result<()> {
    let bytes = fs::read(file).with_context(|| file.display().to_string())?;
    let program = pe::Program::parse(&bytes).with_context(|| file.display().to_string())?;
    ensure!(program.is_signed, "{} is not signed", file.display());
    SBVERIFY
        .run(SBVERIFY.command()?.arg("--cert").arg(certificate).arg(file))
        .with_context(|| format!("{} is not signed by {}", file.display(), certificate.display()))
}

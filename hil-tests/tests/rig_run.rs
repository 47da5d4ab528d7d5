//! Promise: `cargo box run` ends serving from the image, says where, and leaves nothing behind.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use hil_tests::client::{Client, Trust};
use hil_tests::demonstration::{Demonstration, works_in};
use hil_tests::programs::Programs;
use rustls::pki_types::{CertificateDer, pem::PemObject};

#[test]
fn the_image_serves_and_the_object_is_true() -> Result<()> {
    let program = Path::new(env!("CARGO_BIN_EXE_box"));
    let mut demonstration = Demonstration::start(program, &["run", "--json"], &Programs::find()?)?;
    let trust = Trust::new(&CertificateDer::from_pem_file(demonstration.text("ca")?)?)?;
    for (key, greeting) in [("imaps", "* OK"), ("pop3s", "+OK"), ("submissions", "220")] {
        let mut client = Client::tls(demonstration.text(key)?.parse()?, &trust)?;
        ensure!(client.line()?.starts_with(greeting), "{key}");
    }
    for (key, greeting) in [("imap", "* OK"), ("pop3", "+OK"), ("submission", "220")] {
        let mut client = Client::clear(demonstration.text(key)?.parse()?)?;
        ensure!(client.line()?.starts_with(greeting), "{key}");
    }
    ensure!(demonstration.said["web"].is_null() && demonstration.said["control"].is_null());
    let account = &demonstration.said["accounts"][0];
    let (user, password) =
        (account["user"].as_str().context("no user")?, account["password"].as_str().context("no password")?);
    // As the README has it.
    let curl = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "60", "--cacert", demonstration.text("ca")?])
        .args(["--user", &format!("{user}:{password}")])
        .arg(format!("imaps://{}/INBOX;MAILINDEX=1", demonstration.text("imaps")?))
        .output()?;
    ensure!(String::from_utf8_lossy(&curl.stdout).contains("came through Postern"), "{curl:?}");
    let settings = Path::new(demonstration.text("settings")?);
    ensure!(std::fs::read_to_string(settings)?.contains("[listen]"));

    // A box that serves has nothing to say; that somebody may listen is enough.
    let _console = UnixStream::connect(demonstration.text("console")?)?;

    let emulated: PathBuf = settings.parent().and_then(Path::parent).context("no folder")?.into();
    ensure!(works_in(&emulated)?, "no emulator works in {}", emulated.display());
    ensure!(demonstration.close_stdin()?.is_empty(), "more than one object was printed");
    demonstration.ends_cleanly()?;
    ensure!(!emulated.exists() && !works_in(&emulated)?, "{} was left behind", emulated.display());
    Ok(())
}

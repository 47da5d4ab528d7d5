//! Promise: `cargo box run --host --json` prints one object once it serves, and leaves nothing behind, however it ends.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use hil_tests::client::{Client, Trust};
use hil_tests::demonstration::{Demonstration, works_in};
use hil_tests::programs::Programs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::Value;

fn start() -> Result<Demonstration> {
    let programs = Programs::find()?;
    Demonstration::start(Path::new(env!("CARGO_BIN_EXE_box")), &["run", "--host", "--json"], &programs)
}

#[test]
fn the_object_says_all_and_all_of_it_is_true() -> Result<()> {
    let mut demonstration = start()?;
    let ca = CertificateDer::from_pem_file(demonstration.text("ca")?)?;
    let trust = Trust::new(&ca)?;
    for (key, greeting) in [("imaps", "* OK"), ("pop3s", "+OK"), ("submissions", "220")] {
        let mut client = Client::tls(demonstration.text(key)?.parse()?, &trust)?;
        ensure!(client.line()?.starts_with(greeting), "{key}");
    }
    for (key, greeting) in [("imap", "* OK"), ("pop3", "+OK"), ("submission", "220")] {
        let mut client = Client::clear(demonstration.text(key)?.parse()?)?;
        ensure!(client.line()?.starts_with(greeting), "{key}");
    }
    ensure!(demonstration.said["web"].is_null() && demonstration.said["console"].is_null());
    let accounts = demonstration.said["accounts"].as_array().context("no accounts")?;
    ensure!(accounts.len() == 2);
    let mut imap = Client::tls(demonstration.text("imaps")?.parse()?, &trust)?;
    imap.line()?;
    let (user, password) = (
        accounts[0]["user"].as_str().context("no user")?,
        accounts[0]["password"].as_str().context("no password")?,
    );
    imap.send(&format!("a LOGIN {user} {password}"))?;
    imap.until("a OK")?;
    ensure!(std::fs::read_to_string(demonstration.text("backend_log")?)?.contains("Login: user="));
    let output = Command::new(demonstration.text("cli")?)
        .args(["--control", demonstration.text("control")?, "--json", "devices", "list", user])
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice::<Value>(&output.stdout)?;

    ensure!(demonstration.close_stdin()?.is_empty(), "more than one object was printed");
    demonstration.ends_cleanly()
}

#[test]
fn ctrl_c_leaves_nothing_behind() -> Result<()> {
    ended_by(Signal::SIGINT)
}

#[test]
fn sigterm_leaves_nothing_behind() -> Result<()> {
    ended_by(Signal::SIGTERM)
}

/// Nobody can catch this one: the guard cleans up.
#[test]
fn sigkill_leaves_nothing_behind() -> Result<()> {
    ended_by(Signal::SIGKILL)
}

fn ended_by(signal: Signal) -> Result<()> {
    let demonstration = start()?;
    ensure!(works_in(demonstration.folder()?)?);
    kill(Pid::from_raw(demonstration.id().cast_signed()), signal)?;
    demonstration.ends_cleanly()
}

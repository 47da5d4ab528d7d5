//! Promise: `cargo box run --host --json` prints one object once it serves, and leaves nothing behind, however it ends.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hil_tests::client::{Client, Trust};
use hil_tests::programs::Programs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::Value;

/// Ends what it started, whatever the test says.
struct Demonstration {
    child: Child,
    said: Value,
}

impl Demonstration {
    fn start() -> Result<Self> {
        let programs = Programs::find()?;
        let (variable, folder) = programs.folder()?;
        let mut child = Command::new(env!("CARGO_BIN_EXE_box"))
            .args(["run", "--host", "--json"])
            .env(variable, folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().context("no stdout")?).read_line(&mut line)?;
        let said = serde_json::from_str(&line).with_context(|| format!("not one JSON object: {line:?}"));
        match said {
            Ok(said) => Ok(Self { child, said }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }

    fn text(&self, key: &str) -> Result<&str> {
        self.said[key].as_str().with_context(|| format!("{key} is missing in {}", self.said))
    }

    fn folder(&self) -> Result<&Path> {
        Path::new(self.text("settings")?).parent().context("no folder")
    }

    /// Waits until the process, its folder and everything that worked there are gone.
    fn ends_cleanly(mut self) -> Result<()> {
        let folder = self.folder()?.to_owned();
        let start = Instant::now();
        self.child.wait()?;
        while folder.exists() || works_in(&folder)? {
            if start.elapsed() > Duration::from_secs(10) {
                bail!("{} or its processes are still there", folder.display());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Demonstration {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_object_says_all_and_all_of_it_is_true() -> Result<()> {
    let mut demonstration = Demonstration::start()?;
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

    // The end of stdin is the end of all; nothing more was printed.
    drop(demonstration.child.stdin.take());
    let mut more = String::new();
    demonstration.child.stdout.take().context("no stdout")?.read_to_string(&mut more)?;
    ensure!(more.is_empty(), "{more}");
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
    let demonstration = Demonstration::start()?;
    ensure!(works_in(demonstration.folder()?)?);
    kill(Pid::from_raw(demonstration.child.id().cast_signed()), signal)?;
    demonstration.ends_cleanly()
}

#[test]
fn without_host_it_says_what_there_is() -> Result<()> {
    let output = Command::new(env!("CARGO_BIN_EXE_box")).arg("run").output()?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(
        !output.status.success() && words.contains("not built yet") && words.contains("--host"),
        "{words}"
    );
    Ok(())
}

/// Whether a process names the folder on its command line or stands in it.
fn works_in(folder: &Path) -> Result<bool> {
    let name = folder.to_string_lossy();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(&*name) {
            return Ok(true);
        }
    }
    Ok(false)
}

//! The gateway under test: started on this machine, driven from outside only.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;
use toml::Table;

use crate::backends::Backends;
use crate::certificate::Certificate;
use crate::client::Trust;
use crate::guard::{Process, Workshop};
use crate::log::Log;
use crate::programs::Programs;
use crate::secrets;
use crate::settings::{self, Listeners};

/// How long a start may take: a debug build on a busy machine is slow.
const START: Duration = Duration::from_secs(30);

/// A running gateway with its settings, certificate and data, stopped when dropped.
///
/// When it is dropped, whatever it wrote is searched for the passwords of all accounts and for every secret named by
/// [`Gateway::keep_secret`]: one found fails the test, whatever the test was about.
#[derive(Debug)]
pub struct Gateway {
    /// Where it listens.
    pub listeners: Listeners,
    /// What it shows to clients.
    pub certificate: Certificate,
    /// The socket of `postern`.
    pub control: PathBuf,
    /// Its settings file.
    pub settings: PathBuf,
    /// The executables in use.
    pub programs: Programs,
    /// A command that starts it, in place of the plain start; its arguments go before the program's.
    pub wrapper: Vec<String>,
    document: Mutex<Table>,
    secrets: Mutex<Vec<String>>,
    process: Option<Process>,
    /// Whether the end of its log is shown when it is dropped: a test's output is seen only when the test fails.
    is_tested: bool,
    workshop: Workshop,
}

impl Gateway {
    /// Starts it before `backends`, as the demonstration does.
    pub fn start(backends: &Backends) -> Result<Self> {
        Self::with(backends, "")
    }

    /// Starts it with settings laid over the demonstration's, as TOML.
    pub fn with(backends: &Backends, changes: &str) -> Result<Self> {
        let mut gateway = Self::under_test(backends, changes)?;
        gateway.resume()?;
        Ok(gateway)
    }

    /// Everything but the start, for a test: the end of its log is shown where the test fails.
    pub fn under_test(backends: &Backends, changes: &str) -> Result<Self> {
        let mut gateway = Self::prepare(backends, changes, &Programs::find()?)?;
        gateway.is_tested = true;
        Ok(gateway)
    }

    /// Everything but the start.
    pub fn prepare(backends: &Backends, changes: &str, programs: &Programs) -> Result<Self> {
        let workshop = backends.workshop().clone();
        let certificate = Certificate::new(&workshop, "front")?;
        let listeners = Listeners::free()?;
        let mut document = settings::demonstration(&workshop, backends, &listeners, &certificate)?;
        settings::change(&mut document, changes)?;
        workshop.folder("data", 0o700)?;
        let gateway = Self {
            listeners,
            certificate,
            control: workshop.file("control"),
            settings: workshop.write("settings.toml", 0o600, toml::to_string(&document)?)?,
            programs: programs.clone(),
            wrapper: Vec::new(),
            document: Mutex::new(document),
            secrets: Mutex::new(backends.accounts.iter().map(|account| account.password.clone()).collect()),
            process: None,
            is_tested: false,
            workshop,
        };
        for account in &backends.accounts {
            gateway.keep_secret(&secrets::plain(&account.user, &account.password));
        }
        Ok(gateway)
    }

    /// Starts it, or starts it again with the same settings and data; returns once it serves.
    pub fn resume(&mut self) -> Result<()> {
        let process = self.spawn()?;
        let process = self.process.insert(process);
        let ready = Log::new(self.workshop.file("gateway.out"));
        let start = Instant::now();
        // The gateway says so itself, in one JSON line on stdout.
        while !ready
            .text()
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .any(|line| line["ready"] == true)
        {
            if !process.is_running() {
                bail!("the gateway ended before it served; {}", process.testament());
            }
            if start.elapsed() > START {
                bail!("the gateway did not say that it serves within {START:?}; {}", process.testament());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Starts it without waiting, for those who expect it to fail.
    pub fn spawn(&self) -> Result<Process> {
        let out = fs::File::create(self.workshop.file("gateway.out"))?;
        let err = fs::OpenOptions::new().create(true).append(true).open(self.log_path())?;
        let mut command = match self.wrapper.split_first() {
            Some((wrapper, arguments)) => {
                let mut command = Command::new(wrapper);
                command.args(arguments).arg(&self.programs.gateway);
                command
            }
            None => Command::new(&self.programs.gateway),
        };
        command
            .arg("--settings")
            .arg(&self.settings)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        self.workshop.spawn("gateway", &mut command)
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill();
        }
        self.process = None;
    }

    /// Asks it to drain and end (SIGTERM), and waits for that.
    pub fn stop(&mut self, limit: Duration) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        process.signal(Signal::SIGTERM)?;
        process.wait(limit).map(drop)
    }

    /// The running process.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the gateway does not run")
    }

    /// Changes the settings file (TOML laid over what it holds) and has it read again.
    pub fn reload(&self, changes: &str) -> Result<()> {
        self.rewrite(changes)?;
        self.postern(&["reload"]).map(drop)
    }

    /// Changes the settings file in one rename.
    pub fn rewrite(&self, changes: &str) -> Result<()> {
        let mut document = self.document.lock().unwrap_or_else(PoisonError::into_inner);
        settings::change(&mut document, changes)?;
        let draft = self.workshop.write("settings.new", 0o600, toml::to_string(&*document)?)?;
        Ok(fs::rename(draft, &self.settings)?)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.as_ref().context("the gateway does not run")?.signal(signal)
    }

    /// Runs `postern --json` on its control socket and gives what it printed.
    pub fn postern(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.postern_raw(&[&["--json"], arguments].concat())?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            bail!(
                "postern {} failed: {}{text}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        serde_json::from_str(&text)
            .with_context(|| format!("postern {} printed no JSON: {text}", arguments.join(" ")))
    }

    /// Runs `postern` on its control socket, as typed.
    pub fn postern_raw(&self, arguments: &[&str]) -> Result<std::process::Output> {
        Command::new(&self.programs.postern)
            .arg("--control")
            .arg(&self.control)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .context("postern does not run")
    }

    /// Its log.
    pub fn log(&self) -> Log {
        Log::new(self.log_path())
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.workshop.file("data")
    }

    /// The folder everything lives in.
    pub fn workshop(&self) -> &Workshop {
        &self.workshop
    }

    /// What clients need in order to believe its certificate.
    pub fn trust(&self) -> Result<Trust> {
        Trust::new(&self.certificate.ca_der)
    }

    /// Memory of its own in KiB: the sum of what each page costs it (PSS), as the kernel counts.
    pub fn memory(&self) -> Result<u64> {
        let id = self.process.as_ref().context("the gateway does not run")?.id();
        let text = fs::read_to_string(format!("/proc/{id}/smaps_rollup"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no PSS")?;
        Ok(line.split_whitespace().next().context("no PSS")?.parse()?)
    }

    /// From now on this must appear in nothing that the gateway writes: a device's token, a password tried.
    pub fn keep_secret(&self, secret: &str) {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).push(secret.into());
    }

    /// Searches files and folders for every secret the gateway has met; gives the places.
    pub fn find_secrets(&self, places: &[PathBuf]) -> Vec<String> {
        let secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        let places: Vec<&Path> = places.iter().map(AsRef::as_ref).collect();
        secrets::find(&secrets, &places)
    }

    fn log_path(&self) -> PathBuf {
        self.workshop.file("gateway.log")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.process = None;
        let leaks = self.find_secrets(&[self.log_path(), self.workshop.file("gateway.out"), self.data()]);
        if self.is_tested {
            eprintln!("the gateway's log ends with:\n{}", self.log().end());
        }
        if !std::thread::panicking() {
            assert!(leaks.is_empty(), "secrets were written to {leaks:?}");
        }
    }
}

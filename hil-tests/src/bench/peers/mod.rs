//! The proxies that are compared. Adding one is a file here and a line in [`ALL`].

pub mod dovecot;
pub mod haproxy;
pub mod nginx;
pub mod postern;
pub mod pump;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::account;
use super::backend::Ports;
use super::client::{Client, Handshake, Suite, Target};
use super::identity::Identity;
use super::load;
use super::usage;
use crate::guard::{Process, Workshop};
use crate::port;

/// Every proxy, in the order in which each round asks them.
pub const ALL: [&dyn Proxy; 5] =
    [&pump::Pump, &postern::Postern, &nginx::Nginx, &haproxy::Haproxy, &dovecot::Dovecot];

/// The name of the limit: a TLS pump without any mail in it.
pub const PUMP: &str = "pump";
/// The name of what is ours.
pub const POSTERN: &str = "postern";
/// The name of no proxy at all: the backend itself, in clear.
pub const DIRECT: &str = "direct";

/// A kind of proxy that can be started, fresh, any number of times.
pub trait Proxy: Sync {
    /// Its name in tables and after `--peers`.
    fn name(&self) -> &'static str;

    /// Its version for the report; an error, which says what to install, if it cannot be run here.
    fn version(&self, tools: &Tools) -> Result<String>;

    /// Starts it in the foreground with its own configuration in the site's folder. The caller has already moved to
    /// the core that it shall run on. It may return before the proxy answers.
    fn start(&self, site: &Site<'_>) -> Result<Started>;
}

/// Executables of ours that are measured, built like a release.
#[derive(Clone, Debug)]
pub struct Tools {
    /// This very program, which is also the pump and the fake backend.
    pub myself: PathBuf,
    /// Postern's gateway.
    pub gateway: Option<PathBuf>,
}

/// Everything that one instance of a proxy may use.
pub struct Site<'a> {
    /// Owns the processes and the folder.
    pub workshop: &'a Workshop,
    /// A folder of its own.
    pub folder: PathBuf,
    /// What it shows to clients.
    pub identity: &'a Identity,
    /// What it stands in front of.
    pub backend: Ports,
    /// Our own executables.
    pub tools: &'a Tools,
}

impl Site<'_> {
    /// Writes a configuration file of this instance.
    fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Starts a program of this instance; what it prints goes to `output.log` in its folder.
    fn spawn(&self, name: &str, command: &mut Command) -> Result<Process> {
        let log = File::create(self.folder.join("output.log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.workshop.spawn(name, command)
    }

    /// Starts a program of ours, which prints a line of JSON when it is ready and ends when its stdin closes.
    fn spawn_ours(&self, name: &str, command: &mut Command) -> Result<(Process, String)> {
        let log = File::create(self.folder.join("output.log"))?;
        spawn_announcing(self.workshop, name, command.stderr(log))
    }
}

/// An instance that was started.
pub struct Started {
    /// Its first process.
    pub process: Process,
    /// Where it listens.
    pub target: Target,
}

/// An instance that answers.
pub struct Peer {
    /// Name of its kind.
    pub name: &'static str,
    /// Where to connect.
    pub target: Target,
    /// `None` for the backend itself.
    process: Option<Process>,
}

impl Peer {
    /// The backend without a proxy.
    pub fn direct(backend: Ports) -> Self {
        let target = Target {
            imap: port::loopback(backend.imap),
            submission: port::loopback(backend.submission),
            clientid: false,
        };
        Self { name: DIRECT, target, process: None }
    }

    /// Starts a proxy on `core` and waits until a client could log in.
    pub async fn start(proxy: &dyn Proxy, site: &Site<'_>, core: usize, load_core: usize) -> Result<Self> {
        std::fs::create_dir_all(&site.folder)?;
        usage::pin(core)?;
        let started = proxy.start(site);
        usage::pin(load_core)?;
        let Started { mut process, target } =
            started.with_context(|| format!("cannot start {}", proxy.name()))?;
        let client = Client::new(&site.identity.ca, Suite::Aes128Gcm, Handshake::Full)?;
        let start = Instant::now();
        while let Err(error) = client.warm_up(target, &account::owner(load::number())).await {
            if start.elapsed() > Duration::from_secs(15) || !process.is_running() {
                let log = tail(&site.folder);
                bail!("{} does not serve: {error:#}\n{log}", proxy.name());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(Self { name: proxy.name(), target, process: Some(process) })
    }

    /// CPU time of all its processes so far.
    pub fn cpu(&self) -> Result<Duration> {
        self.process.as_ref().map_or(Ok(Duration::ZERO), |process| usage::cpu(process.id()))
    }

    /// Userland memory of all its processes, in octets (PSS).
    pub fn memory(&self) -> Result<u64> {
        self.process.as_ref().map_or(Ok(0), |process| usage::pss(process.id()))
    }
}

/// Starts a program whose first line on stdout announces that it is ready; gives the line. The rest of its stdout is
/// read and dropped, so that it never blocks on it.
pub fn spawn_announcing(workshop: &Workshop, name: &str, command: &mut Command) -> Result<(Process, String)> {
    let mut process = workshop.spawn(name, command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
    let stdout = process.child().stdout.take().context("stdout was piped")?;
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            let Ok(line) = line else { break };
            let _ = tell.send(line); // only the first one is waited for
        }
    });
    let line = told
        .recv_timeout(Duration::from_secs(20))
        .with_context(|| format!("{name} did not say that it is ready"))?;
    Ok((process, line))
}

/// The version line that a program prints on stdout or stderr.
fn version_of(program: &str, argument: &str, package: &str) -> Result<String> {
    let output = Command::new(program)
        .arg(argument)
        .output()
        .with_context(|| format!("{program} is not installed (package {package})"))?;
    let said = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&said).lines().next().unwrap_or_default().trim().to_owned())
}

/// The newest lines of an instance's logs, for an error.
fn tail(folder: &Path) -> String {
    let mut lines = Vec::new();
    for name in ["output.log", "error.log"] {
        if let Ok(text) = std::fs::read_to_string(folder.join(name)) {
            lines.extend(
                text.lines().rev().take(8).map(|line| format!("  {name}: {line}")).collect::<Vec<_>>(),
            );
        }
    }
    lines.join("\n")
}

/// Two free ports on loopback: IMAP under TLS, submission under TLS.
fn two_ports() -> Result<(SocketAddr, SocketAddr)> {
    let imap = port::free()?;
    loop {
        let submission = port::free()?;
        if submission != imap {
            return Ok((port::loopback(imap), port::loopback(submission)));
        }
    }
}

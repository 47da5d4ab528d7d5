//! `cargo box bench`: Postern beside nginx, HAProxy, Dovecot and a bare TLS pump, in one run on one machine.
//!
//! README.md in this folder says how each figure is made and what it can and cannot show.

pub mod account;
pub mod backend;
pub mod client;
pub mod figure;
pub mod identity;
pub mod load;
pub mod measures;
pub mod payload;
pub mod peers;
pub mod pump;
pub mod report;
pub mod usage;
pub mod wire;

use std::io::BufRead;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use self::backend::Ports;
use self::figure::Work;
use self::identity::{Identity, KeyKind};
use self::measures::{Outcome, Plan};
use self::peers::{Peer, Proxy, Site, Tools};
use self::pump::PumpArgs;
use self::report::Report;
use crate::guard::{Process, Workshop};
use crate::install;

/// The longest that one round of one work with one proxy may take.
const STEP_LIMIT: Duration = Duration::from_secs(90);

/// What to measure, and how much of it.
#[derive(clap::Args, Clone, Debug)]
pub struct BenchArgs {
    /// Under three minutes instead of about ten, with less certain figures.
    #[arg(long)]
    quick: bool,
    /// One JSON object on stdout instead of tables.
    #[arg(long)]
    json: bool,
    /// Only these kinds of work.
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Work>,
    /// Only these proxies: pump, postern, nginx, haproxy, dovecot.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// Rounds (an odd number gives medians that were measured).
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: Option<u32>,
    /// A gateway that is already built, instead of building one.
    #[arg(long)]
    gateway: Option<PathBuf>,
}

/// Measures and prints.
///
/// # Errors
/// When something is missing or cannot be started, and when any operation failed: then after the report.
pub fn run(args: &BenchArgs) -> Result<()> {
    let proxies = chosen(&args.peers)?;
    install::ensure_installed(&[install::BENCH])?;
    if cfg!(debug_assertions) {
        return Err(run_optimised());
    }
    let gateway = match &args.gateway {
        _ if !proxies.iter().any(|proxy| proxy.name() == peers::POSTERN) => None,
        Some(path) => Some(path.canonicalize().with_context(|| format!("no {}", path.display()))?),
        None => Some(built("gateway", "gateway")?),
    };
    let tools = Tools { myself: std::env::current_exe()?, gateway };
    let mut plan = if args.quick { Plan::QUICK } else { Plan::WHOLE };
    plan.rounds = args.rounds.unwrap_or(plan.rounds);
    let works = if args.only.is_empty() { Work::ALL.to_vec() } else { args.only.clone() };

    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    measures::check_descriptors(&plan, hard)?;

    let bench = Bench::new(plan, proxies, tools)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(bench.measure(&works))?;
    if args.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.text());
    }
    match report.failures() {
        0 => Ok(()),
        failures => bail!("{failures} operations failed; the report says which"),
    }
}

/// The fake backend: `box bench-backend`.
///
/// # Errors
/// When it cannot listen.
pub fn run_backend() -> Result<()> {
    backend::run()
}

/// The bare pump: `box bench-pump`.
///
/// # Errors
/// When it cannot listen or read its certificate.
pub fn run_pump(args: &PumpArgs) -> Result<()> {
    pump::run(args)
}

/// Everything that a run needs, started.
struct Bench {
    plan: Plan,
    proxies: Vec<&'static dyn Proxy>,
    tools: Tools,
    workshop: Workshop,
    backend: Ports,
    _backend: Process,
    p256: Identity,
    rsa: Identity,
    /// Where proxies run.
    proxy_core: usize,
    /// Where the clients and the backend run.
    load_core: usize,
}

impl Bench {
    fn new(plan: Plan, proxies: Vec<&'static dyn Proxy>, tools: Tools) -> Result<Self> {
        let cores = usage::cores()?;
        let proxy_core = *cores.first().context("no core to run on")?;
        let load_core = *cores.get(1).unwrap_or(&proxy_core);
        usage::pin(load_core)?;
        let workshop = Workshop::new()?;
        let mut command = Command::new(&tools.myself);
        command.arg("bench-backend").stderr(Stdio::inherit());
        let (process, line) = peers::spawn_announcing(&workshop, "backend", &mut command)?;
        let backend = serde_json::from_str(&line).with_context(|| format!("the backend said {line:?}"))?;
        let p256 = Identity::new(&workshop, "p256", KeyKind::P256)?;
        let rsa = Identity::new(&workshop, "rsa", KeyKind::Rsa2048)?;
        Ok(Self {
            plan,
            proxies,
            tools,
            workshop,
            backend,
            _backend: process,
            p256,
            rsa,
            proxy_core,
            load_core,
        })
    }

    /// Each work in turn; within a work, round after round, and in each round one proxy after the other, so that
    /// whatever else the machine does meets all of them alike.
    async fn measure(&self, works: &[Work]) -> Result<Report> {
        let mut report = Report::default();
        report.circumstances.insert("machine".into(), self.machine());
        for proxy in &self.proxies {
            report.circumstances.insert(proxy.name().into(), proxy.version(&self.tools)?);
        }
        let start = Instant::now();
        for &work in works {
            let mut running = Vec::new();
            if work == Work::LoginLatency {
                running.push(Peer::direct(self.backend));
            }
            if work != Work::Parked {
                for proxy in &self.proxies {
                    match self.start(*proxy, work, 0).await {
                        Ok(peer) => running.push(peer),
                        Err(error) => report.add(work, proxy.name(), Err(error)),
                    }
                }
            }
            for round in 1..=self.plan.rounds {
                eprintln!(
                    "{:>4} s: {work:?}, round {round} of {}",
                    start.elapsed().as_secs(),
                    self.plan.rounds
                );
                for peer in &running {
                    report.add(work, peer.name, self.step(work, peer).await);
                }
                if work == Work::Parked {
                    for proxy in &self.proxies {
                        report.add(work, proxy.name(), self.step_fresh(*proxy, work, round).await);
                    }
                }
            }
        }
        report.circumstances.insert("time".into(), format!("{} s", start.elapsed().as_secs()));
        Ok(report)
    }

    async fn step(&self, work: Work, peer: &Peer) -> Result<Outcome> {
        tokio::time::timeout(STEP_LIMIT, work.run(&self.plan, peer, self.identity(work)))
            .await
            .unwrap_or_else(|_| bail!("not over after {STEP_LIMIT:?}"))
    }

    /// With an instance that has done nothing before: memory once taken is seldom given back.
    async fn step_fresh(&self, proxy: &dyn Proxy, work: Work, round: u32) -> Result<Outcome> {
        let peer = self.start(proxy, work, round).await?;
        self.step(work, &peer).await
    }

    async fn start(&self, proxy: &dyn Proxy, work: Work, round: u32) -> Result<Peer> {
        let folder = self.workshop.folder(&format!("{}-{work:?}-{round}", proxy.name()), 0o755)?;
        let site = Site {
            workshop: &self.workshop,
            folder,
            identity: self.identity(work),
            backend: self.backend,
            tools: &self.tools,
        };
        Peer::start(proxy, &site, self.proxy_core, self.load_core).await
    }

    fn identity(&self, work: Work) -> &Identity {
        if work == Work::LoginRsa { &self.rsa } else { &self.p256 }
    }

    fn machine(&self) -> String {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        format!(
            "{}, Linux {}, proxies on core {}, load on core {}",
            model.map_or(std::env::consts::ARCH, |(_, model)| model),
            read("/proc/sys/kernel/osrelease").trim(),
            self.proxy_core,
            self.load_core
        )
    }
}

/// The proxies named, in the bench's own order; all if none is.
fn chosen(names: &[String]) -> Result<Vec<&'static dyn Proxy>> {
    let known: Vec<&str> = peers::ALL.iter().map(|proxy| proxy.name()).collect();
    for name in names {
        ensure!(known.contains(&name.as_str()), "no proxy {name:?}; there are {}", known.join(", "));
    }
    let wanted =
        |proxy: &&'static dyn Proxy| names.is_empty() || names.iter().any(|name| name == proxy.name());
    Ok(peers::ALL.into_iter().filter(wanted).collect())
}

/// Goes on as the optimised build of this very program with the same arguments; returns only if that fails. Unoptimised,
/// the pump would be no limit and the load client would be the bottleneck.
fn run_optimised() -> anyhow::Error {
    match built("hil-tests", "box") {
        Ok(path) => Command::new(&path).args(std::env::args_os().skip(1)).exec().into(),
        Err(error) => error,
    }
}

/// Builds an executable of this workspace like a release; gives its path.
fn built(package: &str, name: &str) -> Result<PathBuf> {
    eprintln!("building {name}");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--release", "--quiet", "--message-format=json", "--package", package, "--bin", name])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let stdout = cargo.stdout.take().context("stdout was piped")?;
    let mut path = None;
    for line in std::io::BufReader::new(stdout).lines() {
        let message: serde_json::Value = serde_json::from_str(&line?)?;
        if message["target"]["name"] == name
            && let Some(executable) = message["executable"].as_str()
        {
            path = Some(PathBuf::from(executable));
        }
        if let Some(error) = message["message"]["rendered"].as_str() {
            eprint!("{error}");
        }
    }
    ensure!(cargo.wait()?.success(), "cargo cannot build {name}");
    path.with_context(|| format!("cargo built no {name}"))
}

//! QEMU, new enough: Debian 12's own knows neither of the real boards, its backports do.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::install::{self, apt, find};
use crate::root;

/// The newest machine that a rig names.
const NEWEST: &str = "imx8mp-evk";

/// Where an added source of packages is named.
const SOURCE: &str = "/etc/apt/sources.list.d/postern-backports.sources";

/// Makes sure that QEMU is there and emulates the boards, and that apt knows the boards' own packages.
pub fn ensure() -> Result<()> {
    let will_do = match find("qemu-system-aarch64") {
        Some(_) => knows_the_boards()?,
        None => !is_bookworm(), // elsewhere the newest that the distribution has
    };
    if !will_do {
        install_from_backports()?;
    }
    install::ensure_installed(&[install::EMULATION, install::SIGNING, install::UBOOT])?;
    ensure!(
        knows_the_boards()?,
        "this machine's QEMU has no machine {NEWEST}: rigs need QEMU 10.0, which Debian 13 and Debian 12's backports have"
    );
    ensure_arm64()
}

fn knows_the_boards() -> Result<bool> {
    let output = Command::new("qemu-system-aarch64")
        .args(["-machine", "help"])
        .stdin(Stdio::null())
        .output()
        .context("qemu-system-aarch64 does not run")?;
    Ok(String::from_utf8_lossy(&output.stdout).contains(NEWEST))
}

fn is_bookworm() -> bool {
    fs::read_to_string("/etc/os-release").unwrap_or_default().contains("VERSION_CODENAME=bookworm")
}

fn install_from_backports() -> Result<()> {
    ensure!(is_bookworm(), "this machine's QEMU is too old for the rigs; install QEMU 10.0 or newer");
    let install =
        ["install", "--yes", "--no-install-recommends", "-t", "bookworm-backports", "qemu-system-arm"];
    if !root::is_real() {
        bail!(
            "the rigs need QEMU 10.0. With bookworm-backports among apt's sources, as root, run:\n  apt-get update && apt-get {}",
            install.join(" ")
        );
    }
    if !sources()?.iter().any(|(_, suite)| suite == "bookworm-backports") {
        add_backports()?;
    }
    eprintln!("installing qemu-system-arm from bookworm-backports");
    apt(&["update"])?;
    apt(&install)
}

/// Adds backports from the mirror that this machine already takes bookworm from.
fn add_backports() -> Result<()> {
    let sources = sources()?;
    let (mirror, _) =
        sources.iter().find(|(_, suite)| suite == "bookworm").context("apt has no source for bookworm")?;
    let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
    ensure!(
        Path::new(keys).exists(),
        "{keys} is not there; add bookworm-backports to apt's sources yourself"
    );
    eprintln!("adding bookworm-backports to apt's sources ({SOURCE})");
    fs::write(
        SOURCE,
        format!(
            "Types: deb\nURIs: {mirror}\nSuites: bookworm-backports\nComponents: main\nSigned-By: {keys}\n"
        ),
    )
    .with_context(|| format!("cannot write {SOURCE}"))
}

/// The mirrors and suites that apt takes packages from.
fn sources() -> Result<Vec<(String, String)>> {
    let output = Command::new("apt-get")
        .args(["indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"])
        .output()
        .context("apt-get does not run")?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(mirror, suite)| (mirror.to_owned(), suite.to_owned()))
        .collect())
}

/// Makes sure that apt knows packages of the boards' architecture: their device trees are in one.
fn ensure_arm64() -> Result<()> {
    let dpkg = |argument: &str| -> Result<String> {
        let output = Command::new("dpkg").arg(argument).output().context("dpkg does not run")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    if dpkg("--print-architecture")?.trim() == "arm64"
        || dpkg("--print-foreign-architectures")?.lines().any(|name| name == "arm64")
    {
        return Ok(());
    }
    ensure!(
        root::is_real(),
        "apt does not know the boards' packages. As root, run:\n  dpkg --add-architecture arm64 && apt-get update"
    );
    let status = Command::new("dpkg").args(["--add-architecture", "arm64"]).status()?;
    ensure!(status.success(), "dpkg --add-architecture arm64 failed");
    apt(&["update"])
}

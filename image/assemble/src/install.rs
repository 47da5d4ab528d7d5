//! Installs what a build needs and this machine lacks: as root by apt-get, otherwise it names the exact lines.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::unistd::geteuid;

use crate::command;

/// A Debian package and a file that is there once it is installed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Package {
    /// As apt-get knows it.
    pub(crate) name: &'static str,
    /// An absolute path, or a command to be found in `PATH`.
    pub(crate) proof: &'static str,
}

const fn package(name: &'static str, proof: &'static str) -> Package {
    Package { name, proof }
}

/// The C compiler for the board: ring's assembler and C, the kernel, and the linker of every executable.
pub(crate) const CROSS: &[Package] = &[
    package("gcc-aarch64-linux-gnu", "aarch64-linux-gnu-gcc"),
    package("libc6-dev-arm64-cross", "/usr/aarch64-linux-gnu/lib/libc.a"),
];

/// Debian's Rust, for machines whose own has no standard library for the board.
pub(crate) const RUST: &[Package] = &[
    package("rustc-web", "/usr/bin/rustc"),
    package("libstd-rust-web-dev:arm64", "/usr/lib/rustlib/aarch64-unknown-linux-gnu/lib"),
];

/// What builds the selector where rustup has not its target: the library's sources, and a linker for EFI programs.
pub(crate) const SELECTOR: &[Package] = &[
    package("rustc-web", "/usr/bin/rustc"),
    package("rust-web-src", "/usr/lib/rustlib/src/rust/library/core/src/lib.rs"),
    package("lld", "lld-link"),
];

/// The kernel and what builds it.
pub(crate) const KERNEL: &[Package] = &[
    package("linux-source-6.12", "/usr/src/linux-source-6.12.tar.xz"),
    package("make", "make"),
    package("gcc", "gcc"),
    package("libc6-dev", "/usr/include/stdio.h"),
    package("flex", "flex"),
    package("bison", "bison"),
    package("bc", "bc"),
    package("perl", "perl"),
    package("xz-utils", "xz"),
    package("zstd", "zstd"),
];

/// File systems.
pub(crate) const DISK: &[Package] =
    &[package("e2fsprogs", "mke2fs"), package("dosfstools", "mkfs.vfat"), package("mtools", "mcopy")];

/// Makes sure that all packages of `sets` are there.
///
/// # Errors
/// Without root, an error that holds the lines to run; with it, whatever apt-get failed with.
pub(crate) fn ensure_installed(sets: &[&[Package]]) -> Result<()> {
    let packages: Vec<&Package> = sets.iter().copied().flatten().collect();
    let missing: Vec<&str> =
        packages.iter().filter(|package| !is_installed(package)).map(|package| package.name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    ensure!(
        command::find("apt-get").is_some(),
        "missing: {}. This tool knows Debian's packages only; install the like of them and try again",
        missing.join(" ")
    );
    let foreign = missing.iter().any(|name| name.ends_with(":arm64"));
    if !geteuid().is_root() {
        let architecture = if foreign { "dpkg --add-architecture arm64 && " } else { "" };
        anyhow::bail!(
            "missing: {0}. As root, run:\n  {architecture}apt-get update && apt-get install --yes --no-install-recommends {0}",
            missing.join(" ")
        );
    }
    eprintln!("installing {}", missing.join(" "));
    if foreign {
        ensure_arm64()?;
    }
    apt(&["update"])?;
    apt(&[&["install", "--yes", "--no-install-recommends"], missing.as_slice()].concat())?;
    for package in packages {
        ensure!(is_installed(package), "{} was installed, yet {} is not there", package.name, package.proof);
    }
    Ok(())
}

fn is_installed(package: &Package) -> bool {
    command::find(package.proof).is_some()
}

/// Makes sure that apt knows packages of the board's architecture.
pub(crate) fn ensure_arm64() -> Result<()> {
    let dpkg = |argument: &str| command::text(Command::new("dpkg").arg(argument));
    if dpkg("--print-architecture")? == "arm64" || dpkg("--print-foreign-architectures")?.contains("arm64") {
        return Ok(());
    }
    ensure!(
        geteuid().is_root(),
        "apt does not know packages for the board. As root, run:\n  dpkg --add-architecture arm64 && apt-get update"
    );
    command::output(Command::new("dpkg").args(["--add-architecture", "arm64"]))?;
    apt(&["update"])
}

/// Runs apt-get without questions.
fn apt(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(["-qq", "-o", "DPkg::Lock::Timeout=600"]); // another installation may be under way
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").env("NEEDRESTART_SUSPEND", "1");
    command::output(&mut command)?;
    Ok(())
}

/// The version of a package as apt would install it, `name:architecture` if it is not this machine's.
pub(crate) fn candidate(name: &str) -> Result<String> {
    let policy = command::text(Command::new("apt-cache").env("LC_ALL", "C").args(["policy", name]))?;
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
    version.filter(|version| *version != "(none)").map(str::to_owned).with_context(|| {
        format!("apt knows no package {name}: add its suite or architecture, then run apt-get update")
    })
}

/// The version of an installed package.
pub(crate) fn version(name: &str) -> Result<String> {
    command::text(Command::new("dpkg-query").args(["--show", "--showformat=${Version}", name]))
}

/// The installed package that a file belongs to.
pub(crate) fn owner(file: &str) -> Result<String> {
    let file = std::fs::canonicalize(file).with_context(|| format!("{file} is not there"))?;
    let answer = command::text(Command::new("dpkg-query").arg("--search").arg(&file))?;
    let owner = answer.split_once(": ").with_context(|| format!("no package owns {}", file.display()))?;
    Ok(owner.0.to_owned())
}

/// Unpacks a package that is not installed, in a version known to apt, below `folder`.
pub(crate) fn unpack(name: &str, version: &str, folder: &Path) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let mut download = Command::new("apt-get");
    download.args(["-qq", "-o", "APT::Sandbox::User=root", "download", &format!("{name}={version}")]);
    command::output(download.current_dir(scratch.path()))?;
    let archive = std::fs::read_dir(scratch.path())?.next().context("apt-get download left no file")??.path();
    command::output(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(folder))?;
    Ok(())
}

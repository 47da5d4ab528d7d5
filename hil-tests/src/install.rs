//! Installs what a command needs and this machine lacks: as root by apt-get, otherwise it names the exact line.
//!
//! The packages are Debian's. Nothing they bring is started: a daemon that the bench needs runs on the bench's own
//! ports and configuration, never as the system's service.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::geteuid;

use crate::root;

/// A Debian package and a file that is there once it is installed.
#[derive(Clone, Copy, Debug)]
pub struct Package {
    /// As apt-get knows it.
    pub name: &'static str,
    /// An absolute path, or a command to be found in `PATH`.
    pub proof: &'static str,
}

const fn package(name: &'static str, proof: &'static str) -> Package {
    Package { name, proof }
}

/// The mail servers that stand behind Postern.
pub const BACKENDS: &[Package] = &[
    package("dovecot-core", "/usr/sbin/dovecot"),
    package("dovecot-imapd", "/usr/lib/dovecot/imap"),
    package("dovecot-pop3d", "/usr/lib/dovecot/pop3"),
    package("postfix", "/usr/lib/postfix/sbin/master"),
];

/// The mail programs that users have.
pub const CLIENTS: &[Package] = &[
    package("curl", "curl"),
    package("python3", "/usr/bin/python3"),
    package("msmtp", "msmtp"),
    package("fetchmail", "fetchmail"),
    package("isync", "mbsync"),
    package("neomutt", "neomutt"),
];

/// The proxies that Postern is measured beside, and what makes an RSA key for them.
pub const BENCH: &[Package] = &[
    package("nginx", "/usr/sbin/nginx"),
    package("libnginx-mod-mail", "/usr/lib/nginx/modules/ngx_mail_module.so"),
    package("haproxy", "/usr/sbin/haproxy"),
    package("dovecot-core", "/usr/sbin/dovecot"),
    package("dovecot-imapd", "/usr/lib/dovecot/imap-login"),
    package("dovecot-submissiond", "/usr/lib/dovecot/submission-login"),
    package("openssl", "openssl"),
];

/// What an ordinary user needs to be root in a namespace of his own.
pub const NAMESPACES: &[Package] = &[package("uidmap", "newuidmap")];

/// What the power-cut tests record a writer's file operations with, and open file systems with that nobody mounts.
pub const RECORDING: &[Package] = &[package("strace", "strace"), package("e2fsprogs", "debugfs")];

/// The servers that the box's own network and clock are tested between, and what lays cables between namespaces.
pub const NETWORK: &[Package] = &[
    package("dnsmasq-base", "dnsmasq"),
    package("chrony", "chronyd"),
    package("iproute2", "ip"),
    package("util-linux", "setpriv"),
];

/// What the fuzzers are built with: libFuzzer's runtime is C++.
pub const FUZZING: &[Package] = &[package("g++", "g++")];

/// What emulates boards, and what their disks and device trees are made with.
pub const EMULATION: &[Package] = &[
    package("qemu-system-arm", "qemu-system-aarch64"),
    package("qemu-efi-aarch64", "/usr/share/AAVMF/AAVMF_CODE.fd"),
    package("device-tree-compiler", "fdtput"),
];

/// What `sign` calls.
pub const SIGNING: &[Package] = &[package("openssl", "openssl"), package("sbsigntool", "sbsign")];

/// What U-Boot is built with, and the keys that its sources are signed by.
pub const UBOOT: &[Package] = &[
    package("debian-archive-keyring", "/usr/share/keyrings/debian-archive-keyring.gpg"),
    package("dpkg-dev", "dpkg-source"),
    package("xz-utils", "xz"),
    package("make", "make"),
    package("gcc", "gcc"),
    package("libc6-dev", "/usr/include/stdio.h"),
    package("gcc-aarch64-linux-gnu", "aarch64-linux-gnu-gcc"),
    package("bison", "bison"),
    package("flex", "flex"),
    package("bc", "bc"),
    package("libssl-dev", "/usr/include/openssl/ssl.h"),
];

/// Whether `package` is installed.
pub fn is_installed(package: &Package) -> bool {
    find(package.proof).is_some()
}

/// Finds a command in `PATH` and in the folders of daemons, or checks an absolute path.
pub fn find(program: &str) -> Option<PathBuf> {
    if program.starts_with('/') {
        return Path::new(program).exists().then(|| program.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// Makes sure that all packages of `sets` are there and that we are root, if need be in a namespace: then this command
/// starts anew and does not return from here.
pub fn ensure_ready(sets: &[&[Package]]) -> Result<()> {
    if geteuid().is_root() {
        return ensure_installed(sets);
    }
    ensure_installed(&[sets, &[NAMESPACES]].concat())?;
    root::ensure()
}

/// Makes sure that all packages of `sets` are there.
///
/// # Errors
/// Without root, an error that holds the line to run; with it, whatever apt-get failed with.
pub fn ensure_installed(sets: &[&[Package]]) -> Result<()> {
    let missing: Vec<&str> = sets
        .iter()
        .flat_map(|set| set.iter())
        .filter(|package| !is_installed(package))
        .map(|package| package.name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    ensure!(
        find("apt-get").is_some(),
        "missing: {}. This tool knows Debian's packages only; install the like of them and try again",
        missing.join(" ")
    );
    ensure!(
        root::is_real(),
        "missing: {0}. As root, run:\n  apt-get update && apt-get install --yes --no-install-recommends {0}",
        missing.join(" ")
    );
    eprintln!("installing {}", missing.join(" "));
    let _quiet = NoServices::new()?;
    apt(&["update"])?;
    if missing.contains(&"postfix") {
        preseed("postfix postfix/main_mailer_type select No configuration\n")?;
    }
    let mut arguments =
        vec!["install", "--yes", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold"];
    arguments.extend(&missing);
    apt(&arguments)?;
    for package in sets.iter().flat_map(|set| set.iter()) {
        ensure!(is_installed(package), "{} was installed, yet {} is not there", package.name, package.proof);
    }
    Ok(())
}

/// Has apt read its lists anew.
///
/// # Errors
/// Without root, an error that holds the line to run.
pub fn update() -> Result<()> {
    ensure!(root::is_real(), "apt's lists are empty or old. As root, run:\n  apt-get update");
    apt(&["update"])
}

/// Runs apt-get without questions, its talk on stderr (stdout belongs to `--json`).
pub(crate) fn apt(arguments: &[&str]) -> Result<()> {
    let output = Command::new("apt-get")
        .args(["-qq", "-o", "DPkg::Lock::Timeout=600"]) // another installation may be under way
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("NEEDRESTART_SUSPEND", "1")
        .stdin(Stdio::null())
        .output()
        .context("apt-get does not run")?;
    if !output.status.success() {
        eprint!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        bail!("apt-get {} failed: {}", arguments.join(" "), output.status);
    }
    Ok(())
}

/// Answers a package's questions before they are asked.
fn preseed(selections: &str) -> Result<()> {
    use std::io::Write;
    let mut child = Command::new("debconf-set-selections")
        .stdin(Stdio::piped())
        .spawn()
        .context("debconf-set-selections does not run")?;
    child.stdin.take().context("no pipe to debconf")?.write_all(selections.as_bytes())?;
    let status = child.wait()?;
    ensure!(status.success(), "debconf-set-selections failed: {status}");
    Ok(())
}

/// While this lives, installed packages start no service. A policy that is there already stays as it is.
struct NoServices {
    ours: bool,
}

impl NoServices {
    const PATH: &'static str = "/usr/sbin/policy-rc.d";

    fn new() -> Result<Self> {
        if Path::new(Self::PATH).exists() {
            return Ok(Self { ours: false });
        }
        fs::write(Self::PATH, "#!/bin/sh\nexit 101\n")
            .with_context(|| format!("cannot write {}", Self::PATH))?;
        let guard = Self { ours: true };
        fs::set_permissions(Self::PATH, fs::Permissions::from_mode(0o755))?;
        Ok(guard)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(Self::PATH)
        {
            eprintln!("please remove {} yourself: {error}", Self::PATH);
        }
    }
}

//! The executables of the box: ours, built static for its CPU, the same bytes from the same sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::release::Kind;
use crate::toolchain::{TARGET, Toolchain};
use crate::{cache, command};

/// The packages that run on the box; each is one executable of the same name.
const PROGRAMS: [&str; 2] = ["gateway", "init"];

/// The profile in the workspace's `Cargo.toml`.
const PROFILE: &str = "image";

/// What a build of the userland gives.
#[derive(Debug)]
pub(crate) struct Userland {
    /// Executables by name.
    pub(crate) programs: BTreeMap<&'static str, Vec<u8>>,
    /// The crates that were compiled for the board, and so may be linked into one of them.
    pub(crate) crates: Vec<Crate>,
    /// What compiled them.
    pub(crate) toolchain: Toolchain,
}

/// A crate and where it comes from.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Crate {
    id: String,
    /// Its name.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: String,
    /// Its licence, an SPDX expression.
    pub(crate) license: Option<String>,
    /// Its registry; none for our own.
    pub(crate) source: Option<String>,
}

/// What cargo knows of the workspace.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Crate>,
    workspace_members: BTreeSet<String>,
}

/// One of the lines that cargo writes while it builds.
#[derive(Debug, Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    package_id: String,
    #[serde(default)]
    filenames: Vec<PathBuf>,
    executable: Option<PathBuf>,
}

/// Builds the workspace in `root` with its target folder at `target`.
pub(crate) fn build(root: &Path, target: &Path, kind: Kind) -> Result<Userland> {
    let target = cache::make(target)?;
    let _lock = cache::Lock::take(&target.join("lock"))?;
    let toolchain = Toolchain::find(root)?;
    let cargo = |task: &str| toolchain.cargo(root, &target, task);
    command::output(cargo("fetch")?.args(["--locked", "--target", TARGET]))?;
    let metadata = command::output(cargo("metadata")?.args([
        "--locked",
        "--format-version",
        "1",
        "--filter-platform",
        TARGET,
    ]))?;
    let metadata: Metadata =
        serde_json::from_slice(&metadata).context("cargo metadata is not as expected")?;
    forget_other_clone(&metadata, root, &target, cargo("clean")?)?;

    let mut build = cargo("build")?;
    build.args(["--locked", "--profile", PROFILE, "--target", TARGET]);
    build.args(["--message-format", "json-render-diagnostics"]);
    for program in PROGRAMS {
        build.args(["--package", program]);
    }
    if kind == Kind::Bench {
        build.args(["--features", "init/bench"]);
    }
    let messages = command::piped(&mut build)?;
    let mut programs = BTreeMap::new();
    let mut compiled = BTreeSet::new();
    // What runs while building (build scripts, macros) lies beside the folder of the board's architecture.
    let ours = target.join(TARGET);
    for line in messages.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let message: Message =
            serde_json::from_slice(line).context("cargo's messages are not as expected")?;
        if message.reason != "compiler-artifact"
            || !message.filenames.iter().any(|file| file.starts_with(&ours))
        {
            continue;
        }
        compiled.insert(message.package_id);
        if let Some(path) = message.executable {
            let name = PROGRAMS.iter().find(|name| path.file_name().is_some_and(|file| file == **name));
            if let Some(name) = name {
                let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                toolchain.ensure_anonymous(name, &bytes, &[root, &target])?;
                programs.insert(*name, bytes);
            }
        }
    }
    for program in PROGRAMS {
        ensure!(programs.contains_key(program), "cargo built no executable named {program}");
    }
    let crates = metadata.packages.into_iter().filter(|package| compiled.contains(&package.id)).collect();
    Ok(Userland { programs, crates, toolchain })
}

/// Removes our own crates if another clone was built here last. Cargo tells a crate of one clone from that of another
/// by the age of its files alone, so an older clone's would pass for this one's. What comes from registries stays.
fn forget_other_clone(metadata: &Metadata, root: &Path, target: &Path, mut clean: Command) -> Result<()> {
    let stamp = target.join("clone");
    let here = root.canonicalize()?;
    let here = here.as_os_str().as_encoded_bytes();
    if fs::read(&stamp).is_ok_and(|last| last == here) {
        return Ok(());
    }
    clean.args(["--locked", "--profile", PROFILE, "--target", TARGET]);
    for package in metadata.packages.iter().filter(|package| metadata.workspace_members.contains(&package.id))
    {
        clean.args(["--package", &package.name]);
    }
    command::output(&mut clean)?;
    cache::replace(&stamp, here)
}

//! Device trees of real boards, from Debian's arm64 kernel package. An emulator without the board's firmware needs one.
//!
//! The package is fetched and unpacked, never installed: it would bring a kernel to this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::cache;
use crate::guard::Workshop;
use crate::rig::description::DeviceTree;

/// Depends on the newest kernel of the release.
const META_PACKAGE: &str = "linux-image-arm64";

/// The device tree of a rig, ready for the emulator, in the workshop.
pub fn prepare(tree: &DeviceTree, workshop: &Workshop) -> Result<PathBuf> {
    let original = find(&tree.file)?;
    let copy = workshop.file("board.dtb");
    fs::copy(&original, &copy).with_context(|| format!("cannot copy {}", original.display()))?;
    for node in &tree.disable {
        put(&copy, node, "status", "disabled")?;
    }
    for (node, property) in &tree.delete {
        fdtput(&["-d"], &copy, &[node, property])?;
    }
    if let Some(stdout) = &tree.stdout {
        put(&copy, "/chosen", "stdout-path", stdout)?;
    }
    Ok(copy)
}

/// Sets a property of a node.
fn put(tree: &Path, node: &str, property: &str, value: &str) -> Result<()> {
    fdtput(&["-t", "s"], tree, &[node, property, value])
}

fn fdtput(options: &[&str], tree: &Path, words: &[&str]) -> Result<()> {
    let status = Command::new("fdtput")
        .args(options)
        .arg(tree)
        .args(words)
        .status()
        .context("fdtput does not run; it is in the package device-tree-compiler")?;
    ensure!(status.success(), "fdtput {} {} failed", options.join(" "), words.join(" "));
    Ok(())
}

/// A file of the package, from the cache if it is there.
fn find(file: &str) -> Result<PathBuf> {
    let folder = cache::folder("device-trees")?;
    let kept = folder.join(file);
    if !kept.is_file() {
        let _lock = cache::lock("device-trees")?;
        if !kept.is_file() {
            fetch(file, &kept)?;
        }
    }
    Ok(kept)
}

/// Downloads the kernel package and keeps the wanted family of its device trees.
fn fetch(file: &str, kept: &Path) -> Result<()> {
    let package = kernel_package()?;
    let place = tempfile::tempdir()?;
    eprintln!("fetching the device trees of {package}");
    let status = Command::new("apt-get")
        .args(["-qq", "-o", "APT::Sandbox::User=root", "download", &format!("{package}:arm64")])
        .current_dir(place.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("apt-get does not run")?;
    ensure!(status.success(), "apt-get download {package}:arm64 failed");
    let archive = fs::read_dir(place.path())?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get downloaded nothing")?;
    let tree = place.path().join("tree");
    let status = Command::new("dpkg-deb").arg("-x").arg(archive).arg(&tree).status()?;
    ensure!(status.success(), "dpkg-deb -x failed");
    let version = package.strip_prefix("linux-image-").unwrap_or(&package);
    let found = tree.join("usr/lib").join(format!("linux-image-{version}")).join(file);
    let (Some(from), Some(to)) = (found.parent(), kept.parent()) else { bail!("no folder in {file}") };
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("{package} holds no {file}"))? {
        let path = entry?.path();
        if let Some(name) = path.file_name()
            && path.is_file()
        {
            // In one rename each, the wanted one too: another process may be waiting for it.
            let draft = to.join("draft");
            fs::copy(&path, &draft)?;
            fs::rename(&draft, to.join(name))?;
        }
    }
    ensure!(kept.is_file(), "{package} holds no {file}");
    Ok(())
}

/// The name of the newest kernel's package.
fn kernel_package() -> Result<String> {
    let output = Command::new("apt-cache")
        .args(["depends", "--no-recommends", "--no-suggests", &format!("{META_PACKAGE}:arm64")])
        .output()
        .context("apt-cache does not run")?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .map(|name| name.trim_end_matches(":arm64").to_owned())
        .find(|name| name.starts_with("linux-image-"))
        .with_context(|| {
            format!(
                "no package {META_PACKAGE}:arm64; as root, run: dpkg --add-architecture arm64 && apt-get update"
            )
        })
}

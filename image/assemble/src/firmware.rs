//! The firmware file of a release: userland, root file system and kernel in one EFI program, and the papers beside it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cpio::Archive;
use crate::kernel::{Kernel, Tree};
use crate::release::{self, Release};
use crate::userland::{self, Userland};
use crate::{cache, install, rootfs, sbom};

/// The EFI program, not signed yet: `sign` does that.
pub(crate) const FIRMWARE: &str = "firmware.efi";
/// The same as a plain kernel image, for boards that start one directly.
pub(crate) const IMAGE: &str = "Image";
/// The root file system inside both.
pub(crate) const ROOTFS: &str = "rootfs.cpio";
const LIST: &str = "rootfs.txt";
const SBOM: &str = "sbom.cdx.json";

/// Where things are built and kept.
#[derive(Debug)]
pub(crate) struct Places {
    /// The clone.
    pub(crate) root: PathBuf,
    /// What is built once.
    pub(crate) cache: PathBuf,
    /// Cargo's target folder for the board.
    pub(crate) target: PathBuf,
    /// Kernel trees.
    pub(crate) kernels: PathBuf,
}

/// A firmware file before it is written.
#[derive(Debug)]
pub(crate) struct Firmware {
    release: Release,
    userland: Userland,
    e2fsck: String,
    rootfs: Archive,
    /// The root file system as the kernel unpacks it.
    pub(crate) archive: Vec<u8>,
    /// What was linked.
    pub(crate) kernel: Kernel,
}

impl Firmware {
    /// Builds all of it.
    pub(crate) fn build(places: &Places, release: Release) -> Result<Self> {
        install::ensure_installed(&[install::CROSS, install::KERNEL, install::DISK])?;
        let userland = userland::build(&places.root, &places.target, release.kind)?;
        let (program, e2fsck) = rootfs::e2fsck(&places.cache)?;
        let rootfs = rootfs::assemble(&places.root, &userland, &release, program)?;
        let archive = rootfs.to_bytes()?;
        let tree = Tree::open(&places.root.join("image/kernel"), &places.kernels)?;
        let kernel = tree.link(&archive, &release)?;
        Ok(Self { release, userland, e2fsck, rootfs, archive, kernel })
    }

    /// Our executables by name.
    pub(crate) fn programs(&self) -> &BTreeMap<&'static str, Vec<u8>> {
        &self.userland.programs
    }

    /// Writes it and its papers into `out`.
    pub(crate) fn write(&self, root: &Path, out: &Path) -> Result<()> {
        cache::make(out)?;
        let sbom = sbom::make(root, &self.release, &self.userland, &self.kernel.version, &self.e2fsck)?;
        let (list, release) = (rootfs::list(&self.rootfs), self.release.to_toml()?);
        let files: [(&str, &[u8]); 6] = [
            (FIRMWARE, &self.kernel.program),
            (IMAGE, &self.kernel.image),
            (ROOTFS, &self.archive),
            (LIST, list.as_bytes()),
            (SBOM, sbom.as_bytes()),
            (release::FILE, release.as_bytes()),
        ];
        for (name, bytes) in files {
            cache::replace(&out.join(name), bytes)?;
        }
        Ok(())
    }
}

/// Reads one of the files that [`Firmware::write`] wrote.
pub(crate) fn read(folder: &Path, name: &str) -> Result<Vec<u8>> {
    let path = folder.join(name);
    fs::read(&path)
        .with_context(|| format!("cannot read {}: run assemble firmware --out first", path.display()))
}

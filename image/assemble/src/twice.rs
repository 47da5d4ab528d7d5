//! Two builds, same bytes: builds the firmware twice in folders that have nothing in common, and compares.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::firmware::{Firmware, Places};
use crate::release::Release;
use crate::{cache, command, rootfs};

/// Builds `release` twice from copies of the clone. The userland is compiled from nothing both times; the kernel is
/// linked twice in one tree, or with `kernel` built from nothing twice as well.
pub(crate) fn check(places: &Places, release: &Release, kernel: bool) -> Result<()> {
    let scratch = tempfile::Builder::new().prefix("twice").tempdir_in(&places.cache)?;
    let mut first: Option<Vec<(String, Vec<u8>)>> = None;
    // Of different lengths: a path in an executable would shift what comes after it.
    for name in ["first", "second/of/the/two"] {
        let folder = cache::make(&scratch.path().join(name))?;
        let root = folder.join("clone");
        copy_clone(&places.root, &root)?;
        let kernels = if kernel { cache::make(&folder.join("kernel"))? } else { places.kernels.clone() };
        let here = Places { root, cache: places.cache.clone(), target: folder.join("target"), kernels };
        let built = parts(Firmware::build(&here, release.clone())?);
        fs::remove_dir_all(&folder)?;
        match &first {
            None => first = Some(built),
            Some(first) => compare(first, &built)?,
        }
    }
    Ok(())
}

/// What is compared, the small parts first: they say where a difference comes from.
fn parts(firmware: Firmware) -> Vec<(String, Vec<u8>)> {
    let programs = firmware.programs().iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone()));
    let mut parts: Vec<_> = programs.collect();
    parts.push(("rootfs.cpio".to_owned(), firmware.archive));
    parts.push(("Image".to_owned(), firmware.kernel.image));
    parts.push(("firmware.efi".to_owned(), firmware.kernel.program));
    parts
}

fn compare(first: &[(String, Vec<u8>)], second: &[(String, Vec<u8>)]) -> Result<()> {
    ensure!(first.len() == second.len(), "the two builds have not the same parts");
    let mut differ = Vec::new();
    for ((name, first), (_, second)) in first.iter().zip(second) {
        if first == second {
            println!("same {} {name}", rootfs::sha256(first));
        } else {
            let place = first.iter().zip(second).position(|(one, other)| one != other);
            differ.push(format!("{name} (first at byte {})", place.unwrap_or(first.len().min(second.len()))));
        }
    }
    if differ.is_empty() {
        Ok(())
    } else {
        bail!("two builds of the same sources differ in {}", differ.join(", "))
    }
}

/// Copies what git knows of the clone, as it lies there now.
fn copy_clone(from: &Path, to: &Path) -> Result<()> {
    let list = command::output(Command::new("git").arg("-C").arg(from).args(["ls-files", "-z"]))?;
    for path in list.split(|&byte| byte == 0).filter(|path| !path.is_empty()) {
        let path = std::str::from_utf8(path).context("a file in the clone has a name that is not UTF-8")?;
        let (source, copy) = (from.join(path), to.join(path));
        let Ok(metadata) = source.symlink_metadata() else { continue }; // deleted, not yet committed
        if let Some(folder) = copy.parent() {
            fs::create_dir_all(folder)?;
        }
        let copied = if metadata.is_symlink() {
            fs::read_link(&source).and_then(|target| symlink(target, &copy))
        } else {
            fs::copy(&source, &copy).map(|_| ())
        };
        copied.with_context(|| format!("cannot copy {}", source.display()))?;
    }
    Ok(())
}

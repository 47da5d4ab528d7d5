//! `assemble`: from source to an image. It sees no private key; `sign` does, and nothing else.

mod cache;
mod command;
mod cpio;
mod disk;
mod fat;
mod figures;
mod firmware;
mod gpt;
mod install;
mod kernel;
mod release;
mod rootfs;
mod sbom;
mod selector;
mod template;
mod toolchain;
mod twice;
mod userland;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::firmware::{Firmware, Places};
use crate::release::{Kind, Release};

/// Builds the firmware file and the disk of a box.
#[derive(Debug, Parser)]
#[command(name = "assemble")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Builds the firmware file, not signed, and its papers.
    Firmware {
        /// The folder for them.
        #[arg(long)]
        out: PathBuf,
        /// For tests that must break things: PID 1 also takes commands from the console.
        #[arg(long)]
        bench: bool,
        /// Where kernels are kept; otherwise below `${XDG_CACHE_HOME:-$HOME/.cache}/postern`.
        #[arg(long)]
        kernel_cache: Option<PathBuf>,
    },
    /// Prints how large a firmware file is, piece by piece; fails if it breaks a limit.
    Figures {
        /// The folder that `firmware` wrote.
        #[arg(long)]
        dir: PathBuf,
    },
    /// Builds the firmware twice, in different folders, and compares the bytes.
    Check {
        /// Asked for by name, since it takes long.
        #[arg(long, required = true)]
        twice: bool,
        /// Build the kernel from nothing twice as well, instead of only linking it twice.
        #[arg(long)]
        kernel: bool,
        /// Where kernels are kept.
        #[arg(long)]
        kernel_cache: Option<PathBuf>,
    },
    /// Builds the kernel into its cache, so that `firmware` only links.
    Kernel {
        /// Where kernels are kept; otherwise below `${XDG_CACHE_HOME:-$HOME/.cache}/postern`.
        #[arg(long)]
        kernel_cache: Option<PathBuf>,
    },
    /// Builds the selector, not signed.
    Selector {
        /// The folder for it.
        #[arg(long)]
        out: PathBuf,
    },
    /// Makes a disk image from signed files: boot, two slots, their state, data.
    Disk {
        /// The signed selector.
        #[arg(long)]
        selector: PathBuf,
        /// The signed firmware file for slot A; its release.toml stands beside it.
        #[arg(long)]
        firmware: PathBuf,
        /// A signed firmware file for slot B, with a release.toml beside it too.
        #[arg(long)]
        slot_b: Option<PathBuf>,
        /// The signed rescue firmware; until there is one, the firmware of slot A.
        #[arg(long)]
        rescue: Option<PathBuf>,
        /// A folder with settings.toml and the files it names: what a new box starts with.
        #[arg(long)]
        seed: Option<PathBuf>,
        /// Size of the disk in bytes.
        #[arg(long, default_value_t = 512 << 20)]
        size: u64,
        /// The disk image to write.
        #[arg(long)]
        out: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("assemble: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Firmware { out, bench, kernel_cache } => {
            let places = places(kernel_cache)?;
            let kind = if bench { Kind::Bench } else { Kind::Release };
            let release = Release::of(&places.root, env!("CARGO_PKG_VERSION"), kind)?;
            Firmware::build(&places, release)?.write(&places.root, &out)
        }
        Task::Figures { dir } => figures::print(&dir),
        Task::Check { twice: _, kernel, kernel_cache } => {
            let places = places(kernel_cache)?;
            let release = Release::of(&places.root, env!("CARGO_PKG_VERSION"), Kind::Release)?;
            twice::check(&places, &release, kernel)
        }
        Task::Kernel { kernel_cache } => {
            install::ensure_installed(&[install::CROSS, install::KERNEL])?;
            let places = places(kernel_cache)?;
            let release = Release::of(&places.root, env!("CARGO_PKG_VERSION"), Kind::Release)?;
            let mut nothing = cpio::Archive::default();
            nothing.directory("dev", 0o755)?;
            let tree = kernel::Tree::open(&places.root.join("image/kernel"), &places.kernels)?;
            tree.link(&nothing.to_bytes()?, &release)?;
            Ok(())
        }
        Task::Selector { out } => selector::build(&places(None)?, &out),
        Task::Disk { selector, firmware, slot_b, rescue, seed, size, out } => {
            disk::Disk { selector, firmware, slot_b, rescue, seed, size }.write(&out)
        }
    }
}

/// Where everything lies, for the clone that we stand in, or else the one that this program was built from.
fn places(kernels: Option<PathBuf>) -> Result<Places> {
    let here = std::env::current_dir()?;
    let clone = here.ancestors().find(|folder| folder.join("image/assemble/Cargo.toml").is_file());
    let root = match clone {
        Some(clone) => clone.to_owned(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?,
    };
    let cache = cache::folder()?;
    let kernels = cache::make(&kernels.unwrap_or_else(|| cache.join("kernel")))?.canonicalize()?;
    Ok(Places { root, target: cache.join("target"), kernels, cache })
}

//! `assemble`: from source to an image. It sees no private key; `sign` does, and nothing else.

mod command;
mod cpio;
mod disk;
mod fat;
mod gpt;
mod release;
mod template;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Builds the firmware file and the disk of a box.
#[derive(Debug, Parser)]
#[command(name = "assemble")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
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
        Task::Disk { selector, firmware, slot_b, rescue, seed, size, out } => {
            disk::Disk { selector, firmware, slot_b, rescue, seed, size }.write(&out)
        }
    }
}

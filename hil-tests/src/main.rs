//! `cargo box`: runs, tests and measures Postern.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use hil_tests::rig::fake::{self, FakeBenchArgs};
use hil_tests::{bench, demo, flash, suite};

/// Runs, tests and measures Postern on this machine.
#[derive(Debug, Parser)]
#[command(name = "cargo box", bin_name = "cargo box")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Runs Postern in front of a real Dovecot and Postfix and says what to try; Ctrl-C ends it.
    Run {
        /// Run the gateway on this machine instead of in the image.
        #[arg(long)]
        host: bool,
        /// Print one JSON object once serving; serve until stdin closes.
        #[arg(long)]
        json: bool,
        /// Build without optimisation: sooner there, slower then. The image is always built as it ships.
        #[arg(long)]
        dev: bool,
        /// The rig to boot the image on: a name from hil-tests/rigs, or the path of a rig file.
        #[arg(long, default_value = "virt-edk2", conflicts_with = "host")]
        rig: String,
    },
    /// Checks everything: format, arrows, licences, lints, fuzzers, units, real peers, rigs.
    Test {
        /// Leave the rigs out.
        #[arg(long)]
        quick: bool,
    },
    /// Writes a disk with the image to an SD card or eMMC.
    Flash {
        /// The whole disk, such as /dev/sdX; everything on it will be lost.
        #[arg(long)]
        disk: PathBuf,
        /// A folder with settings.toml and the files it names, for the box to start with.
        #[arg(long)]
        seed: Option<PathBuf>,
        /// Write this disk image instead of one built here.
        #[arg(long, conflicts_with = "seed")]
        image: Option<PathBuf>,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        /// Also a disk that cannot be taken out of this machine, such as an eMMC.
        #[arg(long)]
        yes_really_fixed_disk: bool,
    },
    /// Measures Postern beside nginx, HAProxy, Dovecot and a bare TLS pump, in one run.
    Bench(bench::BenchArgs),
    /// The bench's fake mail server.
    #[command(hide = true)]
    BenchBackend,
    /// A bench without hardware: pseudo-terminals around an emulated board.
    #[command(hide = true)]
    FakeBench(FakeBenchArgs),
    /// The bench's bare TLS pump.
    #[command(hide = true)]
    BenchPump(bench::pump::PumpArgs),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Run { host, json, dev, rig } => demo::run(&demo::Options { host, json, dev, rig }),
        Task::Test { quick } => suite::run_all(suite::Options { quick }),
        Task::Flash { disk, seed, image, yes, yes_really_fixed_disk } => {
            flash::run(&flash::Options { disk, fixed: yes_really_fixed_disk, yes, seed, image })
        }
        Task::Bench(args) => bench::run(&args),
        Task::BenchBackend => bench::run_backend(),
        Task::FakeBench(args) => fake::run(&args),
        Task::BenchPump(args) => bench::run_pump(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo box: {error:#}");
            ExitCode::FAILURE
        }
    }
}

//! `cargo box`: runs, tests and measures Postern.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use hil_tests::install;

/// Runs, tests and measures Postern on this machine.
#[derive(Debug, Parser)]
#[command(name = "cargo box", bin_name = "cargo box")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install.
    Install,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        Task::Install => install::ensure_installed(&[install::BACKENDS, install::CLIENTS, install::FUZZING]),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo box: {error:#}");
            ExitCode::FAILURE
        }
    }
}

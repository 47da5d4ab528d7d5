//! `cargo box`: runs, tests and measures Postern.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use hil_tests::{bench, install};

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
    /// Measures Postern beside nginx, HAProxy, Dovecot and a bare TLS pump.
    Bench(bench::BenchArgs),
    /// The bench's fake mail server.
    #[command(hide = true)]
    BenchBackend,
    /// The bench's bare TLS pump.
    #[command(hide = true)]
    BenchPump(bench::pump::PumpArgs),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        Task::Install => install::ensure_installed(&[install::BACKENDS, install::CLIENTS, install::FUZZING]),
        Task::Bench(args) => bench::run(&args),
        Task::BenchBackend => bench::run_backend(),
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

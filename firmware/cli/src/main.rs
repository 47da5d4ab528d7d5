//! `postern`: the operator's command. It asks the gateway over the control socket and shows what it says.

mod ask;
mod check;
mod command;
mod exit;
mod show;
mod table;
mod transfer;
mod when;

use std::process::ExitCode;

use clap::Parser as _;

use crate::command::{Command, Postern};
use crate::exit::Exit;

fn main() -> ExitCode {
    let postern = match Postern::try_parse() {
        Ok(postern) => postern,
        Err(error) => {
            // Help goes to standard output and is no mistake; a broken pipe there is nobody's concern.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    match run(&postern) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.tell(postern.json);
            failure.exit().into()
        }
    }
}

fn run(postern: &Postern) -> Result<Exit, exit::Failure> {
    match &postern.command {
        Command::Check { file, no_files } => check::check(file, !no_files, postern.json),
        Command::Export { file } => transfer::export(postern, file.as_deref()),
        Command::Import { file } => transfer::import(postern, file),
        other => ask::ask(postern, other),
    }
}

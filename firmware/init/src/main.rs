//! PID 1 of the box, and its child that looks after the network.

mod network;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|role| role == "network") {
        return network::run(arguments);
    }
    eprintln!("init: say which role: network");
    ExitCode::FAILURE
}

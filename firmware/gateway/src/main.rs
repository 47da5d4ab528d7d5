//! `gateway --settings FILE`: the front end of the box.

use std::path::PathBuf;
use std::process::ExitCode;

use gateway::export;
use gateway::gateway::NotInForce;
use gateway::process::{self, Source};
use settings::Places;

const HELP: &str = "\
Usage: gateway --settings FILE [--data DIR] [--control SOCKET] [--workers N]
       gateway (--settings FILE | --data DIR) --export

Serves mail clients as FILE says. Prints one JSON line with its addresses on standard output once it serves,
and logs on standard error. SIGHUP reads the settings and certificates again, SIGTERM and SIGINT drain and stop.

  --settings FILE  the settings document (see the commented example beside the settings crate)
  --data DIR       where the device database is, instead of [box] data
  --control SOCKET where `postern` and the consoles ask, instead of [control] socket
  --workers N      worker threads; default: one for each processor
  --export         serves nobody: prints the device database as `postern export` does, and ends

Under systemd, or init on the box, it takes the listening sockets of LISTEN_FDS, says when it is ready and that it is
alive (sd_notify).

Exit codes: 0 stopped as asked, 1 could not start or failed, 2 wrong usage, 78 the settings are wrong.
";

/// `EX_CONFIG` of sysexits(3).
const EX_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let mut settings: Option<PathBuf> = None;
    let mut workers: Option<usize> = None;
    let mut places = Places::default();
    let mut is_export = false;
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--settings") => settings = arguments.next().map(PathBuf::from),
            Some("--workers") => {
                match arguments.next().and_then(|n| n.to_str()?.parse().ok()).filter(|n| *n > 0) {
                    Some(number) => workers = Some(number),
                    None => return usage("--workers takes a number of 1 or more"),
                }
            }
            Some("--data") => places.data = arguments.next().map(PathBuf::from),
            Some("--control") => places.control = arguments.next().map(PathBuf::from),
            Some("--export") => is_export = true,
            Some("--help" | "-h") => {
                print!("{HELP}");
                return ExitCode::SUCCESS;
            }
            _ => return usage(&format!("unknown argument {}", argument.display())),
        }
    }
    if is_export {
        return ended(export::run(settings.as_deref(), &places));
    }
    let Some(file) = settings else { return usage("--settings FILE is missing") };
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(number) = workers {
        builder.worker_threads(number);
    }
    // The database and the file system are reached through a few blocking threads, not one for each login.
    let runtime = builder.max_blocking_threads(16).enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(process::run(Source { file, places }));
            // Whatever a look-up thread still does must not keep the process.
            runtime.shutdown_timeout(std::time::Duration::from_secs(1));
            result
        }
        Err(error) => Err(anyhow::anyhow!("cannot start the runtime: {error}")),
    };
    ended(result)
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gateway: {error:#}");
            // Whoever restarts us may want to know that a restart will not help.
            if error.is::<NotInForce>() { ExitCode::from(EX_CONFIG) } else { ExitCode::FAILURE }
        }
    }
}

fn usage(what: &str) -> ExitCode {
    eprintln!("gateway: {what}\n\n{HELP}");
    ExitCode::from(2)
}

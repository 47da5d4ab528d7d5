//! One question to the gateway, and its answer shown.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use control::{Client, DEFAULT_SOCKET, Page, Request, Response, Severity, State};

use crate::command::{Accounts, Command, Devices, Postern, SessionsVerb};
use crate::exit::{Exit, Failure};
use crate::show;

/// The longest silence before an answer is given up. The self-test waits for backends, an import for the disk.
const PATIENCE: Duration = Duration::from_mins(5);

/// The gateway's socket: `--control`, else `POSTERN_CONTROL`, else the usual one.
pub(crate) fn socket(postern: &Postern) -> PathBuf {
    let from_environment =
        || std::env::var_os("POSTERN_CONTROL").filter(|path| !path.is_empty()).map(PathBuf::from);
    postern.control.clone().or_else(from_environment).unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET))
}

/// A connection to it.
pub(crate) fn connect(socket: &Path) -> Result<Client, Failure> {
    Client::connect(socket, Some(PATIENCE)).map_err(|error| Failure::client(socket, &error))
}

/// Asks, shows, and says how the command ends.
pub(crate) fn ask(postern: &Postern, command: &Command) -> Result<Exit, Failure> {
    let Some(request) = request(command) else {
        return Err(Failure::new(
            "internal",
            "this verb asks nothing of the gateway",
            "report this as a bug",
        ));
    };
    let socket = socket(postern);
    if let Request::Events { follow: true, .. } = request {
        return follow(&socket, &request, postern.json);
    }
    let answer = connect(&socket)?.ask(&request).map_err(|error| Failure::client(&socket, &error))?;
    if let Response::Error(error) = answer {
        return Err(error.into());
    }
    print(&if postern.json { json(&answer) } else { show::answer(&answer) })?;
    Ok(match answer {
        Response::SelfTest(page) if page.rows.iter().any(|finding| finding.severity == Severity::Error) => {
            Exit::No
        }
        Response::Health(health) if health.state == State::Failing => Exit::No,
        _ => Exit::Done,
    })
}

/// What a command line asks; `None` for those that do not ask.
fn request(command: &Command) -> Option<Request> {
    Some(match command {
        Command::Devices(devices) => self::devices(devices),
        Command::Accounts(accounts) => self::accounts(accounts),
        Command::Simulate { account } => Request::Simulate { account: account.clone() },
        Command::Attempts { account } => Request::Attempts { account: account.clone() },
        Command::Sessions(sessions) => match &sessions.verb {
            None => Request::SessionsList { account: sessions.account.clone() },
            Some(SessionsVerb::List { account }) => Request::SessionsList { account: account.clone() },
            Some(SessionsVerb::Kill { session }) => Request::SessionsKill { session: session.clone() },
        },
        Command::Events(events) => Request::Events {
            account: events.account.clone(),
            since: events.since,
            limit: events.limit,
            follow: events.follow,
        },
        Command::SelfTest => Request::SelfTest,
        Command::Reload => Request::Reload,
        Command::Stats => Request::Stats,
        Command::Health => Request::Health,
        Command::Check { .. } | Command::Export { .. } | Command::Import { .. } => return None,
    })
}

fn devices(devices: &Devices) -> Request {
    let names = |device: &crate::command::Device| (device.account.clone(), device.device.clone());
    match devices {
        Devices::List { account } => Request::DevicesList { account: account.clone() },
        Devices::Show(device) => {
            let (account, device) = names(device);
            Request::DevicesShow { account, device }
        }
        Devices::Approve { device, until } => {
            let (account, device) = names(device);
            Request::DevicesApprove { account, device, until: *until }
        }
        Devices::Rename { device, name } => {
            let (account, device) = names(device);
            Request::DevicesRename { account, device, name: name.clone() }
        }
        Devices::Revoke(device) => {
            let (account, device) = names(device);
            Request::DevicesRevoke { account, device }
        }
        Devices::Forget(device) => {
            let (account, device) = names(device);
            Request::DevicesForget { account, device }
        }
    }
}

fn accounts(accounts: &Accounts) -> Request {
    match accounts {
        Accounts::List => Request::AccountsList,
        Accounts::Show { account } => Request::AccountsShow { account: account.clone() },
        Accounts::Lock { account } => Request::AccountsLock { account: account.clone() },
        Accounts::Observe { account } => Request::AccountsObserve { account: account.clone() },
        Accounts::Learn { account, until } => {
            Request::AccountsLearn { account: account.clone(), until: *until }
        }
    }
}

/// Shows pages as they come, until one says that it is the last, or the reader of our output has gone.
fn follow(socket: &Path, request: &Request, json: bool) -> Result<Exit, Failure> {
    let lost = |error| Failure::client(socket, &error);
    // A quiet night is no reason to give up.
    let mut client = Client::connect(socket, None).map_err(lost)?;
    client.send(request).map_err(lost)?;
    let mut first = true;
    loop {
        let Page { rows, more } = match client.receive().map_err(lost)? {
            Response::Events(page) => page,
            Response::Error(error) => return Err(error.into()),
            _ => {
                return Err(Failure::new(
                    "protocol",
                    "the gateway answered something else",
                    "look into its log",
                ));
            }
        };
        let lines = if json {
            rows.iter().filter_map(|row| serde_json::to_string(row).ok()).map(|line| line + "\n").collect()
        } else {
            show::events(&rows, std::mem::take(&mut first))
        };
        print(&lines)?;
        if !more {
            return Ok(Exit::Done);
        }
    }
}

/// To standard output. A reader who has gone (`| head`) ends the command quietly.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        written => written.map_err(|error| Failure::file(Path::new("standard output"), "written", &error)),
    }
}

fn json(answer: &Response) -> String {
    // The types of the contract always serialise.
    serde_json::to_string(answer).unwrap_or_default() + "\n"
}

//! How the command ends.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use control::{ClientError, ControlError};

/// Exit codes, as `--help` lists them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Exit {
    /// Done.
    Done,
    /// Refused, not found, invalid, or something is wrong with what was looked at.
    No,
    /// The command line makes no sense.
    Usage,
    /// No gateway at the socket.
    NoGateway,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::No => 1,
            Exit::Usage => 2,
            Exit::NoGateway => 3,
        })
    }
}

/// Why the command did not do what it was asked to: what, and how to mend it.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    /// For programs: the gateway's own code, or one of ours.
    code: String,
    what: String,
    mend: String,
}

impl Failure {
    /// Something wrong on this side.
    pub(crate) fn new(code: &str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { exit: Exit::No, code: code.to_owned(), what: what.into(), mend: mend.into() }
    }

    /// A file that cannot be read or written.
    pub(crate) fn file(path: &Path, doing: &str, error: &io::Error) -> Self {
        let mend = match error.kind() {
            io::ErrorKind::PermissionDenied => "run it as a user who may, mostly root",
            io::ErrorKind::NotFound => "correct the path",
            io::ErrorKind::StorageFull => "free some space",
            _ => "mend the file or give another",
        };
        Self::new("file", format!("{} cannot be {doing}: {error}", path.display()), mend)
    }

    /// What went wrong between us and the gateway at `socket`.
    pub(crate) fn client(socket: &Path, error: &ClientError) -> Self {
        let socket = socket.display();
        let no_gateway =
            |what: String, mend: &str| Self { exit: Exit::NoGateway, ..Self::new("no-gateway", what, mend) };
        match error {
            ClientError::NoGateway(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let mend = "run it as root, or add your user id to uids in [control] of the settings";
                Self::new("forbidden", format!("you may not use the gateway's socket {socket}"), mend)
            }
            ClientError::NoGateway(error) => no_gateway(
                format!("no gateway answers at {socket}: {error}"),
                "start the gateway, or give its socket with --control or POSTERN_CONTROL (socket in [control] of the \
                 settings)",
            ),
            ClientError::HungUp => no_gateway(
                format!("the gateway at {socket} hung up before it had answered"),
                "look into its log; it may be restarting, or not allow your user id (uids in [control])",
            ),
            ClientError::Broken(error) => no_gateway(
                format!("the gateway at {socket} does not answer: {error}"),
                "try again; if it stays so, look into its log",
            ),
            ClientError::Frame(error) => {
                let mend = "use the postern command that came with this gateway";
                Self::new("protocol", format!("what answers at {socket} is not understood: {error}"), mend)
            }
        }
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// To standard error for people, to standard output as the gateway's own errors for programs.
    pub(crate) fn tell(&self, json: bool) {
        let Self { code, what, mend, .. } = self;
        if json {
            println!(
                "{}",
                serde_json::json!({ "answer": "error", "code": code, "text": what, "mend": mend })
            );
        } else {
            eprintln!("postern: {what}\n  mend: {mend}");
        }
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        let code = serde_json::to_value(error.code).ok();
        let code = code.as_ref().and_then(|code| code.as_str()).unwrap_or("internal");
        Self::new(code, error.text, error.mend)
    }
}

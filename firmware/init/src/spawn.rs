//! Starts a service: forks it into a world of its own, builds its walls, executes it.

use std::convert::Infallible;
use std::ffi::{CString, NulError};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::{Pid, execve, pipe2};

use crate::kernel::{self, Fork};
use crate::reboot::this_is_a_child;
use crate::sandbox::{self, Cgroup, Filter};
use crate::service::{Service, View};
use crate::socket::{Listener, Listeners};

/// `sd_listen_fds(3)`: the first passed descriptor.
const FIRST_PASSED: RawFd = 3;
/// Above every number that the passed ones can get.
const ASIDE: RawFd = 256;

/// Exit code of a service whose walls could not be built.
pub(crate) const NO_WALLS: i32 = 125;

/// All that starting a service takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan<'p> {
    pub(crate) service: &'static Service,
    pub(crate) filter: &'p Filter,
    pub(crate) cgroup: Option<&'p Cgroup>,
    /// The settings document in force; `None`: there is none yet.
    pub(crate) settings: Option<&'static str>,
    /// Passed to it, if it listens.
    pub(crate) listeners: &'p Listeners,
    /// TCP addresses that it opens itself.
    pub(crate) own_ports: &'p [SocketAddr],
}

/// A running service.
#[derive(Debug)]
pub(crate) struct Process {
    /// Its number.
    pub(crate) pid: Pid,
    /// It and no other.
    pub(crate) descriptor: OwnedFd,
    /// What it writes to its standard output and error.
    pub(crate) output: File,
}

impl Process {
    /// Sends it a signal.
    pub(crate) fn send(&self, signal: Signal) -> nix::Result<()> {
        kernel::send(self.descriptor.as_fd(), signal)
    }
}

/// Starts it. In the parent nothing is allocated.
pub(crate) fn start(plan: &Plan<'_>) -> nix::Result<Process> {
    fork(plan, execute)
}

/// Starts a child in its place that does what no service may do.
#[cfg(feature = "bench")]
pub(crate) fn start_forbidden(plan: &Plan<'_>) -> nix::Result<Process> {
    fork(plan, |plan| {
        sandbox::enter(plan).map_err(|failure| failure.to_string())?;
        match kernel::forbidden() {
            Ok(()) => Err("the forbidden system call was carried out".to_owned()),
            Err(errno) => Err(format!("the forbidden system call was refused: {}", errno.desc())),
        }
    })
}

/// What the child does; an error says why it could not.
type Task = fn(&Plan<'_>) -> Result<Infallible, String>;

fn fork(plan: &Plan<'_>, task: Task) -> nix::Result<Process> {
    let (output, write_end) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    match kernel::fork_apart(plan.cgroup.map(|group| group.as_fd()))? {
        Fork::Child => {
            this_is_a_child();
            let done = streams(plan, write_end.as_fd())
                .map_err(|error| format!("cannot set its streams up: {error}"))
                .and_then(|()| task(plan));
            let Err(why) = done;
            // PID 1 shows it with what the service itself would have said.
            eprintln!("{why}");
            kernel::exit_now(NO_WALLS)
        }
        Fork::Parent { pid, descriptor } => Ok(Process { pid, descriptor, output: output.into() }),
    }
}

/// Standard streams and signals: PID 1 takes its signals by descriptor, a service takes them as they come.
fn streams(plan: &Plan<'_>, output: BorrowedFd<'_>) -> io::Result<()> {
    let input = match plan.service.settings {
        View::Document => plan.settings,
        View::Folder => None,
    };
    let input = File::open(input.unwrap_or("/dev/null"))?;
    kernel::place(output, 1)?;
    kernel::place(output, 2)?;
    kernel::place(input.as_fd(), 0)?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
}

fn execute(plan: &Plan<'_>) -> Result<Infallible, String> {
    let arguments = arguments(plan).map_err(|error| error.to_string())?;
    let environment = environment(plan).map_err(|error| error.to_string())?;
    let program = CString::new(plan.service.program).map_err(|error| error.to_string())?;
    pass_sockets(plan).map_err(|error| format!("cannot pass the sockets: {}", error.desc()))?;
    sandbox::enter(plan).map_err(|failure| failure.to_string())?;
    execve(&program, &arguments, &environment).map_err(|error| format!("cannot execute it: {}", error.desc()))
}

/// Puts the listening sockets where `sd_listen_fds(3)` wants them. Whatever of PID 1 had these numbers is not used by the
/// child any more; the sockets themselves may have, so they are copied out of the way first.
fn pass_sockets(plan: &Plan<'_>) -> nix::Result<()> {
    if !plan.service.listens {
        return Ok(());
    }
    let aside = |listener: &Listener| kernel::duplicate_above(listener.as_fd(), ASIDE);
    let aside = plan.listeners.iter().map(aside).collect::<nix::Result<Vec<_>>>()?;
    (FIRST_PASSED..).zip(&aside).try_for_each(|(to, from)| kernel::place(from.as_fd(), to))
}

fn arguments(plan: &Plan<'_>) -> Result<Vec<CString>, NulError> {
    let mut arguments = vec![CString::new(plan.service.program)?];
    for argument in plan.service.arguments {
        arguments.push(CString::new(*argument)?);
    }
    if let (View::Folder, Some(settings)) = (plan.service.settings, plan.settings) {
        arguments.push(CString::new("--settings")?);
        arguments.push(CString::new(settings)?);
    }
    Ok(arguments)
}

fn environment(plan: &Plan<'_>) -> Result<Vec<CString>, NulError> {
    let watchdog = plan.service.patience.silence.as_micros();
    let mut variables = vec!["NOTIFY_SOCKET=/run/notify".to_owned(), format!("WATCHDOG_USEC={watchdog}")];
    if plan.service.listens {
        let names = plan.listeners.iter().map(|listener| listener.wanted.key).collect::<Vec<_>>().join(":");
        // It is the first process of its own PID namespace.
        variables.push("LISTEN_PID=1".to_owned());
        variables.push(format!("LISTEN_FDS={}", plan.listeners.len()));
        variables.push(format!("LISTEN_FDNAMES={names}"));
    }
    variables.into_iter().map(CString::new).collect()
}

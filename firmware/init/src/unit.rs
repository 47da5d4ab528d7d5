//! One service at run time: its supervision, its process, its sockets and what it last said.

use core::fmt::{self, Display};
use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::chown;

use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, bind, recv, socket};
use nix::sys::wait::WaitStatus;

use crate::console::{self, say, say_as};
use crate::kmsg::KernelLog;
use crate::sandbox::{Cgroup, Filter};
use crate::service::Service;
use crate::spawn::{self, Plan, Process};
use crate::supervise::{self, Cause, Moment};

/// `EX_CONFIG` of sysexits(3): settings it cannot use.
const UNUSABLE_SETTINGS: i32 = 78;

/// Longest line of its output that is shown; a longer one is cut.
const LINE: usize = 400;
/// Lines that are kept for when it ends.
const KEPT: usize = 12;
/// Lines that are shown at once in bench builds; more in the same second are counted.
const SHOWN_A_SECOND: u32 = 50;

/// A service of the table at run time.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) service: &'static Service,
    pub(crate) state: supervise::Service,
    pub(crate) process: Option<Process>,
    filter: Filter,
    pub(crate) cgroup: Option<Cgroup>,
    notify: OwnedFd,
    output: Output,
}

impl Unit {
    /// Makes everything it needs but itself.
    pub(crate) fn prepare(service: &'static Service, memory: Option<u64>) -> Result<Self, String> {
        let name = service.name;
        let filter = Filter::compile(service.profile)
            .map_err(|error| format!("the list of system calls of {name}: {error}"))?;
        let cgroup = memory.and_then(|memory| match Cgroup::make(name, &service.limits, memory) {
            Ok(cgroup) => Some(cgroup),
            Err(error) => {
                say!("{name} runs without limits of memory and CPU: {error}");
                None
            }
        });
        let notify =
            notify_socket(service).map_err(|error| format!("the notification socket of {name}: {error}"))?;
        let state = supervise::Service::new(service.patience);
        Ok(Self { service, state, process: None, filter, cgroup, notify, output: Output::default() })
    }

    /// Where its datagrams arrive.
    pub(crate) fn notify(&self) -> BorrowedFd<'_> {
        self.notify.as_fd()
    }

    /// One datagram of it, into `buffer`.
    pub(crate) fn hear<'b>(&self, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
        let length = recv(self.notify.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT).ok()?;
        buffer.get(..length)
    }

    /// What starting it takes, with what the rest of the box adds.
    pub(crate) fn plan<'p>(&'p self, rest: Rest<'p>) -> Plan<'p> {
        Plan {
            service: self.service,
            filter: &self.filter,
            cgroup: self.cgroup.as_ref(),
            settings: rest.settings,
            listeners: rest.listeners,
            own_ports: rest.own_ports,
        }
    }

    /// Starts it.
    pub(crate) fn start(&mut self, now: Moment, rest: Rest<'_>) {
        // What an earlier run said last must not count for this one.
        let mut nothing = [0; 512];
        while self.hear(&mut nothing).is_some() {}
        match spawn::start(&self.plan(rest)) {
            Ok(process) => {
                self.process = Some(process);
                self.state.started(now);
                self.say("started", None);
            }
            Err(error) => {
                say!("{} cannot be forked: {}", self.service.name, error.desc());
                self.state.exited(now, Cause::Failure);
            }
        }
    }

    /// It ended.
    pub(crate) fn ended(&mut self, now: Moment, status: WaitStatus, log: &mut KernelLog) {
        self.read_output(now);
        let (cause, bad) = match status {
            WaitStatus::Exited(_, UNUSABLE_SETTINGS) => (Cause::Settings, true),
            WaitStatus::Exited(_, 0) => (Cause::Failure, false),
            _ => (Cause::Failure, true),
        };
        if bad && !cfg!(feature = "bench") {
            self.output.tell(self.service.name);
        }
        self.output = Output::default();
        self.process = None;
        self.state.exited(now, cause);
        let refused = match status {
            WaitStatus::Signaled(_, Signal::SIGSYS, _) => log.refused_system_call(),
            _ => None,
        };
        self.say("exited", Some(&Code(status, refused)));
    }

    /// Sends it a signal, if it runs.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process
            && let Err(error) = process.send(signal)
        {
            say!("{} does not take {signal}: {}", self.service.name, error.desc());
        }
    }

    /// Says how it is.
    pub(crate) fn say(&self, state: &str, code: Option<&dyn Display>) {
        let (name, restarts) = (self.service.name, self.state.restarts());
        let mut pairs: heapless::Vec<(&str, &dyn Display), 4> = heapless::Vec::new();
        // Four pairs fit.
        let _ = pairs.push(("name", &name));
        let _ = pairs.push(("state", &state));
        if let Some(code) = code {
            let _ = pairs.push(("code", code));
        }
        let _ = pairs.push(("restarts", &restarts));
        console::stage("service", &pairs);
    }

    /// Takes what it wrote. False: it will write nothing more.
    pub(crate) fn read_output(&mut self, now: Moment) -> bool {
        let Some(process) = &mut self.process else { return false };
        let mut part = [0; 1024];
        // A few parts at a time: a service that writes without end must not keep PID 1.
        for _ in 0..8 {
            match process.output.read(&mut part) {
                Ok(0) => return false,
                Ok(length) => {
                    self.output.take(self.service.name, part.get(..length).unwrap_or_default(), now);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        true
    }
}

/// What the rest of the box adds to a service's start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rest<'p> {
    pub(crate) settings: Option<&'static str>,
    pub(crate) listeners: &'p crate::socket::Listeners,
    pub(crate) own_ports: &'p [std::net::SocketAddr],
}

fn notify_socket(service: &Service) -> io::Result<OwnedFd> {
    let path = format!("/run/notify-{}", service.name);
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path.as_str())?)?;
    chown(&path, Some(service.uid), Some(0))?;
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(socket)
}

/// How a process ended: its exit code, or the signal's name, with the number of the system call that its list lacks.
struct Code(WaitStatus, Option<u32>);

impl Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            WaitStatus::Exited(_, code) => write!(f, "{code}"),
            WaitStatus::Signaled(_, signal, _) => {
                f.write_str(signal.as_str())?;
                self.1.map_or(Ok(()), |call| write!(f, ":{call}"))
            }
            _ => f.write_str("?"),
        }
    }
}

type Line = heapless::Vec<u8, LINE>;

/// The last lines of what a service wrote, in fixed memory.
#[derive(Debug, Default)]
struct Output {
    line: Line,
    kept: heapless::HistoryBuf<Line, KEPT>,
    /// The second in which lines were shown last, and how many.
    shown: (u64, u32),
}

impl Output {
    fn take(&mut self, name: &str, bytes: &[u8], now: Moment) {
        for byte in bytes {
            if *byte == b'\n' {
                if cfg!(feature = "bench") {
                    self.show(name, now);
                }
                self.kept.write(core::mem::take(&mut self.line));
            } else {
                // What is too long is cut.
                let _ = self.line.push(*byte);
            }
        }
    }

    fn show(&mut self, name: &str, now: Moment) {
        let second = now.as_secs();
        if self.shown.0 != second {
            if self.shown.1 > SHOWN_A_SECOND {
                say_as(name, format_args!("… {} lines more …", self.shown.1 - SHOWN_A_SECOND));
            }
            self.shown = (second, 0);
        }
        self.shown.1 += 1;
        if self.shown.1 <= SHOWN_A_SECOND {
            say_as(name, format_args!("{}", Readable(&self.line)));
        }
    }

    /// Says the last lines, as what there is to know about an end.
    fn tell(&self, name: &str) {
        for line in self.kept.oldest_ordered().chain(Some(&self.line).filter(|line| !line.is_empty())) {
            say_as(name, format_args!("{}", Readable(line)));
        }
    }
}

/// Bytes as text, what is not UTF-8 as replacement characters.
struct Readable<'t>(&'t [u8]);

impl Display for Readable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            f.write_str(chunk.valid())?;
            if !chunk.invalid().is_empty() {
                f.write_str("\u{fffd}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_last_lines_are_kept_whatever_their_length() {
        let mut output = Output::default();
        for number in 0..100 {
            output.take("test", format!("line {number}\n").as_bytes(), Duration::ZERO);
        }
        output.take("test", &[b'x'; 10_000], Duration::ZERO);
        let kept = output.kept.oldest_ordered().map(|line| Readable(line).to_string()).collect::<Vec<_>>();
        assert_eq!((kept.len(), kept[KEPT - 1].as_str()), (KEPT, "line 99"));
        assert_eq!(output.line.len(), LINE);
    }

    #[test]
    fn an_end_is_a_code_or_the_name_of_a_signal() {
        let pid = nix::unistd::Pid::from_raw(7);
        assert_eq!(Code(WaitStatus::Exited(pid, 78), None).to_string(), "78");
        assert_eq!(Code(WaitStatus::Signaled(pid, Signal::SIGKILL, false), None).to_string(), "SIGKILL");
        assert_eq!(
            Code(WaitStatus::Signaled(pid, Signal::SIGSYS, false), Some(278)).to_string(),
            "SIGSYS:278"
        );
    }
}

//! Commands on the console, for tests that must break things. Only in bench builds; no release has this file.
//!
//! One command a line; each is answered by one `bench` line. Commands: `kill NAME`, `stop NAME`, `hang`, `panic`, `fill`,
//! `forbidden NAME`, `reboot`, `poweroff`, `allocations`, `fds`.

use core::fmt::Display;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::thread;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use crate::allocations;
use crate::console::{self, say};
use crate::reboot::End;
use crate::run::{CONSOLE, Init};
use crate::spawn;

/// Longest command.
const LONGEST: usize = 128;

/// What the commands need to remember.
#[derive(Debug, Default)]
pub(crate) struct Bench {
    line: heapless::String<LONGEST>,
    /// Allocations up to `serving`, and those that commands made since.
    frozen: Option<usize>,
}

impl Bench {
    /// The box serves: from here on allocations count.
    pub(crate) fn freeze(&mut self) {
        self.frozen = Some(allocations::count());
    }
}

/// Hears the console.
pub(crate) fn listen(epoll: &Epoll) -> nix::Result<()> {
    let event = EpollEvent::new(EpollFlags::EPOLLIN, CONSOLE);
    console::with(|serial| epoll.add(serial, event)).unwrap_or(Ok(()))
}

/// Takes what was typed and carries out whole lines.
pub(crate) fn take(init: &mut Init) {
    let mut bytes = [0; LONGEST];
    let read = console::with(|serial| serial.read(&mut bytes, Duration::ZERO));
    let Some(Ok(length)) = read else { return };
    for byte in bytes.iter().take(length) {
        if matches!(byte, b'\r' | b'\n') {
            let line = core::mem::take(&mut init.bench.line);
            if !line.trim().is_empty() {
                carry_out(init, line.trim());
            }
        } else {
            // What is too long is cut, and then not known.
            let _ = init.bench.line.push(char::from(*byte));
        }
    }
}

fn answer(command: &str, pairs: &[(&str, &dyn Display)]) {
    let command = ("command", &command as &dyn Display);
    console::stage_of("bench", &mut core::iter::once(command).chain(pairs.iter().copied()));
}

fn carry_out(init: &mut Init, line: &str) {
    let (command, name) = line.split_once(' ').unwrap_or((line, ""));
    match command {
        "kill" => signal(init, command, name, Signal::SIGKILL),
        "stop" => signal(init, command, name, Signal::SIGSTOP),
        "hang" => {
            answer(command, &[]);
            loop {
                core::hint::spin_loop();
            }
        }
        #[allow(clippy::panic, reason = "that is what it is asked to do")]
        "panic" => {
            answer(command, &[]);
            panic!("asked to");
        }
        "fill" => uncounted(init, |_| answer("fill", &[("bytes", &fill())])),
        "forbidden" => uncounted(init, |init| forbidden(init, name)),
        "reboot" => init.end(End::Reboot),
        "poweroff" => init.end(End::PowerOff),
        "allocations" => {
            let count = init.bench.frozen.map(|frozen| allocations::count() - frozen);
            answer(command, &[("count", &count.map_or(-1, |count| i64::try_from(count).unwrap_or(-1)))]);
        }
        "fds" => uncounted(init, |_| {
            // The folder itself is open while it is read.
            let count = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count).saturating_sub(1);
            answer("fds", &[("count", &count)]);
        }),
        _ => answer(command, &[("error", &"unknown")]),
    }
}

/// What a command itself allocates is not what the box does.
fn uncounted(init: &mut Init, command: impl FnOnce(&mut Init)) {
    let before = allocations::count();
    command(init);
    let own = allocations::count() - before;
    init.bench.frozen = init.bench.frozen.map(|frozen| frozen + own);
}

fn signal(init: &Init, command: &str, name: &str, signal: Signal) {
    match init.units.iter().find(|unit| unit.service.name == name) {
        Some(unit) if unit.process.is_some() => {
            answer(command, &[("name", &name)]);
            unit.signal(signal);
        }
        Some(_) => answer(command, &[("name", &name), ("error", &"it does not run")]),
        None => answer(command, &[("name", &name), ("error", &"no such service")]),
    }
}

/// Fills the data partition to its last byte.
fn fill() -> u64 {
    let file = OpenOptions::new().append(true).create(true).open("/data/fill");
    let mut file = match file {
        Ok(file) => file,
        Err(error) => {
            say!("/data/fill: {error}");
            return 0;
        }
    };
    let part = vec![0x5A; 1 << 20];
    let (mut size, mut filled) = (part.len(), 0);
    while size > 0 {
        match file.write(part.get(..size).unwrap_or_default()) {
            Ok(written) if written > 0 => filled += written as u64,
            // Smaller and smaller, until not even a byte fits.
            _ => size /= 2,
        }
    }
    let _ = file.sync_all();
    filled
}

/// How a child under a service's walls dies of a forbidden system call.
fn forbidden(init: &mut Init, name: &str) {
    let Some(unit) = init.units.iter().find(|unit| unit.service.name == name) else {
        return answer("forbidden", &[("name", &name), ("error", &"no such service")]);
    };
    let process = match spawn::start_forbidden(&unit.plan(init.rest())) {
        Ok(process) => process,
        Err(error) => return answer("forbidden", &[("name", &name), ("error", &error.desc())]),
    };
    for _ in 0..500 {
        match waitpid(process.pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                return answer("forbidden", &[("name", &name), ("died", &signal.as_str())]);
            }
            Ok(WaitStatus::Exited(_, code)) => {
                let mut said = String::new();
                let _ = std::io::Read::read_to_string(&mut &process.output, &mut said);
                return answer("forbidden", &[("name", &name), ("code", &code), ("said", &said.trim())]);
            }
            _ => thread::sleep(Duration::from_millis(10)),
        }
    }
    let _ = process.send(Signal::SIGKILL);
    answer("forbidden", &[("name", &name), ("error", &"it lives")]);
}

//! What this process tells PID 1: that it is ready, that it lives, and what it has done (`sd_notify(3)`).

use std::env;
use std::ffi::OsStr;
use std::fmt::Display;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// The way to PID 1; without `NOTIFY_SOCKET` everything goes to standard error alone.
#[derive(Debug)]
pub(super) struct Report {
    socket: Option<UnixDatagram>,
    interval: Duration,
    due: Instant,
    told: Vec<String>,
}

impl Report {
    /// Opens what the environment names.
    pub(super) fn open(now: Instant) -> Self {
        let socket = env::var_os("NOTIFY_SOCKET").and_then(|name| match connect(&name) {
            Ok(socket) => Some(socket),
            Err(error) => {
                eprintln!("network: no reports: {}: {error}", name.display());
                None
            }
        });
        let limit = env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok());
        // Twice as often as wanted, and often enough for a person who watches.
        let interval = limit.map_or(Duration::from_secs(10), |limit| Duration::from_micros(limit) / 3);
        Self { socket, interval: interval.max(Duration::from_millis(100)), due: now, told: Vec::new() }
    }

    /// The interface is switched on and asks for its addresses; whether it gets any is another matter.
    pub(super) fn ready(&mut self) {
        self.send("READY=1");
    }

    /// Called from the main loop alone, so that it stops when that does.
    pub(super) fn alive(&mut self, now: Instant) {
        if now >= self.due {
            self.due = now + self.interval;
            self.send("WATCHDOG=1");
        }
    }

    /// When [`Report::alive`] is due.
    pub(super) fn next(&self) -> Instant {
        self.due
    }

    /// One line for people.
    pub(super) fn status(&mut self, text: impl Display) {
        let line = one_line(&text);
        eprintln!("network: {line}");
        self.send(&format!("STATUS={line}"));
    }

    /// One line for machines, `NAME k=v …`, which PID 1 puts on the console. The same line is not told twice in a row.
    pub(super) fn stage(&mut self, text: impl Display) {
        let line = one_line(&text);
        let name = line.split(' ').next().unwrap_or_default().to_owned();
        if self.told.contains(&line) {
            return;
        }
        self.told.retain(|told| told.split(' ').next() != Some(&name));
        eprintln!("network: {line}");
        self.send(&format!("X_STAGE={line}"));
        self.told.push(line);
    }

    /// It ends because it was told to.
    pub(super) fn stopping(&mut self) {
        self.send("STOPPING=1");
    }

    /// PID 1 may be busy, and the line is lost then: this process does not wait for who watches it.
    fn send(&mut self, line: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(line.as_bytes())
        {
            eprintln!("network: no report: {error}");
        }
    }
}

fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match name.as_bytes().split_first() {
        Some((b'@', rest)) => socket.connect_addr(&SocketAddr::from_abstract_name(rest)?)?,
        _ => socket.connect(name)?,
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Strangers' words may be in it, and a line break would begin another message.
fn one_line(text: &impl Display) -> String {
    text.to_string().chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

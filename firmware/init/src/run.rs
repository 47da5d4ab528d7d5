//! The one loop of PID 1: signals, what services say, deadlines, the watchdog. It waits for nothing but all of these at
//! once, and allocates nothing after `serving`.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use board::led::{Light, Pattern};
use board::watchdog::Watchdog;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::sethostname;

use crate::console::{self, now, say, say_as};
use crate::data;
use crate::kmsg::KernelLog;
use crate::notify::{self, Word};
use crate::reboot::{End, fatal, halt};
use crate::service::{SERVICES, TABLE};
use crate::settings::{self, Extract, Reader};
use crate::slot::Boot;
use crate::socket::Listeners;
use crate::supervise::{Action, Moment};
use crate::surface;
use crate::unit::{Rest, Unit};

/// What an event is about: a kind, and a service's place in the table.
const SIGNALS: u64 = 0;
const READER: u64 = 1;
#[cfg(feature = "bench")]
pub(crate) const CONSOLE: u64 = 2;
const NOTIFY: u64 = 0x100;
const OUTPUT: u64 = 0x200;
const PROCESS: u64 = 0x300;

/// The longest sleep: a lost wake-up costs no more than this.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);
/// Between two looks for new settings while there are none.
const LOOK: Duration = Duration::from_secs(1);
/// A reader of the settings that takes longer hangs.
const READING: Duration = Duration::from_secs(30);

/// How often the watchdog is fed in the time it waits.
pub(crate) const FEEDS: u32 = 3;

/// The running box.
pub(crate) struct Init {
    pub(crate) units: [Unit; SERVICES],
    pub(crate) listeners: Listeners,
    /// What is in force; `None`: no settings that could be used have been seen.
    extract: Option<Extract>,
    document: Option<&'static str>,
    reader: Option<(Reader, Moment)>,
    /// The reader reads the document of last time.
    trying_last_good: bool,
    /// The document that was refused, as the file system tells it from others.
    refused: Option<Stamp>,
    watchdog: Option<Watchdog>,
    fed: Moment,
    light: Light,
    boot: Boot,
    epoll: Epoll,
    signals: SignalFd,
    log: KernelLog,
    serving: bool,
    served: bool,
    ending: Option<End>,
    /// What had been allocated when the box began to serve.
    #[cfg(feature = "bench")]
    pub(crate) bench: crate::bench::Bench,
}

/// A file's identity and state: device aside, since there is one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Stamp(u64, i64, i64, u64);

impl Init {
    /// Takes over from the boot order. From here on signals mean something.
    pub(crate) fn new(
        units: [Unit; SERVICES],
        boot: Boot,
        watchdog: Option<Watchdog>,
        light: Light,
        log: KernelLog,
    ) -> io::Result<Self> {
        let mut wanted = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD] {
            wanted.add(signal);
        }
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&wanted), None)?;
        let signals = SignalFd::with_flags(&wanted, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&signals, EpollEvent::new(EpollFlags::EPOLLIN, SIGNALS))?;
        for (index, unit) in (0..).zip(&units) {
            epoll.add(unit.notify(), EpollEvent::new(EpollFlags::EPOLLIN, NOTIFY + index))?;
        }
        #[cfg(feature = "bench")]
        crate::bench::listen(&epoll)?;
        Ok(Self {
            units,
            listeners: Listeners::default(),
            extract: None,
            document: None,
            reader: None,
            trying_last_good: false,
            refused: None,
            watchdog,
            fed: now(),
            light,
            boot,
            epoll,
            signals,
            log,
            serving: false,
            served: false,
            ending: None,
            #[cfg(feature = "bench")]
            bench: crate::bench::Bench::default(),
        })
    }

    /// Runs the box until the machine stops.
    pub(crate) fn run(mut self) -> ! {
        self.read(settings::FILE);
        loop {
            let now = now();
            self.look_for_settings(now);
            self.tend(now);
            self.feed(now);
            self.tell_serving();
            if let Some(end) = self.ending {
                self.advance_end(now, end);
            }
            if let Err(error) = self.wait(now) {
                fatal(&format_args!("the loop cannot wait: {error}"));
            }
        }
    }

    /// Whether all services answer, and there is something to serve.
    fn all_ready(&self) -> bool {
        self.document.is_some() && self.units.iter().all(|unit| unit.state.is_ready())
    }

    /// Starts and kills what is to be started and killed.
    fn tend(&mut self, now: Moment) {
        let own_ports = self.extract.as_ref().map_or(&[][..], |extract| &extract.own);
        for (index, unit) in (0..).zip(&mut self.units) {
            match unit.state.tick(now) {
                Action::Rest => {}
                Action::Start => {
                    let rest = Rest { settings: self.document, listeners: &self.listeners, own_ports };
                    unit.start(now, rest);
                    if let Some(process) = &unit.process {
                        let event = |kind| EpollEvent::new(EpollFlags::EPOLLIN, kind + index);
                        let added = self.epoll.add(&process.output, event(OUTPUT));
                        let added = added.and_then(|()| self.epoll.add(&process.descriptor, event(PROCESS)));
                        if let Err(error) = added {
                            fatal(&format_args!("{} cannot be watched: {}", unit.service.name, error.desc()));
                        }
                    }
                }
                Action::KillHung => {
                    unit.say("hung", None);
                    unit.signal(Signal::SIGKILL);
                }
                Action::KillSlow => {
                    say!("{} does not stop and is killed", unit.service.name);
                    unit.signal(Signal::SIGKILL);
                }
            }
        }
    }

    /// Feeds the watchdog while every service answers or is borne with. A board that a restart of services does not
    /// mend is reset; the watchdog sees to it if we cannot.
    fn feed(&mut self, now: Moment) {
        if self.ending.is_none() {
            let given_up = self.units.iter().find(|unit| !unit.state.is_borne(now));
            if let Some(unit) = given_up {
                fatal(&format_args!("{} was not ready for too long", unit.service.name));
            }
        }
        if let Some(watchdog) = &self.watchdog
            && self.fed + watchdog.timeout() / FEEDS <= now
        {
            if let Err(error) = watchdog.feed() {
                say!("the watchdog cannot be fed: {error}");
            }
            self.fed = now;
        }
        let shows = match (self.serving, self.ending, self.served || self.refused.is_some()) {
            (_, Some(_), _) => Pattern::Off,
            (true, ..) => Pattern::Serving,
            (false, _, true) => Pattern::Trouble,
            (false, ..) => Pattern::Booting,
        };
        // A light that fails leaves a dark box that serves.
        let _ = self.light.show(shows, now);
    }

    /// Says that the box serves, when it does. The first time is what the firmware is judged by.
    fn tell_serving(&mut self) {
        let ready = self.all_ready() && self.ending.is_none();
        if ready && !self.serving {
            if !self.served {
                self.first_serving();
            }
            console::stage("serving", &[("ports", &self.listeners)]);
            #[cfg(feature = "bench")]
            if !self.served {
                self.bench.freeze();
            }
            self.served = true;
        }
        self.serving = ready;
    }

    /// The last thing that allocates.
    fn first_serving(&mut self) {
        let running =
            self.units.iter().filter_map(|unit| Some((unit.service.name, unit.process.as_ref()?.pid)));
        surface::say(running);
        if let Some(document) = self.document
            && let Err(error) = settings::keep_as_last_good(Path::new(document))
        {
            say!("{} cannot be kept: {error}", settings::LAST_GOOD);
        }
        self.boot.served();
    }

    /// Starts to read the settings at `path`.
    fn read(&mut self, path: &'static str) {
        let cgroup =
            self.units.iter().find(|unit| unit.service.listens).and_then(|unit| unit.cgroup.as_ref());
        let cgroup = cgroup.map(std::os::fd::AsFd::as_fd);
        let started = Reader::start(Path::new(path), cgroup).and_then(|reader| {
            self.epoll.add(&reader, EpollEvent::new(EpollFlags::EPOLLIN, READER))?;
            Ok(reader)
        });
        match started {
            Ok(reader) => self.reader = Some((reader, now() + READING)),
            Err(error) => fatal(&format_args!("the settings cannot be read: {error}")),
        }
    }

    /// While there are no settings that can be used, new ones need nobody to announce them.
    fn look_for_settings(&mut self, now: Moment) {
        if let Some((reader, until)) = &self.reader {
            if *until <= now {
                say!("the reader of the settings hangs and is killed");
                reader.kill();
            }
            return;
        }
        if self.refused.is_some() && self.ending.is_none() && self.refused != Some(stamp()) {
            self.read(settings::FILE);
        }
    }

    /// The reader has ended.
    fn settings_read(&mut self) {
        let Some((reader, _)) = self.reader.take() else { return };
        match reader.finish() {
            Ok(extract) => {
                let path = if self.trying_last_good { settings::LAST_GOOD } else { settings::FILE };
                if path == settings::FILE {
                    self.refused = None;
                    console::stage("settings", &[("ok", &1)]);
                } else {
                    say!("the settings with which the box served last are used: {path}");
                }
                self.trying_last_good = false;
                self.adopt(extract, path);
            }
            Err(error) if self.trying_last_good => {
                self.trying_last_good = false;
                say!("nor can those of last time: {error}");
                self.without_settings();
            }
            Err(error) => {
                console::stage("settings", &[("error", &error)]);
                self.refused = Some(stamp());
                if self.document.is_none() {
                    self.trying_last_good = true;
                    self.read(settings::LAST_GOOD);
                }
            }
        }
    }

    /// The box is reached by network and console, and waits.
    fn without_settings(&mut self) {
        say!("waiting for settings that can be used in {}", settings::FILE);
        let now = now();
        self.units.iter_mut().filter(|unit| !unit.service.listens).for_each(|unit| unit.state.begin(now));
    }

    /// Puts settings in force: what has changed for a service decides whether it is told or started again.
    fn adopt(&mut self, extract: Extract, document: &'static str) {
        let now = now();
        if sethostname(extract.hostname.as_str()).is_err() {
            say!("{} cannot be the host name", extract.hostname);
        }
        let moved = self.document != Some(document);
        let sockets = self.listeners.adjust(&extract.listen);
        let before = self.extract.replace(extract);
        let (own, network) = match (&before, &self.extract) {
            (Some(before), Some(after)) => (before.own != after.own, before.network != after.network),
            _ => (true, true),
        };
        self.document = Some(document);
        for unit in &mut self.units {
            let anew = moved || if unit.service.listens { sockets || own } else { network };
            if self.ending.is_some() {
                continue;
            }
            if anew && unit.process.is_some() {
                if unit.state.stop(now, true) {
                    unit.signal(Signal::SIGTERM);
                }
            } else if unit.service.listens {
                unit.signal(Signal::SIGHUP);
            }
            unit.state.begin(now);
        }
    }

    /// Waits for the next event or deadline and acts on what came.
    fn wait(&mut self, now: Moment) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); 16];
        let sleep = self.deadline().saturating_sub(now).min(LONGEST_SLEEP);
        // Rounded up, so that a deadline has passed when we wake for it.
        let milliseconds = u16::try_from(sleep.as_millis() + 1).unwrap_or(u16::MAX);
        let count = match self.epoll.wait(&mut events, EpollTimeout::from(milliseconds)) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in events.iter().take(count) {
            self.on(event.data());
        }
        Ok(())
    }

    /// When something is due, events aside.
    fn deadline(&self) -> Moment {
        let services = self.units.iter().filter_map(|unit| unit.state.deadline());
        let watchdog = self.watchdog.as_ref().map(|watchdog| self.fed + watchdog.timeout() / FEEDS);
        let reader = self.reader.as_ref().map(|(_, until)| *until);
        let look = self.refused.map(|_| now() + LOOK);
        services.chain(watchdog).chain(reader).chain(look).min().unwrap_or(Duration::MAX)
    }

    fn on(&mut self, event: u64) {
        let index = usize::try_from(event & 0xFF).unwrap_or(usize::MAX);
        match event {
            SIGNALS => self.take_signals(),
            READER => {
                if self.reader.as_mut().is_some_and(|(reader, _)| reader.pump()) {
                    self.settings_read();
                }
            }
            #[cfg(feature = "bench")]
            CONSOLE => crate::bench::take(self),
            _ => match event & !0xFF {
                NOTIFY => self.hear(index),
                OUTPUT => self.read_output(index),
                // The process ended; its number is still ours to reap.
                PROCESS => self.reap(),
                _ => {}
            },
        }
    }

    fn take_signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            match i32::try_from(signal.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok()) {
                Some(Signal::SIGCHLD) => self.reap(),
                Some(Signal::SIGHUP) if self.reader.is_none() && self.ending.is_none() => {
                    self.read(settings::FILE);
                }
                Some(Signal::SIGTERM) => self.end(End::PowerOff),
                Some(Signal::SIGINT) => self.end(End::Reboot),
                _ => {}
            }
        }
    }

    /// Takes everybody who has ended: services, readers, and orphans that are nobody's else.
    fn reap(&mut self) {
        loop {
            let status = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                Err(Errno::EINTR) => continue,
                Err(error) => return say!("children cannot be waited for: {}", error.desc()),
                Ok(status) => status,
            };
            let now = now();
            let unit = self
                .units
                .iter_mut()
                .find(|unit| unit.process.as_ref().is_some_and(|process| Some(process.pid) == status.pid()));
            if let Some(unit) = unit {
                unit.ended(now, status, &mut self.log);
                if self.ending.is_none() && data::has_failed() {
                    fatal(&"the data partition has failed and is read-only; it is checked at the next start");
                }
            }
        }
    }

    /// What a service says of itself.
    fn hear(&mut self, index: usize) {
        let Some(unit) = self.units.get_mut(index) else { return };
        let mut buffer = [0; 1024];
        while let Some(datagram) = unit.hear(&mut buffer) {
            for word in notify::words(datagram) {
                let now = now();
                match word {
                    Word::Ready => {
                        if unit.state.ready(now) {
                            unit.say("ready", None);
                        }
                    }
                    Word::Alive => unit.state.heard(now),
                    // What it says for people it has written to its output as well, which bench builds show.
                    Word::Status(_) if cfg!(feature = "bench") => {}
                    Word::Status(status) => say_as(unit.service.name, format_args!("{status}")),
                    Word::Stage { name, pairs } if unit.service.stages.contains(&name) => {
                        let mut pairs: heapless::Vec<(&str, &str), 12> =
                            notify::pairs(pairs).take(12).collect();
                        console::stage_of(
                            name,
                            &mut pairs
                                .iter_mut()
                                .map(|(key, value)| (*key, value as &dyn core::fmt::Display)),
                        );
                    }
                    Word::Stage { .. } | Word::Stopping => {}
                }
            }
        }
    }

    fn read_output(&mut self, index: usize) {
        let Some(unit) = self.units.get_mut(index) else { return };
        if !unit.read_output(now())
            && let Some(process) = &unit.process
        {
            // It closed its end; to hear that again and again helps nobody.
            let _ = self.epoll.delete(&process.output);
        }
    }

    /// What starting any service takes from the box.
    #[cfg(feature = "bench")]
    pub(crate) fn rest(&self) -> Rest<'_> {
        let own_ports = self.extract.as_ref().map_or(&[][..], |extract| &extract.own);
        Rest { settings: self.document, listeners: &self.listeners, own_ports }
    }

    /// Begins to stop.
    pub(crate) fn end(&mut self, end: End) {
        if self.ending.is_none() {
            say!("stopping all services to {}", end.name());
            self.ending = Some(end);
        }
    }

    /// Stops one service after the other, the last of the table first, then the machine.
    fn advance_end(&mut self, now: Moment, end: End) {
        for unit in self.units.iter_mut().rev() {
            if unit.state.is_stopped() {
                continue;
            }
            if unit.state.stop(now, false) {
                unit.signal(Signal::SIGTERM);
            }
            if !unit.state.is_stopped() {
                return;
            }
        }
        let _ = self.light.show(Pattern::Off, now);
        halt(end);
    }
}

/// The prepared units of the whole table. `memory` is the board's, if there are control groups.
pub(crate) fn prepare(memory: Option<u64>) -> Result<[Unit; SERVICES], String> {
    let mut units = heapless::Vec::<Unit, SERVICES>::new();
    for service in &TABLE {
        // As many as there are places.
        let _ = units.push(Unit::prepare(service, memory)?);
    }
    units.into_array().map_err(|_| "the table of services is not full".to_owned())
}

fn stamp() -> Stamp {
    fs::metadata(settings::FILE)
        .map_or(Stamp(0, 0, 0, 0), |file| Stamp(file.ino(), file.mtime(), file.mtime_nsec(), file.size()))
}

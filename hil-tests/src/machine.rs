//! A box on a rig. Its type says what can be done with it: one that is off has no console to wait for, one that boots
//! serves nobody yet.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};

use crate::backends::Backends;
use crate::certificate::Certificate;
use crate::client::Trust;
use crate::console::Console;
use crate::guard::Workshop;
use crate::image::{Disk, Image};
use crate::promise::Stand;
use crate::rig::description::Firmware;
use crate::rig::{Boot, Clock, Debugger, Kind, Media, Net, Power, Rig, Ways};
use crate::settings::Listeners;
use crate::stage::Stage;
use crate::{secrets, seed, uefi};

/// What a box boots with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The image; its files may be replaced by a test's own.
    pub image: Image,
    /// The signed firmware file of slot B, if there is one.
    pub slot_b: Option<PathBuf>,
    /// TOML laid over the settings.
    pub settings: String,
    /// What its clock shows at first; now, if nobody says.
    pub clock: Option<SystemTime>,
    /// Records every write to its disk.
    pub write_log: bool,
    /// Starts with its cable pulled.
    pub unplugged: bool,
    /// The disk's size in bytes, where the usual one will not do.
    pub disk_size: Option<u64>,
}

impl Options {
    /// The usual ones.
    pub const fn new(image: Image) -> Self {
        Self {
            image,
            slot_b: None,
            settings: String::new(),
            clock: None,
            write_log: false,
            unplugged: false,
            disk_size: None,
        }
    }
}

/// Without power.
#[derive(Debug)]
pub struct Off(());

/// With power, on its way to `serving`.
#[derive(Debug)]
pub struct Booting {
    since: Instant,
}

/// Serving.
#[derive(Debug)]
pub struct Up {
    /// Its stage line `serving`.
    pub serving: Stage,
    /// Time from power-on to `serving`, on this machine's clock.
    pub took: Duration,
}

/// A box in the state `S`. It loses its power when it is dropped.
pub struct Machine<S> {
    core: Box<Core>,
    state: S,
}

struct Core {
    rig: Rig,
    ways: Ways,
    console: Console,
    certificate: Certificate,
    write_log: Option<PathBuf>,
    secrets: Vec<String>,
    workshop: Workshop,
}

impl Machine<Off> {
    /// Opens the rig, makes the disk and writes it to the board, which stays off.
    pub fn prepare(stand: &Stand, backends: Option<&Backends>, options: &Options) -> Result<Self> {
        let workshop = Workshop::new()?;
        let artifacts = stand.artifacts()?;
        let write_log = options.write_log.then(|| workshop.file("writes.log"));
        let boot = boot(&stand.rig, &options.image, write_log.clone())?;
        let mut ways = Ways::open(&stand.rig, &workshop, boot)
            .with_context(|| format!("the rig {} cannot be used", stand.rig.name))?;
        ways.power.off()?; // whatever ran on this bench before
        let certificate = Certificate::new(&workshop, "front")?;
        let seed = match backends {
            Some(backends) => {
                let net = &mut *ways.net;
                Some(seed::prepare(&workshop, backends, net, &certificate, &options.settings)?)
            }
            None => None,
        };
        let disk = workshop.file("new-disk.img");
        options.image.disk(
            &Disk { seed: seed.as_deref(), slot_b: options.slot_b.as_deref(), size: options.disk_size },
            &disk,
        )?;
        ways.media.write(&disk)?;
        fs::remove_file(&disk)?;
        if let Some(time) = options.clock {
            ways.clock.set(time)?;
        }
        if options.unplugged {
            ways.net.plug(false)?;
        }
        let source = ways.console.take().context("the console is in use already")?;
        // Recording a card's sectors one by one makes it several times slower; laying out a file system is then a long silence.
        let patience = if options.write_log { 4 } else { 1 };
        let silence = stand.rig.limits.silence() * patience;
        let console = Console::open(source, &artifacts.join("console.log"), silence)?;
        let mut all = Vec::new();
        for account in backends.iter().flat_map(|backends| &backends.accounts) {
            all.extend([account.password.clone(), secrets::plain(&account.user, &account.password)]);
        }
        let rig = stand.rig.clone();
        let core = Core { rig, ways, console, certificate, write_log, secrets: all, workshop };
        Ok(Self { core: Box::new(core), state: Off(()) })
    }

    /// Gives it power.
    pub fn on(mut self) -> Result<Machine<Booting>> {
        self.core.console.expect_start();
        self.core.ways.power.on()?;
        Ok(Machine { core: self.core, state: Booting { since: Instant::now() } })
    }

    /// Its disk, to be read or written.
    pub fn media(&mut self) -> &mut dyn Media {
        &mut *self.core.ways.media
    }

    /// Its clock, to be set.
    pub fn clock(&mut self) -> &mut dyn Clock {
        &mut *self.core.ways.clock
    }
}

impl Machine<Booting> {
    /// Waits for a stage on the way to `serving`.
    pub fn wait_for(&mut self, stage: &str) -> Result<Stage> {
        let left = self.core.rig.limits.boot().saturating_sub(self.state.since.elapsed());
        self.explain(|core| core.console.wait_for(stage, left))
    }

    /// Waits for the next stage, whichever it is.
    pub fn next_stage(&mut self) -> Result<Stage> {
        let left = self.core.rig.limits.boot().saturating_sub(self.state.since.elapsed());
        self.explain(|core| core.console.wait_where("stage", left, |_| true))
    }

    /// It serves: the stage `serving` was the last one waited for.
    pub fn served(self, serving: Stage) -> Machine<Up> {
        let took = self.state.since.elapsed();
        Machine { core: self.core, state: Up { serving, took } }
    }

    /// Waits until it serves.
    pub fn serving(mut self) -> Result<Machine<Up>> {
        let serving = self.wait_for("serving")?;
        Ok(self.served(serving))
    }
}

impl Machine<Up> {
    /// How it came up.
    pub const fn up(&self) -> &Up {
        &self.state
    }

    /// Where its mail ports are reached from this machine.
    pub fn listeners(&self) -> Result<Listeners> {
        Ok(Listeners {
            imaps: self.port(993)?,
            pop3s: self.port(995)?,
            submissions: self.port(465)?,
            imap: self.port(143)?,
            pop3: self.port(110)?,
            submission: self.port(587)?,
        })
    }

    /// Where one of its ports is reached from this machine.
    pub fn port(&self, port: u16) -> Result<SocketAddr> {
        self.core.ways.net.port(port)
    }

    /// Cuts its power and gives it back; it serves again.
    pub fn power_cycle(self) -> Result<Self> {
        self.cut()?.on()?.serving()
    }

    /// Waits for a stage that something after `serving` brings about.
    pub fn wait_for(&mut self, stage: &str, limit: Duration) -> Result<Stage> {
        self.explain(|core| core.console.wait_for(stage, limit))
    }

    /// Does `harm`, after which the box must start again by itself, and gives it on its new way to `serving`.
    pub fn restarts(
        mut self,
        limit: Duration,
        harm: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<Machine<Booting>> {
        self.core.console.expect_start();
        harm(&mut self)?;
        self.explain(|core| core.console.wait_for_restart(limit))?;
        Ok(Machine { core: self.core, state: Booting { since: Instant::now() } })
    }
}

impl<S> Machine<S> {
    /// Cuts its power, without warning.
    pub fn cut(mut self) -> Result<Machine<Off>> {
        self.core.ways.power.off()?;
        self.core.console.expect_nothing();
        Ok(Machine { core: self.core, state: Off(()) })
    }

    /// Its console.
    pub fn console(&self) -> &Console {
        &self.core.console
    }

    /// Its power.
    pub fn power(&mut self) -> &mut dyn Power {
        &mut *self.core.ways.power
    }

    /// Its network.
    pub fn net(&mut self) -> &mut dyn Net {
        &mut *self.core.ways.net
    }

    /// Its processor.
    pub fn debugger(&mut self) -> &mut dyn Debugger {
        &mut *self.core.ways.debugger
    }

    /// Its rig.
    pub fn rig(&self) -> &Rig {
        &self.core.rig
    }

    /// What it shows to mail programs.
    pub fn certificate(&self) -> &Certificate {
        &self.core.certificate
    }

    /// What clients need in order to believe it.
    pub fn trust(&self) -> Result<Trust> {
        Trust::new(&self.core.certificate.ca_der)
    }

    /// Where the writes to its disk are recorded.
    pub fn write_log(&self) -> Result<&Path> {
        self.core.write_log.as_deref().context("the writes are not recorded; ask for it in the options")
    }

    /// The folder with the emulator's files; it lives as long as its last clone.
    pub fn workshop(&self) -> &Workshop {
        &self.core.workshop
    }

    /// From now on this must not appear on the console.
    pub fn keep_secret(&mut self, secret: &str) {
        self.core.secrets.push(secret.into());
    }

    /// An emulator that died says more than a silent console.
    fn explain<T>(&mut self, work: impl FnOnce(&Core) -> Result<T>) -> Result<T> {
        let done = work(&self.core);
        if done.is_err() {
            self.core.ways.power.check()?;
        }
        done
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if let Err(error) = self.ways.power.off() {
            eprintln!("the board of {} is still on: {error:#}", self.rig.name);
        }
        let leaks = secrets::find(&self.secrets, &[self.console.artifact()]);
        if !std::thread::panicking() {
            assert!(leaks.is_empty(), "secrets were said on the console: {leaks:?}");
        }
    }
}

/// What an emulated board starts with; a real one has it in its flash.
fn boot(rig: &Rig, image: &Image, write_log: Option<PathBuf>) -> Result<Boot> {
    let Kind::Qemu(description) = &rig.kind else {
        ensure!(write_log.is_none(), "a real disk records no writes");
        return Ok(Boot::default());
    };
    let (firmware, kernel) = match description.firmware {
        Firmware::Edk2 => (Some(uefi::edk2(&image.signer(), &image.keys)?), None),
        Firmware::Uboot => (Some(uefi::uboot(&image.signer(), &image.keys)?), None),
        Firmware::Direct => (None, Some(image.kernel.clone())),
    };
    let firmware = firmware.map(|firmware| (firmware.code, firmware.variables));
    Ok(Boot { firmware, kernel, write_log })
}

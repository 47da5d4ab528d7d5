//! Rigs: a test says what it does to a board, a rig says how that is done here.
//!
//! `description.rs` reads the files in `rigs/`. Five traits stand between a test and a board; `qemu` and `bench` have
//! each of them. What the two cannot do alike is said by the rig's capabilities, not found out by failing.

pub mod bench;
pub mod capability;
pub mod description;
pub mod device_tree;
pub mod fake;
mod gdb;
pub mod qemu;
mod qmp;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Result, bail};

pub use crate::console::Source as Console;
use crate::guard::Workshop;
pub use crate::rig::capability::Capability;
pub use crate::rig::description::{Kind, Rig};

/// The board's power.
pub trait Power: Send {
    /// Switches it on.
    fn on(&mut self) -> Result<()>;
    /// Cuts it, without warning.
    fn off(&mut self) -> Result<()>;
    /// Presses the reset button, or does what comes nearest.
    fn reset(&mut self) -> Result<()> {
        self.off()?;
        self.on()
    }
    /// Whether the board could be running; an emulator may have died.
    fn check(&mut self) -> Result<()> {
        Ok(())
    }
}

/// The board's disk, while the board is off.
pub trait Media: Send {
    /// Writes an image, from its first octet on, and reads it back.
    fn write(&mut self, image: &Path) -> Result<()>;
    /// Reads the whole disk, as the board left it, into a file.
    fn read(&mut self, to: &Path) -> Result<()>;
}

/// The board's network.
pub trait Net: Send {
    /// Where a port of the board is reached from this machine.
    fn port(&self, port: u16) -> Result<SocketAddr>;
    /// Where the board reaches a server on this machine's loopback.
    fn offer(&mut self, server: SocketAddr) -> Result<SocketAddr>;
    /// Puts the cable in, or pulls it.
    fn plug(&mut self, is_plugged: bool) -> Result<()>;
}

/// The board's clock.
pub trait Clock: Send {
    /// What it shows from the next power-on on.
    fn set(&mut self, time: SystemTime) -> Result<()>;
}

/// The board's processor, from outside.
pub trait Debugger: Send {
    /// Makes every processor spin with interrupts off, as a kernel that hangs would.
    fn hang(&mut self) -> Result<()>;
}

/// What an emulated board starts with, in place of what a real one has in its flash.
#[derive(Clone, Debug, Default)]
pub struct Boot {
    /// Firmware that speaks EFI: its code, and its variables if those are a file of their own.
    pub firmware: Option<(PathBuf, Option<PathBuf>)>,
    /// The kernel, for boards that the emulator starts without firmware.
    pub kernel: Option<PathBuf>,
    /// Where every write to the disk is recorded (dm-log-writes' format).
    pub write_log: Option<PathBuf>,
}

/// The five ways to one board, opened.
pub struct Ways {
    /// See [`Power`].
    pub power: Box<dyn Power>,
    /// See [`Console`]; taken by whoever listens.
    pub console: Option<Box<dyn Console>>,
    /// See [`Media`].
    pub media: Box<dyn Media>,
    /// See [`Net`].
    pub net: Box<dyn Net>,
    /// See [`Clock`].
    pub clock: Box<dyn Clock>,
    /// See [`Debugger`].
    pub debugger: Box<dyn Debugger>,
}

impl Ways {
    /// Opens the ways to a rig's board; the board is off then.
    pub fn open(rig: &Rig, workshop: &Workshop, boot: Boot) -> Result<Self> {
        match &rig.kind {
            Kind::Qemu(description) => qemu::open(description, workshop, boot),
            Kind::Bench(description) => bench::open(description),
        }
    }
}

/// What a rig has no way to do: every use is an error that says why.
pub(crate) struct Missing(pub(crate) &'static str);

impl Clock for Missing {
    fn set(&mut self, _: SystemTime) -> Result<()> {
        bail!("skipped: {}", self.0)
    }
}

impl Debugger for Missing {
    fn hang(&mut self) -> Result<()> {
        bail!("skipped: {}", self.0)
    }
}

impl Net for Missing {
    fn port(&self, _: u16) -> Result<SocketAddr> {
        bail!("skipped: {}", self.0)
    }

    fn offer(&mut self, _: SocketAddr) -> Result<SocketAddr> {
        bail!("skipped: {}", self.0)
    }

    fn plug(&mut self, _: bool) -> Result<()> {
        bail!("skipped: {}", self.0)
    }
}

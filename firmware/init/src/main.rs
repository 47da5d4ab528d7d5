//! PID 1 of the box, and by argument the role that it starts of itself.
//!
//! Up: mounts, console, board, watchdog, disk, data, settings, services; then one loop until the machine stops. Nothing
//! on the way may hang, and nothing but a missing `/proc` keeps the console from coming up.

#[cfg(any(test, feature = "bench"))]
mod allocations;
#[cfg(feature = "bench")]
mod bench;
mod console;
mod data;
mod kernel;
mod kmsg;
mod mount;
mod network;
mod notify;
mod reboot;
mod release;
mod run;
mod sandbox;
mod service;
mod settings;
mod slot;
mod socket;
mod spawn;
mod stage;
mod supervise;
mod surface;
mod unit;

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use board::crypto::Aes;
use board::descriptor::{AesClaim, Descriptor};
use board::led::{Light, Pattern};
use board::serial::Serial;
use board::watchdog::Watchdog;
use board::{Machine, detect, disk, hwrng};

use console::{now, say};
use reboot::fatal;
use release::{Release, secure_boot};
use run::FEEDS;
use slot::Boot;

/// The boards this firmware knows.
const BOARDS: &str = "/etc/postern/boards";

/// Hardware that gives random numbers gives these in a moment or not at all.
const SEEDING: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_deref().map(OsStr::to_str) {
        None if std::process::id() == 1 => start(),
        Some(Some("network")) => network::run(arguments),
        _ => {
            eprintln!("init is started by the kernel as process 1, and by itself as `init network`");
            ExitCode::from(2)
        }
    }
}

/// Brings the box up, in the order in which things can be relied on.
fn start() -> ! {
    if let Err(error) = mount::first() {
        fatal(&error);
    }
    let machine = Machine::here();
    open_console(&machine, &Descriptor::generic());
    reboot::prepare();
    let release = Release::read();
    console::stage(
        "start",
        &[
            ("ver", &release.version),
            ("build", &release.build),
            ("kind", &release.kind),
            ("secureboot", &secure_boot()),
        ],
    );
    let descriptor = board(&machine);
    let watchdog = watchdog(&machine, &descriptor);
    let last = Cell::new(now());
    let feed = || {
        if let Some(watchdog) = &watchdog
            && last.get() + watchdog.timeout() / FEEDS <= now()
        {
            // The loop says so if it stays that way.
            let _ = watchdog.feed();
            last.set(now());
        }
    };
    surroundings(&machine, &descriptor);
    let mut light = Light::open(&machine, descriptor.led.as_ref()).unwrap_or_else(|fault| {
        say!("{fault}");
        Light::none()
    });
    let _ = light.show(Pattern::Booting, now());
    let disk = disk::wait(&machine, &descriptor.storage).map_err(|none| say!("{none}")).ok();
    let boot = Boot::find(disk.as_ref());
    let name = disk.as_ref().map_or("none", |disk| disk.name.as_str());
    console::stage("storage", &[("disk", &name), ("slot", boot.slot()), ("boot", boot.kind())]);
    feed();
    let data = data::open(disk.as_ref(), &feed);
    console::stage("data", &[("mode", &data.mode), ("reason", &data.reason)]);
    feed();
    let units = run::prepare(memory()).unwrap_or_else(|error| fatal(&error));
    if let Err(error) = kernel::keep_only(&service::OWN) {
        say!("process 1 keeps all capabilities: {}", error.desc());
    }
    match run::Init::new(units, boot, watchdog, light) {
        Ok(init) => init.run(),
        Err(error) => fatal(&format_args!("the loop cannot be set up: {error}")),
    }
}

/// Opens the console that the descriptor names, else the kernel's.
fn open_console(machine: &Machine, descriptor: &Descriptor) {
    match Serial::console(machine, &descriptor.console) {
        Ok(serial) => console::open(serial),
        Err(fault) => say!("{fault}"),
    }
}

/// Finds out which board this is, and says what its descriptor has wrong.
fn board(machine: &Machine) -> Descriptor {
    let detection = detect::detect(machine, Path::new(BOARDS));
    for mistake in &detection.mistakes {
        say!("{mistake}");
    }
    let descriptor = detection.descriptor;
    if descriptor.console != Descriptor::generic().console {
        open_console(machine, &descriptor);
    }
    let aes = Aes::detect();
    console::stage("board", &[("id", &descriptor.id), ("aes", &aes.name())]);
    match (descriptor.cpu.aes, aes) {
        (AesClaim::Present, Aes::Software) => {
            say!("the descriptor says this CPU has AES instructions; it has none");
        }
        (AesClaim::Absent, Aes::Hardware) => {
            say!("the descriptor says this CPU has no AES instructions; it has");
        }
        _ => {}
    }
    descriptor
}

fn watchdog(machine: &Machine, descriptor: &Descriptor) -> Option<Watchdog> {
    let opened = descriptor.watchdog.as_ref().map(|part| Watchdog::open(machine, part));
    match opened {
        Some(Ok(watchdog)) => {
            let (device, timeout) = (watchdog.identity(), watchdog.timeout().as_secs());
            console::stage("watchdog", &[("dev", &device), ("timeout", &timeout)]);
            return Some(watchdog);
        }
        Some(Err(fault)) => say!("{fault}"),
        None => {}
    }
    // Nothing resets this board when the kernel hangs.
    console::stage("watchdog", &[("dev", &"none"), ("timeout", &0)]);
    None
}

/// The rest of what is mounted and set, and the kernel's random numbers.
fn surroundings(machine: &Machine, descriptor: &Descriptor) {
    if let Err(error) = mount::later() {
        fatal(&error);
    }
    mount::sysctls();
    if let Err(error) = mount::seal_root() {
        say!("the root stays writable: {error}");
    }
    if let Some(part) = &descriptor.hwrng
        && let Err(fault) = hwrng::seed(machine, part, SEEDING)
    {
        say!("{fault}");
    }
    for (folder, user) in [("/run/gateway", 101), ("/run/network", 100)] {
        let made =
            fs::create_dir(folder).and_then(|()| std::os::unix::fs::chown(folder, Some(user), Some(user)));
        if let Err(error) = made {
            say!("{folder}: {error}");
        }
    }
    if let Some(lack) = sandbox::landlock_support() {
        say!("{lack}");
    }
}

/// The board's memory, if services can be limited by it.
fn memory() -> Option<u64> {
    if let Err(error) = sandbox::prepare_cgroups() {
        say!("services run without limits of memory and CPU: {error}");
        return None;
    }
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}

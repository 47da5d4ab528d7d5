//! The five ways to an emulated board: QEMU as a process, its control socket, a socket for its serial port, a file for
//! its disk, and ports of this machine's loopback.
//!
//! Power is the process: it starts with the board and is killed with it, so nothing in the emulator outlives a power
//! cut. Only what the guest wrote to its disk does; the emulator's own cache keeps even what the guest did not flush,
//! which is why lost writes are replayed from a write log instead.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::guard::{Process, Workshop};
use crate::port::{free, loopback};
use crate::rig::description::{Disk, Network, Qemu};
use crate::rig::gdb::Gdb;
use crate::rig::qmp::Qmp;
use crate::rig::{Boot, Clock, Console, Debugger, Media, Net, Power, Ways, device_tree};

/// Ports of the board that this machine can reach: mail, and the consoles to come.
pub const PORTS: [u16; 8] = [993, 995, 465, 143, 110, 587, 443, 80];

/// How the board sees this machine's loopback (QEMU's user network).
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 2));

/// Opens the ways to an emulated board.
pub fn open(description: &Qemu, workshop: &Workshop, boot: Boot) -> Result<Ways> {
    let machine = Machine::prepare(description, workshop, boot)?;
    let serial = Serial::listen(&machine.lock().paths.serial)?;
    Ok(Ways {
        power: Box::new(machine.clone()),
        console: Some(Box::new(serial)),
        media: Box::new(machine.clone()),
        net: Box::new(machine.clone()),
        clock: Box::new(machine.clone()),
        debugger: Box::new(machine),
    })
}

/// The emulator's files.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The disk.
    pub disk: PathBuf,
    /// The socket that we listen on and its serial port connects to.
    pub serial: PathBuf,
    /// Its control socket.
    pub qmp: PathBuf,
    /// Its debugger's socket.
    pub gdb: PathBuf,
}

impl Paths {
    fn inside(workshop: &Workshop) -> Self {
        Self {
            disk: workshop.file("disk.img"),
            serial: workshop.file("serial"),
            qmp: workshop.file("qmp"),
            gdb: workshop.file("gdb"),
        }
    }
}

/// The emulator's command line but for what changes from one power-on to the next.
pub fn arguments(
    description: &Qemu,
    paths: &Paths,
    boot: &Boot,
    device_tree: Option<&Path>,
    forwards: &BTreeMap<u16, SocketAddr>,
) -> Result<Vec<String>> {
    let mut line: Vec<String> = vec!["-nodefaults".into(), "-no-user-config".into()];
    let mut add = |words: &[&str]| line.extend(words.iter().map(|word| (*word).to_owned()));
    add(&["-display", "none", "-machine", &description.machine, "-m", &description.memory]);
    if let Some(cpu) = &description.cpu {
        add(&["-cpu", cpu]);
    }
    let args: Vec<&str> = description.args.iter().map(String::as_str).collect();
    add(&args);
    for (id, path) in [("qmp", &paths.qmp), ("gdb", &paths.gdb)] {
        add(&["-chardev", &format!("socket,id={id},path={},server=on,wait=off", path.display())]);
    }
    add(&["-mon", "chardev=qmp,mode=control", "-gdb", "chardev:gdb"]);
    // The serial port calls us: we listen before there is power, so no word is lost.
    add(&["-chardev", &format!("socket,id=console,path={}", paths.serial.display())]);
    for _ in 0..description.console {
        add(&["-serial", "null"]);
    }
    add(&["-serial", "chardev:console"]);

    let file = paths.disk.display();
    let disk = match &boot.write_log {
        None => format!("id=disk,driver=raw,file.driver=file,file.filename={file}"),
        // No flush of this machine's own below the recorder: then a flush is over at once, and no write can be completed
        // while one is under way, which the log would show as flushed though it was not.
        Some(log) => format!(
            "id=disk,driver=blklogwrites,\
             file.driver=raw,file.cache.no-flush=on,\
             file.file.driver=file,file.file.cache.no-flush=on,file.file.filename={file},\
             log.driver=raw,log.cache.no-flush=on,\
             log.file.driver=file,log.file.cache.no-flush=on,log.file.filename={}",
            log.display()
        ),
    };
    match description.disk {
        Disk::Virtio => {
            add(&["-drive", &format!("if=none,{disk}"), "-device", "virtio-blk-pci,drive=disk,bootindex=0"]);
        }
        // A card has no cache that could be flushed, so what it has written lasts: the log shows a flush for every write.
        Disk::Sd { sd } => add(&["-drive", &format!("if=sd,bus={sd},cache=writethrough,{disk}")]),
    }

    let forwards: String =
        forwards.iter().map(|(port, here)| format!(",hostfwd=tcp:{here}-:{port}")).collect();
    match description.network {
        Network::Virtio => {
            add(&[
                "-netdev",
                &format!("user,id=net{forwards}"),
                "-device",
                "virtio-net-pci,netdev=net,romfile=",
            ]);
        }
        Network::Onboard => add(&["-netdev", &format!("user,id=net{forwards}"), "-net", "nic,netdev=net"]),
        Network::Usb => {
            add(&["-netdev", &format!("user,id=net{forwards}"), "-device", "usb-net,netdev=net"]);
        }
    }

    match (&boot.firmware, &boot.kernel) {
        (Some((code, Some(variables))), None) => {
            add(&["-drive", &format!("if=pflash,format=raw,readonly=on,file={}", code.display())]);
            add(&["-drive", &format!("if=pflash,format=raw,file={}", variables.display())]);
        }
        (Some((code, None)), None) => add(&["-bios", &code.display().to_string()]),
        (None, Some(kernel)) => add(&["-kernel", &kernel.display().to_string()]),
        _ => bail!("an emulated board starts with firmware or with a kernel, not with both or none"),
    }
    if let Some(tree) = device_tree {
        add(&["-dtb", &tree.display().to_string()]);
    }
    Ok(line)
}

/// One emulated board; its ways share it.
#[derive(Clone, Debug)]
struct Machine(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    arguments: Vec<String>,
    paths: Paths,
    forwards: BTreeMap<u16, SocketAddr>,
    is_plugged: bool,
    /// How far the board's clock is from ours, in seconds.
    clock: i64,
    process: Option<Process>,
    workshop: Workshop,
}

impl Machine {
    fn prepare(description: &Qemu, workshop: &Workshop, mut boot: Boot) -> Result<Self> {
        let paths = Paths::inside(workshop);
        let tree =
            description.device_tree.as_ref().map(|tree| device_tree::prepare(tree, workshop)).transpose()?;
        if let Some((_, Some(variables))) = &mut boot.firmware {
            // The board's own copy, for it writes to it.
            let own = workshop.file("variables.fd");
            fs::copy(&*variables, &own).with_context(|| format!("cannot copy {}", variables.display()))?;
            *variables = own;
        }
        if let Some(log) = &boot.write_log {
            File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        }
        let forwards = PORTS
            .into_iter()
            .map(|port| Ok((port, loopback(free()?))))
            .collect::<Result<BTreeMap<_, _>>>()?;
        let arguments = arguments(description, &paths, &boot, tree.as_deref(), &forwards)?;
        Ok(Self(Arc::new(Mutex::new(State {
            arguments,
            paths,
            forwards,
            is_plugged: true,
            clock: 0,
            process: None,
            workshop: workshop.clone(),
        }))))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn qmp(&self) -> Result<Qmp> {
        ensure!(self.process.is_some(), "the board is off");
        Qmp::connect(&self.paths.qmp)
    }

    fn link(&self) -> Result<()> {
        self.qmp()?.ask("set_link", &json!({ "name": "net", "up": self.is_plugged })).map(drop)
    }
}

impl Power for Machine {
    fn on(&mut self) -> Result<()> {
        let mut state = self.lock();
        ensure!(state.process.is_none(), "the board is on already");
        ensure!(state.paths.disk.is_file(), "the board has no disk yet; write an image to it first");
        for socket in [&state.paths.qmp, &state.paths.gdb] {
            let _ = fs::remove_file(socket); // left by the one that was killed
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let shown = now.cast_signed() + state.clock;
        let mut command = Command::new("qemu-system-aarch64");
        command.args(&state.arguments).args(["-rtc", &format!("base={}", civil(shown))]);
        let errors =
            fs::OpenOptions::new().create(true).append(true).open(state.workshop.file("qemu.err"))?;
        command.stdin(Stdio::null()).stdout(errors.try_clone()?).stderr(errors);
        let process = state.workshop.spawn("qemu-system-aarch64", &mut command)?;
        state.process = Some(process);
        if state.is_plugged { Ok(()) } else { state.link() }
    }

    fn off(&mut self) -> Result<()> {
        if let Some(mut process) = self.lock().process.take() {
            process.kill();
        }
        Ok(())
    }

    fn reset(&mut self) -> Result<()> {
        self.lock().qmp()?.ask("system_reset", &json!({})).map(drop)
    }

    fn check(&mut self) -> Result<()> {
        let mut state = self.lock();
        let Some(process) = &mut state.process else { return Ok(()) };
        ensure!(process.is_running(), "QEMU ended; {}", process.testament());
        Ok(())
    }
}

impl Media for Machine {
    fn write(&mut self, image: &Path) -> Result<()> {
        let state = self.lock();
        ensure!(state.process.is_none(), "the board is on; its disk cannot be changed under it");
        copy_sparse(image, &state.paths.disk)
    }

    fn read(&mut self, to: &Path) -> Result<()> {
        copy_sparse(&self.lock().paths.disk, to)
    }
}

impl Net for Machine {
    fn port(&self, port: u16) -> Result<SocketAddr> {
        self.lock()
            .forwards
            .get(&port)
            .copied()
            .with_context(|| format!("port {port} is not passed on by the emulator"))
    }

    fn offer(&mut self, server: SocketAddr) -> Result<SocketAddr> {
        ensure!(server.ip().is_loopback(), "{server} is not on this machine's loopback");
        Ok(SocketAddr::new(HOST, server.port()))
    }

    fn plug(&mut self, is_plugged: bool) -> Result<()> {
        let mut state = self.lock();
        state.is_plugged = is_plugged;
        if state.process.is_some() { state.link() } else { Ok(()) }
    }
}

impl Clock for Machine {
    fn set(&mut self, time: SystemTime) -> Result<()> {
        let seconds = |time: SystemTime| match time.duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX),
        };
        self.lock().clock = seconds(time) - seconds(SystemTime::now());
        Ok(())
    }
}

impl Debugger for Machine {
    fn hang(&mut self) -> Result<()> {
        let state = self.lock();
        ensure!(state.process.is_some(), "the board is off");
        Gdb::connect(&state.paths.gdb)?.hang()
    }
}

/// Listens for the emulator's serial port.
struct Serial(UnixListener);

impl Serial {
    fn listen(path: &Path) -> Result<Self> {
        let listener =
            UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }
}

impl Console for Serial {
    fn connect(&mut self) -> Result<Option<File>> {
        match self.0.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                Ok(Some(File::from(OwnedFd::from(stream))))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Copies a file, leaving holes where it has zeros, so that a large disk costs what is on it.
pub(crate) fn copy_sparse(from: &Path, to: &Path) -> Result<()> {
    const BLOCK: usize = 64 * 1024;
    let mut source = File::open(from).with_context(|| format!("cannot open {}", from.display()))?;
    let mut target = File::create(to).with_context(|| format!("cannot create {}", to.display()))?;
    let mut length = 0;
    let mut block = vec![0; BLOCK];
    loop {
        let mut filled = 0;
        while filled < BLOCK {
            match source.read(&mut block[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        if filled == 0 {
            break;
        }
        length += filled as u64;
        if block[..filled].iter().all(|octet| *octet == 0) {
            target.seek(SeekFrom::Start(length))?;
        } else {
            target.write_all(&block[..filled])?;
        }
    }
    target.set_len(length)?;
    Ok(())
}

/// Seconds since 1970 as QEMU wants a date: `2026-11-22T12:00:00`, in UTC.
fn civil(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days to a date, by eras of 400 years that begin in March (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", rest / 3_600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_civil() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_400, "2000-02-29T00:00:00"),
            (1_795_348_799, "2026-11-22T11:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
            (-1, "1969-12-31T23:59:59"),
        ] {
            assert_eq!(civil(seconds), date);
        }
    }

    #[test]
    fn a_sparse_copy_is_a_copy() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        let mut octets = vec![0; 200_000];
        octets[70_000] = 7;
        octets[199_998] = 9;
        for length in [0, 1, 70_001, 140_000, 200_000] {
            fs::write(&one, &octets[..length]).unwrap();
            copy_sparse(&one, &two).unwrap();
            assert_eq!(fs::read(&two).unwrap(), &octets[..length], "{length}");
        }
    }
}

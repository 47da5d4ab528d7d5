//! The five ways to a board on a bench: a USB serial port, a relay, an SD mux, a network interface, and whatever sets
//! its clock, if anything does.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::termios::{
    BaudRate, ControlFlags, FlushArg, SetArg, cfmakeraw, cfsetspeed, tcflush, tcgetattr, tcsetattr,
};

use crate::balancer;
use crate::flash;
use crate::rig::description::{Bench, DiskWriter, PowerSwitch, SerialPort, Wire};
use crate::rig::{Clock, Console, Media, Missing, Net, Power, Ways};

/// Opens the ways to a board on a bench.
pub fn open(bench: &Bench) -> Result<Ways> {
    let clock: Box<dyn Clock> = match bench.clock.clone() {
        Some(command) => Box::new(ClockCommand(command)),
        None => Box::new(Missing("a bench cannot set the board's clock")),
    };
    let net: Box<dyn Net> = match bench.net.clone() {
        Some(wire) => Box::new(Cable { wire, doors: Mutex::default() }),
        None => Box::new(Missing("the bench has no network")),
    };
    Ok(Ways {
        power: Box::new(Switch { switch: bench.power.clone(), settle: bench.settle }),
        console: Some(Box::new(Tty { port: bench.console.clone(), is_first: true })),
        media: Box::new(Card(bench.media.clone())),
        net,
        clock,
        debugger: Box::new(Missing("no debug probe is wired")),
    })
}

/// A serial port as the console.
struct Tty {
    port: SerialPort,
    is_first: bool,
}

impl Console for Tty {
    fn connect(&mut self) -> Result<Option<File>> {
        // An adapter that was pulled may come back; one that never was there is a mistake in the rig file.
        if !self.is_first && !self.port.device.exists() {
            return Ok(None);
        }
        let tty = open_tty(&self.port.device, self.port.baud)?;
        self.is_first = false;
        Ok(Some(tty))
    }
}

/// Opens a serial port: raw, 8N1, without flow control, whatever the modem lines say.
pub(crate) fn open_tty(device: &Path, baud: u32) -> Result<File> {
    let open = || -> Result<File> {
        // Without O_NONBLOCK the open waits for a carrier that a three-wire cable never has.
        let tty = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags((OFlag::O_NOCTTY | OFlag::O_NONBLOCK).bits())
            .open(device)?;
        let mut settings = tcgetattr(tty.as_fd())?;
        cfmakeraw(&mut settings);
        settings.control_flags |= ControlFlags::CLOCAL | ControlFlags::CREAD;
        settings.control_flags &= !(ControlFlags::CRTSCTS | ControlFlags::CSTOPB);
        cfsetspeed(&mut settings, rate(baud)?)?;
        tcsetattr(tty.as_fd(), SetArg::TCSANOW, &settings)?;
        tcflush(tty.as_fd(), FlushArg::TCIFLUSH)?; // what the last board said
        fcntl(tty.as_fd(), FcntlArg::F_SETFL(OFlag::empty()))?;
        Ok(tty)
    };
    open().with_context(|| {
        format!("cannot open the serial port {}; is the adapter plugged in?", device.display())
    })
}

fn rate(baud: u32) -> Result<BaudRate> {
    Ok(match baud {
        9_600 => BaudRate::B9600,
        38_400 => BaudRate::B38400,
        57_600 => BaudRate::B57600,
        115_200 => BaudRate::B115200,
        230_400 => BaudRate::B230400,
        460_800 => BaudRate::B460800,
        921_600 => BaudRate::B921600,
        1_500_000 => BaudRate::B1500000,
        _ => bail!("{baud} baud is not known; 115200 is usual"),
    })
}

/// What switches the power, and how long the board's capacitors live on.
struct Switch {
    switch: PowerSwitch,
    settle: Duration,
}

impl Switch {
    fn set(&self, is_on: bool) -> Result<()> {
        match &self.switch {
            PowerSwitch::UsbRelay { device, channel, normally_closed, .. } => {
                let mut relay = open_tty(device, 9_600)?;
                relay.write_all(&relay_frame(*channel, is_on != *normally_closed))?;
                Ok(nix::sys::termios::tcdrain(relay.as_fd())?)
            }
            PowerSwitch::Tasmota { address, channel, .. } => {
                let word = if is_on { "On" } else { "Off" };
                http_get(*address, &format!("/cm?cmnd=Power{channel}%20{word}"))
            }
            PowerSwitch::Command { on, off, .. } => command(if is_on { on } else { off }),
        }
    }
}

impl Power for Switch {
    fn on(&mut self) -> Result<()> {
        self.set(true).context("cannot switch the power on")
    }

    fn off(&mut self) -> Result<()> {
        self.set(false).context("cannot switch the power off")?;
        thread::sleep(self.settle);
        Ok(())
    }
}

/// A command of an LCUS relay board: start, channel, closed or released, and the sum of the three.
pub(crate) fn relay_frame(channel: u8, is_closed: bool) -> [u8; 4] {
    const START: u8 = 0xa0;
    let state = u8::from(is_closed);
    [START, channel, state, START.wrapping_add(channel).wrapping_add(state)]
}

/// Asks a socket's web server, and wants 200.
fn http_get(address: SocketAddr, path: &str) -> Result<()> {
    let patience = Duration::from_secs(10);
    let mut stream = TcpStream::connect_timeout(&address, patience)
        .with_context(|| format!("{address} does not answer"))?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(64 * 1024).read_to_string(&mut answer)?;
    let status = answer.split_whitespace().nth(1).unwrap_or_default();
    ensure!(status == "200", "{address} says {:?}", answer.lines().next().unwrap_or_default());
    Ok(())
}

/// The board's SD card, in a mux.
struct Card(DiskWriter);

impl Card {
    /// Works on the disk while this machine has it, and gives it back whatever happens.
    fn while_ours(&self, work: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let (to_host, to_board, disk) = match &self.0 {
            DiskWriter::Usbsdmux { device, disk } => {
                let way = |mode: &str| vec!["usbsdmux".into(), device.display().to_string(), mode.into()];
                (way("host"), way("dut"), disk)
            }
            DiskWriter::Command { to_host, to_board, disk } => (to_host.clone(), to_board.clone(), disk),
        };
        command(&to_host)?;
        let done = appears(disk).and_then(|()| work(disk));
        let back = command(&to_board);
        done.and(back)
    }
}

impl Media for Card {
    fn write(&mut self, image: &Path) -> Result<()> {
        self.while_ours(|disk| flash::write(image, disk))
    }

    fn read(&mut self, to: &Path) -> Result<()> {
        self.while_ours(|disk| crate::rig::qemu::copy_sparse(disk, to))
    }
}

/// A card reader takes its time to find a card.
fn appears(disk: &Path) -> Result<()> {
    for _ in 0..200 {
        // An empty reader is there too, but cannot be opened.
        if File::open(disk).is_ok() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(50));
    }
    bail!("{} did not appear within 10 s after the mux gave it to this machine", disk.display())
}

/// The bench's network.
struct Cable {
    wire: Wire,
    /// Ports of this machine's loopback that lead to the board's.
    doors: Mutex<BTreeMap<u16, SocketAddr>>,
}

impl Net for Cable {
    fn port(&self, port: u16) -> Result<SocketAddr> {
        let board = self
            .wire
            .forward
            .get(&port.to_string())
            .copied()
            .unwrap_or(SocketAddr::new(self.wire.board, port));
        if board.ip().is_loopback() {
            return Ok(board);
        }
        // Programs under test are told "localhost", as with every other rig.
        let mut doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(door) = doors.get(&port) {
            return Ok(*door);
        }
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let door = listener.local_addr()?;
        balancer::pass_on(listener, board);
        doors.insert(port, door);
        Ok(door)
    }

    fn offer(&mut self, server: SocketAddr) -> Result<SocketAddr> {
        // The servers stay on loopback; only the bench's own network reaches this door to them.
        let Wire { interface, host, .. } = &self.wire;
        let listener = TcpListener::bind((*host, 0)).with_context(|| {
            format!("cannot listen on {host}; is that this machine's address on {interface}?")
        })?;
        let mut address = listener.local_addr()?;
        address.set_ip(self.wire.host_seen_as.unwrap_or(*host));
        balancer::pass_on(listener, server);
        Ok(address)
    }

    fn plug(&mut self, is_plugged: bool) -> Result<()> {
        let word = if is_plugged { "up" } else { "down" };
        command(&["ip", "link", "set", "dev", &self.wire.interface, word].map(String::from))
    }
}

/// A lab's own way to set the board's clock.
struct ClockCommand(Vec<String>);

impl Clock for ClockCommand {
    fn set(&mut self, time: SystemTime) -> Result<()> {
        let seconds = time.duration_since(UNIX_EPOCH).context("before 1970")?.as_secs().to_string();
        let line: Vec<String> = self.0.iter().map(|word| word.replace("{time}", &seconds)).collect();
        command(&line)
    }
}

/// Runs a command of the rig file.
fn command(line: &[String]) -> Result<()> {
    let (program, arguments) = line.split_first().context("an empty command")?;
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{program} does not run"))?;
    ensure!(
        output.status.success(),
        "{}: {}{}",
        line.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::BufRead;

    use super::*;

    #[test]
    fn the_relay_hears_its_documented_octets() {
        assert_eq!(relay_frame(1, true), [0xa0, 1, 1, 0xa2]);
        assert_eq!(relay_frame(1, false), [0xa0, 1, 0, 0xa1]);
        assert_eq!(relay_frame(2, true), [0xa0, 2, 1, 0xa3]);
    }

    #[test]
    fn a_web_socket_is_asked_and_believed_only_with_200() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            ["200 OK", "401 Unauthorized"].map(|status| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = String::new();
                std::io::BufReader::new(stream.try_clone().unwrap()).read_line(&mut request).unwrap();
                stream.write_all(format!("HTTP/1.0 {status}\r\n\r\n{{}}").as_bytes()).unwrap();
                request
            })
        });
        let power = PowerSwitch::Tasmota { address, channel: 2, settle_ms: 0 };
        let mut switch = Switch { switch: power, settle: Duration::ZERO };
        switch.on().unwrap();
        assert!(format!("{:#}", switch.off().unwrap_err()).contains("401"));
        assert_eq!(server.join().unwrap()[0], "GET /cm?cmnd=Power2%20On HTTP/1.0\r\n");
    }

    #[test]
    fn commands_say_what_failed() {
        let fail = ["sh", "-c", "echo no such relay >&2; exit 3"].map(String::from);
        let error = command(&fail).unwrap_err().to_string();
        assert!(error.contains("no such relay") && error.contains('3'), "{error}");
    }

    #[test]
    fn a_clock_command_is_told_the_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("time");
        let line = ["sh", "-c", "printf %s \"$1\" > \"$2\"", "sh", "{time}", &file.to_string_lossy()]
            .map(String::from);
        ClockCommand(line.to_vec()).set(UNIX_EPOCH + Duration::from_secs(77)).unwrap();
        assert_eq!(fs::read_to_string(file).unwrap(), "77");
    }
}

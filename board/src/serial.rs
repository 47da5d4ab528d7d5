//! A serial line: raw, eight bits, no parity, one stop bit, no flow control.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc::{
    self, BRKINT, CBAUD, CLOCAL, CREAD, CRTSCTS, CS8, CSIZE, CSTOPB, ECHO, ECHONL, HUPCL, ICANON, ICRNL,
    IEXTEN, IGNBRK, IGNCR, INLCR, ISIG, ISTRIP, IXON, O_CLOEXEC, O_NOCTTY, O_NONBLOCK, OPOST, PARENB, PARMRK,
    VMIN, VTIME,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::descriptor::ConsolePart;
use crate::{Fault, Machine, ioctl};

/// An open serial line. Reading and writing never wait longer than they are told to, and allocate nothing.
#[derive(Debug)]
pub struct Serial {
    line: File,
    device: PathBuf,
}

impl Serial {
    /// Opens the board's console: what the descriptor names, else what the kernel uses, else `/dev/console`.
    pub fn console(machine: &Machine, part: &ConsolePart) -> Result<Self, Fault> {
        // The kernel lists its consoles; the last one is where /dev/console leads.
        let active = machine.attribute("class/tty/console/active").unwrap_or_default();
        let active = active.split_whitespace().last().map(str::to_owned);
        let mut first = None;
        for name in [part.device.clone(), active, Some("console".into())].into_iter().flatten() {
            match Self::open(&machine.dev.join(name), part.baud) {
                Ok(serial) => return Ok(serial),
                Err(fault) => first = first.or(Some(fault)),
            }
        }
        Err(first.unwrap_or_else(|| Fault::new("console", &machine.dev, "there is none", "check [console]")))
    }

    /// Opens and sets a line. It does not become the controlling terminal: Ctrl-C on it is a byte like others.
    pub fn open(device: &Path, baud: u32) -> Result<Self, Fault> {
        let mend = "check [console] in the board's descriptor and the kernel's serial drivers";
        let line = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(O_NOCTTY | O_NONBLOCK | O_CLOEXEC)
            .open(device)
            .map_err(|error| Fault::io("console", device, "cannot be opened", mend, error))?;
        set(&line, baud).map_err(|errno| {
            Fault::io("console", device, format!("does not take {baud} 8N1"), mend, errno)
        })?;
        Ok(Self { line, device: device.to_owned() })
    }

    /// The device file.
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// Writes all of `bytes`, or as much as the line takes in time. The line is raw: lines end in CR LF.
    pub fn write(&self, bytes: &[u8], within: Duration) -> io::Result<()> {
        let start = Instant::now();
        let mut rest = bytes;
        while !rest.is_empty() {
            match (&self.line).write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(PollFlags::POLLOUT, within.saturating_sub(start.elapsed()))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what has come, waiting for a first byte until `within` is over (`TimedOut`).
    pub fn read(&self, buffer: &mut [u8], within: Duration) -> io::Result<usize> {
        let start = Instant::now();
        loop {
            match (&self.line).read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(PollFlags::POLLIN, within.saturating_sub(start.elapsed()))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                answer => return answer,
            }
        }
    }

    /// `TimedOut` at the end of the time.
    fn wait(&self, what: PollFlags, left: Duration) -> io::Result<()> {
        // Rounded up, so that the last part of a millisecond is not spun away.
        let left = PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.line.as_fd(), what)], left) {
            Ok(0) => Err(io::ErrorKind::TimedOut.into()),
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Serial {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }
}

/// Through the kernel's own call and not `tcsetattr`: crate libc binds the functions that set speeds to versions of
/// glibc's dynamic library, which a static executable does not have.
fn set(line: &File, baud: u32) -> nix::Result<()> {
    let mut settings = ioctl::line_settings(line)?;
    // As cfmakeraw(3).
    settings.input &= !(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
    settings.output &= !OPOST;
    settings.local &= !(ECHO | ECHONL | ICANON | ISIG | IEXTEN);
    // Three wires: nobody hangs up or holds back.
    settings.control &= !(CSIZE | PARENB | CSTOPB | CRTSCTS | HUPCL | CBAUD | CBAUD << INPUT_SPEED);
    settings.control |= CS8 | CLOCAL | CREAD | speed(baud).ok_or(Errno::EINVAL)?; // for both ways
    (settings.characters[VMIN], settings.characters[VTIME]) = (1, 0);
    ioctl::set_line_settings(line, &settings)
}

/// The kernel's word for a speed that a descriptor may name.
pub(crate) const fn speed(baud: u32) -> Option<u32> {
    Some(match baud {
        9600 => libc::B9600,
        19_200 => libc::B19200,
        38_400 => libc::B38400,
        57_600 => libc::B57600,
        115_200 => libc::B115200,
        230_400 => libc::B230400,
        460_800 => libc::B460800,
        921_600 => libc::B921600,
        1_500_000 => libc::B1500000,
        _ => return None,
    })
}

/// How far the bits of the other way's speed lie from `CBAUD` (`IBSHIFT`).
const INPUT_SPEED: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use nix::pty::{OpenptyResult, openpty};
    use nix::sys::termios::{self, ControlFlags, InputFlags, LocalFlags, OutputFlags};
    use std::os::fd::OwnedFd;

    const SOON: Duration = Duration::from_secs(5);

    /// The other end of the line, and the line as the crate opens it.
    fn line(baud: u32) -> (File, OwnedFd, Serial) {
        let OpenptyResult { master, slave } = openpty(None, None).unwrap();
        let name = nix::unistd::ttyname(&slave).unwrap();
        let serial = Serial::open(&name, baud).unwrap();
        (File::from(master), slave, serial)
    }

    #[test]
    fn the_line_is_raw_8n1_at_its_speed() {
        for (baud, speed) in [(115_200, termios::BaudRate::B115200), (9600, termios::BaudRate::B9600)] {
            let (_peer, slave, serial) = line(baud);
            let is = termios::tcgetattr(&slave).unwrap();
            assert_eq!(termios::cfgetospeed(&is), speed);
            assert_eq!(termios::cfgetispeed(&is), speed);
            assert_eq!(is.control_flags & ControlFlags::CSIZE, ControlFlags::CS8);
            let control = ControlFlags::PARENB | ControlFlags::CSTOPB | ControlFlags::CRTSCTS;
            assert!(!is.control_flags.intersects(control));
            assert!(is.control_flags.contains(ControlFlags::CLOCAL | ControlFlags::CREAD));
            assert!(!is.local_flags.intersects(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG));
            assert!(!is.input_flags.intersects(InputFlags::ICRNL | InputFlags::IXON));
            assert!(!is.output_flags.contains(OutputFlags::OPOST));
            assert!(serial.device().starts_with("/dev/pts"));
        }
    }

    #[test]
    fn every_byte_passes_as_it_is() {
        let (mut peer, _slave, serial) = line(115_200);
        let bytes = (0..=255).collect::<Vec<u8>>();
        serial.write(&bytes, SOON).unwrap();
        let mut heard = vec![0; 256];
        peer.read_exact(&mut heard).unwrap();
        assert_eq!(heard, bytes);
        peer.write_all(&bytes).unwrap();
        let mut heard = Vec::new();
        while heard.len() < 256 {
            let mut some = [0; 100];
            let read = serial.read(&mut some, SOON).unwrap();
            heard.extend_from_slice(&some[..read]);
        }
        assert_eq!(heard, bytes);
    }

    #[test]
    fn a_line_that_nobody_reads_does_not_hold_us() {
        let (_peer, _slave, serial) = line(115_200);
        let start = Instant::now();
        let error = serial.write(&vec![b'x'; 1 << 20], Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let error = serial.read(&mut [0; 10], Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() < SOON);
    }

    #[test]
    fn a_console_that_is_missing_falls_back_to_the_kernels() {
        let (_peer, slave, _serial) = line(115_200);
        let root = tempfile::tempdir().unwrap();
        let machine = Machine::at(root.path());
        let part = ConsolePart { device: Some("ttyAMA0".into()), baud: 115_200 };
        let fault = Serial::console(&machine, &part).unwrap_err().to_string();
        assert!(fault.contains("/dev/ttyAMA0: cannot be opened: No such file"), "{fault}");
        assert!(fault.contains("; check [console] in the board's descriptor"), "{fault}");

        let active = root.path().join("sys/class/tty/console");
        std::fs::create_dir_all(&active).unwrap();
        std::fs::write(active.join("active"), "tty0 ttyS1\n").unwrap();
        std::fs::create_dir(&machine.dev).unwrap();
        std::os::unix::fs::symlink(nix::unistd::ttyname(&slave).unwrap(), machine.dev.join("ttyS1")).unwrap();
        let serial = Serial::console(&machine, &part).unwrap();
        assert_eq!(serial.device(), machine.dev.join("ttyS1"));
    }

    #[test]
    fn what_is_no_serial_line_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let fault = Serial::open(file.path(), 115_200).unwrap_err().to_string();
        assert!(fault.contains("does not take 115200 8N1: "), "{fault}");
    }
}

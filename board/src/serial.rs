//! A serial line: raw, eight bits, no parity, one stop bit, no flow control.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc::{O_CLOEXEC, O_NOCTTY, O_NONBLOCK};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{self, BaudRate, ControlFlags, SetArg, SpecialCharacterIndices};

use crate::descriptor::ConsolePart;
use crate::{Fault, Machine};

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

fn set(line: &File, baud: u32) -> nix::Result<()> {
    let mut settings = termios::tcgetattr(line)?;
    termios::cfmakeraw(&mut settings); // also eight bits, no parity
    // Nobody hangs up or holds back: there are three wires.
    settings.control_flags.remove(ControlFlags::CSTOPB | ControlFlags::CRTSCTS | ControlFlags::HUPCL);
    settings.control_flags.insert(ControlFlags::CLOCAL | ControlFlags::CREAD);
    settings.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
    settings.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
    termios::cfsetspeed(&mut settings, speed(baud).ok_or(Errno::EINVAL)?)?;
    termios::tcsetattr(line, SetArg::TCSANOW, &settings)
}

/// The speeds that a descriptor may name.
pub(crate) const fn speed(baud: u32) -> Option<BaudRate> {
    Some(match baud {
        9600 => BaudRate::B9600,
        19_200 => BaudRate::B19200,
        38_400 => BaudRate::B38400,
        57_600 => BaudRate::B57600,
        115_200 => BaudRate::B115200,
        230_400 => BaudRate::B230400,
        460_800 => BaudRate::B460800,
        921_600 => BaudRate::B921600,
        1_500_000 => BaudRate::B1500000,
        _ => return None,
    })
}

//! A bench without hardware: a process that plays the USB serial adapter and the relay board around an emulated board,
//! so that the code a real lab uses runs on any machine.
//!
//! Two pseudo-terminals stand where a lab has two USB serial ports. One carries the console, and stays while the board
//! is off, as an adapter does. The other takes a relay board's octets, and its relay switches the emulator on and off.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};
use nix::pty::openpty;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::ttyname;

/// The names of the fake bench's devices in its folder.
#[derive(Clone, Debug)]
pub struct Devices {
    /// The serial adapter of the console.
    pub console: PathBuf,
    /// The serial adapter of the relay board.
    pub relay: PathBuf,
    /// The socket that the emulator's serial port connects to.
    pub serial: PathBuf,
}

impl Devices {
    /// Those of a bench in `folder`.
    pub fn inside(folder: &Path) -> Self {
        Self {
            console: folder.join("tty-console"),
            relay: folder.join("tty-relay"),
            serial: folder.join("serial"),
        }
    }
}

/// What `cargo box fake-bench` is told.
#[derive(Debug, clap::Args)]
pub struct FakeBenchArgs {
    /// Where its devices appear.
    #[arg(long)]
    folder: PathBuf,
    /// The emulator and its arguments.
    #[arg(last = true, required = true)]
    emulator: Vec<String>,
}

/// Plays the bench until it is killed; the relay is released at first.
pub fn run(args: &FakeBenchArgs) -> Result<()> {
    let devices = Devices::inside(&args.folder);
    let listener = UnixListener::bind(&devices.serial)?;
    let (console, _held) = terminal(&devices.console)?;
    let wire = Arc::new(Mutex::new(None::<UnixStream>));
    let to_board = Arc::clone(&wire);
    let mut typed = console.try_clone()?;
    thread::spawn(move || {
        let mut buffer = [0; 256];
        while let Ok(read @ 1..) = typed.read(&mut buffer) {
            if let Some(board) = to_board.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
                let _ = board.write_all(&buffer[..read]); // a board without power hears nothing
            }
        }
    });
    thread::spawn(move || {
        for board in listener.incoming().flatten() {
            *wire.lock().unwrap_or_else(PoisonError::into_inner) = board.try_clone().ok();
            let (mut board, mut console) = (board, &console);
            let _ = std::io::copy(&mut board, &mut console);
        }
    });

    // The relay's device comes last: whoever sees it may use the bench.
    let (mut relay, _held) = terminal(&devices.relay)?;
    let mut emulator: Option<Child> = None;
    let mut frame = [0; 4];
    loop {
        relay.read_exact(&mut frame).context("the relay's terminal is closed")?;
        match (is_frame(frame).then_some(frame[2] == 1), emulator.take()) {
            (Some(true), None) => emulator = Some(start(&args.emulator)?),
            (Some(false), Some(mut running)) => {
                running.kill()?;
                running.wait()?;
            }
            (Some(_), unchanged) => emulator = unchanged,
            (None, _) => bail!("a relay board would not understand {frame:02x?}"),
        }
    }
}

/// As the relay board's manual says: start, channel, state, and the sum of the three.
fn is_frame(frame: [u8; 4]) -> bool {
    let [start, channel, state, sum] = frame;
    start == 0xa0 && channel == 1 && state <= 1 && sum == start.wrapping_add(channel).wrapping_add(state)
}

fn start(emulator: &[String]) -> Result<Child> {
    let (program, arguments) = emulator.split_first().context("no emulator")?;
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("{program} does not run"))
}

/// A pseudo-terminal whose user's side appears under a name; our own hold on that side keeps it alive between users.
fn terminal(name: &Path) -> Result<(File, OwnedFd)> {
    let pair = openpty(None, None)?;
    let mut settings = tcgetattr(pair.slave.as_fd())?;
    cfmakeraw(&mut settings);
    tcsetattr(pair.slave.as_fd(), SetArg::TCSANOW, &settings)?;
    symlink(ttyname(pair.slave.as_fd())?, name)?;
    Ok((File::from(pair.master), pair.slave))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::bench::relay_frame;

    #[test]
    fn it_understands_what_the_bench_says_and_nothing_else() {
        assert!(is_frame(relay_frame(1, true)) && is_frame(relay_frame(1, false)));
        assert!(!is_frame(relay_frame(2, true)));
        assert!(!is_frame([0xa0, 1, 1, 0xa1]));
    }
}

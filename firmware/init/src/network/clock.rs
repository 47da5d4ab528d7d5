//! The clock: read, stepped and slewed. Behind a trait, because a test must not set the clock of its machine.

use std::io;
use std::mem::MaybeUninit;
use std::time::{Duration, SystemTime};

/// A clock that can be set right. Offsets are in microseconds; a positive one moves it forward.
pub(super) trait Clock {
    /// Time since 1970.
    fn now(&self) -> Duration;

    /// Moves it at once, and says that it is right now.
    fn step(&mut self, offset: i64) -> io::Result<()>;

    /// Lets it run faster or slower until the offset is gone, and says that it is right. At most [`SLEW`]. `interval` is
    /// the time until the next measurement.
    fn slew(&mut self, offset: i64, interval: Duration) -> io::Result<()>;
}

/// The kernel's discipline takes offsets up to half a second (`MAXPHASE`).
pub(super) const SLEW: i64 = 400_000;

/// The machine's.
#[derive(Debug)]
pub(super) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }

    fn step(&mut self, offset: i64) -> io::Result<()> {
        let mut timex = timex();
        timex.modes = libc::ADJ_SETOFFSET | libc::ADJ_NANO;
        // The nanoseconds are always counted forward from the second.
        timex.time.tv_sec = offset.div_euclid(1_000_000);
        timex.time.tv_usec = offset.rem_euclid(1_000_000) * 1000;
        adjust(&mut timex)?;
        // Stepping marks the clock as unsynchronised, and slewing by nothing marks it as right again.
        self.slew(0, Duration::from_mins(1))
    }

    fn slew(&mut self, offset: i64, interval: Duration) -> io::Result<()> {
        let mut timex = timex();
        timex.modes = libc::ADJ_STATUS
            | libc::ADJ_NANO
            | libc::ADJ_OFFSET
            | libc::ADJ_TIMECONST
            | libc::ADJ_MAXERROR
            | libc::ADJ_ESTERROR;
        // The phase-locked loop, and not STA_UNSYNC: from now on the kernel also sets the battery's clock, every eleven
        // minutes, which spares this process the device.
        timex.status = libc::STA_PLL;
        timex.offset = offset.clamp(-SLEW, SLEW) * 1000;
        // The loop's time constant is a power of two, four less than that of the interval (RFC 5905 §11.3).
        timex.constant = libc::c_long::from(interval.as_secs().max(16).ilog2() - 4);
        adjust(&mut timex)
    }
}

/// Nothing to do, all numbers zero.
#[allow(unsafe_code)]
fn timex() -> libc::timex {
    // SAFETY: a timex consists of integers alone, for which zero is a value.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

#[allow(unsafe_code)]
fn adjust(timex: &mut libc::timex) -> io::Result<()> {
    // SAFETY: the pointer is to a timex that lives throughout the call.
    let state = unsafe { libc::adjtimex(timex) };
    if state < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

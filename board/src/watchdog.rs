//! The hardware that resets the board unless it is fed.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;

use crate::descriptor::WatchdogPart;
use crate::{Fault, Machine, ioctl};

/// An armed watchdog. Nothing here disarms it: dropped or not fed, it resets the board.
#[derive(Debug)]
pub struct Watchdog {
    file: File,
    device: PathBuf,
    identity: String,
    timeout: Duration,
    reset_us: bool,
}

/// `WDIOF_CARDRESET`: the watchdog caused the last reset.
const CARD_RESET: i32 = 0x20;

impl Watchdog {
    /// Opens and so arms the board's watchdog, with the longest time that the hardware takes up to the wanted one.
    pub fn open(machine: &Machine, part: &WatchdogPart) -> Result<Self, Fault> {
        let device = machine.dev.join(&part.device);
        let file = OpenOptions::new().write(true).open(&device).map_err(|error| {
            let mend = "check [watchdog] device in the board's descriptor and the kernel's watchdog drivers";
            Fault::io("watchdog", &device, "cannot be opened", mend, error)
        })?;
        let mend = "check the kernel's driver; without an answer the time to reset is unknown";
        let fault = |what, errno: Errno| Fault::io("watchdog", &device, what, mend, errno);
        let info = ioctl::watchdog_support(&file).map_err(|errno| fault("does not say what it is", errno))?;
        let identity = text(&info.identity);
        let reset_us = ioctl::watchdog_boot_status(&file).is_ok_and(|flags| flags & CARD_RESET != 0);
        let longest = longest(machine, &part.device);
        let set = |seconds| ioctl::watchdog_set_timeout(&file, seconds);
        let seconds = set_timeout(set, seconds(part.timeout), longest)
            .map_err(|errno| fault("takes no timeout", errno))?;
        ioctl::watchdog_keep_alive(&file).map_err(|errno| fault("cannot be fed", errno))?;
        let timeout = Duration::from_secs(seconds.unsigned_abs().into());
        Ok(Self { file, device, identity, timeout, reset_us })
    }

    /// Puts the reset off by [`timeout`](Self::timeout). Allocates nothing.
    pub fn feed(&self) -> io::Result<()> {
        Ok(ioctl::watchdog_keep_alive(&self.file)?)
    }

    /// What the driver calls itself, such as `i6300ESB timer`.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The device file.
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// How long after the last feeding the board resets.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Whether the watchdog caused the last reset, as far as the driver can tell.
    pub fn reset_us(&self) -> bool {
        self.reset_us
    }
}

/// Whole seconds, at least one.
fn seconds(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_secs()).unwrap_or(i32::MAX).max(1)
}

/// The driver's own limit, where it says one (0 means that the kernel feeds in between, so there is none).
fn longest(machine: &Machine, device: &str) -> Option<i32> {
    let longest = machine.number(format!("class/watchdog/{device}/max_timeout"))?;
    i32::try_from(longest).ok().filter(|longest| *longest > 0)
}

/// Asks for the wanted time, then for the longest that is not refused; gives what was set.
///
/// A driver refuses with EINVAL what its counter cannot hold. Where it says no limit, halving finds one: the times a
/// counter takes are all those below some limit.
fn set_timeout(set: impl Fn(i32) -> nix::Result<i32>, wanted: i32, longest: Option<i32>) -> nix::Result<i32> {
    let first = longest.map_or(wanted, |longest| longest.min(wanted));
    match set(first) {
        Err(Errno::EINVAL) => {}
        answer => return answer,
    }
    let (mut taken, mut refused) = (0, first);
    while refused - taken > 1 {
        let middle = taken + (refused - taken) / 2;
        match set(middle) {
            Ok(_) => taken = middle,
            Err(Errno::EINVAL) => refused = middle,
            Err(errno) => return Err(errno),
        }
    }
    // The last one tried may have been refused; say the taken one again.
    set(taken.max(1))
}

/// A name in a fixed field of the kernel, up to its NUL.
pub(crate) fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// A driver that takes 1 to `limit` seconds and remembers the last one.
    fn driver(limit: i32, set_to: &Cell<i32>) -> impl Fn(i32) -> nix::Result<i32> {
        move |seconds| {
            if seconds < 1 || seconds > limit {
                return Err(Errno::EINVAL);
            }
            set_to.set(seconds);
            Ok(seconds)
        }
    }

    #[test]
    fn the_longest_time_up_to_the_wanted_one_is_set() {
        for (limit, wanted, says) in [
            (15, 60, None),
            (15, 60, Some(15)),
            (128, 60, None),
            (1, 60, None),
            (15, 15, Some(99)),
            (16, 60, Some(20)),
            (59, 60, None),
        ] {
            let last = Cell::new(0);
            let got = set_timeout(driver(limit, &last), wanted, says).unwrap();
            assert_eq!(
                (got, last.get()),
                (limit.min(wanted), limit.min(wanted)),
                "{limit} {wanted} {says:?}"
            );
        }
    }

    #[test]
    fn a_driver_that_takes_nothing_is_an_error() {
        assert_eq!(set_timeout(|_| Err(Errno::EINVAL), 60, None), Err(Errno::EINVAL));
        assert_eq!(set_timeout(|_| Err(Errno::EOPNOTSUPP), 60, None), Err(Errno::EOPNOTSUPP));
    }

    #[test]
    fn a_missing_watchdog_is_told_with_its_mend() {
        let folder = tempfile::tempdir().unwrap();
        let part = WatchdogPart { device: "watchdog0".into(), timeout: Duration::from_mins(1) };
        let fault = Watchdog::open(&Machine::at(folder.path()), &part).unwrap_err().to_string();
        assert!(fault.contains("/dev/watchdog0: cannot be opened: No such file"), "{fault}");
        assert!(fault.contains("; check [watchdog] device"), "{fault}");
    }
}

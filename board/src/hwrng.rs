//! The hardware's random numbers, put into the kernel's pool before keys are made.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::libc::O_NONBLOCK;

use crate::descriptor::HwrngPart;
use crate::{Fault, Machine, ioctl};

/// What was put into the kernel's pool.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Seeded {
    /// The kernel's name for the source, such as `iproc-rng200`.
    pub source: String,
    /// How many bits were credited.
    pub bits: u32,
}

/// Read at once; the kernel's own seed is 32 bytes.
const SEED: usize = 64;

/// Half of what was read: hardware is believed, but not fully.
const CREDIT: u32 = 256;

/// Between two questions to a source that has nothing yet.
const LOOK: Duration = Duration::from_millis(5);

/// Reads the board's source of random numbers and credits them, waiting no longer than `within`.
pub fn seed(machine: &Machine, part: &HwrngPart, within: Duration) -> Result<Seeded, Fault> {
    let device = machine.dev.join(&part.device);
    let bytes = read(&device, within)?;
    let random = machine.dev.join("urandom");
    let mend = "check that this process may do so (CAP_SYS_ADMIN)";
    let fault = |what, error| Fault::io("random numbers", &random, what, mend, error);
    let pool = File::open(&random).map_err(|error| fault("cannot be opened", error))?;
    let bits = i32::try_from(CREDIT).unwrap_or(0);
    ioctl::add_entropy(&pool, bytes, bits).map_err(|errno| fault("takes no seed", errno.into()))?;
    let source = machine.attribute("class/misc/hw_random/rng_current").unwrap_or_default();
    Ok(Seeded { source, bits: CREDIT })
}

fn read(device: &Path, within: Duration) -> Result<[u8; SEED], Fault> {
    let mend = "check [hwrng] in the board's descriptor and the kernel's drivers; \
                until then the kernel seeds itself from boot times and interrupts";
    let fault = |what, error| Fault::io("random numbers", device, what, mend, error);
    // O_NONBLOCK, since a source that hangs would hold us; the device knows no poll().
    let source = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(device);
    let mut source = source.map_err(|error| fault("cannot be opened", error))?;
    let start = Instant::now();
    let (mut bytes, mut read) = ([0; SEED], 0);
    while read < SEED {
        match source.read(&mut bytes[read..]) {
            Ok(0) => return Err(fault("ends", io::ErrorKind::UnexpectedEof.into())),
            Ok(some) => read += some,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if start.elapsed() >= within {
                    return Err(fault("gives nothing", io::ErrorKind::TimedOut.into()));
                }
                thread::sleep(LOOK);
            }
            Err(error) => return Err(fault("cannot be read", error)),
        }
    }
    if alive(&bytes) {
        return Ok(bytes);
    }
    Err(Fault::new("random numbers", device, "gives the same bytes over and over", mend))
}

/// Whether the bytes could be random at all: a source that is stuck gives one value, or one word again and again.
fn alive(bytes: &[u8; SEED]) -> bool {
    [1, 2, 4, 8, 16, 32].iter().all(|period| bytes[*period..] != bytes[..SEED - period])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_stuck_source_is_not_credited() {
        let word = std::array::from_fn(|at| [0xDE, 0xAD, 0xBE, 0xEF][at % 4]);
        assert!(!alive(&[0; SEED]) && !alive(&word));
        assert!(alive(&std::array::from_fn(|at| u8::try_from(at * at % 251).unwrap())));
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().join("hwrng");
        fs::write(&device, [0xFF; 100]).unwrap();
        let fault = read(&device, Duration::ZERO).unwrap_err().to_string();
        assert!(fault.contains("/hwrng: gives the same bytes over and over; check [hwrng]"), "{fault}");
    }

    #[test]
    fn a_source_that_gives_nothing_or_is_missing_does_not_hold_us() {
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().join("hwrng");
        assert!(read(&device, Duration::ZERO).unwrap_err().to_string().contains("cannot be opened"));
        nix::unistd::mkfifo(&device, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _writer = OpenOptions::new().read(true).write(true).open(&device).unwrap();
        let fault = read(&device, Duration::from_millis(20)).unwrap_err().to_string();
        assert!(fault.contains("gives nothing: timed out"), "{fault}");
    }
}

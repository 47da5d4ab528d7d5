//! The reset button: a GPIO line, read through the kernel's character device.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc::O_CLOEXEC;
use nix::time::{ClockId, clock_gettime};

use crate::descriptor::ButtonPart;
use crate::ioctl::{LineAttribute, LineRequest};
use crate::watchdog::text;
use crate::{Fault, Machine, ioctl};

/// The board's button. Readable (by `poll`) when it was pressed or let go.
#[derive(Debug)]
pub struct Button {
    events: File,
    hold: Duration,
    presses: Presses,
}

/// What happened to the button.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Press {
    /// It went down.
    Down,
    /// It came up after so long.
    Up {
        /// From the press to the release.
        held: Duration,
        /// Whether that is as long as the board wants for a reset.
        long: bool,
    },
}

/// Contacts bounce for some milliseconds; shorter changes are not told.
const DEBOUNCE: Duration = Duration::from_millis(20);

// Of linux/gpio.h.
const ACTIVE_LOW: u64 = 1 << 1;
const INPUT: u64 = 1 << 2;
const EDGE_RISING: u64 = 1 << 4;
const EDGE_FALLING: u64 = 1 << 5;
const BIAS_PULL_UP: u64 = 1 << 8;
const ATTRIBUTE_DEBOUNCE: u32 = 3;
const EVENT_SIZE: usize = 48;
const EVENT_RISING: u32 = 1;

impl Button {
    /// Asks the kernel for the line, with its debouncing.
    pub fn open(machine: &Machine, part: &ButtonPart) -> Result<Self, Fault> {
        let mend = "check [button] in the board's descriptor against the labels of /sys/bus/gpio/devices";
        let chip = chip(machine, part)?;
        let mut request = request(part);
        // A chip that cannot pull its lines up refuses; such a board has the resistor outside.
        let line = ioctl::gpio_request_line(&chip, &mut request).or_else(|_| {
            request.flags &= !BIAS_PULL_UP;
            ioctl::gpio_request_line(&chip, &mut request)
        });
        let what = format!("does not give line {}", part.line);
        let line = line.map_err(|errno| Fault::io("button", &part.chip[0], what, mend, errno))?;
        let what = "does not say whether it is pressed";
        let fault = |errno| Fault::io("button", &part.chip[0], what, mend, errno);
        let down = ioctl::gpio_line_is_active(&line).map_err(fault)?;
        fcntl(&line, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(fault)?;
        // The clock of the kernel's events. A button that is down already counts from now on; one that is stuck is
        // never let go, and so means nothing.
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(fault)?.into();
        let presses = Presses { down_since: down.then_some(now) };
        Ok(Self { events: File::from(line), hold: part.hold, presses })
    }

    /// Whether it is pressed now. Act on [`Press::Up`] and not on this: a stuck button, or a line that nothing pulls
    /// up, is down for ever.
    pub fn is_down(&self) -> io::Result<bool> {
        Ok(ioctl::gpio_line_is_active(&self.events)?)
    }

    /// How long a press must last to mean a reset.
    pub fn hold(&self) -> Duration {
        self.hold
    }

    /// What happened since the last call, one thing at a time; `None` when there is no more. Allocates nothing.
    pub fn press(&mut self) -> io::Result<Option<Press>> {
        let mut event = [0; EVENT_SIZE];
        loop {
            match self.events.read(&mut event) {
                Ok(EVENT_SIZE) => {}
                Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if let Some(press) = self.presses.event(&event, self.hold) {
                return Ok(Some(press));
            }
        }
    }
}

impl AsFd for Button {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

/// Turns edges into presses.
#[derive(Debug)]
struct Presses {
    /// When the press began; `None` while it is up.
    down_since: Option<Duration>,
}

impl Presses {
    /// A `struct gpio_v2_line_event`: nanoseconds, then which edge. The kernel tells edges of the logical value, so
    /// rising is down whether the line is active low or high.
    fn event(&mut self, event: &[u8; EVENT_SIZE], long: Duration) -> Option<Press> {
        let (time, rest) = event.split_first_chunk()?;
        let at = Duration::from_nanos(u64::from_ne_bytes(*time));
        let down = u32::from_ne_bytes(*rest.first_chunk()?) == EVENT_RISING;
        if down {
            // A second one without an edge between: the queue was full, and so this press began later than we knew.
            return self.down_since.replace(at).is_none().then_some(Press::Down);
        }
        let held = at.saturating_sub(self.down_since.take()?);
        Some(Press::Up { held, long: held >= long })
    }
}

/// The chip that bears one of the labels; `gpiochipN` are numbered as their drivers start.
fn chip(machine: &Machine, part: &ButtonPart) -> Result<File, Fault> {
    let names = machine.names("bus/gpio/devices");
    let mut labels = Vec::new();
    for name in names {
        let device = machine.dev.join(&name);
        let open = OpenOptions::new().read(true).write(true).custom_flags(O_CLOEXEC).open(device);
        let Ok(chip) = open else { continue };
        let Ok(info) = ioctl::gpio_chip_info(&chip) else { continue };
        let label = text(&info.label);
        if part.chip.contains(&label) {
            return Ok(chip);
        }
        labels.push(label);
    }
    let there = if labels.is_empty() { "none".into() } else { labels.join(", ") };
    let what = format!("no GPIO chip has this label; there: {there}");
    let mend = "check [button] chip in the board's descriptor and the kernel's GPIO drivers";
    Err(Fault::new("button", part.chip.join(" or "), what, mend))
}

fn request(part: &ButtonPart) -> LineRequest {
    let mut consumer = [0; 32];
    consumer[..7].copy_from_slice(b"postern");
    let mut offsets = [0; 64];
    offsets[0] = part.line;
    let mut attribute = [LineAttribute::default(); 10];
    let debounce = u64::try_from(DEBOUNCE.as_micros()).unwrap_or(0);
    // The union's u32 lies at its start.
    let mut value = [0; 8];
    value[..4].copy_from_slice(&debounce.to_ne_bytes()[..4]);
    attribute[0] =
        LineAttribute { id: ATTRIBUTE_DEBOUNCE, padding: 0, value: u64::from_ne_bytes(value), mask: 1 };
    let polarity = if part.active_low { ACTIVE_LOW | BIAS_PULL_UP } else { 0 };
    LineRequest {
        offsets,
        consumer,
        flags: INPUT | EDGE_RISING | EDGE_FALLING | polarity,
        attributes: 1,
        config_padding: [0; 5],
        attribute,
        lines: 1,
        event_buffer_size: 0,
        padding: [0; 5],
        fd: -1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Duration = Duration::from_secs(10);

    fn event(ms: u64, edge: u32) -> [u8; EVENT_SIZE] {
        let mut event = [0; EVENT_SIZE];
        event[..8].copy_from_slice(&(ms * 1_000_000).to_ne_bytes());
        event[8..12].copy_from_slice(&edge.to_ne_bytes());
        event
    }

    fn tell(down_since: Option<Duration>, events: &[(u64, u32)]) -> Vec<Press> {
        let mut presses = Presses { down_since };
        events.iter().filter_map(|(ms, edge)| presses.event(&event(*ms, *edge), HOLD)).collect()
    }

    fn up(ms: u64, long: bool) -> Press {
        Press::Up { held: Duration::from_millis(ms), long }
    }

    #[test]
    fn presses_have_their_length() {
        let told = tell(None, &[(1000, 1), (1200, 2), (5000, 1), (15_000, 2), (20_000, 1), (29_999, 2)]);
        assert_eq!(
            told,
            [Press::Down, up(200, false), Press::Down, up(10_000, true), Press::Down, up(9999, false)]
        );
    }

    #[test]
    fn a_press_from_before_counts_from_the_start_when_it_is_let_go() {
        let start = Some(Duration::from_secs(1));
        assert_eq!(tell(start, &[(11_000, 2), (12_000, 1), (12_100, 2)])[0], up(10_000, true));
        assert_eq!(tell(start, &[(3000, 2)]), [up(2000, false)]);
        assert_eq!(tell(start, &[]), []);
    }

    #[test]
    fn a_lost_edge_never_makes_a_press_longer() {
        assert_eq!(
            tell(None, &[(1000, 2), (2000, 1), (50_000, 1), (50_100, 2)]),
            [Press::Down, up(100, false)]
        );
    }

    #[test]
    fn the_request_asks_for_debounced_edges() {
        let part = ButtonPart { chip: vec!["chip".into()], line: 21, active_low: true, hold: HOLD };
        let request = request(&part);
        assert_eq!((request.offsets[0], request.lines, request.attributes), (21, 1, 1));
        assert_eq!(request.flags, ACTIVE_LOW | INPUT | EDGE_RISING | EDGE_FALLING | BIAS_PULL_UP);
        assert_eq!(request.attribute[0].value.to_ne_bytes()[..4], 20_000_u32.to_ne_bytes());
    }

    #[test]
    fn a_missing_chip_is_told_with_its_mend() {
        let root = tempfile::tempdir().unwrap();
        let part =
            ButtonPart { chip: vec!["pinctrl-bcm2711".into()], line: 21, active_low: true, hold: HOLD };
        let fault = Button::open(&Machine::at(root.path()), &part).unwrap_err().to_string();
        assert_eq!(
            fault,
            "button pinctrl-bcm2711: no GPIO chip has this label; there: none; \
             check [button] chip in the board's descriptor and the kernel's GPIO drivers"
        );
    }
}

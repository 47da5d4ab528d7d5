//! The light: what the box says to somebody without a console.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use crate::descriptor::LedPart;
use crate::{Fault, Machine};

/// What the light says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pattern {
    /// Once a second: starting, or waiting for something.
    Booting,
    /// On: serving.
    Serving,
    /// Four times a second: look at the console.
    Trouble,
    /// Two short flashes every two seconds: writing firmware, leave the power on.
    Update,
    /// Dark: it is safe to pull the plug.
    Off,
}

impl Pattern {
    /// The lengths of its phases in milliseconds, on and off in turn, beginning with on; without any, it is dark.
    const fn phases(self) -> &'static [u32] {
        match self {
            Self::Booting => &[500, 500],
            Self::Serving => &[u32::MAX],
            Self::Trouble => &[125, 125],
            Self::Update => &[100, 150, 100, 1650],
            Self::Off => &[],
        }
    }

    /// Whether the light is on `at` this time since the pattern began, and how long it stays so.
    pub fn at(self, at: Duration) -> (bool, Duration) {
        let phases = self.phases();
        let length: u128 = phases.iter().map(|phase| u128::from(*phase)).sum();
        if phases.len() < 2 {
            return (!phases.is_empty(), Duration::MAX);
        }
        let mut into = u64::try_from(at.as_millis() % length).unwrap_or(0);
        for (number, phase) in phases.iter().enumerate() {
            let phase = u64::from(*phase);
            if into < phase {
                return (number % 2 == 0, Duration::from_millis(phase - into));
            }
            into -= phase;
        }
        (false, Duration::ZERO)
    }
}

/// The board's light, driven by whoever calls [`Light::tick`]; the kernel needs no blinking triggers for it.
///
/// A board without one has a light that takes everything and shows nothing.
#[derive(Debug)]
pub struct Light {
    brightness: Option<File>,
    on: u8,
    pattern: Pattern,
    since: Duration,
    lit: Option<bool>,
}

impl Light {
    /// Opens the board's light and takes it from whatever the kernel lets it show.
    pub fn open(machine: &Machine, part: Option<&LedPart>) -> Result<Self, Fault> {
        let Some(part) = part else { return Ok(Self::none()) };
        let leds = machine.sys.join("class/leds");
        let mend = "check [led] status in the board's descriptor against /sys/class/leds";
        let Some(folder) = part.status.iter().map(|name| leds.join(name)).find(|folder| folder.exists())
        else {
            return Err(Fault::new("light", leds, format!("has none of {}", part.status.join(", ")), mend));
        };
        // Kernels without triggers have no such file, and then nothing else drives the light.
        let _ = fs::write(folder.join("trigger"), "none");
        let on = machine.number(folder.join("max_brightness")).unwrap_or(1).clamp(1, 255);
        let file = folder.join("brightness");
        let brightness = OpenOptions::new().write(true).open(&file);
        let brightness =
            brightness.map_err(|error| Fault::io("light", file, "cannot be opened", mend, error))?;
        let on = u8::try_from(on).unwrap_or(u8::MAX);
        Ok(Self { brightness: Some(brightness), on, ..Self::none() })
    }

    /// The light of a board without one.
    pub const fn none() -> Self {
        Self { brightness: None, on: 1, pattern: Pattern::Off, since: Duration::ZERO, lit: None }
    }

    /// Shows another pattern from `now` on, a time from any clock that only goes forward.
    pub fn show(&mut self, pattern: Pattern, now: Duration) -> io::Result<Duration> {
        if self.pattern != pattern {
            (self.pattern, self.since) = (pattern, now);
        }
        self.tick(now)
    }

    /// Switches the light if it is time, and says how long it will stay so. Allocates nothing.
    pub fn tick(&mut self, now: Duration) -> io::Result<Duration> {
        let (lit, stays) = self.pattern.at(now.saturating_sub(self.since));
        let Some(brightness) = &self.brightness else { return Ok(Duration::MAX) };
        if self.lit != Some(lit) {
            let level = if lit { self.on } else { 0 };
            let digits = [b'0' + level / 100, b'0' + level / 10 % 10, b'0' + level % 10, b'\n'];
            brightness.write_all_at(&digits, 0)?;
            self.lit = Some(lit);
        }
        Ok(stays)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn patterns_tell_each_other_apart() {
        let flashes = |pattern: Pattern| {
            let (mut at, mut flashes, mut before) = (ms(0), 0, false);
            while at < Duration::from_secs(4) {
                let (lit, stays) = pattern.at(at);
                flashes += u32::from(lit && !before);
                before = lit;
                at = at.saturating_add(stays);
            }
            flashes
        };
        let patterns = [Pattern::Booting, Pattern::Serving, Pattern::Trouble, Pattern::Update, Pattern::Off];
        assert_eq!(patterns.map(flashes), [4, 1, 16, 4, 0]);
        assert_eq!(Pattern::Update.at(ms(260)), (true, ms(90)));
        assert_eq!(Pattern::Update.at(ms(2000 * 1000 + 350)), (false, ms(1650)));
    }

    fn leds(root: &Path, name: &str, most: &str) -> Machine {
        let folder = root.join("sys/class/leds").join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("max_brightness"), most).unwrap();
        fs::write(folder.join("brightness"), "0\n").unwrap();
        fs::write(folder.join("trigger"), "[mmc0] timer none\n").unwrap();
        Machine::at(root)
    }

    #[test]
    fn the_light_is_taken_from_the_kernel_and_switched_in_time() {
        let root = tempfile::tempdir().unwrap();
        let machine = leds(root.path(), "led0", "255\n");
        let file =
            |name: &str| fs::read_to_string(root.path().join("sys/class/leds/led0").join(name)).unwrap();
        let part = LedPart { status: vec!["ACT".into(), "led0".into()] };
        let mut light = Light::open(&machine, Some(&part)).unwrap();
        assert_eq!(file("trigger"), "none");
        assert_eq!(light.show(Pattern::Booting, ms(7000)).unwrap(), ms(500));
        assert_eq!(file("brightness"), "255\n");
        assert_eq!(light.tick(ms(7500)).unwrap(), ms(500));
        assert_eq!(file("brightness"), "000\n");
        // The same pattern again does not begin anew.
        assert_eq!(light.show(Pattern::Booting, ms(7900)).unwrap(), ms(100));
        assert_eq!(light.show(Pattern::Serving, ms(7950)).unwrap(), Duration::MAX);
        assert_eq!(file("brightness"), "255\n");
    }

    #[test]
    fn a_board_without_a_light_shows_nothing_and_one_that_lost_it_says_so() {
        let root = tempfile::tempdir().unwrap();
        let mut light = Light::open(&Machine::at(root.path()), None).unwrap();
        assert_eq!(light.show(Pattern::Trouble, ms(0)).unwrap(), Duration::MAX);
        let part = LedPart { status: vec!["ACT".into(), "led0".into()] };
        let fault = Light::open(&Machine::at(root.path()), Some(&part)).unwrap_err().to_string();
        assert!(fault.contains("/sys/class/leds: has none of ACT, led0; check [led]"), "{fault}");
    }
}

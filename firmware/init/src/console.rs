//! The console: everything PID 1 says goes through here.
//!
//! Static on purpose: the panic hook and every error on the way up must be able to speak.

use core::fmt::{self, Display, Write as _};
use core::sync::atomic::{AtomicU32, Ordering};
use std::io::{self, Write as _};
use std::sync::Mutex;
use std::time::Duration;

use board::serial::Serial;
use nix::time::{ClockId, clock_gettime};

use crate::stage;

static CONSOLE: Mutex<Option<Serial>> = Mutex::new(None);
static SEQUENCE: AtomicU32 = AtomicU32::new(0);

/// Longest free line; the rest of a longer one is dropped.
const LONGEST: usize = 512;

/// A line that takes nothing for so long has nobody at its end, and is not waited for.
const WITHIN: Duration = Duration::from_secs(2);

/// Speaks on `console` from now on.
pub(crate) fn open(console: Serial) {
    if let Ok(mut place) = CONSOLE.lock() {
        *place = Some(console);
    }
}

/// Does something with the console itself, if there is one.
#[cfg(feature = "bench")]
pub(crate) fn with<T>(what: impl FnOnce(&Serial) -> T) -> Option<T> {
    CONSOLE.lock().ok()?.as_ref().map(what)
}

/// Time since the kernel's start.
pub(crate) fn now() -> Duration {
    // The clock exists in every kernel of the last ten years; without it time stands still, which no test would pass.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// Says a stage line.
pub(crate) fn stage(name: &str, pairs: &[(&str, &dyn Display)]) {
    stage_of(name, &mut pairs.iter().copied());
}

/// [`stage`] with pairs from anywhere.
pub(crate) fn stage_of<'p>(name: &str, pairs: &mut dyn Iterator<Item = (&'p str, &'p dyn Display)>) {
    let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed) + 1;
    let milliseconds = u64::try_from(now().as_millis()).unwrap_or(u64::MAX);
    let mut line = stage::Line::new(sequence, milliseconds, name);
    pairs.for_each(|(key, value)| line.with(key, value));
    write(line.finish().as_bytes());
}

/// Says a line in the name of `who`. Control characters become spaces, so that nobody can forge another line.
pub(crate) fn say_as(who: &str, text: fmt::Arguments<'_>) {
    let mut line = Plain(heapless::String::new());
    // What is too long is cut.
    let _ = write!(line, "{who}: {text}");
    let _ = line.0.push('\n');
    write(line.0.as_bytes());
}

/// Writes a line that ends in LF, as much of it as the console takes. Nothing can be done where it takes nothing, and
/// nobody could be told.
fn write(line: &[u8]) {
    // Taken already: a panic while something was being said. The last words must come out all the same.
    let console = CONSOLE.try_lock();
    let Some(console) = console.as_ref().ok().and_then(|console| console.as_ref()) else {
        let _ = io::stderr().write_all(line);
        return;
    };
    // The line is raw, and what is written at once is least likely to be torn by the kernel's own messages.
    let mut raw = heapless::Vec::<u8, { stage::LONGEST + 1 }>::new();
    // Every line fits: it is no longer than the longest stage.
    let _ = raw.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
    let _ = raw.extend_from_slice(b"\r\n");
    let _ = console.write(&raw, WITHIN);
}

/// A line of printable characters with room for its end.
struct Plain(heapless::String<LONGEST>);

impl fmt::Write for Plain {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let character = if character.is_control() { ' ' } else { character };
            if self.0.len() + character.len_utf8() + 1 > LONGEST {
                return Err(fmt::Error);
            }
            self.0.push(character).map_err(|_| fmt::Error)?;
        }
        Ok(())
    }
}

/// `init: …` on the console, formatted like `println!`.
macro_rules! say {
    ($($argument:tt)*) => { $crate::console::say_as("init", format_args!($($argument)*)) };
}
pub(crate) use say;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_people_is_one_line() {
        let mut line = Plain(heapless::String::new());
        assert!(write!(line, "a\n@hil 1 \u{1b}[2J\r").is_ok());
        assert_eq!(line.0.as_str(), "a @hil 1  [2J ");
        let mut long = Plain(heapless::String::new());
        assert!(write!(long, "{}", "\u{e9}".repeat(LONGEST)).is_err());
        assert!(long.0.len() < LONGEST);
    }
}

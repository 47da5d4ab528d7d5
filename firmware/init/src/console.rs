//! The console: everything PID 1 says goes through here.
//!
//! Static on purpose: the panic hook and every error on the way up must be able to speak.

use core::fmt::{self, Display, Write as _};
use core::sync::atomic::{AtomicU32, Ordering};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::stage;

static CONSOLE: OnceLock<File> = OnceLock::new();
static SEQUENCE: AtomicU32 = AtomicU32::new(0);

/// Longest free line; the rest of a longer one is dropped.
const LONGEST: usize = 512;

/// Speaks on `console` from now on.
pub(crate) fn open(console: File) {
    // A second console would be a mistake of this program's; the first one stays.
    let _ = CONSOLE.set(console);
}

/// The console's descriptor, if there is one.
pub(crate) fn descriptor() -> Option<BorrowedFd<'static>> {
    CONSOLE.get().map(AsFd::as_fd)
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

/// Says a line for people: `init: …`.
pub(crate) fn say(text: fmt::Arguments<'_>) {
    say_as("init", text);
}

/// Says a line in the name of `who`. Control characters become spaces, so that nobody can forge another line.
pub(crate) fn say_as(who: &str, text: fmt::Arguments<'_>) {
    let mut line = Plain(heapless::String::new());
    // What is too long is cut.
    let _ = write!(line, "{who}: {text}");
    let _ = line.0.push('\n');
    write(line.0.as_bytes());
}

/// Writes as much as the console takes. Nothing can be done where it takes nothing, and nobody could be told.
fn write(bytes: &[u8]) {
    if let Some(mut console) = CONSOLE.get() {
        let _ = console.write_all(bytes);
    } else {
        let _ = io::stderr().write_all(bytes);
    }
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
    ($($argument:tt)*) => { $crate::console::say(format_args!($($argument)*)) };
}
pub(crate) use say;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_people_is_one_line() {
        let mut line = Plain(heapless::String::new());
        assert!(write!(line, "a\n@hil 1 {}\r", "\u{1b}[2J").is_ok());
        assert_eq!(line.0.as_str(), "a @hil 1  [2J ");
        let mut long = Plain(heapless::String::new());
        assert!(write!(long, "{}", "\u{e9}".repeat(LONGEST)).is_err());
        assert!(long.0.len() < LONGEST);
    }
}

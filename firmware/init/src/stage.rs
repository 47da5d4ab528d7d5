//! Stage lines: what the box says of itself on its console, in every build.
//!
//! `@hil <seq> <ms since kernel start> <stage> <k=v …> *<crc32c>`, one line each. A bench waits for stages and never
//! matches prompts; sequence and checksum tell it when the wire or a kernel message has spoilt a line. Nothing here
//! allocates, so a line can be said at any time, also from the panic hook.

use core::fmt::{self, Display, Write as _};

use crc::{CRC_32_ISCSI, Crc};
use heapless::String;

/// A finished line with its line feed; the longest carries the surface of a service.
pub(crate) type Text = String<LONGEST>;

/// Room for one line. What does not fit is cut, at a whole character, before the checksum is made.
pub(crate) const LONGEST: usize = 1024;
/// ` *` + eight digits + line feed.
const TAIL: usize = 11;
const MARK: &str = "@hil ";
const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// One line in the making.
pub(crate) struct Line(Text);

impl Line {
    /// Begins a line. `milliseconds` count from the kernel's start.
    pub(crate) fn new(sequence: u32, milliseconds: u64, stage: &str) -> Self {
        let mut text = Text::new();
        // Three short words always fit.
        let _ = write!(text, "{MARK}{sequence} {milliseconds} {stage}");
        Self(text)
    }

    /// Adds ` key=value`; the value is percent-encoded. A value that does not fit is cut.
    pub(crate) fn with(&mut self, key: &str, value: &dyn Display) {
        if self.0.len() + 1 + key.len() + 1 + TAIL > LONGEST {
            return;
        }
        let _ = write!(self.0, " {key}=");
        // Stops at the first character without room, which is the cut that is meant.
        let _ = write!(Encoder(&mut self.0), "{value}");
    }

    /// The line with its checksum and line feed.
    pub(crate) fn finish(self) -> Text {
        let mut text = self.0;
        let crc = CRC32C.checksum(text.as_bytes().get(MARK.len()..).unwrap_or_default());
        let _ = writeln!(text, " *{crc:08x}");
        text
    }
}

/// Writes what a value may hold as it is, and the rest as `%XX`.
struct Encoder<'t>(&'t mut Text);

impl fmt::Write for Encoder<'_> {
    fn write_str(&mut self, value: &str) -> fmt::Result {
        for character in value.chars() {
            let mut octets = [0; 4];
            let octets = character.encode_utf8(&mut octets).as_bytes();
            let plain = character.is_ascii_graphic() && character != '%';
            let needed = if plain { 1 } else { 3 * octets.len() };
            if self.0.len() + needed + TAIL > LONGEST {
                return Err(fmt::Error);
            }
            if plain {
                self.0.push(character).map_err(|_| fmt::Error)?;
            } else {
                octets.iter().try_for_each(|octet| write!(self.0, "%{octet:02X}"))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_checksum_over_all_between_the_marks() {
        let mut line = Line::new(1, 812, "watchdog");
        line.with("dev", &"i6300esb");
        line.with("timeout", &30);
        let text = line.finish();
        let (body, crc) = text.trim_end().rsplit_once(" *").unwrap();
        assert_eq!(body, "@hil 1 812 watchdog dev=i6300esb timeout=30");
        // An independent reckoning: bit by bit, reflected, polynomial 0x1EDC6F41.
        let mut register = !0u32;
        for octet in body.strip_prefix("@hil ").unwrap().bytes() {
            register ^= u32::from(octet);
            for _ in 0..8 {
                register = if register & 1 == 1 { (register >> 1) ^ 0x82f6_3b78 } else { register >> 1 };
            }
        }
        assert_eq!(crc, format!("{:08x}", !register));
        assert!(text.ends_with('\n') && text.matches('\n').count() == 1);
    }

    #[test]
    fn values_are_one_word_whatever_they_hold() {
        let mut line = Line::new(2, 3, "settings");
        line.with("error", &"a b%\n\u{e9}\u{7f}");
        assert!(line.finish().starts_with("@hil 2 3 settings error=a%20b%25%0A%C3%A9%7F *"));
    }

    #[test]
    fn what_is_too_long_is_cut_and_the_line_still_checks() {
        let mut line = Line::new(u32::MAX, u64::MAX, "surface");
        line.with("mount", &"\u{e9}".repeat(LONGEST));
        line.with("late", &"lost");
        let text = line.finish();
        assert!(text.len() <= LONGEST && text.len() > LONGEST - 8 && !text.contains("late"));
        let (body, crc) = text.trim_end().rsplit_once(" *").unwrap();
        assert_eq!(crc, format!("{:08x}", CRC32C.checksum(&body.as_bytes()[5..])));
        assert!(body.ends_with("%C3%A9"));
    }
}

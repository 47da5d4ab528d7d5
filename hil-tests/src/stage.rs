//! The stage lines of the box: `@hil <sequence> <ms> <stage> <key=value …> *<checksum>`.
//!
//! They stand among the kernel's and the firmware's own words, sometimes behind them on one line, and a reset tears
//! one. So a line counts only if its checksum is right; what is torn is told apart from what was never said.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use crc::{CRC_32_ISCSI, Crc};

/// What begins a stage line.
const MARK: &str = "@hil ";

/// CRC-32C, as everywhere in Postern.
const CHECKSUM: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// One stage line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stage {
    /// Counts up from the start of the box.
    pub sequence: u64,
    /// Time since the kernel started.
    pub uptime: Duration,
    /// Its name, such as `serving`.
    pub name: String,
    /// Its values, in order; a key may come again.
    pub values: Vec<(String, String)>,
}

/// What a line of the console holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Line {
    /// A whole stage line.
    Stage(Stage),
    /// A stage line that was damaged on its way.
    Torn,
    /// Something else.
    Other,
}

impl Line {
    /// Reads a line of the console, without its end.
    pub fn parse(line: &str) -> Self {
        // The last mark counts: a torn line may stand before a whole one.
        let Some(start) = line.rfind(MARK) else { return Self::Other };
        parse(&line[start + MARK.len()..]).map_or(Self::Torn, Self::Stage)
    }
}

impl Stage {
    /// The first value of a key.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.values.iter().find(|(one, _)| one == key).map(|(_, value)| value.as_str())
    }

    /// Whether `key` has that value.
    pub fn says(&self, key: &str, value: &str) -> bool {
        self.value(key) == Some(value)
    }
}

impl Display for Stage {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        write!(f, "{}", self.name)?;
        for (key, value) in &self.values {
            write!(f, " {key}={value:?}")?;
        }
        Ok(())
    }
}

fn parse(rest: &str) -> Option<Stage> {
    let (text, sum) = rest.rsplit_once(" *")?;
    let sum = sum.get(..8).filter(|_| sum[8..].trim().is_empty())?;
    if u32::from_str_radix(sum, 16).ok()? != CHECKSUM.checksum(text.as_bytes()) {
        return None;
    }
    let mut words = text.split(' ');
    let sequence = words.next()?.parse().ok()?;
    let uptime = Duration::from_millis(words.next()?.parse().ok()?);
    let name = words.next()?.to_owned();
    let values = words
        .filter(|word| !word.is_empty())
        .map(|word| {
            let (key, value) = word.split_once('=')?;
            Some((key.to_owned(), decode(value)?))
        })
        .collect::<Option<_>>()?;
    Some(Stage { sequence, uptime, name, values })
}

/// Undoes percent-encoding.
fn decode(value: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(more.get(..2)?).ok()?;
            octets.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &more[2..];
        } else {
            octets.push(*first);
            rest = more;
        }
    }
    String::from_utf8(octets).ok()
}

/// A stage line as the box prints it, for those who play one.
pub fn print(sequence: u64, uptime: Duration, words: &str) -> String {
    let text = format!("{sequence} {} {words}", uptime.as_millis());
    format!("{MARK}{text} *{:08x}", CHECKSUM.checksum(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc_32c() {
        assert_eq!(CHECKSUM.checksum(b"123456789"), 0xe306_9283); // RFC 3720 B.4's polynomial, its usual check value
    }

    #[test]
    fn a_printed_line_is_read_back() {
        let line = print(7, Duration::from_millis(1234), "settings error=no%20such%20key%3D%25 ok=0");
        let Line::Stage(stage) = Line::parse(&line) else { panic!("{line}") };
        assert_eq!(
            (stage.sequence, stage.uptime, &*stage.name),
            (7, Duration::from_millis(1234), "settings")
        );
        assert_eq!(stage.value("error"), Some("no such key=%"));
        assert!(stage.says("ok", "0"));
    }

    #[test]
    fn other_words_may_stand_before_it_and_a_torn_one_too() {
        let line = print(1, Duration::ZERO, "start");
        for before in ["[    1.2] random: crng init done", "@hil 1 0 sta", "\x1b[2J"] {
            assert!(matches!(Line::parse(&format!("{before}{line}\r")), Line::Stage(_)), "{before}");
        }
    }

    #[test]
    fn every_damage_is_told() {
        let line = print(12, Duration::from_millis(99), "serving ports=993,995");
        for end in MARK.len()..line.len() {
            assert_eq!(Line::parse(&line[..end]), Line::Torn, "{}", &line[..end]);
        }
        for place in MARK.len()..line.len() {
            let mut octets = line.clone().into_bytes();
            octets[place] ^= 1;
            let damaged = String::from_utf8(octets).unwrap();
            assert!(!matches!(Line::parse(&damaged), Line::Stage(_)), "{damaged}");
        }
        assert_eq!(Line::parse("Kernel panic"), Line::Other);
    }
}

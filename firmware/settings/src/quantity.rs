//! Durations, sizes, counts, dates: how amounts are written.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use policy::UnixSeconds;
use toml::de::DeValue;

use crate::reader::{Read, Value};

impl Read for Duration {
    /// `"2.5s"`, `"5m"`, `"1h 30m"`, `"30d"`; above zero, at most 3,660 days.
    fn read(value: &Value<'_>) -> Option<Self> {
        let mend = "write a number and a unit in quotes: \"500ms\", \"2.5s\", \"5m\", \"12h\" or \"30d\"";
        let text = value.text("a duration", mend)?;
        match duration(text) {
            Some(duration) if duration.is_zero() => value.wrong("a duration of nothing", mend),
            Some(duration) => Some(duration),
            None => value.wrong(format!("{text:?} is not a duration"), mend),
        }
    }
}

/// `None` if `text` is not a sum of numbers with units, or over 3,660 days.
fn duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 5] =
        [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let text = text.trim();
    let mut rest = text;
    let mut sum: u64 = 0;
    while !rest.is_empty() {
        let (number, unit, tail) = number_and_unit(rest)?;
        let (_, milliseconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
        sum = sum.checked_add(scaled(number, *milliseconds)?)?;
        rest = tail.trim_start();
    }
    (!text.is_empty() && sum <= 3_660 * 86_400_000).then(|| Duration::from_millis(sum))
}

/// A number of octets.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Size(pub(crate) u64);

impl Read for Size {
    /// `"50 MiB"`, `"64 KiB"`, `"1 GiB"`, `"25 MB"` (decimal), `"512 B"`, or a plain number of octets.
    fn read(value: &Value<'_>) -> Option<Self> {
        let mend = "write a number and a unit in quotes: \"64 KiB\", \"50 MiB\" or \"1 GiB\"";
        let size = match value.get() {
            DeValue::Integer(_) => Some(u64::read(value)?),
            _ => size(value.text("a size", mend)?),
        };
        match size {
            Some(0) => value.wrong("a size of nothing", mend),
            Some(octets) => Some(Self(octets)),
            None => value.wrong("this is not a size", mend),
        }
    }
}

fn size(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 7] = [
        ("B", 1),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
    ];
    let (number, unit, tail) = number_and_unit(text.trim())?;
    let (_, octets) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    tail.is_empty().then(|| scaled(number, *octets)).flatten()
}

/// Splits `"2.5s…"` into number, unit and what follows.
fn number_and_unit(text: &str) -> Option<(&str, &str, &str)> {
    let (number, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.')?);
    let rest = rest.trim_start();
    let (unit, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len()));
    (!number.is_empty() && !unit.is_empty()).then_some((number, unit, tail))
}

/// A decimal number times a unit, without the rounding of floating point; what is below one is dropped.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if part.len() > 9 || (part.is_empty() && number.contains('.')) {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    let part = match part {
        "" => 0,
        digits => {
            digits.parse::<u64>().ok()?.checked_mul(unit)? / 10_u64.pow(u32::try_from(digits.len()).ok()?)
        }
    };
    whole.checked_add(part)
}

impl Read for u64 {
    fn read(value: &Value<'_>) -> Option<Self> {
        let mend = "write a whole number, 0 or more, without quotes";
        let DeValue::Integer(number) = value.get() else { return value.wrong_type("a whole number", mend) };
        // The parser has taken `_` and the radix prefix away.
        match u64::from_str_radix(number.as_str().trim_start_matches('+'), number.radix()) {
            Ok(number) => Some(number),
            Err(_) => value.wrong("this number is below 0 or too large", mend),
        }
    }
}

impl Read for u32 {
    fn read(value: &Value<'_>) -> Option<Self> {
        let number = u64::read(value)?;
        match Self::try_from(number) {
            Ok(number) => Some(number),
            Err(_) => value.wrong("this number is too large", "at most 4294967295"),
        }
    }
}

/// A number that must not be 0.
#[derive(Clone, Copy)]
pub(crate) struct Positive(pub(crate) u32);

impl Read for Positive {
    fn read(value: &Value<'_>) -> Option<Self> {
        match u32::read(value)? {
            0 => value.wrong("0 would let nothing through", "write 1 or more"),
            number => Some(Self(number)),
        }
    }
}

/// An instant.
pub(crate) struct Date(pub(crate) UnixSeconds);

impl Read for Date {
    /// A TOML date or date-time, or the same in quotes. A date alone is its first second; without offset it is UTC.
    fn read(value: &Value<'_>) -> Option<Self> {
        let mend = "write a day (2026-12-31) or an instant (2026-12-31T18:00:00Z)";
        let text = match value.get() {
            DeValue::Datetime(date) => date.to_string(),
            DeValue::String(text) => text.trim().to_owned(),
            _ => return value.wrong_type("a date", mend),
        };
        match date(&text) {
            Some(seconds) => Some(Self(seconds)),
            None => value.wrong(format!("{text:?} is not a date after 1970"), mend),
        }
    }
}

fn date(text: &str) -> Option<UnixSeconds> {
    if let Ok(instant) = text.parse::<jiff::Timestamp>() {
        return u64::try_from(instant.as_second()).ok();
    }
    let civil = text.parse::<jiff::civil::DateTime>().ok()?;
    let instant = jiff::tz::Offset::UTC.to_timestamp(civil).ok()?;
    u64::try_from(instant.as_second()).ok()
}

impl Read for SocketAddr {
    fn read(value: &Value<'_>) -> Option<Self> {
        let mend =
            "write address and port: \"192.0.2.1:993\", \"[2001:db8::1]:993\", or \"[::]:993\" for all";
        let text = value.text("an address with its port", mend)?;
        match text.parse::<Self>() {
            Ok(address) if address.port() != 0 => Some(address),
            Ok(_) => value.wrong("port 0 is no port", mend),
            Err(_) => value.wrong(format!("{text:?} is not an address with its port"), mend),
        }
    }
}

impl Read for IpNet {
    /// `192.0.2.0/24`, or one address.
    fn read(value: &Value<'_>) -> Option<Self> {
        let mend = "write \"192.0.2.0/24\", \"2001:db8::/32\" or one address";
        let text = value.text("a network", mend)?;
        let net = text.parse::<Self>().or_else(|_| text.parse::<IpAddr>().map(Self::from));
        match net {
            Ok(net) if net.trunc() == net => Some(net),
            Ok(net) => value.wrong(
                format!("{text:?} has octets set behind its prefix"),
                format!("for that network write \"{}\", for one address leave the / away", net.trunc()),
            ),
            Err(_) => value.wrong(format!("{text:?} is not a network"), mend),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let cases = [
            ("2.5s", Some(2_500)),
            ("500ms", Some(500)),
            ("1h 30m", Some(5_400_000)),
            ("1h30m", Some(5_400_000)),
            ("30 d", Some(2_592_000_000)),
            ("0.25s", Some(250)),
            ("5", None),
            ("", None),
            ("s", None),
            ("1.s", None),
            ("1.2.3s", None),
            ("-1s", None),
            ("5 minutes", None),
            ("9999d", None),
            ("99999999999999999999d", None),
        ];
        for (text, milliseconds) in cases {
            assert_eq!(duration(text), milliseconds.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn sizes() {
        let cases = [
            ("50 MiB", Some(52_428_800)),
            ("64KiB", Some(65_536)),
            ("1.5 gib", Some(1_610_612_736)),
            ("25 MB", Some(25_000_000)),
            ("10", None),
            ("10 apples", None),
            ("1 MiB 2 KiB", None),
            ("99999999999 GiB", None),
        ];
        for (text, octets) in cases {
            assert_eq!(size(text), octets, "{text:?}");
        }
    }

    #[test]
    fn dates() {
        let cases = [
            ("2026-12-31", Some(1_798_675_200)),
            ("2026-12-31T18:00:00Z", Some(1_798_740_000)),
            ("2026-12-31T18:00:00", Some(1_798_740_000)),
            ("2026-12-31 19:00:00+01:00", Some(1_798_740_000)),
            ("1969-12-31", None),
            ("31.12.2026", None),
            ("soon", None),
        ];
        for (text, seconds) in cases {
            assert_eq!(date(text), seconds, "{text:?}");
        }
    }
}

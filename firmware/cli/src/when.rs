//! Times as people write and read them: civil, UTC.

use std::time::{SystemTime, UNIX_EPOCH};

use control::UnixSeconds;
use jiff::tz::Offset;
use jiff::{Timestamp, civil};

const DAY: u64 = 86_400;

/// The clock; before 1970 is 1970.
pub(crate) fn now() -> UnixSeconds {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// `2026-12-31 18:00:00`.
pub(crate) fn shown(at: UnixSeconds) -> String {
    let instant = i64::try_from(at).ok().and_then(|at| Timestamp::from_second(at).ok());
    instant.map_or_else(
        || "never".to_owned(),
        |at| Offset::UTC.to_datetime(at).strftime("%Y-%m-%d %H:%M:%S").to_string(),
    )
}

/// An instant to come: a day (its first second, UTC), an instant, or a number of days or hours from now.
pub(crate) fn future(text: &str) -> Result<UnixSeconds, String> {
    let now = now();
    match from_now(text, now).or_else(|| instant(text)) {
        Some(at) if at > now => Ok(at),
        Some(_) => Err("that is over already".to_owned()),
        None => Err("write 2026-12-31, 2026-12-31T18:00:00Z, 30d or 12h".to_owned()),
    }
}

/// An instant gone by: as [`future`], the number counted back.
pub(crate) fn past(text: &str) -> Result<UnixSeconds, String> {
    let now = now();
    let back = amount(text).map(|seconds| now.saturating_sub(seconds));
    back.or_else(|| instant(text))
        .ok_or_else(|| "write 2026-12-31, 2026-12-31T18:00:00Z, 30d or 12h".to_owned())
}

fn from_now(text: &str, now: UnixSeconds) -> Option<UnixSeconds> {
    now.checked_add(amount(text)?)
}

/// `30d`, `30 days`, `12h`; at most 3,660 days.
fn amount(text: &str) -> Option<u64> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let seconds = match unit.trim() {
        "d" | "day" | "days" => DAY,
        "h" | "hour" | "hours" => 3_600,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(seconds).filter(|seconds| *seconds <= 3_660 * DAY)
}

fn instant(text: &str) -> Option<UnixSeconds> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return u64::try_from(at.as_second()).ok();
    }
    let at = Offset::UTC.to_timestamp(text.parse::<civil::DateTime>().ok()?).ok()?;
    u64::try_from(at.as_second()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_shown_in_utc() {
        for (text, at) in [
            ("2026-12-31", Some(1_798_675_200)),
            ("2026-12-31T18:00:00Z", Some(1_798_740_000)),
            ("2026-12-31 19:00+01:00", Some(1_798_740_000)),
            ("31.12.2026", None),
            ("", None),
        ] {
            assert_eq!(instant(text), at, "{text:?}");
        }
        assert_eq!(shown(1_798_740_000), "2026-12-31 18:00:00");
        assert_eq!(shown(u64::MAX), "never");
    }

    #[test]
    fn amounts_count_from_now() {
        assert_eq!(from_now("30d", 1_000), Some(1_000 + 30 * DAY));
        assert_eq!(from_now("12 hours", 0), Some(43_200));
        for text in ["30", "d", "-1d", "99999999999999999999d", "9999d", "1w"] {
            assert_eq!(from_now(text, 0), None, "{text:?}");
        }
    }

    #[test]
    fn only_what_is_to_come_is_a_deadline() {
        assert!(future("1d").unwrap() > now());
        assert!(future("2001-01-01").is_err() && future("0d").is_err());
        assert!(past("1d").unwrap() < now() && past("soon").is_err());
    }
}

//! Which of several time servers is believed: a pure function of what they said.

use std::fmt;
use std::time::Duration;

use super::sntp::Sample;

/// What comes of one round of questions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub(super) enum Judgement {
    /// This one, the best of those that agree.
    Believe(Sample),
    /// Nobody answered.
    Silence,
    /// Several servers are set, and no two of them agree.
    Alone {
        /// How many answered.
        answers: usize,
    },
    /// All that answered are of a time before this release was made.
    TooEarly,
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Believe(sample) => write!(f, "{} is believed", sample.server),
            Self::Silence => f.write_str("no server answers"),
            Self::Alone { answers } => {
                write!(f, "{answers} of the servers answered, and no two agree: the clock is left alone")
            }
            Self::TooEarly => {
                f.write_str("the servers are before this release was made: they are not believed")
            }
        }
    }
}

/// Two answers agree if their errors overlap, or nearly: servers differ by more than they admit.
const SLACK: i64 = 100_000;

/// Judges the answers of `asked` servers about a clock that shows `now`; `floor` is in seconds since 1970.
pub(super) fn judge(samples: &[Sample], asked: usize, floor: u64, now: Duration) -> Judgement {
    if samples.is_empty() {
        return Judgement::Silence;
    }
    let now = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
    let floor = i64::try_from(floor).unwrap_or(i64::MAX).saturating_mul(1_000_000);
    let late = |sample: &&Sample| now.saturating_add(sample.offset) >= floor;
    let mut credible = samples.iter().filter(late).copied().collect::<Vec<_>>();
    // Two names of one server are one opinion.
    credible.sort_by_key(|sample| (sample.server, sample.error));
    credible.dedup_by_key(|sample| sample.server);
    if credible.is_empty() {
        return Judgement::TooEarly;
    }
    let needed = asked.min(2);
    let company = |sample: &Sample| credible.iter().filter(|other| agree(sample, other)).count();
    // In the largest company, the one that knows best.
    let best = credible.iter().max_by_key(|sample| (company(sample), std::cmp::Reverse(sample.error)));
    match best {
        Some(best) if company(best) >= needed => Judgement::Believe(*best),
        _ => Judgement::Alone { answers: samples.len() },
    }
}

fn agree(one: &Sample, other: &Sample) -> bool {
    let apart = i64::try_from(one.offset.abs_diff(other.offset)).unwrap_or(i64::MAX);
    apart <= one.error.saturating_add(other.error).saturating_add(SLACK)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const NOW: Duration = Duration::from_hours(500_000);
    const FLOOR: u64 = 1_790_000_000;

    fn sample(host: u8, offset: i64, error: i64) -> Sample {
        Sample { server: Ipv4Addr::new(192, 0, 2, host).into(), offset, error }
    }

    fn verdict(samples: &[Sample], asked: usize) -> Judgement {
        judge(samples, asked, FLOOR, NOW)
    }

    #[test]
    fn one_server_is_believed_if_it_is_the_only_one_set() {
        let only = sample(1, 86_400_000_000, 5_000);
        assert_eq!(verdict(&[only], 1), Judgement::Believe(only));
        assert_eq!(verdict(&[only], 2), Judgement::Alone { answers: 1 });
        assert_eq!(verdict(&[], 1), Judgement::Silence);
    }

    #[test]
    fn two_that_agree_outweigh_one_that_is_surer() {
        let (one, two) = (sample(1, 1_000_000, 20_000), sample(2, 1_050_000, 10_000));
        let liar = sample(3, 315_360_000_000_000, 1);
        assert_eq!(verdict(&[one, liar, two], 3), Judgement::Believe(two));
        assert_eq!(verdict(&[one, liar], 3), Judgement::Alone { answers: 2 });
    }

    #[test]
    fn one_server_with_two_names_is_one_opinion() {
        assert_eq!(verdict(&[sample(1, 0, 10), sample(1, 1, 10)], 2), Judgement::Alone { answers: 2 });
    }

    #[test]
    fn nobody_leads_back_before_the_release() {
        let early = |host| sample(host, -11_000_000_000_000, 10);
        assert_eq!(verdict(&[early(1), early(2)], 2), Judgement::TooEarly);
        let right = sample(3, 0, 10);
        assert_eq!(verdict(&[early(1), early(2), right], 3), Judgement::Alone { answers: 3 });
        assert_eq!(verdict(&[early(1), right], 1), Judgement::Believe(right));
    }

    #[test]
    fn the_largest_numbers_there_are_do_no_harm() {
        let samples = [sample(1, i64::MIN, i64::MAX), sample(2, i64::MAX, i64::MAX), sample(3, 0, 0)];
        for asked in 1..4 {
            let _ = judge(&samples, asked, u64::MAX, Duration::MAX);
            let _ = judge(&samples, asked, 0, Duration::ZERO);
        }
    }
}

//! Can two sets of times be told apart?

use std::time::Duration;

/// The probability that two samples as different as these come from one distribution (two-sample
/// Kolmogorov–Smirnov, asymptotic form). Small means: an observer can tell them apart.
pub fn same(a: &[Duration], b: &[Duration]) -> f64 {
    let (mut a, mut b) = (a.to_vec(), b.to_vec());
    a.sort_unstable();
    b.sort_unstable();
    let sizes = (count(a.len()), count(b.len()));
    // How far apart the shares of both that came by any time are, at most.
    let apart = |time: &Duration| {
        let share = |times: &[Duration]| count(times.partition_point(|other| other <= time));
        (share(&a) / sizes.0 - share(&b) / sizes.1).abs()
    };
    let distance = a.iter().chain(&b).map(apart).fold(0.0, f64::max);
    let effective = (sizes.0 * sizes.1 / (sizes.0 + sizes.1)).sqrt();
    let lambda = (effective + 0.12 + 0.11 / effective) * distance;
    if lambda < 0.2 {
        return 1.0; // the series does not converge there, and the answer is 1
    }
    let term = |k: f64| 2.0 * (-1f64).powf(k - 1.0) * (-2.0 * k * k * lambda * lambda).exp();
    (1..100u32).map(|k| term(f64::from(k))).sum::<f64>().clamp(0.0, 1.0)
}

/// The time that `percent` of a hundred stay under.
pub fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    let at = (times.len() * percent).div_ceil(100).saturating_sub(1);
    times.get(at).copied().unwrap_or_default()
}

fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::MAX, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(from: u64, step: u64) -> Vec<Duration> {
        (0..500).map(|k| Duration::from_micros(from + k * 7919 % 500 * step)).collect()
    }

    #[test]
    fn tells_a_shift_and_only_a_shift() {
        assert!(same(&times(400_000, 2), &times(400_000, 2)) > 0.99);
        assert!(same(&times(400_000, 2), &times(400_020, 2)) > 0.05);
        assert!(same(&times(400_000, 2), &times(400_300, 2)) < 1e-9);
        assert!(same(&times(400_000, 2), &times(400_000, 4)) < 1e-9);
        // 1.36·√(2/500) is the table's 5% value of the distance: 43 of 500 apart.
        let (a, b) = (times(0, 1), times(43, 1));
        assert!((0.03..0.07).contains(&same(&a, &b)), "{}", same(&a, &b));
    }

    #[test]
    fn percentiles() {
        let times = times(0, 1);
        assert_eq!(percentile(&times, 50), Duration::from_micros(249));
        assert_eq!(percentile(&times, 99), Duration::from_micros(494));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }
}

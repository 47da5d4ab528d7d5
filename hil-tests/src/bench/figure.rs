//! What is measured: kinds of work, the figures that come of each, and the limits of design §12.

use clap::ValueEnum;
use serde::Serialize;

use super::peers::{DIRECT, PUMP};

/// A kind of work, as `--only` names it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// IMAP logins, each with a full handshake.
    LoginFull,
    /// IMAP logins with resumed handshakes.
    LoginResumed,
    /// IMAP logins with a full handshake and an RSA-2048 certificate.
    LoginRsa,
    /// IMAP logins at a modest rate: how long each takes.
    LoginLatency,
    /// 20 MB fetches with AES-128-GCM.
    RelayAes,
    /// 20 MB fetches with ChaCha20-Poly1305.
    RelayChacha20,
    /// Submissions of 4 KB, a connection each.
    Submission,
    /// Sessions parked in IDLE.
    Parked,
    /// Logins with a wrong password.
    Attack,
    /// Good logins while nine of ten attempts are attacks.
    Storm,
}

impl Work {
    /// All, in the order of the report.
    pub const ALL: [Self; 10] = [
        Self::LoginFull,
        Self::LoginResumed,
        Self::LoginRsa,
        Self::LoginLatency,
        Self::RelayAes,
        Self::RelayChacha20,
        Self::Submission,
        Self::Parked,
        Self::Attack,
        Self::Storm,
    ];

    /// The figures that it gives.
    pub const fn figures(self) -> &'static [Figure] {
        match self {
            Self::LoginFull => &[Figure::LoginFull],
            Self::LoginResumed => &[Figure::LoginResumed],
            Self::LoginRsa => &[Figure::LoginRsa],
            Self::LoginLatency => &[Figure::LoginP50, Figure::LoginP99],
            Self::RelayAes => &[Figure::RelayAes],
            Self::RelayChacha20 => &[Figure::RelayChacha20],
            Self::Submission => &[Figure::Submission],
            Self::Parked => &[Figure::Parked, Figure::Base],
            Self::Attack => &[Figure::Attack],
            Self::Storm => &[Figure::QuietP99, Figure::StormP99, Figure::StormRatio],
        }
    }
}

/// One number per proxy and round. Less is better in all of them.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Figure {
    /// CPU ms of a login, full handshake.
    LoginFull,
    /// CPU ms of a login, resumed handshake.
    LoginResumed,
    /// CPU ms of a login, full handshake, RSA-2048.
    LoginRsa,
    /// ms from connect to the login's OK, median.
    LoginP50,
    /// The same, 99th percentile.
    LoginP99,
    /// CPU s for a GB relayed under AES-128-GCM.
    RelayAes,
    /// CPU s for a GB relayed under ChaCha20-Poly1305.
    RelayChacha20,
    /// CPU s for 1,000 messages.
    Submission,
    /// KiB of userland memory that one more parked session takes.
    Parked,
    /// MiB of userland memory without any session.
    Base,
    /// CPU ms of a refused login.
    Attack,
    /// ms, 99th percentile of good logins without attacks.
    QuietP99,
    /// ms, 99th percentile of good logins among attacks.
    StormP99,
    /// The second by the first.
    StormRatio,
}

impl Figure {
    /// What it says, and of what.
    pub const fn title(self) -> &'static str {
        match self {
            Self::LoginFull => "IMAP login, full handshake, ECDSA P-256: CPU per login",
            Self::LoginResumed => "IMAP login, resumed handshake: CPU per login",
            Self::LoginRsa => "IMAP login, full handshake, RSA-2048: CPU per login",
            Self::LoginP50 => "IMAP login at a modest rate: time from connect to OK, median",
            Self::LoginP99 => "IMAP login at a modest rate: time from connect to OK, p99",
            Self::RelayAes => "20 MB fetches, AES-128-GCM: CPU per GB",
            Self::RelayChacha20 => "20 MB fetches, ChaCha20-Poly1305: CPU per GB",
            Self::Submission => "submission of 4 KB, a connection each: CPU per 1,000",
            Self::Parked => "parked TLS IMAP session: userland memory (PSS)",
            Self::Base => "no session: userland memory (PSS)",
            Self::Attack => "refused login, full handshake: CPU per attempt",
            Self::QuietP99 => "good logins, quiet: p99",
            Self::StormP99 => "good logins, 90% of attempts are attacks: p99",
            Self::StormRatio => "good logins: p99 among attacks by p99 quiet",
        }
    }

    /// Its unit.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::LoginFull | Self::LoginResumed | Self::LoginRsa | Self::Attack => "CPU ms",
            Self::LoginP50 | Self::LoginP99 | Self::QuietP99 | Self::StormP99 => "ms",
            Self::RelayAes | Self::RelayChacha20 => "CPU s/GB",
            Self::Submission => "CPU s/1000",
            Self::Parked => "KiB",
            Self::Base => "MiB",
            Self::StormRatio => "times",
        }
    }

    /// Design §12, for Postern.
    pub const fn limits(self) -> &'static [Limit] {
        match self {
            Self::LoginFull | Self::LoginResumed => &[Limit::Times(PUMP, 1.3), Limit::Times("nginx", 0.7)],
            Self::LoginRsa => &[Limit::Times("nginx", 1.1)],
            Self::LoginP50 => &[Limit::Above(DIRECT, 2.0)],
            Self::RelayAes => &[Limit::Times(PUMP, 1.0), Limit::Times("nginx", 0.85)],
            Self::RelayChacha20 => &[Limit::Times(PUMP, 1.0), Limit::Times("nginx", 1.1)],
            Self::Submission => &[Limit::Times(PUMP, 1.3), Limit::Times("nginx", 0.8)],
            Self::Parked => &[Limit::AtMost(16.0)],
            Self::Base => &[Limit::AtMost(4.0)],
            Self::Attack => &[Limit::Times(PUMP, 1.3)],
            Self::StormRatio => &[Limit::AtMost(2.0)],
            Self::LoginP99 | Self::QuietP99 | Self::StormP99 => &[],
        }
    }
}

/// What Postern's median may be at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// So many times a peer's median.
    Times(&'static str, f64),
    /// So much above a peer's median, in the figure's unit.
    Above(&'static str, f64),
    /// So much, in the figure's unit.
    AtMost(f64),
}

/// A limit against what was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judged {
    /// The limit in words.
    pub limit: String,
    /// What was found, in the limit's terms; none if Postern or the peer was not measured.
    pub found: Option<f64>,
    /// Whether the limit was kept.
    pub met: Option<bool>,
}

impl Limit {
    /// Compares; `median` knows Postern's and the peers' medians.
    pub fn judge(self, postern: Option<f64>, median: impl Fn(&str) -> Option<f64>) -> Judged {
        let (limit, found, most) = match self {
            Self::Times(peer, most) => {
                let found = postern.zip(median(peer)).map(|(ours, theirs)| ours / theirs);
                (format!("at most {most:.2} × {peer}"), found, most)
            }
            Self::Above(peer, most) => {
                let found = postern.zip(median(peer)).map(|(ours, theirs)| ours - theirs);
                (format!("at most {most} above {peer}"), found, most)
            }
            Self::AtMost(most) => (format!("at most {most}"), postern, most),
        };
        Judged { limit, found, met: found.map(|found| found <= most) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_judged_on_ratio_difference_and_value() {
        let median = |peer: &str| (peer == "nginx").then_some(2.0);
        assert_eq!(Limit::Times("nginx", 0.7).judge(Some(1.4), median).met, Some(true));
        assert_eq!(Limit::Times("nginx", 0.7).judge(Some(1.5), median).met, Some(false));
        assert_eq!(Limit::Above("nginx", 2.0).judge(Some(4.5), median).found, Some(2.5));
        assert_eq!(Limit::AtMost(16.0).judge(Some(15.0), median).met, Some(true));
        assert_eq!(Limit::Times("pump", 1.3).judge(Some(1.0), median).met, None);
        assert_eq!(Limit::AtMost(16.0).judge(None, median).met, None);
    }

    #[test]
    fn every_figure_comes_of_one_work() {
        let all: Vec<Figure> = Work::ALL.iter().flat_map(|work| work.figures()).copied().collect();
        let mut unique = all.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(all.len(), unique.len());
        assert_eq!(Work::ALL.len(), Work::value_variants().len());
    }
}

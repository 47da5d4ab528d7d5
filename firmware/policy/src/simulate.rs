//! What a lock would have done to the logins that were seen: "locking now would have refused 3 of 412 logins, these".

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::UnixSeconds;
use crate::device::{Alias, Standing};
use crate::verdict::{Admitted, Held, Refused, Verdict};

/// Successful logins of one kind, folded into one line: the same client, protocol and what-if verdict. Folding keeps
/// the count exact while the log of an account stays at [`Outcome::MAX`] lines.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Outcome {
    /// `imap`, `pop3` or `submission`.
    pub protocol: String,
    /// Who it was.
    pub client: Client,
    /// What a lock would have said at the newest of these logins.
    pub if_locked: Verdict,
    /// How many logins.
    pub count: u64,
    /// The first of them.
    pub first: UnixSeconds,
    /// The newest of them.
    pub last: UnixSeconds,
    /// Where the newest came from; `None` once retention has passed.
    pub address: Option<IpAddr>,
}

impl Outcome {
    /// Lines kept per account; past it, the line that was quiet longest is given up.
    pub const MAX: usize = 32;

    /// Whether another login belongs on this line.
    pub fn folds(&self, other: &Self) -> bool {
        self.protocol == other.protocol && self.client == other.client && self.if_locked == other.if_locked
    }
}

/// Whose logins a line counts.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Client {
    /// A recorded device.
    Device(Alias),
    /// Nothing to recognise it by: what it said of itself, see [`crate::login::describe`].
    Traits(String),
}

/// Adds `login` to an account's log: folds it into its line, or opens one, dropping the line that was quiet longest
/// when there are already [`Outcome::MAX`].
pub fn note(log: &mut Vec<Outcome>, login: Outcome) {
    if let Some(line) = log.iter_mut().find(|line| line.folds(&login)) {
        line.count = line.count.saturating_add(login.count);
        line.first = line.first.min(login.first);
        if login.last >= line.last {
            line.last = login.last;
            line.address = login.address;
        }
        return;
    }
    if log.len() >= Outcome::MAX
        && let Some((oldest, _)) = log.iter().enumerate().min_by_key(|(_, line)| line.last)
    {
        log.swap_remove(oldest);
    }
    log.push(login);
}

/// What locking an account now would have meant for its recorded logins.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Report {
    /// Successful logins looked at.
    pub logins: u64,
    /// How many of them a lock would have refused or held.
    pub refused: u64,
    /// Those, worst first.
    pub lines: Vec<Line>,
}

/// One line of a [`Report`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Line {
    /// The logins.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The verdict of a lock with the devices as they stand now.
    pub verdict: Verdict,
    /// Why, and what the owner can do, for people.
    pub reason: String,
}

impl Report {
    /// Judges the recorded logins against the devices as they stand `now`: a device approved since counts as admitted,
    /// one revoked since as refused. Everything else keeps the verdict recorded with it.
    pub fn new<'a>(
        log: impl IntoIterator<Item = &'a Outcome>,
        standing: impl Fn(&Alias) -> Option<Standing>,
        now: UnixSeconds,
    ) -> Self {
        let mut report = Self::default();
        for outcome in log {
            report.logins = report.logins.saturating_add(outcome.count);
            let verdict = match &outcome.client {
                Client::Device(alias) => {
                    standing(alias).map_or(outcome.if_locked, |s| rejudge(outcome.if_locked, s, now))
                }
                Client::Traits(_) => outcome.if_locked,
            };
            if let Some(reason) = reason(verdict) {
                report.refused = report.refused.saturating_add(outcome.count);
                report.lines.push(Line { outcome: outcome.clone(), verdict, reason: reason.to_owned() });
            }
        }
        report.lines.sort_by_key(|line| std::cmp::Reverse((line.outcome.count, line.outcome.last)));
        report
    }

    /// The report's headline.
    pub fn headline(&self) -> String {
        match (self.refused, self.logins) {
            (_, 0) => "no login was seen yet, so there is nothing to tell".to_owned(),
            (0, logins) => format!("locking now would have refused none of {logins} logins"),
            (refused, logins) => {
                format!("locking now would have refused {refused} of {logins} logins, these")
            }
        }
    }
}

/// A verdict that hung on a device's standing, with the standing it has now.
fn rejudge(recorded: Verdict, standing: Standing, now: UnixSeconds) -> Verdict {
    match (recorded, standing) {
        // Not the device's fault: no standing mends these.
        (
            Verdict::Refuse(
                Refused::Protocol
                | Refused::Network
                | Refused::Country
                | Refused::ClientIdRequired
                | Refused::UntrustedType
                | Refused::NoIdentity,
            ),
            Standing::Pending | Standing::Approved { .. } | Standing::Revoked,
        ) => recorded,
        (Verdict::Admit(_) | Verdict::Hold(_) | Verdict::Refuse(_), Standing::Revoked) => {
            Verdict::Refuse(Refused::Revoked)
        }
        (Verdict::Admit(_) | Verdict::Hold(_) | Verdict::Refuse(_), Standing::Approved { until }) => {
            if until.is_none_or(|until| now < until) {
                Verdict::Admit(Admitted::Approved)
            } else {
                Verdict::Hold(Held::Expired)
            }
        }
        // Approved when it was recorded and pending since: somebody took the approval back.
        (Verdict::Admit(Admitted::Approved), Standing::Pending) => Verdict::Hold(Held::Unapproved),
        (Verdict::Admit(_) | Verdict::Hold(_) | Verdict::Refuse(_), Standing::Pending) => recorded,
    }
}

/// Why a lock would not have admitted, for people; `None` if it would have.
fn reason(verdict: Verdict) -> Option<&'static str> {
    Some(match verdict {
        Verdict::Admit(
            Admitted::Approved | Admitted::Observed | Admitted::Learning | Admitted::Provisional { .. },
        ) => {
            return None;
        }
        Verdict::Hold(Held::UnknownDevice | Held::Unapproved) => "not approved: approve it before locking",
        Verdict::Hold(Held::Expired) => "its approval has run out: approve it again",
        Verdict::Refuse(Refused::Revoked) => "revoked",
        Verdict::Refuse(Refused::Protocol) => "this protocol is not allowed for the account",
        Verdict::Refuse(Refused::Network) => "came from outside the allowed networks",
        Verdict::Refuse(Refused::Country) => "came from a country that is not allowed, or not known",
        Verdict::Refuse(Refused::ClientIdRequired) => "sends no CLIENTID, and the rules ask for one",
        Verdict::Refuse(Refused::UntrustedType) => "its CLIENTID is of a type that is not trusted here",
        Verdict::Refuse(Refused::NoIdentity) => {
            "sends no CLIENTID: allow weak identities, or give the client an id"
        }
        Verdict::Refuse(Refused::TooManyDevices) => "as many devices are approved as the rules allow",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(client: Client, if_locked: Verdict, at: UnixSeconds) -> Outcome {
        Outcome { protocol: "imap".into(), client, if_locked, count: 1, first: at, last: at, address: None }
    }

    fn device(name: &str) -> Client {
        Client::Device(Alias(name.into()))
    }

    #[test]
    fn three_of_412() {
        let mut log = Vec::new();
        for at in 0..409 {
            note(&mut log, outcome(device("phone1"), Verdict::Admit(Admitted::Approved), at));
        }
        for at in 0..3 {
            let verdict = Verdict::Refuse(Refused::NoIdentity);
            note(
                &mut log,
                outcome(Client::Traits("IMAP client, Linux, unknown mail software".into()), verdict, at),
            );
        }
        assert_eq!(log.len(), 2);
        let report = Report::new(&log, |_| Some(Standing::Approved { until: None }), 500);
        assert_eq!(report.headline(), "locking now would have refused 3 of 412 logins, these");
        assert_eq!(report.lines.len(), 1);
        assert_eq!((report.lines[0].outcome.first, report.lines[0].outcome.last), (0, 2));
    }

    #[test]
    fn devices_count_as_they_stand_now() {
        let log = [
            outcome(device("a"), Verdict::Hold(Held::UnknownDevice), 1),
            outcome(device("b"), Verdict::Admit(Admitted::Approved), 1),
            outcome(device("c"), Verdict::Refuse(Refused::Protocol), 1),
            outcome(device("d"), Verdict::Hold(Held::Unapproved), 1),
            outcome(device("e"), Verdict::Admit(Admitted::Approved), 1),
        ];
        let standing = |alias: &Alias| match alias.0.as_str() {
            "a" | "c" => Some(Standing::Approved { until: None }),
            "b" => Some(Standing::Revoked),
            "e" => Some(Standing::Approved { until: Some(9) }),
            _ => None,
        };
        let report = Report::new(&log, standing, 9);
        let mut refused: Vec<_> =
            report.lines.iter().map(|line| (&line.outcome.client, line.verdict)).collect();
        refused.sort_by_key(|(client, _)| format!("{client:?}"));
        assert_eq!(
            refused,
            [
                (&device("b"), Verdict::Refuse(Refused::Revoked)),
                (&device("c"), Verdict::Refuse(Refused::Protocol)),
                (&device("d"), Verdict::Hold(Held::Unapproved)),
                (&device("e"), Verdict::Hold(Held::Expired)),
            ]
        );
        assert_eq!((report.logins, report.refused), (5, 4));
    }

    #[test]
    fn the_log_is_bounded_and_gives_up_what_was_quiet_longest() {
        let mut log = Vec::new();
        for at in 0..100 {
            note(&mut log, outcome(device(&at.to_string()), Verdict::Hold(Held::UnknownDevice), at));
        }
        assert_eq!(log.len(), Outcome::MAX);
        assert!(log.iter().all(|line| line.last >= 68));
    }

    #[test]
    fn a_silent_account_is_not_called_safe() {
        assert!(Report::new(&[], |_| None, 0).headline().contains("nothing to tell"));
    }
}

//! How a process is, for the supervisor, the watchdog and people.

use serde::{Deserialize, Serialize};

/// How the gateway is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Health {
    /// Of the worst part.
    pub state: State,
    /// Listeners, database, backends, certificates, disk.
    pub parts: Vec<Part>,
}

/// Worse is greater.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It works, and has been tried.
    Well,
    /// It is up, and nothing has tried it yet.
    Ready,
    /// It does not work.
    Failing,
}

/// One part of it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Part {
    /// Such as `database` or `backend main imap`.
    pub name: String,
    /// How it is.
    pub state: State,
    /// One sentence for people; empty when well.
    pub text: String,
}

impl Health {
    /// The whole is as well as its worst part; nothing at all is only ready.
    pub fn of(parts: Vec<Part>) -> Self {
        let state = parts.iter().map(|part| part.state).max().unwrap_or(State::Ready);
        Self { state, parts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_part_counts() {
        let part = |state| Part { name: String::new(), state, text: String::new() };
        assert_eq!(Health::of(vec![]).state, State::Ready);
        assert_eq!(Health::of(vec![part(State::Well), part(State::Well)]).state, State::Well);
        assert_eq!(Health::of(vec![part(State::Well), part(State::Ready)]).state, State::Ready);
        assert_eq!(Health::of(vec![part(State::Failing), part(State::Ready)]).state, State::Failing);
    }
}

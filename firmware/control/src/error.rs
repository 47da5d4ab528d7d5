//! Why something was not done, and how to mend it.

use serde::{Deserialize, Serialize};

/// An answer that says no.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, thiserror::Error)]
#[error("{text}; {mend}")]
pub struct ControlError {
    /// For programs.
    pub code: ErrorCode,
    /// What is wrong, one sentence without a full stop.
    pub text: String,
    /// How to mend it, one sentence without a full stop.
    pub mend: String,
}

impl ControlError {
    /// An error with its two sentences.
    pub fn new(code: ErrorCode, text: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { code, text: text.into(), mend: mend.into() }
    }
}

/// Sorts of errors.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The box has no such account.
    NoSuchAccount,
    /// The account has no such device.
    NoSuchDevice,
    /// No such session is live.
    NoSuchSession,
    /// The request makes no sense: a date in the past, a name too long, a damaged import.
    Invalid,
    /// The rules do not allow it: too many devices, a layer above is stricter.
    NotAllowed,
    /// The caller's user id may not do this.
    Forbidden,
    /// Another contract version, or not a request at all.
    Protocol,
    /// The settings file is bad; the old settings stay in force.
    Settings,
    /// The database or the disk refused.
    Storage,
    /// For now; the same request may work later.
    Busy,
    /// A fault of ours.
    Internal,
}

//! What the onboarding self-test found.

use serde::{Deserialize, Serialize};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// As it should be.
    Fine,
    /// Works, and could be better.
    Warning,
    /// Must be mended before mail goes through here.
    Error,
}

/// One thing that was tried.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// The backend's name; empty for the box itself.
    pub backend: String,
    /// `imap`, `pop3`, `submission`, or empty.
    pub protocol: String,
    /// What was tried, as a kebab-case word such as `open-relay`.
    pub check: String,
    /// What was found, one sentence.
    pub text: String,
    /// How to mend it; empty when fine.
    pub mend: String,
}

//! `[submission]`: what may be sent.

use crate::quantity::{Positive, Size};
use crate::reader::Table;

/// `[submission]`.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Octets of a message; the backend's own SIZE counts too if it is smaller.
    pub size_limit: u64,
    /// Messages one account may send in an hour.
    pub messages_per_hour: u32,
    /// Recipients one account may send to in an hour, all messages together.
    pub recipients_per_hour: u32,
    /// Whether MAIL FROM must be an address of the account's own (RFC 6409 §6.1).
    pub sender_check: bool,
    /// Whether `MAIL FROM:<>` is taken, as read receipts need (RFC 8098 §2.1).
    pub allow_null_sender: bool,
}

impl Submission {
    pub(crate) fn read(table: &mut Table<'_>) -> Self {
        let count = |table: &mut Table<'_>, key, default| table.or(key, Positive(default)).0;
        Self {
            size_limit: table.or("size-limit", Size(50 << 20)).0,
            messages_per_hour: count(table, "messages-per-hour", 200),
            recipients_per_hour: count(table, "recipients-per-hour", 1_000),
            sender_check: table.or("sender-check", true),
            allow_null_sender: table.or("allow-null-sender", true),
        }
    }
}

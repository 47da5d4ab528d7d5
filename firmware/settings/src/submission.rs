//! `[submission]`: what may be sent.

use policy::sending::SendingLimits;

use crate::abuse::entries;
use crate::quantity::{Positive, Size};
use crate::reader::Table;

/// `[submission]`.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Octets of a message; the backend's own SIZE counts too if it is smaller.
    pub size_limit: u64,
    /// What one account may send; a hijacked one stops by itself.
    pub sending: SendingLimits,
    /// Whether MAIL FROM must be an address of the account's own (RFC 6409 §6.1).
    pub sender_check: bool,
    /// Whether `MAIL FROM:<>` is taken, as read receipts need (RFC 8098 §2.1).
    pub allow_null_sender: bool,
}

impl Submission {
    pub(crate) fn read(table: &mut Table<'_>) -> Self {
        let default = SendingLimits::default();
        let count = |table: &mut Table<'_>, key, default| table.or(key, Positive(default)).0;
        Self {
            size_limit: table.or("size-limit", Size(50 << 20)).0,
            sending: SendingLimits {
                messages_per_hour: count(table, "messages-per-hour", default.messages_per_hour),
                messages_per_day: count(table, "messages-per-day", default.messages_per_day),
                recipients_per_hour: count(table, "recipients-per-hour", default.recipients_per_hour),
                recipients_per_day: count(table, "recipients-per-day", default.recipients_per_day),
                accounts: entries(table, "accounts-remembered", default.accounts),
            },
            sender_check: table.or("sender-check", true),
            allow_null_sender: table.or("allow-null-sender", true),
        }
    }
}

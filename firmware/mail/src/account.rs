//! Mailbox names as devices and rules are filed under.

/// A mailbox's canonical name: `local@domain`, or `local` alone where the box has no domain for it.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Account(heapless::String<320>);

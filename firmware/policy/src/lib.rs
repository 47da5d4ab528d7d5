//! Which device may log in: pure decisions, no I/O, no clock, no store. `now` is one of the facts.
//!
//! Times are Unix seconds.

pub mod abuse;
pub mod decide;
pub mod device;
pub mod login;
pub mod rules;
pub mod sending;
pub mod simulate;
mod table;
pub mod verdict;

pub use decide::decide;
pub use device::{Alias, Device, Mark, Standing, Strength};
pub use login::{Facts, Identity, Traits};
pub use rules::{Layer, Mode, NewDevice, Rules};
pub use verdict::{Admitted, Decision, Held, Refused, Verdict};

/// Seconds since 1970-01-01 UTC.
pub type UnixSeconds = u64;

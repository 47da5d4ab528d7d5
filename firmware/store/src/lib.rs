//! The device database: devices, accounts' own rules, refused attempts, the log for the simulation, and the event journal.
//!
//! sled 0.34.7 keeps the records; everything that makes them safe is around it (README.md says what and why). A change
//! returns only when it is on the disk twice: in the synced tail, and in sled behind a fence. Exports and tail together can
//! rebuild sled at any time, and do so whenever it errs, panics or differs.
//!
//! Tokens are kept as HMAC-SHA-256 under keys in a file outside the database, bound to account and type, and are shown as
//! short aliases.

mod codec;
mod devices;
mod engine;
mod error;
mod export;
mod file;
mod key;
mod keys;
mod portable;
mod record;
mod recover;
mod store;
mod strangers;
mod tail;
mod writer;

pub use devices::{DEVICES_MAX, Listing, Noted, PENDING_MAX, Recorded, Success};
pub use error::StoreError;
pub use portable::Imported;
pub use record::{AccountRecord, Attempt};
pub use recover::OpenReport;
pub use store::{Lookup, Overview, Stats, Store};
pub use writer::Options;

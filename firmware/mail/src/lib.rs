//! Words that the mail protocols share, and the contract between a session machine and its driver.
//!
//! Everything an unauthenticated peer can reach is here or in `imap`, `pop3` and `smtp`, in fixed memory: no
//! allocation, no socket, no clock, no task.
#![no_std]

pub mod account;
pub mod address;
pub mod clientid;
pub mod domain;
pub mod input;
pub mod outbox;
pub mod sasl;
pub mod secret;
pub mod session;

pub use account::Account;
pub use clientid::ClientId;
pub use domain::Domain;
pub use input::Input;
pub use secret::Secret;

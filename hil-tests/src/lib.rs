//! The bench: real mail servers, real mail clients and the boxes between them, as a stranger meets them.
//!
//! Nothing here links a crate of ours; the bench drives executables and speaks over sockets. `cargo box` is its
//! command; the files in `tests/` are its promises, one each.

pub mod backends;
pub mod bench;
pub mod certificate;
pub mod client;
pub mod dovecot;
pub mod guard;
pub mod install;
pub mod log;
pub mod port;
pub mod postfix;
pub mod random;

//! The bench: real mail servers, real mail clients and the boxes between them, as a stranger meets them.
//!
//! Nothing here links a crate of ours; the bench drives executables and speaks over sockets. `cargo box` is its
//! command; the files in `tests/` are its promises, one each.

#![allow(clippy::format_collect, reason = "a few short strings, once a run; the loop is harder to read")]

pub mod arrows;
pub mod backends;
pub mod balancer;
pub mod bench;
pub mod cache;
pub mod certificate;
pub mod client;
pub mod console;
pub mod cuts;
pub mod demo;
pub mod demonstration;
pub mod devices;
pub mod dovecot;
pub mod emulator;
pub mod flash;
pub mod gateway;
pub mod guard;
pub mod image;
pub mod install;
pub mod log;
pub mod machine;
pub mod mailer;
pub mod port;
pub mod postfix;
pub mod programs;
pub mod promise;
pub mod random;
pub mod results;
pub mod rig;
pub mod root;
pub mod script;
pub mod secrets;
pub mod seed;
pub mod session;
pub mod settings;
pub mod stage;
pub mod statistics;
pub mod suite;
pub mod uefi;

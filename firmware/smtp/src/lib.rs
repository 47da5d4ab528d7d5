//! Submission (RFC 6409) in front of an ISP's own server, parsed to its last command.
//!
//! - [`Session`]: the server's side up to login. [`Client`]: our side towards the backend up to the same point.
//! - [`Relay`]: both sides at once from there on, because pipelining past AUTH and smuggling in DATA live there.
//! - [`Offer`]: what is advertised, made from what the backend has.
//! - [`RelayTest`]: whether a backend relays for strangers.
//!
//! Octets in, actions out, in fixed memory: no allocation, no socket, no clock, no task.
#![no_std]

mod body;
mod client;
mod command;
mod envelope;
mod line;
mod offer;
mod relay;
mod relay_test;
mod reply;
mod session;
mod xclient;

pub use body::{BodyEnd, BodyStep};
pub use client::Client;
pub use command::{BdatSize, Command};
pub use envelope::{BodyKind, EnvelopeError, MailCommand, RcptCommand};
pub use offer::{Extension, Extensions, Offer};
pub use relay::{Limits, MessageAnswer, Relay, RelayAction, RelayEnd, SenderAnswer};
pub use relay_test::{RelayTest, RelayTestStep, RelayVerdict};
pub use session::Session;

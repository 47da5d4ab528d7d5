//! IMAP up to login (RFC 9051, RFC 3501): the server's side towards mail clients, and our side towards the backend.
//!
//! Sans-io, in fixed memory, without allocation. What is understood is what may come before login; after it the
//! connection is bytes. No code here can panic on what a peer sends: octets are taken by `get` and by iterators.
#![no_std]

mod client;
mod command;
mod id;
mod line;
mod offer;
mod response;
mod session;

pub use client::Client;
pub use offer::Offer;
pub use session::Session;

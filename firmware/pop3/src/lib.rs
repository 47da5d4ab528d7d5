//! POP3 up to login (RFC 1939, RFC 2449, RFC 2595, RFC 5034): the server's side towards mail clients, and our side
//! towards the backend.
//!
//! Sans-io, in fixed memory, without allocation; after login the connection is bytes. There is no CLIENTID in POP3:
//! no draft defines one and no client sends it.
#![no_std]

mod client;
mod offer;
mod session;

pub use client::Client;
pub use offer::Offer;
pub use session::Session;

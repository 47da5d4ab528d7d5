//! The facts of one login attempt.

use std::net::IpAddr;

use mail::session::Protocol;
use serde::{Deserialize, Serialize};

use crate::UnixSeconds;
use crate::device::Device;

/// What a client shows of itself without proof.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Traits {
    /// IMAP ID name, else empty.
    pub client: String,
    /// IMAP ID version.
    pub version: String,
    /// IMAP ID os.
    pub os: String,
    /// The form of the EHLO name: `literal`, `localhost`, `bare`, `domain`, or empty.
    pub ehlo: String,
    /// JA4 of the TLS ClientHello without what resumption changes.
    pub ja4: String,
    /// The client's network: /24 or /64.
    pub network: String,
    /// ISO 3166-1 alpha-2, or empty.
    pub country: String,
}

/// What a session showed of its device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Identity<'a> {
    /// A CLIENTID of this type.
    ClientId {
        /// Upper-case type.
        kind: &'a str,
    },
    /// No token: only traits.
    Traits,
}

/// Everything `decide` may look at.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The protocol of this login.
    pub protocol: Protocol,
    /// The client's address.
    pub address: IpAddr,
    /// ISO 3166-1 alpha-2 of it, if known.
    pub country: Option<&'a str>,
    /// What it showed.
    pub identity: Identity<'a>,
    /// The device that this identity belongs to, if the account has one.
    pub device: Option<&'a Device>,
    /// How many devices of the account are approved now.
    pub approved: usize,
    /// How many are pending.
    pub pending: usize,
    /// The time.
    pub now: UnixSeconds,
}

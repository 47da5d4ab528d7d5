//! What comes on a connection before any mail protocol: a load balancer's PROXY header and TLS's `ClientHello`.
//!
//! Pure: octets in, values out. Strangers write these octets, so both readers are fuzzed, and they stand apart from the
//! gateway so that the fuzzers need not build it.

pub mod client_hello;
pub mod proxy_protocol;

//! The gateway: listeners, TLS, sessions, policy, relay. The process is in `main.rs`; the parts are a library so
//! that tests and fuzzers reach them.

pub mod relay;
pub mod stream;
pub mod tls;

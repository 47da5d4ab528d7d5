//! What stands around a session: events, alerts, look-ups, metrics, logs.

pub mod client_hello;
pub mod event;
pub mod proxy_protocol;

//! What stands around a session: events, alerts, look-ups, metrics, logs.

pub mod alert;
pub mod auth_http;
pub mod client_hello;
pub mod dial;
pub mod event;
pub mod geo;
pub mod http_client;
pub mod log;
pub mod metrics;
pub mod names;
pub mod proxy_protocol;
pub mod ptr;

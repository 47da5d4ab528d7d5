//! The gateway: listeners, TLS, sessions, policy, relay. The process is in `main.rs`; the parts are a library so
//! that tests and fuzzers reach them.

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
pub mod admit;
pub mod alerting;
pub mod backend;
pub mod connection;
pub mod desk;
pub mod devices;
pub mod gateway;
pub mod listen;
pub mod process;
pub mod refused;
pub mod relay;
pub mod self_test;
pub mod sessions;
pub mod stream;
pub mod submission;
pub mod tls;
pub mod upstream;

//! The gateway: listeners, TLS, sessions, policy, relay. The process is in `main.rs`; the parts are a library so
//! that tests and fuzzers reach them.

pub mod admit;
pub mod alert;
pub mod alerting;
pub mod auth_http;
pub mod backend;
pub mod connection;
pub mod desk;
pub mod devices;
pub mod dial;
pub mod event;
pub mod event_text;
pub mod export;
pub mod gateway;
pub mod geo;
pub mod http_client;
pub mod listen;
pub mod log;
pub mod manager;
pub mod metrics;
pub mod names;
pub mod process;
pub mod ptr;
pub mod refused;
pub mod relay;
pub mod self_test;
pub mod sessions;
pub mod stream;
pub mod submission;
pub mod tls;
pub mod upstream;

//! The one settings document of a box: TOML in, plain values out, every mistake named with its place and its mend.
//!
//! - [`Settings::parse`] reads text: syntax, unknown keys, wrong types and contradictions, all that it finds at once.
//! - [`Settings::load`] reads a file, and also tries the files and folders that it names.
//! - [`replace`] puts a new document in place of an old one, whole or not at all.
//! - [`Settings::canonical`], [`Settings::layers`], [`Settings::route`] and [`Settings::may_send`] answer what the
//!   gateway asks for each login.
//!
//! `example.toml` beside this crate has every key with its meaning and default, and is a test.

mod abuse;
mod account;
mod address;
mod alerts;
mod backend;
mod check;
mod domain;
mod error;
mod file;
mod host;
mod limits;
mod listen;
mod network;
mod observe;
mod quantity;
mod reader;
mod route;
mod rules;
mod settings;
mod submission;
mod tls;

pub use abuse::Abuse;
pub use account::{AccountSettings, NotAnAccount};
pub use address::{Endpoint, HttpUrl, MailAddress};
pub use alerts::{AlertMail, Alerts, Operator, Syslog, Via};
pub use backend::{Backend, BackendTls, IdentityVia, LoginForm, Service};
pub use domain::DomainSettings;
pub use error::{Kind, SettingsError};
pub use file::replace;
pub use host::{Host, Places};
pub use limits::Limits;
pub use listen::{Listen, Listener};
pub use network::{Ipv4, Ipv6, Network, TimeServer};
pub use observe::{Control, Dns, Events, Geo, Level, Log, LogFormat, Metrics, Resolver};
pub use policy::Layer;
pub use route::{HttpRoute, Routes};
pub use settings::Settings;
pub use submission::Submission;
pub use tls::{CertificateFiles, MinVersion, Suites, Tls};

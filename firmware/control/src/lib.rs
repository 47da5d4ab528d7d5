//! What the box's processes and the operator say to the gateway: one contract on a Unix socket.
//!
//! A client sends one [`Request`] in a frame and reads [`Response`]s until one is the last for it
//! ([`Response::is_last`]); then it may send the next. Frames are JSON behind a length ([`frame`]), with the contract's
//! version in each. The codec touches no socket: the gateway drives it with tokio, [`Client`] with plain blocking
//! calls. Times are Unix seconds, UTC. Nothing here ever holds a credential or a CLIENTID token.

pub mod accounts;
pub mod client;
pub mod devices;
pub mod error;
pub mod events;
pub mod frame;
pub mod health;
pub mod page;
pub mod request;
pub mod response;
pub mod self_test;
pub mod sessions;
pub mod simulation;
pub mod stats;
pub mod transfer;

pub use accounts::{AccountRow, AttemptRow};
pub use client::{Client, ClientError};
pub use devices::DeviceRow;
pub use error::{ControlError, ErrorCode};
pub use events::EventRow;
pub use frame::{Frames, VERSION};
pub use health::{Health, Part, State};
pub use page::Page;
pub use policy::UnixSeconds;
pub use request::Request;
pub use response::Response;
pub use self_test::{Finding, Severity};
pub use sessions::SessionRow;
pub use simulation::{Simulation, SimulationRow};
pub use stats::Stats;
pub use transfer::{Chunk, Imported};

/// Where the gateway listens unless settings, `--control` or `POSTERN_CONTROL` say otherwise.
pub const DEFAULT_SOCKET: &str = "/run/postern/control";

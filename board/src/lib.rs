//! The machine: what Postern must know of the board it runs on. Knows nothing of mail.
//!
//! [`detect()`](detect::detect) finds the [`Descriptor`] of the board that runs us; its sections open the console, the
//! watchdog, the light, the button and the source of random numbers, and find the disk.
//!
//! Every path of `/proc`, `/sys` and `/dev` starts from a [`Machine`], so that tests run on recorded ones.
//! Without the feature `std` only [`slots`] is here: the selector runs before there is an operating system.
#![cfg_attr(not(feature = "std"), no_std)]

#[cfg(feature = "std")]
pub mod button;
#[cfg(feature = "std")]
pub mod crypto;
#[cfg(feature = "std")]
pub mod descriptor;
#[cfg(feature = "std")]
pub mod detect;
#[cfg(feature = "std")]
pub mod disk;
#[cfg(feature = "std")]
mod fault;
#[cfg(feature = "std")]
mod gpt;
#[cfg(feature = "std")]
mod grow;
#[cfg(feature = "std")]
pub mod hwrng;
#[cfg(feature = "std")]
mod ioctl;
#[cfg(feature = "std")]
pub mod led;
#[cfg(feature = "std")]
mod machine;
#[cfg(feature = "std")]
mod reader;
#[cfg(feature = "std")]
pub mod serial;
pub mod slots;
#[cfg(feature = "std")]
pub mod state;
#[cfg(feature = "std")]
pub mod watchdog;

#[cfg(feature = "std")]
pub use descriptor::{Descriptor, DescriptorError};
#[cfg(feature = "std")]
pub use fault::Fault;
#[cfg(feature = "std")]
pub use machine::Machine;

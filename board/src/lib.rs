//! The machine: what Postern must know of the board it runs on. Knows nothing of mail.
//!
//! Without the feature `std` only [`slots`] is here: the selector runs before there is an operating system.
#![cfg_attr(not(feature = "std"), no_std)]

#[cfg(feature = "std")]
pub mod crypto;
pub mod slots;

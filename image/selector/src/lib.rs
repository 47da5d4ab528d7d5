//! Picks the firmware that boots, and starts it (design §7).
//!
//! [`select`](select::select) is the order of things and knows no firmware; [`efi`] is the one place that calls it.
//! Both compile everywhere, so that the order is tested where there is no EFI.
#![no_std]

pub mod efi;
pub mod gpt;
pub mod path;
pub mod select;

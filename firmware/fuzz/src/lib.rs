//! Targets stand beside this crate.

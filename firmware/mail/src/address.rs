//! Envelope paths.

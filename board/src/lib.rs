//! The machine: what Postern must know of the board it runs on. Knows nothing of mail.

pub mod crypto;

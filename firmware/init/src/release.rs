//! What this firmware is, and whether the firmware below it checks signatures.

use std::fs;

use serde::Deserialize;

const FILE: &str = "/etc/postern/release.toml";

/// The UEFI variable, in the global namespace.
const SECURE_BOOT: &str = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// `release.toml`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub(crate) struct Release {
    pub(crate) version: String,
    pub(crate) build: String,
    pub(crate) kind: String,
}

impl Release {
    /// Reads it. An image without one says so in its first line.
    pub(crate) fn read() -> Self {
        let text = fs::read_to_string(FILE).unwrap_or_default();
        toml::from_str(&text).unwrap_or_else(|_| {
            let unknown = || "unknown".to_owned();
            Self { version: env!("CARGO_PKG_VERSION").to_owned(), build: unknown(), kind: unknown() }
        })
    }
}

/// `on`, `off`, or `none` where there is no UEFI.
pub(crate) fn secure_boot() -> &'static str {
    match fs::read(SECURE_BOOT).as_deref() {
        // Four bytes of attributes, then the value.
        Ok([_, _, _, _, 1]) => "on",
        Ok(_) => "off",
        Err(_) => "none",
    }
}

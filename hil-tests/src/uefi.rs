//! Firmware for the emulated boards that knows the bench's keys.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// Firmware for QEMU.
#[derive(Clone, Debug)]
pub struct Firmware {
    /// Its code.
    pub code: PathBuf,
    /// Its variables, where they are a file of their own.
    pub variables: Option<PathBuf>,
}

/// EDK II with the keys of a folder.
pub fn edk2(keys: &Path) -> Result<Firmware> {
    bail!("no EDK II for {}", keys.display())
}

/// U-Boot with the keys of a folder.
pub fn uboot(keys: &Path) -> Result<Firmware> {
    bail!("no U-Boot for {}", keys.display())
}

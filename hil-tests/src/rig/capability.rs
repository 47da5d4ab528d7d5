//! What a rig can do. A test names what it needs; what the rig lacks is skipped with a reason, never passed.

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

/// One thing that a rig can do.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Capability {
    /// The console can be read and written.
    #[serde(rename = "serial")]
    Serial,
    /// The power can be switched.
    #[serde(rename = "power")]
    Power,
    /// The disk can be written while the board is off.
    #[serde(rename = "media")]
    Media,
    /// The board reaches this machine by Ethernet, and is reached.
    #[serde(rename = "net.eth")]
    Ethernet,
    /// The cable can be pulled.
    #[serde(rename = "net.unplug")]
    Unplug,
    /// The board's firmware is UEFI, so the selector runs.
    #[serde(rename = "efi")]
    Efi,
    /// That firmware verifies signatures, with our keys.
    #[serde(rename = "secureboot")]
    SecureBoot,
    /// A watchdog that resets the board.
    #[serde(rename = "watchdog")]
    Watchdog,
    /// The processor can be stopped from outside.
    #[serde(rename = "debugger")]
    Debugger,
    /// The power can be cut at any instant without wearing anything out.
    #[serde(rename = "power-cut")]
    PowerCut,
    /// Every write to the disk can be recorded in order, with its flushes.
    #[serde(rename = "write-log")]
    WriteLog,
    /// The clock that the board starts with can be set.
    #[serde(rename = "clock")]
    Clock,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Serial,
        Self::Power,
        Self::Media,
        Self::Ethernet,
        Self::Unplug,
        Self::Efi,
        Self::SecureBoot,
        Self::Watchdog,
        Self::Debugger,
        Self::PowerCut,
        Self::WriteLog,
        Self::Clock,
    ];

    /// As a rig file spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Serial => "serial",
            Self::Power => "power",
            Self::Media => "media",
            Self::Ethernet => "net.eth",
            Self::Unplug => "net.unplug",
            Self::Efi => "efi",
            Self::SecureBoot => "secureboot",
            Self::Watchdog => "watchdog",
            Self::Debugger => "debugger",
            Self::PowerCut => "power-cut",
            Self::WriteLog => "write-log",
            Self::Clock => "clock",
        }
    }
}

impl Display for Capability {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_spell_every_capability_as_it_prints() {
        for capability in Capability::ALL {
            assert_eq!(serde_json::to_value(capability).unwrap(), capability.name());
        }
    }
}

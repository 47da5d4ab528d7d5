//! What the CPU speeds up.

use std::fmt;

use crate::descriptor::AesClaim;
use crate::machine::{Machine, read_at_most};

/// Whether AES-GCM runs in hardware here: AES and carry-less multiplication.
///
/// On ARM64 these are the ARMv8 AES and PMULL instructions, which the kernel reports in `AT_HWCAP`; a Raspberry
/// Pi 4 has neither. ring picks its code by the same bits, so nothing is to be switched on, only to be chosen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Aes {
    /// By instructions of its own.
    Hardware,
    /// By vector permutation, several times slower than ChaCha20 on the same CPU.
    Software,
}

impl Aes {
    /// What this CPU has.
    pub fn detect() -> Self {
        // Both detections are cached by the standard library and need no privilege.
        #[cfg(target_arch = "aarch64")]
        let hardware = std::arch::is_aarch64_feature_detected!("aes");
        #[cfg(target_arch = "x86_64")]
        let hardware =
            std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
        #[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
        let hardware = false;
        if hardware { Self::Hardware } else { Self::Software }
    }

    /// What the kernel told this process of an ARM64 CPU (`AT_HWCAP` in `/proc/self/auxv`); `None` where it says
    /// nothing. The recorded boards of the tests are read so; on the machine that runs us it is what
    /// [`detect`](Self::detect) says.
    pub fn from_hwcap(machine: &Machine) -> Option<Self> {
        const AT_HWCAP: u64 = 16;
        const AES: u64 = 1 << 3;
        const PMULL: u64 = 1 << 4;
        let vector = read_at_most(&machine.proc.join("self/auxv"), 4096).ok()?;
        let (words, _) = vector.as_chunks();
        let words = words.iter().map(|word| u64::from_ne_bytes(*word)).collect::<Vec<_>>();
        // Pairs of key and value.
        let bits = words.chunks_exact(2).find(|pair| pair[0] == AT_HWCAP)?[1];
        Some(if bits & AES != 0 && bits & PMULL != 0 { Self::Hardware } else { Self::Software })
    }

    /// `hw` or `sw`, as logs and stage lines say it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hardware => "hw",
            Self::Software => "sw",
        }
    }
}

/// The CPU and the board's descriptor disagree. The CPU is believed: ring asks it too.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mismatch {
    /// What the descriptor says.
    pub claim: AesClaim,
    /// What the CPU has.
    pub found: Aes,
}

/// Compares what the CPU has with what the descriptor says.
pub const fn check(claim: AesClaim, found: Aes) -> Result<(), Mismatch> {
    match (claim, found) {
        (AesClaim::Probe, _) | (AesClaim::Present, Aes::Hardware) | (AesClaim::Absent, Aes::Software) => {
            Ok(())
        }
        (AesClaim::Present, Aes::Software) | (AesClaim::Absent, Aes::Hardware) => {
            Err(Mismatch { claim, found })
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (has, word, suite) = match self.found {
            Aes::Hardware => ("has", "present", "AES-GCM"),
            Aes::Software => ("lacks", "absent", "ChaCha20-Poly1305"),
        };
        write!(
            f,
            "this CPU {has} AES instructions (AT_HWCAP), other than the board's descriptor says; {suite} will be \
             preferred; write aes = \"{word}\" or \"probe\" in [cpu] if this is the board"
        )
    }
}

impl std::error::Error for Mismatch {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_kernel() {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let flags = cpuinfo.lines().find(|l| l.starts_with("flags") || l.starts_with("Features"));
        let Some(flags) = flags else { return };
        let has = |flag: &str| flags.split_whitespace().any(|f| f == flag);
        let expected = has("aes") && (has("pclmulqdq") || has("pmull"));
        assert_eq!(Aes::detect() == Aes::Hardware, expected);
    }
}

//! What the CPU speeds up.

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

    /// `hw` or `sw`, as logs and stage lines say it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hardware => "hw",
            Self::Software => "sw",
        }
    }
}

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

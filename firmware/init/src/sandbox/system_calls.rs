//! seccomp: the list of system calls a service may make. Any other ends it.

use std::collections::HashSet;
use std::env::consts::ARCH;

use seccompiler::{BpfProgram, TargetArch, apply_filter, compile_from_json};
use serde::Deserialize;

/// A list as it is written in `profiles/`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Profile {
    group: Vec<Group>,
}

/// System calls that are needed for one reason.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Group {
    reason: String,
    allow: Vec<String>,
}

/// What is wrong with a profile; a mistake of this program, found when it starts and by its tests.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProfileError {
    /// No TOML, or not of this shape.
    #[error("{0}")]
    Shape(#[from] toml::de::Error),
    /// A group without a reason or a call.
    #[error("a group needs a reason and at least one system call")]
    Empty,
    /// Named in two groups.
    #[error("{0} is allowed twice")]
    Twice(String),
    /// Not known, on this CPU at least.
    #[error("{0}")]
    Compile(#[from] seccompiler::Error),
}

/// A list, compiled.
#[derive(Debug)]
pub(crate) struct Filter(BpfProgram);

impl Filter {
    /// Compiles a profile for this CPU.
    pub(crate) fn compile(profile: &str) -> Result<Self, ProfileError> {
        Self::compile_for(profile, ARCH.try_into().map_err(seccompiler::Error::from)?)
    }

    fn compile_for(profile: &str, arch: TargetArch) -> Result<Self, ProfileError> {
        let names = names(profile)?;
        // The compiler takes JSON; the names are plain words.
        let list = names.iter().map(|name| format!("{{\"syscall\":{name:?}}}")).collect::<Vec<_>>().join(",");
        let json = format!(
            "{{\"it\":{{\"mismatch_action\":\"kill_process\",\"match_action\":\"allow\",\"filter\":[{list}]}}}}"
        );
        let program = compile_from_json(json.as_bytes(), arch)?.remove("it");
        program.filter(|program| !program.is_empty()).map(Self).ok_or(ProfileError::Empty)
    }

    /// Puts this process under the list, for good. Allocates nothing.
    pub(crate) fn apply(&self) -> Result<(), seccompiler::Error> {
        apply_filter(&self.0)
    }
}

/// The names in a profile, each once.
fn names(profile: &str) -> Result<Vec<String>, ProfileError> {
    let profile = toml::from_str::<Profile>(profile)?;
    let mut seen = HashSet::new();
    let mut names = Vec::new();
    for group in profile.group {
        if group.reason.is_empty() || group.allow.is_empty() {
            return Err(ProfileError::Empty);
        }
        for name in group.allow {
            if !seen.insert(name.clone()) {
                return Err(ProfileError::Twice(name));
            }
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::TABLE;

    /// `appliance.md` §8: at most 60 for the process that strangers reach.
    const MOST: usize = 60;

    #[test]
    fn every_profile_compiles_for_the_boards_and_is_short() {
        for service in &TABLE {
            Filter::compile_for(service.profile, TargetArch::aarch64)
                .unwrap_or_else(|error| panic!("profiles/{}.toml: {error}", service.name));
            let names = names(service.profile).unwrap();
            assert!(names.len() <= MOST, "{}: {} system calls", service.name, names.len());
        }
    }

    #[test]
    fn none_may_start_processes_mount_or_trace() {
        const NEVER: [&str; 14] = [
            "fork",
            "vfork",
            "unshare",
            "setns",
            "mount",
            "umount2",
            "ptrace",
            "bpf",
            "kexec_load",
            "init_module",
            "process_vm_writev",
            "pivot_root",
            "chroot",
            "reboot",
        ];
        for service in &TABLE {
            let names = names(service.profile).unwrap();
            let bad = names.iter().filter(|name| NEVER.contains(&name.as_str())).collect::<Vec<_>>();
            assert!(bad.is_empty(), "{}: {bad:?}", service.name);
        }
    }

    #[test]
    fn mistakes_are_told() {
        let error = |text: &str| Filter::compile_for(text, TargetArch::aarch64).unwrap_err().to_string();
        assert!(error("[[group]]\nreason = \"a\"\nallow = [\"red\"]").contains("red"));
        assert_eq!(error("[[group]]\nreason = \"a\"\nallow = [\"read\", \"read\"]"), "read is allowed twice");
        assert!(error("[[group]]\nreason = \"\"\nallow = [\"read\"]").contains("reason"));
        assert!(error("[[group]]\nwhy = \"a\"\nallow = [\"read\"]").contains("why"));
    }
}

//! seccomp: the list of system calls a service may make. Any other ends it.

use std::collections::HashSet;
use std::env::consts::ARCH;

use nix::libc::ENOSYS;
use seccompiler::{BpfProgram, TargetArch, compile_from_json};
use serde::Deserialize;

use crate::kernel;

/// A list as it is written in `profiles/`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    group: Vec<Group>,
}

/// System calls that are named for one reason.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    reason: String,
    /// They may be made.
    #[serde(default)]
    allow: Vec<Entry>,
    /// They are tried by a library that does without when it hears that this kernel has none of it (`ENOSYS`).
    #[serde(default)]
    refuse: Vec<String>,
}

/// A system call, with any arguments or with some only.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Entry {
    Any(String),
    Only(Only),
}

/// One of these values, in the bits of the mask.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Only {
    call: String,
    /// Counted from 0.
    argument: u8,
    #[serde(default = "all_bits")]
    mask: u64,
    values: Vec<u64>,
}

const fn all_bits() -> u64 {
    u64::MAX
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
    #[error("{0} is named twice")]
    Twice(String),
    /// Not known, on this CPU at least.
    #[error("{0}")]
    Compile(#[from] seccompiler::Error),
}

/// A list, compiled.
#[derive(Debug)]
pub(crate) struct Filter {
    /// Ends the process that makes another call.
    kill: BpfProgram,
    /// Of those that remain, refuses some. The kernel takes the stricter answer.
    refuse: Option<BpfProgram>,
}

impl Filter {
    /// Compiles a profile for this CPU.
    pub(crate) fn compile(profile: &str) -> Result<Self, ProfileError> {
        Self::compile_for(profile, ARCH.try_into().map_err(seccompiler::Error::from)?)
    }

    fn compile_for(profile: &str, arch: TargetArch) -> Result<Self, ProfileError> {
        let Lists { allow, refuse } = lists(profile)?;
        let refused = refuse.iter().cloned().map(Entry::Any).collect::<Vec<_>>();
        let passed = allow.iter().chain(&refused).map(rules).collect::<Vec<_>>().join(",");
        let kill = compile("\"kill_process\"", "\"allow\"", &passed, arch)?.ok_or(ProfileError::Empty)?;
        let refused = refused.iter().map(rules).collect::<Vec<_>>().join(",");
        let refuse = match refused.as_str() {
            "" => None,
            refused => compile("\"allow\"", &format!("{{\"errno\":{ENOSYS}}}"), refused, arch)?,
        };
        Ok(Self { kill, refuse })
    }

    /// Puts this process under the list, for good. Allocates nothing.
    pub(crate) fn apply(&self) -> nix::Result<()> {
        // In this order: the other one would end the process that adds a second one.
        self.refuse.as_ref().map_or(Ok(()), |refuse| kernel::add_filter(refuse))?;
        kernel::add_filter(&self.kill)
    }
}

fn compile(
    mismatch: &str,
    matches: &str,
    filter: &str,
    arch: TargetArch,
) -> Result<Option<BpfProgram>, ProfileError> {
    // The compiler takes JSON.
    let json = format!(
        "{{\"it\":{{\"mismatch_action\":{mismatch},\"match_action\":{matches},\"filter\":[{filter}]}}}}"
    );
    Ok(compile_from_json(json.as_bytes(), arch)?.remove("it").filter(|program| !program.is_empty()))
}

/// An entry as JSON rules, of which one has to hold.
fn rules(entry: &Entry) -> String {
    match entry {
        Entry::Any(call) => format!("{{\"syscall\":{call:?}}}"),
        Entry::Only(Only { call, argument, mask, values }) => {
            let rule = |value: &u64| {
                format!(
                    "{{\"syscall\":{call:?},\"args\":[{{\"index\":{argument},\"type\":\"qword\",\
                     \"op\":{{\"masked_eq\":{mask}}},\"val\":{value}}}]}}"
                )
            };
            values.iter().map(rule).collect::<Vec<_>>().join(",")
        }
    }
}

/// What a profile names, each once.
#[derive(Debug, Default)]
struct Lists {
    allow: Vec<Entry>,
    refuse: Vec<String>,
}

fn lists(profile: &str) -> Result<Lists, ProfileError> {
    let profile = toml::from_str::<Profile>(profile)?;
    let (mut seen, mut lists) = (HashSet::new(), Lists::default());
    for group in profile.group {
        if group.reason.is_empty() || (group.allow.is_empty() && group.refuse.is_empty()) {
            return Err(ProfileError::Empty);
        }
        for name in group.allow.iter().map(Entry::name).chain(group.refuse.iter().map(String::as_str)) {
            if !seen.insert(name.to_owned()) {
                return Err(ProfileError::Twice(name.to_owned()));
            }
        }
        lists.allow.extend(group.allow);
        lists.refuse.extend(group.refuse);
    }
    Ok(lists)
}

impl Entry {
    fn name(&self) -> &str {
        match self {
            Self::Any(call) | Self::Only(Only { call, .. }) => call,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Fork;
    use crate::service::TABLE;
    use nix::sys::signal::Signal;
    use nix::sys::wait::{WaitStatus, waitpid};

    /// `appliance.md` §8: at most 60 for the process that strangers reach.
    const MOST: usize = 60;

    fn allowed(profile: &str) -> Vec<String> {
        lists(profile).unwrap().allow.iter().map(|entry| entry.name().to_owned()).collect()
    }

    #[test]
    fn every_profile_compiles_for_the_boards_and_is_short() {
        for service in &TABLE {
            Filter::compile_for(service.profile, TargetArch::aarch64)
                .unwrap_or_else(|error| panic!("profiles/{}.toml: {error}", service.name));
            let count = allowed(service.profile).len();
            assert!(count <= MOST, "{}: {count} system calls", service.name);
        }
    }

    #[test]
    fn none_may_start_processes_mount_or_trace() {
        const NEVER: [&str; 15] = [
            "fork",
            "vfork",
            "clone3",
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
            let lists = lists(service.profile).unwrap();
            let names = lists.allow.iter().map(Entry::name);
            let bad = names.filter(|name| NEVER.contains(name)).collect::<Vec<_>>();
            assert!(bad.is_empty(), "{}: {bad:?}", service.name);
            let any_clone =
                lists.allow.iter().any(|entry| matches!(entry, Entry::Any(name) if name == "clone"));
            assert!(!any_clone, "{}: clone makes processes, too, unless it is kept to threads", service.name);
        }
    }

    fn behind(filter: &Filter) -> nix::Result<()> {
        kernel::no_new_privileges()?;
        filter.apply()
    }

    /// How a child ends that goes behind `profile` and then does `task`.
    fn ends(profile: &str, task: fn() -> i32) -> WaitStatus {
        let filter = Filter::compile(profile).unwrap();
        match kernel::fork(None).unwrap() {
            Fork::Child => {
                crate::reboot::this_is_a_child();
                kernel::exit_now(if behind(&filter).is_ok() { task() } else { 99 })
            }
            Fork::Parent { pid, .. } => waitpid(pid, None).unwrap(),
        }
    }

    #[test]
    fn what_is_not_listed_kills_and_what_is_refused_does_not() {
        let profile = "[[group]]\nreason = \"a\"\nallow = [\"exit_group\"]\n\
                       [[group]]\nreason = \"b\"\nrefuse = [\"getppid\", \"prctl\"]\n";
        let listed = ends(profile, || 7);
        assert!(matches!(listed, WaitStatus::Exited(_, 7)), "{listed:?}");
        // getppid cannot fail, so what it gives is the refusal itself.
        let refused = ends(profile, || i32::from(nix::unistd::getppid().as_raw() < 0));
        assert!(matches!(refused, WaitStatus::Exited(_, 1)), "{refused:?}");
        let other = ends(profile, || nix::unistd::getuid().as_raw().cast_signed());
        assert!(matches!(other, WaitStatus::Signaled(_, Signal::SIGSYS, _)), "{other:?}");
    }

    #[test]
    fn an_argument_decides() {
        let profile = "[[group]]\nreason = \"a\"\nallow = [\"exit_group\", \"close\", \"fcntl\", \
                       { call = \"socket\", argument = 0, values = [1, 2] }]\n";
        let unix = ends(profile, || i32::from(std::os::unix::net::UnixDatagram::unbound().is_ok()));
        assert!(matches!(unix, WaitStatus::Exited(_, 1)), "{unix:?}");
        let six = ends(profile, || i32::from(std::net::UdpSocket::bind("[::]:0").is_ok()));
        assert!(matches!(six, WaitStatus::Signaled(_, Signal::SIGSYS, _)), "{six:?}");
    }

    #[test]
    fn mistakes_are_told() {
        let error = |text: &str| Filter::compile_for(text, TargetArch::aarch64).unwrap_err().to_string();
        assert!(error("[[group]]\nreason = \"a\"\nallow = [\"red\"]").contains("red"));
        assert_eq!(
            error("[[group]]\nreason = \"a\"\nallow = [\"read\"]\nrefuse = [\"read\"]"),
            "read is named twice"
        );
        assert!(error("[[group]]\nreason = \"\"\nallow = [\"read\"]").contains("reason"));
        assert!(error("[[group]]\nwhy = \"a\"\nallow = [\"read\"]").contains("why"));
    }
}

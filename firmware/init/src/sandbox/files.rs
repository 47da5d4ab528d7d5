//! Landlock: the same walls once more, by rules that the process cannot undo and a mistake in the mounts cannot widen.

use std::io;
use std::net::SocketAddr;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, NetPort, PathBeneath,
    PathFd, Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, Scope,
};

use super::Failure;
use super::root::DEVICES;
use crate::kernel;
use crate::service::{Access, Place, Service};

/// What this program was written for: files, TCP ports, device calls, signals and abstract sockets.
const WANTED: ABI = ABI::V6;

/// What the running kernel lacks of it, for the console; `None`: nothing.
pub(crate) fn kernel_support() -> Option<String> {
    match kernel::landlock_version() {
        Ok(version) if version >= WANTED as i64 => None,
        Ok(version) => Some(format!(
            "the kernel's Landlock is version {version}, {} is wanted: services are held by mounts and filters \
             alone where it falls short",
            WANTED as i64
        )),
        Err(error) => Some(format!(
            "the kernel has no Landlock ({}): services are held by mounts and filters alone",
            error.desc()
        )),
    }
}

/// Puts this process under the rules of `service`.
pub(super) fn restrict(service: &Service, places: &[Place], own_ports: &[SocketAddr]) -> Result<(), Failure> {
    let failure = |error| Failure { step: "put Landlock rules up", error: io::Error::other(error) };
    let ruleset = rules(service, places, own_ports).map_err(|error| failure(error.to_string()))?;
    ruleset.restrict_self().map_err(|error| failure(error.to_string()))?;
    Ok(())
}

fn rules(
    service: &Service,
    places: &[Place],
    own_ports: &[SocketAddr],
) -> Result<RulesetCreated, landlock::RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::MakeSock
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer;
    // Best effort is the crate's way to say: what the kernel lacks is left out. `kernel_support` has told it.
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(WANTED))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::Signal | Scope::AbstractUnixSocket)?;
    if !service.connects {
        ruleset = ruleset.handle_access(AccessNet::ConnectTcp)?;
    }
    let mut ruleset = ruleset.create()?;
    ruleset = allow(ruleset, service.program, AccessFs::Execute | AccessFs::ReadFile)?;
    ruleset = allow(ruleset, "/proc", read)?;
    for device in DEVICES {
        ruleset = allow(ruleset, device, AccessFs::ReadFile | AccessFs::WriteFile)?;
    }
    for place in places {
        let access = match place.access {
            Access::Read => read,
            Access::Write => write,
        };
        ruleset = allow(ruleset, place.path, access)?;
    }
    for address in own_ports {
        ruleset = ruleset.add_rule(NetPort::new(address.port(), AccessNet::BindTcp))?;
    }
    Ok(ruleset)
}

fn allow(
    ruleset: RulesetCreated,
    path: &str,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, landlock::RulesetError> {
    // A place that is not there needs no rule; the mounts have said so already.
    match PathFd::new(path) {
        Ok(place) => ruleset.add_rule(PathBeneath::new(place, access)),
        Err(_) => Ok(ruleset),
    }
}

//! Who a service is: its user, its few capabilities, its limits.

use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::{Failure, step};
use crate::kernel;
use crate::service::Service;

/// Bytes that may be locked into memory: keys, and nothing else.
const LOCKED: u64 = 64 << 10;

/// Becomes the service's user. Root before, nobody's root after.
pub(super) fn assume(service: &Service) -> Result<(), Failure> {
    let limits = [
        (Resource::RLIMIT_NOFILE, service.limits.files),
        // By user, so for this service alone; the control group says the same by process tree.
        (Resource::RLIMIT_NPROC, service.limits.tasks.into()),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_MEMLOCK, LOCKED),
        (Resource::RLIMIT_MSGQUEUE, 0),
        (Resource::RLIMIT_NICE, 0),
        (Resource::RLIMIT_RTPRIO, 0),
    ];
    for (resource, limit) in limits {
        setrlimit(resource, limit, limit).map_err(step("set its limits"))?;
    }
    kernel::bound_capabilities(service.capabilities).map_err(step("bound its capabilities"))?;
    kernel::keep_capabilities(!service.capabilities.is_empty()).map_err(step("keep its capabilities"))?;
    let (user, group) = (Uid::from_raw(service.uid), Gid::from_raw(service.uid));
    setgroups(&[]).map_err(step("leave root's groups"))?;
    setresgid(group, group, group).map_err(step("change its group"))?;
    kernel::root_is_nobody().map_err(step("take root's meaning away"))?;
    setresuid(user, user, user).map_err(step("change its user"))?;
    kernel::set_capabilities(service.capabilities).map_err(step("set its capabilities"))?;
    kernel::no_new_privileges().map_err(step("forbid new privileges"))
}

//! The walls around a service: what it sees, who it is, what it may call. Built by the service's own process on its way
//! to its executable, so nothing here runs in PID 1, and what is allocated here is not PID 1's.

mod cgroup;
mod files;
mod identity;
mod root;
mod system_calls;

use core::fmt::{self, Display};
use std::fs;
use std::io;
use std::net::SocketAddr;

pub(crate) use cgroup::{Cgroup, prepare as prepare_cgroups};
pub(crate) use files::kernel_support as landlock_support;
pub(crate) use system_calls::{Filter, ProfileError};

use crate::service::Service;

/// What could not be built, and why.
#[derive(Debug)]
pub(crate) struct Failure {
    step: &'static str,
    error: io::Error,
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.step, self.error)
    }
}

/// Names the step that an error belongs to.
fn step<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Failure {
    move |error| Failure { step, error: error.into() }
}

/// Puts this process, which [`fork_apart`](crate::kernel::fork_apart) made, behind all walls. What is left to do after
/// it is exec. `own_ports` are the TCP addresses that the service opens itself.
pub(crate) fn enter(service: &Service, filter: &Filter, own_ports: &[SocketAddr]) -> Result<(), Failure> {
    // While the box's own /proc is there and we are root.
    fs::write("/proc/self/oom_score_adj", service.limits.oom_score.to_string())
        .map_err(step("set the OOM score"))?;
    root::build(service)?;
    identity::assume(service)?;
    files::restrict(service, own_ports)?;
    filter.apply().map_err(|error| Failure { step: "filter system calls", error: io::Error::other(error) })
}

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

pub(crate) use cgroup::{Cgroup, prepare as prepare_cgroups};
pub(crate) use files::kernel_support as landlock_support;
pub(crate) use system_calls::Filter;

use crate::service::{Access, Place, Service, View};
use crate::spawn::Plan;

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
/// it is exec.
pub(crate) fn enter(plan: &Plan<'_>) -> Result<(), Failure> {
    let service = plan.service;
    // While the box's own /proc is there and we are root.
    fs::write("/proc/self/oom_score_adj", service.limits.oom_score.to_string())
        .map_err(step("set the OOM score"))?;
    let places = places(service);
    root::build(service, &places)?;
    identity::assume(service)?;
    files::restrict(service, &places, plan.own_ports)?;
    plan.filter.apply().map_err(step("filter system calls"))
}

/// All that a service sees.
fn places(service: &Service) -> Vec<Place> {
    let settings = match service.settings {
        View::Folder => Some(Place { path: "/data/settings", access: Access::Read }),
        View::Document => None,
    };
    service.places.iter().copied().chain(settings).collect()
}

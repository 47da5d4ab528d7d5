//! Control groups: how much memory, how many tasks and what share of the CPU a service gets.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use crate::service::Limits;

const TREE: &str = "/sys/fs/cgroup";

/// Lets groups below the root be limited.
pub(crate) fn prepare() -> io::Result<()> {
    fs::write(Path::new(TREE).join("cgroup.subtree_control"), "+memory +pids +cpu")
}

/// A service's group.
#[derive(Debug)]
pub(crate) struct Cgroup {
    folder: File,
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

impl Cgroup {
    /// Makes the group with its limits. `memory` is the board's.
    pub(crate) fn make(name: &str, limits: &Limits, memory: u64) -> io::Result<Self> {
        let path = Path::new(TREE).join(name);
        fs::create_dir(&path)?;
        let write = |file: &str, value: String| -> io::Result<()> {
            let path: PathBuf = path.join(file);
            fs::write(&path, value)
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
        };
        write("memory.max", share(limits, memory).to_string())?;
        // All of it or nothing: half a service helps nobody.
        write("memory.oom.group", "1".to_owned())?;
        write("pids.max", limits.tasks.to_string())?;
        write("cpu.weight", limits.cpu_weight.to_string())?;
        Ok(Self { folder: File::open(path)? })
    }
}

/// Bytes of memory for a service on a board with so many.
fn share(limits: &Limits, memory: u64) -> u64 {
    (memory / 100 * limits.memory_percent).max(limits.memory_least)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::TABLE;

    #[test]
    fn all_services_together_leave_room_for_the_kernel() {
        for memory in [512u64 << 20, 1 << 30, 8 << 30] {
            let all = TABLE.iter().map(|service| share(&service.limits, memory)).sum::<u64>();
            assert!(all < memory / 100 * 80, "{all} of {memory}");
        }
    }
}

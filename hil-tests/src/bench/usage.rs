//! What a process and all it started have used: CPU time and memory, as the kernel counts them; and which core.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::clock_getcpuclockid;
use nix::unistd::{Pid, SysconfVar, sysconf};

/// CPU time, user and system, of a process, of its descendants, and of those of them that have ended and were waited
/// for. The living are read from their CPU clock, in nanoseconds; only the ended come in clock ticks.
pub fn cpu(root: u32) -> Result<Duration> {
    let tick = sysconf(SysconfVar::CLK_TCK)?.and_then(|ticks| u32::try_from(ticks).ok()).unwrap_or(100);
    let mut total = Duration::ZERO;
    for pid in tree(root)? {
        let Ok(clock) = clock_getcpuclockid(Pid::from_raw(pid.cast_signed())) else {
            continue; // ended just now; its parent's count of the ended has it
        };
        let Ok(time) = clock.now() else { continue };
        total += Duration::from(time);
        if let Some(stat) = stat(pid) {
            total += Duration::from_secs(1) * stat.children_ticks / tick;
        }
    }
    Ok(total)
}

/// Proportional set size of a process and its descendants, in octets: userland memory, shared pages divided among
/// those who share them.
pub fn pss(root: u32) -> Result<u64> {
    let mut total = 0;
    for pid in tree(root)? {
        let path = format!("/proc/{pid}/smaps_rollup");
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let kib = text.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB"));
        total += 1024
            * kib.and_then(|kib| kib.parse::<u64>().ok()).with_context(|| format!("no Pss in {path}"))?;
    }
    Ok(total)
}

/// Cores that this process may use, ascending.
pub fn cores() -> Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|&core| set.is_set(core).unwrap_or(false)).collect())
}

/// Keeps this thread, and every process it starts from now on, on one core.
pub fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("cannot stay on core {core}"))
}

/// Processes with a running descent from `root`, itself first.
fn tree(root: u32) -> Result<Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some((pid, stat)) = pid.and_then(|pid| Some((pid, stat(pid)?))) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    Ok(found)
}

struct Stat {
    parent: u32,
    /// User and system time of ended children, in clock ticks.
    children_ticks: u32,
}

/// proc(5), `/proc/pid/stat`: the name in parentheses may hold anything, so count from behind the last one.
fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |field: usize| fields.get(field)?.parse::<u32>().ok();
    Some(Stat { parent: number(1)?, children_ticks: number(13)? + number(14)? })
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Instant;

    use super::*;

    #[test]
    fn counts_own_work_and_that_of_ended_children() {
        let me = std::process::id();
        let before = cpu(me).unwrap();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(30) {
            std::hint::black_box(start.elapsed());
        }
        let worked = cpu(me).unwrap();
        assert!(worked > before, "{worked:?} after {before:?}");
        Command::new("sh")
            .args(["-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"])
            .status()
            .unwrap();
        let with_child = cpu(me).unwrap();
        assert!(with_child >= worked + Duration::from_millis(10), "{with_child:?} after {worked:?}");
        assert!(pss(me).unwrap() > 500_000);
        assert!(!cores().unwrap().is_empty());
    }
}

//! The disk that holds Postern, and its partitions by role, whatever numbers they have.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::descriptor::StoragePart;
pub use crate::grow::{Growth, grow_data};
use crate::machine::Machine;

/// What a partition is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// The selector and the rescue firmware (EFI system partition).
    Boot,
    /// The first slot for a firmware.
    A,
    /// The second slot for a firmware.
    B,
    /// The state records.
    State,
    /// Settings and the device database.
    Data,
}

impl Role {
    /// All five, in their order on the disk.
    pub const ALL: [Self; 5] = [Self::Boot, Self::A, Self::B, Self::State, Self::Data];

    /// The partition's name in the partition table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Boot => "postern-boot",
            Self::A => "postern-a",
            Self::B => "postern-b",
            Self::State => "postern-state",
            Self::Data => "postern-data",
        }
    }
}

/// A disk that holds all five partitions.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Disk {
    /// The kernel's name, such as `mmcblk0`.
    pub name: String,
    /// The device file of the whole disk.
    pub device: PathBuf,
    /// Whether it can be pulled out: marked removable, or on USB.
    pub removable: bool,
    /// Its length in sectors of 512 bytes, whatever its own are.
    pub sectors: u64,
    /// Its own sectors, in bytes.
    pub sector_size: u64,
    /// One for each role, in the order of [`Role::ALL`].
    pub partitions: [Partition; 5],
}

impl Disk {
    /// The partition for a role.
    pub const fn partition(&self, role: Role) -> &Partition {
        &self.partitions[role as usize]
    }
}

/// A partition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Partition {
    /// The kernel's name, such as `mmcblk0p5`.
    pub name: String,
    /// Its device file.
    pub device: PathBuf,
    /// Its number in the table, from 1.
    pub number: u32,
    /// Where it begins, in sectors of 512 bytes.
    pub start: u64,
    /// Its length, in sectors of 512 bytes.
    pub sectors: u64,
}

/// No disk holds all five partitions.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "disk: none of {} holds Postern{}; write an image to one of them, or check [storage] disks in the board's descriptor",
    .patterns.join(", "), listed(.seen)
)]
pub struct NoDisk {
    /// What the descriptor looks for.
    pub patterns: Vec<String>,
    /// The disks that are there, each with the partitions it lacks, by name.
    pub seen: Vec<(String, Vec<&'static str>)>,
}

fn listed(seen: &[(String, Vec<&'static str>)]) -> String {
    if seen.is_empty() {
        return ": no such disk is there".into();
    }
    let disks = seen.iter().map(|(disk, missing)| match missing.len() {
        5 => format!("{disk} has none of its partitions"),
        _ => format!("{disk} lacks {}", missing.join(", ")),
    });
    format!(": {}", disks.collect::<Vec<_>>().join("; "))
}

/// How often a disk that is not there yet is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// Finds the disk, waiting for one as long as the descriptor says.
///
/// A disk that can be pulled out is only taken when the time is over: what somebody plugs in must not stand before the
/// board's own disk because that one is slow.
pub fn wait(machine: &Machine, part: &StoragePart) -> Result<Disk, NoDisk> {
    let start = Instant::now();
    loop {
        let found = find(machine, part);
        if found.as_ref().is_ok_and(|disk| !disk.removable) || start.elapsed() >= part.wait {
            return found;
        }
        thread::sleep(LOOK);
    }
}

/// Finds the disk among those that are there now: fixed before removable, then in the order of the patterns.
pub fn find(machine: &Machine, part: &StoragePart) -> Result<Disk, NoDisk> {
    let mut candidates = Vec::new();
    let block = Path::new("class/block");
    for name in machine.names(block) {
        let whole = !machine.sys.join(block).join(&name).join("partition").exists();
        let preference = part.disks.iter().position(|pattern| matches(pattern, &name));
        if let (true, Some(preference)) = (whole, preference) {
            candidates.push((removable(machine, &name), preference, name));
        }
    }
    candidates.sort();
    let mut seen = Vec::new();
    for (removable, _, name) in candidates {
        match read(machine, &name, removable) {
            Ok(disk) => return Ok(disk),
            Err(missing) => seen.push((name, missing)),
        }
    }
    Err(NoDisk { patterns: part.disks.clone(), seen })
}

/// The disk with its partitions, or the names of those it lacks.
fn read(machine: &Machine, name: &str, removable: bool) -> Result<Disk, Vec<&'static str>> {
    let block = Path::new("class/block").join(name);
    let partitions = machine.names(&block).into_iter().filter_map(|part| partition(machine, &block, &part));
    let partitions = partitions.collect::<Vec<_>>();
    let find = |role: Role| partitions.iter().find(|(label, _)| label == role.name());
    let [Some(boot), Some(a), Some(b), Some(state), Some(data)] = Role::ALL.map(find) else {
        return Err(Role::ALL.iter().filter(|role| find(**role).is_none()).map(|role| role.name()).collect());
    };
    Ok(Disk {
        name: name.to_owned(),
        device: machine.dev.join(name),
        removable,
        sectors: machine.number(block.join("size")).unwrap_or(0),
        sector_size: machine.number(block.join("queue/logical_block_size")).unwrap_or(512),
        partitions: [boot, a, b, state, data].map(|(_, partition)| partition.clone()),
    })
}

/// A partition with its name in the table; `None` for a folder that is no partition, or one without a name.
fn partition(machine: &Machine, disk: &Path, name: &str) -> Option<(String, Partition)> {
    let folder = disk.join(name);
    let number = u32::try_from(machine.number(folder.join("partition"))?).ok()?;
    let event = machine.attribute(folder.join("uevent"))?;
    let field = |key: &str| event.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let partition = Partition {
        device: machine.dev.join(field("DEVNAME").unwrap_or(name)),
        name: name.to_owned(),
        number,
        start: machine.number(folder.join("start"))?,
        sectors: machine.number(folder.join("size"))?,
    };
    Some((field("PARTNAME")?.to_owned(), partition))
}

/// Marked so by its driver, or reached over USB (USB disks that are no sticks are not marked).
fn removable(machine: &Machine, name: &str) -> bool {
    let folder = Path::new("class/block").join(name);
    let over_usb = || {
        let path = machine.sys.join(&folder).canonicalize().unwrap_or_default();
        path.components().any(|part| part.as_os_str().to_string_lossy().starts_with("usb"))
    };
    machine.number(folder.join("removable")) == Some(1) || over_usb()
}

/// Whether a name fits a pattern in which `*` stands for any characters.
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|tail| {
            (0..=tail.len()).filter(|at| tail.is_char_boundary(*at)).any(|at| matches(rest, &tail[at..]))
        }),
    }
}

//! The partition table of a box: boot, two slots, their state, data (design §7).
//!
//! Every identifier follows from a role's name, so that the same sizes give the same bytes; the box finds partitions by
//! name (`PARTNAME`), and only on the disk it was started from.

use std::collections::BTreeMap;
use std::fs::File;

use anyhow::{Context, Result, ensure};
use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;
use gpt::partition::Partition;
use gpt::partition_types::{OperatingSystem, Type};
use ring::digest;
use uuid::{Builder, Uuid, uuid};

const MIB: u64 = 1 << 20;
const SECTOR: u64 = 512;

/// The smallest data partition: the template of the file system, and as much again to grow into.
pub(crate) const SMALLEST_DATA: u64 = 2 * crate::template::SIZE;

/// What a partition is for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Role {
    /// FAT: the selector, the rescue firmware, the factory's settings. Written in the factory only.
    Boot,
    /// First slot for firmware.
    A,
    /// Second slot for firmware.
    B,
    /// Which slot boots, in two copies.
    State,
    /// What the box keeps: settings and the device database.
    Data,
}

impl Role {
    /// All of them, in their order on the disk.
    pub(crate) const ALL: [Self; 5] = [Self::Boot, Self::A, Self::B, Self::State, Self::Data];

    /// The partition's name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Boot => "postern-boot",
            Self::A => "postern-a",
            Self::B => "postern-b",
            Self::State => "postern-state",
            Self::Data => "postern-data",
        }
    }

    /// Its size; data takes the rest.
    const fn size(self) -> Option<u64> {
        match self {
            Self::Boot => Some(64 * MIB),
            Self::A | Self::B => Some(32 * MIB),
            Self::State => Some(MIB),
            Self::Data => None,
        }
    }

    /// What other systems take it for: ours alone know a slot and its state.
    fn kind(self) -> Type {
        let (guid, os) = match self {
            Self::Boot => (uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"), OperatingSystem::None),
            Self::A | Self::B => (identifier("postern slot"), OperatingSystem::Custom("postern".into())),
            Self::State => (identifier("postern state"), OperatingSystem::Custom("postern".into())),
            Self::Data => (uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4"), OperatingSystem::Linux),
        };
        Type { guid, os }
    }
}

/// A name's identifier: the start of its SHA-256, marked as made by us (version 8, RFC 9562 §5.8).
fn identifier(name: &str) -> Uuid {
    let hash = digest::digest(&digest::SHA256, name.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(hash.as_ref().split_at(16).0);
    Builder::from_custom_bytes(bytes).into_uuid()
}

/// Where a partition lies, in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Extent {
    /// First byte.
    pub start: u64,
    /// How many.
    pub length: u64,
}

/// Where each partition of a disk of `size` bytes lies.
pub(crate) fn layout(size: u64) -> Result<BTreeMap<Role, Extent>> {
    ensure!(size.is_multiple_of(MIB), "a disk of {size} bytes: give a multiple of 1 MiB ({MIB} bytes)");
    let mut extents = BTreeMap::new();
    // The table stands in the first MiB, its copy in the last.
    let (mut start, end) = (MIB, size.saturating_sub(MIB));
    for role in Role::ALL {
        let length = role.size().unwrap_or(end.saturating_sub(start));
        extents.insert(role, Extent { start, length });
        start += length;
    }
    let data = extents.get(&Role::Data).map_or(0, |extent| extent.length);
    ensure!(
        data >= SMALLEST_DATA,
        "a disk of {} MiB leaves {} MiB for data, which needs {}: give at least {} MiB",
        size / MIB,
        data / MIB,
        SMALLEST_DATA / MIB,
        (size - data + SMALLEST_DATA).max(start - data + SMALLEST_DATA) / MIB
    );
    Ok(extents)
}

/// Writes table and copy to a file that has the disk's size already.
pub(crate) fn write(file: &mut File, extents: &BTreeMap<Role, Extent>) -> Result<()> {
    let sectors = file.metadata()?.len() / SECTOR;
    let protective = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
    ProtectiveMBR::with_lb_size(protective)
        .overwrite_lba0(file)
        .context("cannot write the protective MBR")?;
    let mut table = gpt::GptConfig::new()
        .writable(true)
        .logical_block_size(LogicalBlockSize::Lb512)
        .create_from_device(&mut *file, Some(identifier("postern disk")))
        .context("cannot make a partition table")?;
    let partitions = (1..).zip(extents).map(|(number, (role, extent))| {
        let partition = Partition {
            part_type_guid: role.kind(),
            part_guid: identifier(role.name()),
            first_lba: extent.start / SECTOR,
            last_lba: (extent.start + extent.length) / SECTOR - 1,
            flags: 0,
            name: role.name().to_owned(),
        };
        (number, partition)
    });
    table.update_partitions(partitions.collect()).context("cannot make a partition table")?;
    table.write().context("cannot write the partition table")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::command;

    #[test]
    fn sgdisk_finds_nothing_wrong() {
        let disk = tempfile::NamedTempFile::new().unwrap();
        let mut file = disk.reopen().unwrap();
        file.set_len(512 * MIB).unwrap();
        let extents = layout(512 * MIB).unwrap();
        write(&mut file, &extents).unwrap();
        let sgdisk = command::find("sgdisk").expect("sgdisk is installed (gdisk)");
        let verdict = command::text(Command::new(&sgdisk).arg("--verify").arg(disk.path())).unwrap();
        assert!(verdict.contains("No problems found"), "{verdict}");
        let list = command::text(Command::new(&sgdisk).arg("--print").arg(disk.path())).unwrap();
        for role in Role::ALL {
            assert!(list.contains(role.name()), "{list}");
        }
        let boot = command::text(Command::new(&sgdisk).arg("--info=1").arg(disk.path())).unwrap();
        assert!(boot.contains("EFI system partition"), "{boot}");
        let first = std::fs::read(disk.path()).unwrap();
        write(&mut file, &extents).unwrap();
        assert!(first == std::fs::read(disk.path()).unwrap());
    }

    #[test]
    fn roles_have_identifiers_of_their_own() {
        let all: std::collections::BTreeSet<Uuid> =
            Role::ALL.iter().map(|role| identifier(role.name())).collect();
        assert_eq!(all.len(), Role::ALL.len());
        assert!(all.iter().all(|uuid| uuid.get_version_num() == 8));
    }

    #[test]
    fn a_disk_too_small_is_refused() {
        let error = layout(200 * MIB).unwrap_err().to_string();
        assert_eq!(error, "a disk of 200 MiB leaves 69 MiB for data, which needs 128: give at least 259 MiB");
        assert!(layout(259 * MIB).is_ok());
        assert!(layout(100 * MIB).is_err());
        assert!(layout(512 * MIB + 1).is_err());
    }
}

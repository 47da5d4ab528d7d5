//! Device paths: how firmware names disks, partitions and files (UEFI specification §10.3).
#![allow(unsafe_code, reason = "reads nodes where the firmware keeps them")]

use core::{ptr, slice};

use uefi_raw::protocol::device_path::{DevicePathProtocol, DeviceSubType, DeviceType};

use crate::gpt::Partition;

/// A device path of our own, always with its end node.
#[derive(Clone, Copy)]
pub struct Path {
    bytes: [u8; LARGEST],
    /// Bytes before the end node.
    length: usize,
}

impl Path {
    /// The path of the disk that a partition or a file on it lies on; `None` if there is no partition in the path.
    ///
    /// # Safety
    /// `path` is the first node of a whole device path.
    pub unsafe fn disk_of(path: &DevicePathProtocol) -> Option<Self> {
        // SAFETY: as the caller promises.
        unsafe { Self::copy(path, |node| is(node, DeviceType::MEDIA, DeviceSubType::MEDIA_HARD_DRIVE)) }
            .and_then(|(path, cut)| cut.then_some(path))
    }

    /// The path of a file on the volume that `path` names.
    ///
    /// # Safety
    /// `path` is the first node of a whole device path.
    pub unsafe fn file(path: &DevicePathProtocol, name: &str) -> Option<Self> {
        // SAFETY: as the caller promises.
        let (mut file, _) = unsafe { Self::copy(path, |_| false) }?;
        let mut node = [0; 4 + 2 * 64];
        let end = 4 + 2 * (name.len() + 1);
        for (unit, byte) in node.get_mut(4..end)?.chunks_exact_mut(2).zip(name.bytes()) {
            unit[0] = byte;
        }
        header(&mut node, DeviceType::MEDIA, DeviceSubType::MEDIA_FILE_PATH, end)?;
        file.push(&node[..end])?;
        Some(file)
    }

    /// The path of a partition of this disk.
    pub fn partition(&self, partition: &Partition) -> Option<Self> {
        let mut node = [0; 42];
        node[4..8].copy_from_slice(&partition.number.to_le_bytes());
        node[8..16].copy_from_slice(&partition.first.to_le_bytes());
        node[16..24].copy_from_slice(&partition.sectors.to_le_bytes());
        node[24..40].copy_from_slice(&partition.guid);
        node[40..42].fill(2); // the table is a GPT, the signature a GUID
        let length = node.len();
        header(&mut node, DeviceType::MEDIA, DeviceSubType::MEDIA_HARD_DRIVE, length)?;
        let mut path = *self;
        path.push(&node)?;
        Some(path)
    }

    /// As the firmware takes it.
    pub const fn as_ptr(&self) -> *const DevicePathProtocol {
        self.bytes.as_ptr().cast()
    }

    /// Whether a pointer into this path points at its end node.
    pub fn is_end(&self, node: *const DevicePathProtocol) -> bool {
        ptr::addr_eq(node, self.bytes[self.length..].as_ptr())
    }

    /// Copies nodes until the end, or until `stop` says so; and whether it did.
    ///
    /// # Safety
    /// `path` is the first node of a whole device path.
    unsafe fn copy(path: &DevicePathProtocol, stop: impl Fn(&[u8]) -> bool) -> Option<(Self, bool)> {
        let mut copy = Self { bytes: [0; LARGEST], length: 0 };
        let mut at = ptr::from_ref(path).cast::<u8>();
        loop {
            // SAFETY: every node has at least its header.
            let head = unsafe { slice::from_raw_parts(at, 4) };
            let length = usize::from(u16::from_le_bytes([head[2], head[3]]));
            // SAFETY: and as many bytes as the header says.
            let node = unsafe { slice::from_raw_parts(at, length.max(4)) };
            if node[0] == DeviceType::END.0 || stop(node) {
                copy.push(&[])?;
                return Some((copy, node[0] != DeviceType::END.0));
            }
            copy.push(node)?;
            // SAFETY: the next node follows at once, since this was not the last one.
            at = unsafe { at.add(node.len()) };
        }
    }

    /// Adds a node, and the end after it.
    fn push(&mut self, node: &[u8]) -> Option<()> {
        let end = self.length + node.len();
        let bytes = self.bytes.get_mut(self.length..end + 4)?;
        bytes[..node.len()].copy_from_slice(node);
        header(&mut bytes[node.len()..], DeviceType::END, DeviceSubType::END_ENTIRE, 4)?;
        self.length = end;
        Some(())
    }
}

/// The longest path that is worked with: no board's disk is that far away.
const LARGEST: usize = 512;

fn header(node: &mut [u8], major: DeviceType, sub: DeviceSubType, length: usize) -> Option<()> {
    let [low, high] = u16::try_from(length).ok()?.to_le_bytes();
    node.get_mut(..4)?.copy_from_slice(&[major.0, sub.0, low, high]);
    Some(())
}

fn is(node: &[u8], major: DeviceType, sub: DeviceSubType) -> bool {
    node[0] == major.0 && node[1] == sub.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `VenHw(…)/HD(1,…)/File(…)`, as U-Boot names the file it started.
    fn firmware_path() -> [u8; 20 + 42 + 8 + 4] {
        let mut bytes = [0; 74];
        bytes[..4].copy_from_slice(&[1, 4, 20, 0]);
        bytes[4..20].fill(9);
        bytes[20..24].copy_from_slice(&[4, 1, 42, 0]);
        bytes[62..66].copy_from_slice(&[4, 4, 8, 0]);
        bytes[66] = b'x';
        bytes[70..].copy_from_slice(&[0x7f, 0xff, 4, 0]);
        bytes
    }

    fn node(bytes: &[u8]) -> &DevicePathProtocol {
        // SAFETY: nodes are bytes without alignment.
        unsafe { &*bytes.as_ptr().cast() }
    }

    #[test]
    fn disk_partition_and_file() {
        let bytes = firmware_path();
        // SAFETY: a whole path.
        let disk = unsafe { Path::disk_of(node(&bytes)) }.unwrap();
        assert_eq!(disk.bytes[..20], bytes[..20]);
        assert_eq!(disk.bytes[20..24], [0x7f, 0xff, 4, 0]);
        assert!(disk.is_end(disk.bytes[20..].as_ptr().cast()) && !disk.is_end(disk.as_ptr()));

        let slot =
            disk.partition(&Partition { number: 2, guid: [3; 16], first: 0x1234, sectors: 5 }).unwrap();
        assert_eq!(slot.bytes[20..32], [4, 1, 42, 0, 2, 0, 0, 0, 0x34, 0x12, 0, 0]);
        assert_eq!(slot.bytes[44..64], [[3; 16].as_slice(), &[2, 2, 0x7f, 0xff]].concat());

        // SAFETY: a whole path.
        let file = unsafe { Path::file(node(&bytes), "\\a") }.unwrap();
        assert_eq!(file.bytes[70..84], [4, 4, 10, 0, b'\\', 0, b'a', 0, 0, 0, 0x7f, 0xff, 4, 0]);
    }

    #[test]
    fn no_partition_and_too_long() {
        let bytes = [1, 4, 6, 0, 9, 9, 0x7f, 0xff, 4, 0];
        // SAFETY: a whole path.
        assert!(unsafe { Path::disk_of(node(&bytes)) }.is_none());
        let mut long = [1; 1024];
        for at in (0..1020).step_by(6) {
            long[at..at + 6].copy_from_slice(&[1, 4, 6, 0, 9, 9]);
        }
        // SAFETY: the copy stops before the path's end, for want of room.
        assert!(unsafe { Path::disk_of(node(&long)) }.is_none());
    }
}

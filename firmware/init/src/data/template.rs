//! The empty file system, as a list of its blocks: laid on a blank partition in an order that a power cut cannot hurt.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::ext4::{LENGTH, MARK, SUPERBLOCK, Superblock};
use crate::kernel;

/// Zeroed at a time.
const STEP: u64 = 4 << 20;

/// A run of bytes of the template.
type Run<'t> = (u64, &'t [u8]);

/// Lays `template` on `device`. `random` becomes its name and its secret.
///
/// In this order: the mark; zeroes and blocks; the second half of the superblock; its first half, with the magic number,
/// one sector, which a disk writes whole or not at all; the mark away. Each is on the disk before the next begins, so
/// the partition counts as blank up to one write and as finished from it on.
pub(super) fn lay(device: &File, template: &[u8], random: &[u8; 32], feed: &dyn Fn()) -> io::Result<()> {
    let runs = runs(template)?;
    let mut superblock = superblock(&runs)?;
    superblock.rename(random);
    let size = superblock.blocks() * superblock.block_size();
    let room = device_size(device)?;
    if room < size || runs.iter().any(|(offset, bytes)| offset + bytes.len() as u64 > size) {
        return Err(invalid(format!("a file system of {size} bytes does not fit into {room}")));
    }
    device.write_all_at(MARK, 0)?;
    device.sync_all()?;
    // Not the sector with the mark.
    let mut at = 512;
    while at < size {
        let length = STEP.min(size - at);
        zero(device, at, length)?;
        at += length;
        feed();
    }
    let head = (SUPERBLOCK + LENGTH) as u64;
    for (offset, bytes) in runs {
        // What lies before its end is written last.
        let skip = usize::try_from(head.saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes.len());
        device.write_all_at(bytes.get(skip..).unwrap_or_default(), offset + skip as u64)?;
        feed();
    }
    device.sync_all()?;
    let (first, second) = superblock.bytes().split_at(LENGTH / 2);
    device.write_all_at(second, (SUPERBLOCK + LENGTH / 2) as u64)?;
    device.sync_all()?;
    device.write_all_at(first, SUPERBLOCK as u64)?;
    device.sync_all()?;
    device.write_all_at(&[0; MARK.len()], 0)?;
    device.sync_all()
}

/// Takes the list apart: offset (u64), length (u32), bytes, little-endian, to the end.
fn runs(template: &[u8]) -> io::Result<Vec<Run<'_>>> {
    let broken = || invalid("the template of the file system is damaged".to_owned());
    let (mut rest, mut runs) = (template, Vec::new());
    while !rest.is_empty() {
        let (offset, after) = rest.split_first_chunk::<8>().ok_or_else(broken)?;
        let (length, after) = after.split_first_chunk::<4>().ok_or_else(broken)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| broken())?;
        let (bytes, after) = after.split_at_checked(length).ok_or_else(broken)?;
        runs.push((u64::from_le_bytes(*offset), bytes));
        rest = after;
    }
    Ok(runs)
}

fn superblock(runs: &[Run<'_>]) -> io::Result<Superblock> {
    let at = SUPERBLOCK;
    let first = runs.iter().find(|(offset, _)| *offset == 0).map(|(_, bytes)| *bytes);
    let bytes = first.and_then(|bytes| bytes.get(at..)).and_then(|bytes| bytes.first_chunk::<LENGTH>());
    let superblock = bytes.and_then(|bytes| Superblock::parse(bytes));
    superblock.ok_or_else(|| invalid("the template has no superblock".to_owned()))
}

fn zero(device: &File, start: u64, length: u64) -> io::Result<()> {
    if kernel::zero_out(device, start, length).is_ok() {
        return Ok(());
    }
    // A plain file, in tests.
    let zeroes = vec![0; 64 << 10];
    let mut at = start;
    while at < start + length {
        let part = zeroes.len().min(usize::try_from(start + length - at).unwrap_or(usize::MAX));
        device.write_all_at(zeroes.get(..part).unwrap_or_default(), at)?;
        at += part as u64;
    }
    Ok(())
}

/// Of a block device, or of a file in tests.
fn device_size(device: &File) -> io::Result<u64> {
    kernel::device_size(device).or_else(|_| device.metadata().map(|metadata| metadata.len()))
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

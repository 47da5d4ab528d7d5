//! The tail: every operation since an export, appended and synced before sled hears of it.
//!
//! File `tail.<sequence>`: a header (magic, sequence and rolling hash it starts after, CRC-32C), then one frame per group
//! commit: length, CRC-32C, first sequence, operations, rolling hash after them. The rolling hash covers every operation
//! ever made, so a tail fits exactly one history and leftovers of another are no frames of it.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::codec::{Put, Take, crc32c, sha256_16};
use crate::error::StoreError;
use crate::file::{NO_FOLLOW, sync_folder};
use crate::key::Kind;

/// One change of one record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Op {
    pub(crate) sequence: u64,
    pub(crate) key: Vec<u8>,
    /// The sealed value; `None`: the record is removed.
    pub(crate) value: Option<Vec<u8>>,
}

/// The rolling hash after an operation.
pub(crate) fn roll(chain: &[u8; 16], op: &Op) -> [u8; 16] {
    let value = op.value.as_deref();
    let removed = [u8::from(value.is_none())];
    let crc = crc32c(&[value.unwrap_or_default()]).to_le_bytes();
    sha256_16(&[chain, &op.sequence.to_le_bytes(), &removed, &key_length(&op.key), &op.key, &crc])
}

/// A key's length in the rolling hash; keys are at most 64 octets.
fn key_length(key: &[u8]) -> [u8; 1] {
    [u8::try_from(key.len()).unwrap_or(u8::MAX)]
}

/// Where a history stands.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Point {
    /// The last operation.
    pub(crate) sequence: u64,
    /// The rolling hash after it.
    pub(crate) chain: [u8; 16],
}

const MAGIC: &[u8; 16] = b"postern tail 01\n";
const HEADER: usize = 16 + 8 + 16 + 4;
/// No frame is longer: a group commit's operations, with room to spare.
const FRAME_MAX: usize = 64 << 20;

/// The tail being written.
pub(crate) struct Tail {
    file: File,
    path: PathBuf,
    /// Octets of sound frames; everything behind is overwritten.
    pub(crate) length: u64,
}

impl Tail {
    /// Begins a tail after `start`, synced with its folder.
    pub(crate) fn create(folder: &Path, start: Point) -> Result<Self, StoreError> {
        let path = path(folder, start.sequence);
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&start.sequence.to_le_bytes());
        header.extend_from_slice(&start.chain);
        header.extend_from_slice(&crc32c(&[&header]).to_le_bytes());
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(NO_FOLLOW)
            .open(&path)
            .map_err(|error| StoreError::io(&path, &error))?;
        file.write_all_at(&header, 0)
            .and_then(|()| file.sync_all())
            .map_err(|error| StoreError::io(&path, &error))?;
        sync_folder(folder)?;
        Ok(Self { file, path, length: HEADER as u64 })
    }

    /// Goes on with a tail whose first `length` octets are sound; what is behind them is cut off.
    pub(crate) fn resume(path: &Path, length: u64) -> Result<Self, StoreError> {
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(NO_FOLLOW)
            .open(path)
            .map_err(|error| StoreError::io(path, &error))?;
        let tail = Self { file, path: path.to_owned(), length };
        tail.cut()?;
        Ok(tail)
    }

    /// Appends a frame and syncs it. After an error the file is as before, as far as the disk lets us.
    pub(crate) fn append(&mut self, ops: &[Op], after: Point) -> Result<(), StoreError> {
        let frame = frame(ops, after).ok_or(StoreError::TooLarge("a group of changes"))?;
        // With every frame the length changes, so syncing less than all would save nothing.
        let written = self.file.write_all_at(&frame, self.length).and_then(|()| self.file.sync_all());
        if let Err(error) = written {
            self.cut()?;
            return Err(StoreError::io(&self.path, &error));
        }
        self.length += frame.len() as u64;
        Ok(())
    }

    fn cut(&self) -> Result<(), StoreError> {
        self.file
            .set_len(self.length)
            .and_then(|()| self.file.sync_all())
            .map_err(|error| StoreError::ReadOnly(format!("the tail cannot be cut back: {error}")))
    }
}

/// `None` if the frame would be longer than [`FRAME_MAX`].
fn frame(ops: &[Op], after: Point) -> Option<Vec<u8>> {
    let mut body = Put::default();
    body.bytes(&ops.first().map_or(after.sequence, |op| op.sequence).to_le_bytes());
    body.number(ops.len() as u64);
    for op in ops {
        body.number(op.key.len() as u64);
        body.bytes(&op.key);
        match &op.value {
            None => body.number(0),
            Some(value) => {
                body.number(value.len() as u64 + 1);
                body.bytes(value);
            }
        }
    }
    body.bytes(&after.chain);
    let length = u32::try_from(body.0.len()).ok().filter(|_| body.0.len() <= FRAME_MAX)?;
    let mut frame = length.to_le_bytes().to_vec();
    frame.extend_from_slice(&crc32c(&[&body.0]).to_le_bytes());
    frame.extend_from_slice(&body.0);
    Some(frame)
}

/// What a tail file holds.
pub(crate) struct TailRead {
    /// The point it starts after.
    pub(crate) start: Point,
    /// Operations, in order.
    pub(crate) ops: Vec<Op>,
    /// The point after them.
    pub(crate) end: Point,
    /// Octets of header and sound frames.
    pub(crate) length: u64,
    /// Octets behind them that are no frame: an unfinished write, or damage.
    pub(crate) garbage: u64,
}

/// Reads a tail up to its first unsound frame; `None` if not even its header is sound.
pub(crate) fn read(path: &Path) -> Option<TailRead> {
    let bytes = fs::read(path).ok()?;
    let take = &mut Take(&bytes);
    let magic = take.slice(16)?;
    let start = Point { sequence: take.u64()?, chain: take.array()? };
    let crc = take.u32()?;
    if magic != MAGIC || crc != crc32c(&[bytes.get(..HEADER - 4)?]) {
        return None;
    }
    let mut read = TailRead { start, ops: Vec::new(), end: start, length: HEADER as u64, garbage: 0 };
    while let Some((ops, end, length)) = read_frame(take.0, read.end) {
        take.slice(length)?;
        read.ops.extend(ops);
        read.end = end;
        read.length += length as u64;
    }
    read.garbage = take.0.len() as u64;
    Some(read)
}

/// Whether a tail has no room for a frame behind its header: nothing was ever acknowledged on the strength of it.
pub(crate) fn is_only_begun(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.len() <= HEADER as u64)
}

/// The frame at the start of `bytes`, if it is sound and follows `before`.
fn read_frame(bytes: &[u8], before: Point) -> Option<(Vec<Op>, Point, usize)> {
    let take = &mut Take(bytes);
    let length = usize::try_from(take.u32()?).ok().filter(|length| *length <= FRAME_MAX)?;
    let crc = take.u32()?;
    let body = take.slice(length)?;
    if crc != crc32c(&[body]) {
        return None;
    }
    let take = &mut Take(body);
    let first = take.u64()?;
    if first != before.sequence + 1 {
        return None;
    }
    let mut end = before;
    let mut ops = Vec::new();
    for _ in 0..take.number()? {
        let key_length = usize::try_from(take.number()?).ok()?;
        let key = take.slice(key_length)?.to_vec();
        let value = match take.number()? {
            0 => None,
            length => Some(take.slice(usize::try_from(length - 1).ok()?)?.to_vec()),
        };
        let op = Op { sequence: end.sequence + 1, key, value };
        end = Point { sequence: op.sequence, chain: roll(&end.chain, &op) };
        ops.push(op);
    }
    (take.array::<16>()? == end.chain).then_some((ops, end, 8 + length))
}

/// The tails in a folder and the sequences they start after, oldest first.
pub(crate) fn list(folder: &Path) -> Vec<(u64, PathBuf)> {
    numbered(folder, "tail.")
}

fn path(folder: &Path, sequence: u64) -> PathBuf {
    folder.join(format!("tail.{sequence:016x}"))
}

/// Files named by a sequence of 16 hexadecimal digits, in order.
pub(crate) fn numbered(folder: &Path, prefix: &str) -> Vec<(u64, PathBuf)> {
    let mut found: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let digits = name.to_str()?.strip_prefix(prefix)?;
            (digits.len() == 16).then_some(())?;
            Some((u64::from_str_radix(digits, 16).ok()?, entry.path()))
        })
        .collect();
    found.sort();
    found
}

/// One line of sled's own journal of the last 256 operations: what was done, and the rolling hash after it.
pub(crate) fn journal_line(op: &Op, chain: &[u8; 16]) -> Vec<u8> {
    let mut put = Put::default();
    put.bytes(&op.sequence.to_le_bytes());
    put.u8(u8::from(op.value.is_none()));
    put.bytes(&crc32c(&[op.value.as_deref().unwrap_or_default()]).to_le_bytes());
    put.bytes(chain);
    put.bytes(&op.key);
    put.0
}

/// A line of the journal, read back.
pub(crate) struct JournalLine {
    pub(crate) sequence: u64,
    pub(crate) removed: bool,
    pub(crate) crc: u32,
    pub(crate) chain: [u8; 16],
    pub(crate) key: Vec<u8>,
}

impl JournalLine {
    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let take = &mut Take(body);
        let line = Self {
            sequence: take.u64()?,
            removed: take.u8()? != 0,
            crc: take.u32()?,
            chain: take.array()?,
            key: take.0.to_vec(),
        };
        (line.key.first() != Some(&(Kind::Journal as u8))).then_some(line)
    }

    /// The rolling hash this line must have, given the one before it.
    pub(crate) fn follows(&self, before: &[u8; 16]) -> bool {
        let crc = self.crc.to_le_bytes();
        let length = key_length(&self.key);
        let removed = [u8::from(self.removed)];
        self.chain == sha256_16(&[before, &self.sequence.to_le_bytes(), &removed, &length, &self.key, &crc])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::seal;

    fn op(sequence: u64) -> Op {
        let key = format!("D{}", sequence % 3).into_bytes();
        let value =
            (!sequence.is_multiple_of(5)).then(|| seal(&key, sequence, &[sequence.to_le_bytes()[0]; 40]));
        Op { sequence, key, value }
    }

    fn written(folder: &Path, frames: u64) -> (PathBuf, Vec<Op>, Point, u64) {
        let mut end = Point { sequence: 7, chain: [9; 16] };
        let mut tail = Tail::create(folder, end).unwrap();
        let mut all = Vec::new();
        for _ in 0..frames {
            let ops = vec![op(end.sequence + 1), op(end.sequence + 2)];
            for op in &ops {
                end = Point { sequence: op.sequence, chain: roll(&end.chain, op) };
            }
            tail.append(&ops, end).unwrap();
            all.extend(ops);
        }
        (path(folder, 7), all, end, tail.length)
    }

    #[test]
    fn what_was_appended_is_read_back_and_the_journal_agrees() {
        let folder = tempfile::tempdir().unwrap();
        let (path, ops, end, length) = written(folder.path(), 10);
        let read = read(&path).unwrap();
        assert_eq!((&read.ops, read.end, read.length, read.garbage), (&ops, end, length, 0));
        let mut chain = read.start.chain;
        for op in &ops {
            let line = JournalLine::decode(&journal_line(op, &roll(&chain, op))).unwrap();
            assert!(line.follows(&chain));
            assert!(!line.follows(&[0; 16]));
            chain = line.chain;
        }
        assert_eq!(list(folder.path()), [(7, path)]);
    }

    #[test]
    fn a_cut_anywhere_keeps_the_whole_frames_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let (path, ops, _, _) = written(folder.path(), 4);
        let bytes = fs::read(&path).unwrap();
        let mut kept = 0;
        for cut in HEADER..bytes.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            let read = read(&path).unwrap();
            assert_eq!(read.ops, ops[..read.ops.len()]);
            assert!(read.ops.len() >= kept);
            kept = read.ops.len();
            assert_eq!(read.length + read.garbage, cut as u64);
            let mut tail = Tail::resume(&path, read.length).unwrap();
            let next = op(read.end.sequence + 1);
            let end = Point { sequence: next.sequence, chain: roll(&read.end.chain, &next) };
            tail.append(std::slice::from_ref(&next), end).unwrap();
            let again = super::read(&path).unwrap();
            assert_eq!((again.ops.last(), again.garbage), (Some(&next), 0));
        }
        assert_eq!(kept, 6);
    }

    #[test]
    fn a_flipped_bit_never_changes_what_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let (path, ops, _, _) = written(folder.path(), 2);
        let bytes = fs::read(&path).unwrap();
        for bit in (0..bytes.len() * 8).step_by(3) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &flipped).unwrap();
            if let Some(read) = read(&path) {
                assert_eq!(read.ops, ops[..read.ops.len()]);
                assert!(read.ops.len() < ops.len());
            }
        }
    }
}

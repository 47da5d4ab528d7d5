//! Reads what QEMU's `blklogwrites` wrote down: every write and flush of a disk, in the order in which they were completed.
//!
//! The format is that of the kernel's dm-log-writes (drivers/md/dm-log-writes.c), all fields little-endian, all in sectors
//! of the log: a superblock (magic, version, number of entries, sector size), then the entries, each a header (sector,
//! sectors, flags, length of a mark) in a sector of its own and the data behind it. A discard has no data; a flush has
//! neither; a mark has its text behind the header, in the same sector.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
/// Octets of the superblock's fields, and of an entry's.
const SUPERBLOCK: usize = 28;
const HEADER: usize = 32;

const FLUSH: u64 = 1;
const FUA: u64 = 1 << 1;
const DISCARD: u64 = 1 << 2;
const MARK: u64 = 1 << 3;
const KNOWN: u64 = FLUSH | FUA | DISCARD | MARK;

/// A disk's writes, completed one after the other.
#[derive(Debug)]
pub struct Log {
    file: File,
    entries: Vec<Entry>,
}

/// One completed request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Everything completed before it lasts from here on. A write with this flag comes after its flush.
    pub flush: bool,
    /// What it changed, if anything.
    pub change: Option<Change>,
}

/// What a request did to the disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Change {
    /// The first octet of the disk.
    pub at: u64,
    /// Octets.
    pub length: u64,
    /// It lasts without a flush (force unit access).
    pub lasts: bool,
    /// Where in the log its data is; `None`: a discard, after which the disk reads as zeros here.
    pub data: Option<u64>,
}

impl Log {
    /// Reads a log. One whose QEMU was killed is read as far as it goes: the superblock counts up to the last flush only.
    ///
    /// # Errors
    /// It is no such log, or holds what the format does not have.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot read the log {}", path.display()))?;
        let Some(superblock) = Superblock::read(&file)? else {
            return Ok(Self { file, entries: Vec::new() });
        };
        let length = file.metadata()?.len();
        let sector = u64::from(superblock.sector);
        let mut entries = Vec::new();
        let mut at = sector;
        while let Some(header) = header(&file, at)? {
            let number = entries.len() as u64;
            let is_counted = number < superblock.entries;
            let [first, sectors, flags, _] = header;
            let is_empty = sectors == 0 && flags & (FLUSH | MARK) == 0;
            let data = if flags & (DISCARD | MARK) == 0 { sectors.saturating_mul(sector) } else { 0 };
            let next = at.saturating_add(sector).saturating_add(data);
            if flags & !KNOWN != 0 || is_empty || next > length {
                // QEMU reserves an entry's place before it writes it: what was under way when it died is no entry yet.
                ensure!(!is_counted, "entry {number} of the log {} is damaged", path.display());
                break;
            }
            let change = (sectors > 0).then_some(Change {
                at: first.saturating_mul(sector),
                length: sectors.saturating_mul(sector),
                lasts: flags & FUA != 0,
                data: (flags & DISCARD == 0).then_some(at + sector),
            });
            entries.push(Entry { flush: flags & FLUSH != 0, change });
            at = next;
        }
        ensure!(
            entries.len() as u64 >= superblock.entries,
            "the log {} ends before its {} entries do",
            path.display(),
            superblock.entries
        );
        Ok(Self { file, entries })
    }

    /// All requests, in the order of their completion.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What a write wrote; `None` for a discard.
    ///
    /// # Errors
    /// The log cannot be read any more.
    pub fn data(&self, change: &Change) -> Result<Option<Vec<u8>>> {
        let Some(at) = change.data else { return Ok(None) };
        let mut data = vec![0; usize::try_from(change.length)?];
        self.file.read_exact_at(&mut data, at)?;
        Ok(Some(data))
    }
}

/// How many requests of a log that is still being written had been completed by its last flush.
///
/// QEMU brings the superblock up to date before the guest hears that its flush is done. So whatever rests on a flush, such
/// as the answer to a login, rests on these entries alone.
///
/// # Errors
/// The log cannot be read.
pub fn flushed(path: &Path) -> Result<usize> {
    let file = File::open(path).with_context(|| format!("cannot read the log {}", path.display()))?;
    Ok(Superblock::read(&file)?.map_or(0, |superblock| superblock.entries).try_into()?)
}

struct Superblock {
    entries: u64,
    sector: u32,
}

impl Superblock {
    /// `None` while nothing has been flushed: QEMU has not written it yet.
    fn read(file: &File) -> Result<Option<Self>> {
        let mut bytes = Vec::with_capacity(SUPERBLOCK);
        file.take(SUPERBLOCK as u64).read_to_end(&mut bytes)?;
        if bytes.iter().all(|octet| *octet == 0) {
            return Ok(None);
        }
        let (Some(magic), Some(version), Some(entries)) =
            (word(&bytes, 0), word(&bytes, 8), word(&bytes, 16))
        else {
            bail!("a log of {} octets has no superblock", bytes.len());
        };
        ensure!(magic == MAGIC, "this is no log of blklogwrites: it begins with {magic:#x}");
        ensure!(version == VERSION, "a log of version {version}; only {VERSION} is known");
        let sector = bytes.get(24..SUPERBLOCK).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
        ensure!(sector.is_power_of_two() && sector >= 512, "a log with sectors of {sector} octets");
        Ok(Some(Self { entries, sector }))
    }
}

/// The four words of an entry's header; `None` at the end of the file.
fn header(file: &File, at: u64) -> Result<Option<[u64; 4]>> {
    let mut bytes = [0; HEADER];
    match file.read_exact_at(&mut bytes, at) {
        Ok(()) => Ok(Some([0, 8, 16, 24].map(|from| word(&bytes, from).unwrap_or(0)))),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error).context("the log cannot be read"),
    }
}

fn word(bytes: &[u8], from: usize) -> Option<u64> {
    bytes.get(from..from + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use super::*;

    /// One entry as QEMU writes it.
    pub(crate) fn entry(sector: u64, sectors: u64, flags: u64, fill: Option<u8>) -> Vec<u8> {
        let mut bytes = [sector, sectors, flags, 0].map(u64::to_le_bytes).concat();
        bytes.resize(512, 0);
        if let Some(fill) = fill {
            bytes.extend(vec![fill; usize::try_from(sectors).unwrap() * 512]);
        }
        bytes
    }

    /// A log of these entries whose superblock counts `counted` of them.
    pub(crate) fn log(counted: u64, entries: &[Vec<u8>]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut first = [MAGIC, VERSION, counted].map(u64::to_le_bytes).concat();
        first.extend(512_u32.to_le_bytes());
        first.resize(512, 0);
        file.write_all(&first).unwrap();
        for entry in entries {
            file.write_all(entry).unwrap();
        }
        file
    }

    #[test]
    fn writes_flushes_and_discards_are_read() {
        let file = log(
            3,
            &[
                entry(8, 2, 0, Some(7)),
                entry(0, 0, FLUSH, None),
                entry(1, 4, DISCARD, None),
                entry(3, 1, FLUSH | FUA, Some(9)),
            ],
        );
        let log = Log::open(file.path()).unwrap();
        let [write, flush, discard, through] = log.entries() else { panic!("{:?}", log.entries()) };
        let change = write.change.unwrap();
        assert_eq!((write.flush, change.at, change.length, change.lasts), (false, 4096, 1024, false));
        assert_eq!(log.data(&change).unwrap(), Some(vec![7; 1024]));
        assert_eq!(*flush, Entry { flush: true, change: None });
        assert_eq!(log.data(&discard.change.unwrap()).unwrap(), None);
        let change = through.change.unwrap();
        assert_eq!(
            (through.flush, change.lasts, log.data(&change).unwrap()),
            (true, true, Some(vec![9; 512]))
        );
        assert_eq!(flushed(file.path()).unwrap(), 3);
    }

    #[test]
    fn a_log_cut_off_is_read_as_far_as_it_goes_but_never_less_than_it_counts() {
        let write = entry(8, 2, 0, Some(7));
        let whole = [entry(0, 0, FLUSH, None), write.clone()];
        let half = [entry(0, 0, FLUSH, None), write[..900].to_vec()];
        let hole = [entry(0, 0, FLUSH, None), vec![0; 2048]];
        let length = |file: &tempfile::NamedTempFile| Log::open(file.path()).map(|log| log.entries().len());
        assert_eq!(length(&log(1, &whole)).unwrap(), 2);
        assert_eq!(length(&log(1, &half)).unwrap(), 1);
        assert_eq!(length(&log(1, &hole)).unwrap(), 1);
        assert!(length(&log(2, &half)).is_err());
        assert!(length(&log(2, &hole)).is_err());
        assert!(length(&log(3, &whole)).is_err());
    }

    #[test]
    fn what_is_no_log_is_refused_and_an_empty_one_is_empty() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(Log::open(file.path()).unwrap().entries(), []);
        assert_eq!(flushed(file.path()).unwrap(), 0);
        file.write_all(&[1; 600]).unwrap();
        assert!(Log::open(file.path()).unwrap_err().to_string().contains("no log of blklogwrites"));
    }
}

//! Exports: the whole database in one plain file, from which it can be rebuilt.
//!
//! File `export.<sequence>`: a header (magic, sequence, rolling hash, database), length-prefixed records, an end mark with
//! their number, and SHA-256 of everything before. Records stand in the order of their keys. They are read while the
//! database is in use, so some may be newer than the header's sequence: the tail from that sequence on holds every
//! operation since and settles it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ring::digest;

use crate::error::StoreError;
use crate::file::{NO_FOLLOW, replace};
use crate::record::KeyValue;
use crate::tail::{Point, numbered};

const MAGIC: &[u8; 16] = b"postern export1\n";
const END: u8 = 0xff;

/// Writes an export at `point`. `each` is called with a sink for sealed records, in the order of their keys.
pub(crate) fn write(
    folder: &Path,
    point: Point,
    database: [u8; 16],
    each: impl FnOnce(&mut dyn FnMut(&[u8], &[u8]) -> io::Result<()>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let path = path(folder, point.sequence);
    let mut inner = Ok(());
    let replaced = replace(&path, |file| {
        let mut file = Hashing { file, context: digest::Context::new(&digest::SHA256) };
        file.write_all(MAGIC)?;
        file.write_all(&point.sequence.to_le_bytes())?;
        file.write_all(&point.chain)?;
        file.write_all(&database)?;
        let mut count = 0_u64;
        inner = each(&mut |key, value| {
            count += 1;
            let too_long = |_| io::Error::other("a record that is too long");
            file.write_all(&[u8::try_from(key.len()).map_err(too_long)?])?;
            file.write_all(&u16::try_from(value.len()).map_err(too_long)?.to_le_bytes())?;
            file.write_all(key)?;
            file.write_all(value)
        });
        if inner.is_err() {
            return Err(io::Error::other("reading the database failed"));
        }
        file.write_all(&[END])?;
        file.write_all(&count.to_le_bytes())?;
        let hash = file.context.finish();
        file.file.write_all(hash.as_ref())
    });
    inner.and(replaced)
}

struct Hashing<'a, W> {
    file: &'a mut W,
    context: digest::Context,
}

impl<W: Write> Write for Hashing<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.context.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A sound export.
#[derive(Clone, Debug)]
pub(crate) struct Export {
    pub(crate) path: PathBuf,
    pub(crate) point: Point,
    pub(crate) database: [u8; 16],
}

impl Export {
    /// Checks a whole file; `None` if anything about it is wrong.
    pub(crate) fn check(path: &Path) -> Option<Self> {
        let length = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file)?.len();
        let mut file = open(path).ok()?.take(length.checked_sub(32)?);
        let mut context = digest::Context::new(&digest::SHA256);
        let mut buffer = vec![0; 64 * 1_024];
        loop {
            match file.read(&mut buffer).ok()? {
                0 => break,
                read => context.update(buffer.get(..read)?),
            }
        }
        let mut hash = [0; 32];
        file.into_inner().read_exact(&mut hash).ok()?;
        if context.finish().as_ref() != hash {
            return None;
        }
        let mut file = BufReader::new(open(path).ok()?);
        let (magic, sequence, chain, database) = (
            array::<16>(&mut file).ok()?,
            array(&mut file).ok()?,
            array(&mut file).ok()?,
            array(&mut file).ok()?,
        );
        let point = Point { sequence: u64::from_le_bytes(sequence), chain };
        (&magic == MAGIC).then(|| Self { path: path.to_owned(), point, database })
    }

    /// Its records: key and sealed value, in the order of the keys.
    pub(crate) fn records(&self) -> Result<Records, StoreError> {
        let mut file = BufReader::with_capacity(64 * 1_024, open(&self.path).map_err(|e| self.error(&e))?);
        io::copy(&mut Read::by_ref(&mut file).take(16 + 8 + 16 + 16), &mut io::sink())
            .map_err(|e| self.error(&e))?;
        Ok(Records { file: Some(file), path: self.path.clone() })
    }

    fn error(&self, error: &io::Error) -> StoreError {
        StoreError::io(&self.path, error)
    }
}

/// See [`Export::records`].
pub(crate) struct Records {
    file: Option<BufReader<File>>,
    path: PathBuf,
}

impl Iterator for Records {
    type Item = Result<KeyValue, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let file = self.file.as_mut()?;
        let record = record(file);
        match record {
            Ok(Some(record)) => Some(Ok(record)),
            Ok(None) => {
                self.file = None;
                None
            }
            Err(error) => {
                self.file = None;
                Some(Err(StoreError::io(&self.path, &error)))
            }
        }
    }
}

fn record(file: &mut impl Read) -> io::Result<Option<KeyValue>> {
    let [key_length] = array(file)?;
    if key_length == END {
        return Ok(None);
    }
    let value_length = u16::from_le_bytes(array(file)?);
    let mut key = vec![0; usize::from(key_length)];
    let mut value = vec![0; usize::from(value_length)];
    file.read_exact(&mut key)?;
    file.read_exact(&mut value)?;
    Ok(Some((key, value)))
}

fn array<const N: usize>(file: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(NO_FOLLOW).open(path)
}

/// The exports in a folder, oldest first, unchecked.
pub(crate) fn list(folder: &Path) -> Vec<(u64, PathBuf)> {
    numbered(folder, "export.")
}

fn path(folder: &Path, sequence: u64) -> PathBuf {
    folder.join(format!("export.{sequence:016x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_is_whole_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let point = Point { sequence: 5, chain: [3; 16] };
        let records: Vec<_> = (0..50_u8).map(|n| (vec![b'D', n], vec![n; usize::from(n)])).collect();
        write(folder.path(), point, [8; 16], |sink| {
            records
                .iter()
                .try_for_each(|(key, value)| sink(key, value))
                .map_err(|e| StoreError::io(Path::new("x"), &e))
        })
        .unwrap();
        let (sequence, path) = list(folder.path()).remove(0);
        assert_eq!(sequence, 5);
        let export = Export::check(&path).unwrap();
        assert_eq!((export.point, export.database), (point, [8; 16]));
        assert_eq!(export.records().unwrap().collect::<Result<Vec<_>, _>>().unwrap(), records);
        let bytes = fs::read(&path).unwrap();
        for at in (0..bytes.len()).step_by(7) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            fs::write(&path, &flipped).unwrap();
            assert!(Export::check(&path).is_none(), "octet {at}");
            fs::write(&path, &bytes[..at]).unwrap();
            assert!(Export::check(&path).is_none(), "cut at {at}");
        }
    }

    #[test]
    fn an_export_that_fails_leaves_the_older_one() {
        let folder = tempfile::tempdir().unwrap();
        let failed = write(folder.path(), Point::default(), [0; 16], |_| Err(StoreError::Closed));
        assert_eq!(failed, Err(StoreError::Closed));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

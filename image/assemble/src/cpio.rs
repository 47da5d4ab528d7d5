//! The archive that becomes the root file system: cpio, format "newc" (kernel, `buffer-format.rst`).
//!
//! Written here, so that the same tree always gives the same bytes: names sorted, no time, owner root, inodes counted.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

/// What one name of the archive holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Node {
    /// A folder.
    Directory,
    /// A file with its bytes.
    File(Vec<u8>),
    /// A symbolic link and where it points.
    Symlink(String),
    /// A character device: major and minor number.
    CharacterDevice(u32, u32),
}

/// A node and its permissions (the twelve low bits of a mode).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Entry {
    /// Permissions, 0 to 0o7777.
    pub permissions: u32,
    /// What it is.
    pub node: Node,
}

/// Kinds in a mode (stat.h).
const S_IFMT: u32 = 0o170_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFCHR: u32 = 0o020_000;

const MAGIC: &[u8; 6] = b"070701";
/// The magic and thirteen fields of eight hexadecimal digits.
const HEADER: usize = 110;
/// The name that ends an archive.
const TRAILER: &str = "TRAILER!!!";
/// `tar` and `cpio` write whole blocks; the kernel does not mind either way.
const BLOCK: usize = 512;

impl Entry {
    /// The mode as `stat` shows it.
    pub(crate) fn mode(&self) -> u32 {
        let kind = match self.node {
            Node::Directory => S_IFDIR,
            Node::File(_) => S_IFREG,
            Node::Symlink(_) => S_IFLNK,
            Node::CharacterDevice(..) => S_IFCHR,
        };
        kind | self.permissions
    }

    /// The bytes that follow the name.
    pub(crate) fn data(&self) -> &[u8] {
        match &self.node {
            Node::File(bytes) => bytes,
            Node::Symlink(target) => target.as_bytes(),
            Node::Directory | Node::CharacterDevice(..) => &[],
        }
    }
}

/// A tree of names, each relative to the root without a leading slash; a folder must be named before what it holds.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    /// Adds a folder.
    pub(crate) fn directory(&mut self, path: &str, permissions: u32) -> Result<()> {
        self.add(path, Entry { permissions, node: Node::Directory })
    }

    /// Adds a file.
    pub(crate) fn file(&mut self, path: &str, permissions: u32, bytes: Vec<u8>) -> Result<()> {
        self.add(path, Entry { permissions, node: Node::File(bytes) })
    }

    /// Adds a symbolic link.
    pub(crate) fn symlink(&mut self, path: &str, target: &str) -> Result<()> {
        self.add(path, Entry { permissions: 0o777, node: Node::Symlink(target.to_owned()) })
    }

    /// Adds a character device.
    pub(crate) fn character_device(
        &mut self,
        path: &str,
        permissions: u32,
        major: u32,
        minor: u32,
    ) -> Result<()> {
        self.add(path, Entry { permissions, node: Node::CharacterDevice(major, minor) })
    }

    fn add(&mut self, path: &str, entry: Entry) -> Result<()> {
        ensure!(
            !path.is_empty() && path.split('/').all(|part| !matches!(part, "" | "." | "..")),
            "{path:?} is no name for an archive: write it from the root, without a slash at either end"
        );
        if let Some((parent, _)) = path.rsplit_once('/') {
            let folder = self.entries.get(parent);
            ensure!(
                folder.is_some_and(|folder| folder.node == Node::Directory),
                "{path} would have no folder: add {parent} first"
            );
        }
        ensure!(self.entries.insert(path.to_owned(), entry).is_none(), "{path} is twice in the archive");
        Ok(())
    }

    /// Names and what they are, sorted.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(path, entry)| (path.as_str(), entry))
    }

    /// The archive as bytes.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // A folder sorts before what it holds, since its name is a prefix.
        for (inode, (path, entry)) in (1_u32..).zip(&self.entries) {
            append(&mut bytes, inode, path, entry)?;
        }
        let end = Entry { permissions: 0, node: Node::File(Vec::new()) };
        append(&mut bytes, 0, TRAILER, &end)?;
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        Ok(bytes)
    }

    /// Reads an archive back.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut archive = Self::default();
        let mut rest = bytes;
        loop {
            let (path, entry, after) = take(rest)
                .with_context(|| format!("the archive is damaged at byte {}", bytes.len() - rest.len()))?;
            let Some(entry) = entry else { return Ok(archive) };
            archive.add(&path, entry)?;
            rest = after;
        }
    }
}

fn append(bytes: &mut Vec<u8>, inode: u32, path: &str, entry: &Entry) -> Result<()> {
    let data = entry.data();
    let (mode, links) = match (path, &entry.node) {
        (TRAILER, _) => (0, 1),
        (_, Node::Directory) => (entry.mode(), 2),
        _ => (entry.mode(), 1),
    };
    let (major, minor) = match entry.node {
        Node::CharacterDevice(major, minor) => (major, minor),
        _ => (0, 0),
    };
    let length = u32::try_from(data.len()).with_context(|| format!("{path} is too long for an archive"))?;
    let name = u32::try_from(path.len() + 1).with_context(|| format!("the name {path} is too long"))?;
    bytes.extend_from_slice(MAGIC);
    // inode, mode, uid, gid, links, mtime, size, device of the file system (2), device (2), length of the name, checksum
    for field in [inode, mode, 0, 0, links, 0, length, 0, 0, major, minor, name, 0] {
        bytes.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    bytes.extend_from_slice(path.as_bytes());
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    Ok(())
}

/// One entry off the front: its name, itself (`None` at the trailer), and what follows.
fn take(bytes: &[u8]) -> Result<(String, Option<Entry>, &[u8])> {
    let header = bytes.get(..HEADER).context("no header")?;
    ensure!(header.starts_with(MAGIC), "no magic");
    let field = |index: usize| -> Result<u32> {
        let start = MAGIC.len() + 8 * index;
        let digits = header.get(start..start + 8).context("short header")?;
        Ok(u32::from_str_radix(std::str::from_utf8(digits)?, 16)?)
    };
    let (mode, size, name) = (field(1)?, field(6)? as usize, field(11)? as usize);
    let path = bytes.get(HEADER..HEADER + name).context("no name")?;
    let path = std::str::from_utf8(path.strip_suffix(&[0]).context("the name has no end")?)?.to_owned();
    if path == TRAILER {
        return Ok((path, None, &[]));
    }
    let start = (HEADER + name).next_multiple_of(4);
    let data = bytes.get(start..start + size).context("no data")?;
    let node = match mode & S_IFMT {
        S_IFDIR => Node::Directory,
        S_IFREG => Node::File(data.to_vec()),
        S_IFLNK => Node::Symlink(std::str::from_utf8(data)?.to_owned()),
        S_IFCHR => Node::CharacterDevice(field(9)?, field(10)?),
        other => bail!("{path} is of a kind that has no place here: {other:o}"),
    };
    let rest = bytes.get((start + size).next_multiple_of(4)..).unwrap_or_default();
    Ok((path, Some(Entry { permissions: mode & !S_IFMT, node }), rest))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    fn sample() -> Archive {
        let mut archive = Archive::default();
        archive.directory("etc", 0o755).unwrap();
        archive.file("etc/hosts", 0o644, b"127.0.0.1 localhost\n".to_vec()).unwrap();
        archive.symlink("etc/resolv.conf", "/run/network/resolv.conf").unwrap();
        archive.file("init", 0o755, vec![7; 5000]).unwrap();
        archive
    }

    #[test]
    fn what_is_written_is_read_back() {
        let archive = sample();
        let bytes = archive.to_bytes().unwrap();
        assert_eq!(Archive::from_bytes(&bytes).unwrap().entries, archive.entries);
        assert_eq!(bytes, sample().to_bytes().unwrap());
    }

    #[test]
    fn cpio_reads_it() {
        let mut cpio = Command::new("cpio")
            .args(["--list", "--verbose", "--numeric-uid-gid"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cpio is installed");
        cpio.stdin.take().unwrap().write_all(&sample().to_bytes().unwrap()).unwrap();
        let output = cpio.wait_with_output().unwrap();
        assert!(output.status.success());
        let list = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<&str> = list.lines().collect();
        assert_eq!(lines.len(), 4, "{list}");
        assert!(lines[0].starts_with("drwxr-xr-x   2 0        0"), "{list}");
        assert!(lines[2].ends_with("etc/resolv.conf -> /run/network/resolv.conf"), "{list}");
        assert!(lines[3].starts_with("-rwxr-xr-x   1 0        0            5000"), "{list}");
    }

    #[test]
    fn a_file_without_its_folder_is_refused() {
        let mut archive = Archive::default();
        let error = archive.file("etc/hosts", 0o644, Vec::new()).unwrap_err().to_string();
        assert_eq!(error, "etc/hosts would have no folder: add etc first");
        assert!(archive.file("/init", 0o755, Vec::new()).is_err());
    }

    #[test]
    fn a_cut_archive_is_refused() {
        let bytes = sample().to_bytes().unwrap();
        assert!(Archive::from_bytes(&bytes[..200]).is_err());
    }
}

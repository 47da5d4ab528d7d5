//! The root file system: what is on the box and nothing else. No shell, no interpreter, no dynamic loader, nothing setuid.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use object::read::elf::{FileHeader, ProgramHeader};
use ring::digest;

use crate::cpio::{Archive, Entry, Node};
use crate::release::{self, Release};
use crate::userland::Userland;
use crate::{cache, install, template};

/// How many executables a box may have (appliance goals; fewer is less to attack).
pub(crate) const MOST_EXECUTABLES: usize = 6;

/// The static file system checker, and the package it comes from.
pub(crate) const E2FSCK: &str = "e2fsck-static:arm64";

/// `localhost` without a name server.
const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost\n";

/// Folders that stay empty: what is mounted there, `init` knows.
const EMPTY: [&str; 6] = ["boot", "data", "proc", "run", "sys", "tmp"];

/// Puts the root file system together for the clone in `root`.
pub(crate) fn assemble(
    root: &Path,
    userland: &Userland,
    release: &Release,
    e2fsck: Vec<u8>,
) -> Result<Archive> {
    let mut archive = Archive::default();
    for folder in EMPTY {
        archive.directory(folder, 0o755)?;
    }
    archive.directory("dev", 0o755)?;
    // The kernel opens it for `init` before anything is mounted on /dev.
    archive.character_device("dev/console", 0o600, 5, 1)?;

    archive.directory("bin", 0o755)?;
    for (name, bytes) in &userland.programs {
        let path = if *name == "init" { "init".to_owned() } else { format!("bin/{name}") };
        archive.file(&path, 0o755, bytes.clone())?;
    }
    archive.file("bin/e2fsck", 0o755, e2fsck)?;

    archive.directory("etc", 0o755)?;
    archive.file("etc/hosts", 0o644, HOSTS.into())?;
    archive.symlink("etc/resolv.conf", "/run/network/resolv.conf")?;
    archive.directory("etc/postern", 0o755)?;
    archive.file(&format!("etc/postern/{}", release::FILE), 0o644, release.to_toml()?.into())?;
    archive.directory("etc/postern/boards", 0o755)?;
    add_boards(&mut archive, &root.join("board/boards"))?;

    archive.directory("usr", 0o755)?;
    archive.directory("usr/share", 0o755)?;
    archive.directory("usr/share/postern", 0o755)?;
    let scratch = tempfile::tempdir()?;
    archive.file("usr/share/postern/data.ext4", 0o644, template::make(scratch.path())?)?;
    check(&archive)?;
    Ok(archive)
}

/// One descriptor per board.
fn add_boards(archive: &mut Archive, folder: &Path) -> Result<()> {
    let mut boards = 0;
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            archive.file(&format!("etc/postern/boards/{name}"), 0o644, bytes)?;
            boards += 1;
        }
    }
    ensure!(boards > 0, "{} describes no board", folder.display());
    Ok(())
}

/// Debian's static `e2fsck` for the board, and its version. Unpacked into `cache`, not installed.
pub(crate) fn e2fsck(cache: &Path) -> Result<(Vec<u8>, String)> {
    install::ensure_arm64()?;
    let version = install::candidate(E2FSCK)?;
    let folder = cache::make(&cache.join("e2fsck"))?;
    let _lock = cache::Lock::take(&folder.join("lock"))?;
    let kept = folder.join(&version);
    if !kept.exists() {
        let scratch = tempfile::tempdir()?;
        install::unpack(E2FSCK, &version, scratch.path())?;
        let program = scratch.path().join("sbin/e2fsck.static");
        let bytes =
            fs::read(&program).with_context(|| format!("{E2FSCK} {version} holds no e2fsck.static"))?;
        cache::replace(&kept, &bytes)?;
    }
    Ok((fs::read(&kept)?, version))
}

/// Whether the tree keeps the promises of this file.
///
/// # Errors
/// Every executable, mode or file that does not.
pub(crate) fn check(archive: &Archive) -> Result<()> {
    let mut wrong = Vec::new();
    for (path, entry) in archive.entries() {
        if let Err(error) = check_entry(entry) {
            wrong.push(format!("  /{path}: {error:#}"));
        }
    }
    let executables = archive.entries().filter(|(_, entry)| is_executable(entry)).count();
    if executables > MOST_EXECUTABLES {
        wrong.push(format!("  {executables} executables, at most {MOST_EXECUTABLES} may be there"));
    }
    ensure!(wrong.is_empty(), "the root file system is not as promised:\n{}", wrong.join("\n"));
    Ok(())
}

fn check_entry(entry: &Entry) -> Result<()> {
    ensure!(entry.permissions & 0o7000 == 0, "setuid, setgid or sticky: mode {:o}", entry.mode());
    let Node::File(bytes) = &entry.node else { return Ok(()) };
    ensure!(entry.permissions & 0o022 == 0, "others may write it: mode {:o}", entry.mode());
    ensure!(!bytes.starts_with(b"#!"), "it is a script, and the box has no interpreter");
    if is_executable(entry) {
        check_elf(bytes)?;
    } else {
        ensure!(!bytes.starts_with(b"\x7fELF"), "it is a program, but not marked as one");
    }
    Ok(())
}

/// A program for the board's CPU that needs no dynamic loader.
fn check_elf(bytes: &[u8]) -> Result<()> {
    let header =
        object::elf::FileHeader64::<object::LittleEndian>::parse(bytes).context("no 64-bit ELF program")?;
    let endian = header.endian()?;
    ensure!(header.e_machine(endian) == object::elf::EM_AARCH64, "built for another CPU");
    for program in header.program_headers(endian, bytes)? {
        match program.p_type(endian) {
            object::elf::PT_INTERP => bail!("it asks for a dynamic loader"),
            object::elf::PT_GNU_STACK => {
                ensure!(program.p_flags(endian) & object::elf::PF_X == 0, "its stack would be executable");
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether the kernel would run it.
pub(crate) fn is_executable(entry: &Entry) -> bool {
    matches!(entry.node, Node::File(_)) && entry.permissions & 0o111 != 0
}

/// The tree as a list: mode, size, SHA-256 and path, a line each; what a review compares.
pub(crate) fn list(archive: &Archive) -> String {
    let mut list = String::new();
    for (path, entry) in archive.entries() {
        let (size, hash, arrow) = match &entry.node {
            Node::File(bytes) => (bytes.len(), sha256(bytes), String::new()),
            Node::Symlink(target) => (target.len(), "-".into(), format!(" -> {target}")),
            Node::CharacterDevice(major, minor) => (0, "-".into(), format!(" ({major}, {minor})")),
            Node::Directory => (0, "-".into(), String::new()),
        };
        // Writing to a text cannot fail.
        let _ = writeln!(list, "{:06o} {size:>9} {hash:<64} /{path}{arrow}", entry.mode());
    }
    list
}

/// A SHA-256 as text.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least that passes for a program of the board: an ELF header and one program header.
    fn elf(kind: u32) -> Vec<u8> {
        let mut bytes = vec![0; 120];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[6] = 1;
        bytes[18] = 183; // e_machine
        bytes[32] = 64; // e_phoff
        bytes[54] = 56; // e_phentsize
        bytes[56] = 1; // e_phnum
        bytes[64..68].copy_from_slice(&kind.to_le_bytes());
        bytes
    }

    fn tree(path: &str, permissions: u32, bytes: Vec<u8>) -> String {
        let mut archive = Archive::default();
        archive.directory("bin", 0o755).unwrap();
        archive.file("init", 0o755, elf(object::elf::PT_LOAD)).unwrap();
        archive.file(path, permissions, bytes).unwrap();
        check(&archive).map_or_else(|error| error.to_string().lines().skip(1).collect(), |()| String::new())
    }

    #[test]
    fn what_is_promised_is_checked() {
        let load = || elf(object::elf::PT_LOAD);
        assert_eq!(tree("bin/gateway", 0o755, load()), "");
        assert_eq!(tree("bin/ping", 0o4755, load()), "  /bin/ping: setuid, setgid or sticky: mode 104755");
        assert_eq!(tree("bin/x", 0o777, load()), "  /bin/x: others may write it: mode 100777");
        let dynamic = tree("bin/x", 0o755, elf(object::elf::PT_INTERP));
        assert_eq!(dynamic, "  /bin/x: it asks for a dynamic loader");
        assert_eq!(
            tree("bin/x", 0o755, b"#!/bin/sh\n".to_vec()),
            "  /bin/x: it is a script, and the box has no interpreter"
        );
        assert_eq!(tree("bin/x", 0o644, load()), "  /bin/x: it is a program, but not marked as one");
        let mut other = load();
        other[18] = 62;
        assert_eq!(tree("bin/x", 0o755, other), "  /bin/x: built for another CPU");
    }

    #[test]
    fn a_seventh_executable_is_refused() {
        let mut archive = Archive::default();
        for name in 1..=7 {
            archive.file(&format!("program{name}"), 0o755, elf(object::elf::PT_LOAD)).unwrap();
        }
        assert!(check(&archive).unwrap_err().to_string().ends_with("7 executables, at most 6 may be there"));
    }

    #[test]
    fn a_list_has_a_line_for_everything() {
        let mut archive = Archive::default();
        archive.directory("etc", 0o755).unwrap();
        archive.file("etc/hosts", 0o644, HOSTS.into()).unwrap();
        archive.symlink("etc/resolv.conf", "/run/network/resolv.conf").unwrap();
        let list = list(&archive);
        let lines: Vec<&str> = list.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("040755         0 -"));
        assert!(lines[1].starts_with("100644        34 "));
        assert!(lines[1].ends_with(" /etc/hosts"));
        assert!(lines[2].ends_with(" /etc/resolv.conf -> /run/network/resolv.conf"));
    }
}

//! The executable, with real keys and the real tools.

#![allow(clippy::unwrap_used)] // tests fail so, in their helpers too

mod program;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder outside every work tree, with keys.
struct Room {
    folder: tempfile::TempDir,
}

impl Room {
    fn new() -> Self {
        let room = Self { folder: tempfile::tempdir().unwrap() };
        room.sign(&["keys", "--out", "keys", "--name", "test"]).good();
        room
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn sign(&self, arguments: &[&str]) -> Ended {
        sign_in(self.folder.path(), arguments)
    }
}

fn sign_in(folder: &Path, arguments: &[&str]) -> Ended {
    Ended(Command::new(env!("CARGO_BIN_EXE_sign")).args(arguments).current_dir(folder).output().unwrap())
}

struct Ended(Output);

impl Ended {
    fn good(self) {
        assert!(self.0.status.success(), "{}", String::from_utf8_lossy(&self.0.stderr));
    }

    fn bad(self, words: &str) {
        let said = String::from_utf8_lossy(&self.0.stderr).into_owned();
        assert!(!self.0.status.success() && said.contains(words), "{said}");
    }
}

#[test]
fn keys_are_private_and_made_once() {
    let room = Room::new();
    for name in ["PK", "KEK", "db"] {
        let key = fs::metadata(room.path("keys").join(name).with_extension("key")).unwrap();
        assert_eq!(key.permissions().mode() & 0o777, 0o600);
        let certificate = fs::read_to_string(room.path("keys").join(name).with_extension("crt")).unwrap();
        assert!(certificate.starts_with("-----BEGIN CERTIFICATE-----"));
    }
    assert_eq!(fs::metadata(room.path("keys")).unwrap().permissions().mode() & 0o777, 0o700);
    let before = fs::read(room.path("keys/db.key")).unwrap();
    room.sign(&["keys", "--out", "keys", "--name", "test"]).bad("never overwritten");
    assert_eq!(fs::read(room.path("keys/db.key")).unwrap(), before);
    room.sign(&["keys", "--out", "more", "--name", "a/b"]).bad("letters, digits");
    room.sign(&["keys", "--out", "no/where", "--name", "a"]).bad("no such folder");
    assert_eq!(fs::read_dir(room.folder.path()).unwrap().count(), 1, "nothing is left behind");
}

#[test]
fn keys_stay_out_of_git() {
    let tree = tempfile::tempdir().unwrap();
    assert!(Command::new("git").args(["init", "-q"]).current_dir(&tree).status().unwrap().success());
    fs::create_dir(tree.path().join("deep")).unwrap();
    let arguments = ["keys", "--out", "deep/keys", "--name", "test"];
    sign_in(tree.path(), &arguments).bad("does not ignore it");
    fs::write(tree.path().join(".gitignore"), "keys\n").unwrap();
    sign_in(tree.path(), &arguments).good();
}

#[test]
fn signed_and_verified() {
    let room = Room::new();
    fs::write(room.path("in.efi"), program::program()).unwrap();
    let sign = ["efi", "--key", "keys/db.key", "--in", "in.efi", "--out", "out.efi"];
    room.sign(&sign).good();
    room.sign(&["verify", "--cert", "keys/db.crt", "out.efi"]).good();
    room.sign(&["verify", "--cert", "keys/KEK.crt", "out.efi"]).bad("is not signed by keys/KEK.crt");
    room.sign(&["verify", "--cert", "keys/db.crt", "in.efi"]).bad("in.efi is not signed");

    let mut tampered = fs::read(room.path("out.efi")).unwrap();
    tampered[0x300] ^= 1;
    fs::write(room.path("tampered.efi"), tampered).unwrap();
    room.sign(&["verify", "--cert", "keys/db.crt", "tampered.efi"]).bad("is not signed by");
    room.sign(&["efi", "--key", "keys/db.key", "--in", "out.efi", "--out", "twice.efi"])
        .bad("signed already");
    fs::write(room.path("text"), "#!/bin/sh").unwrap();
    room.sign(&["efi", "--key", "keys/db.key", "--in", "text", "--out", "text.efi"])
        .bad("not an EFI program");

    fs::set_permissions(room.path("keys/db.key"), fs::Permissions::from_mode(0o640)).unwrap();
    room.sign(&sign).bad("may be read by others");
    fs::remove_file(room.path("keys/db.key")).unwrap();
    room.sign(&sign).bad("no private key");
    assert!(!room.path(".out.efi.signing").exists());
}

#[test]
fn variables_need_no_private_key() {
    let room = Room::new();
    for name in ["PK", "KEK", "db"] {
        fs::remove_file(room.path("keys").join(name).with_extension("key")).unwrap();
    }
    for (format, out) in [("edk2", "vars.fd"), ("uboot", "seed"), ("esl", "lists")] {
        room.sign(&["variables", "--keys", "keys", "--format", format, "--out", out]).good();
    }
    assert_eq!(fs::metadata(room.path("vars.fd")).unwrap().len(), 64 << 20);
    let certificate = fs::read(room.path("lists/db.der")).unwrap();
    for file in ["seed", "lists/db.esl"] {
        let bytes = fs::read(room.path(file)).unwrap();
        assert!(bytes.windows(certificate.len()).any(|window| window == certificate), "{file}");
    }
    fs::write(room.path("keys/db.crt"), "nothing").unwrap();
    room.sign(&["variables", "--keys", "keys", "--format", "uboot", "--out", "seed"]).bad("db.crt");
}

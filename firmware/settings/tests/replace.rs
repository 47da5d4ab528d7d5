//! The document is replaced whole or not at all.

#![allow(clippy::unwrap_used, clippy::panic)] // tests fail so, in their helpers too

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use settings::{Kind, Settings, replace};

/// A folder with everything that a good document names.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    for name in ["chain.pem", "key.pem"] {
        fs::copy(Path::new("tests/settings/pki").join(name), folder.path().join(name)).unwrap();
    }
    let path = folder.path().join("settings.toml");
    (folder, path)
}

fn document(hostname: &str) -> String {
    format!(
        r#"
[box]
hostname = "{hostname}"
data = "."
[tls]
certificates = [{{ chain = "chain.pem", key = "key.pem" }}]
[listen]
pop3s = []
submissions = []
[backends.main]
imap.address = "127.0.0.1:993"
[control]
socket = "control"
"#
    )
}

fn names(folder: &Path) -> Vec<String> {
    let mut names = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect::<Vec<_>>();
    names.sort();
    names
}

#[test]
fn a_good_document_takes_the_place_of_the_old_one_and_keeps_its_mode() {
    let (folder, path) = folder();
    replace(&path, &document("one.example")).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let settings = replace(&path, &document("two.example")).unwrap();
    assert_eq!(settings.host.hostname.as_str(), "two.example");
    assert_eq!(Settings::load(&path).unwrap().host.hostname.as_str(), "two.example");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    // Relative paths start at the document's folder.
    assert_eq!(settings.tls.certificates[0].chain, folder.path().join("chain.pem"));
    assert_eq!(names(folder.path()), ["chain.pem", "key.pem", "settings.toml"]);
}

#[test]
fn a_bad_document_changes_nothing() {
    let (folder, path) = folder();
    replace(&path, &document("one.example")).unwrap();
    let before = fs::read(&path).unwrap();
    fs::remove_file(folder.path().join("key.pem")).unwrap();
    for (text, kind) in [("box", Kind::Syntax), (document("two.example").as_str(), Kind::Unreachable)] {
        assert_eq!(replace(&path, text).unwrap_err()[0].kind, kind);
        assert_eq!(fs::read(&path).unwrap(), before);
    }
    assert_eq!(names(folder.path()), ["chain.pem", "settings.toml"]);
}

#[test]
fn a_disk_that_refuses_leaves_the_old_document_and_no_litter() {
    let (folder, path) = folder();
    replace(&path, &document("one.example")).unwrap();
    let before = fs::read(&path).unwrap();
    // The place of the new file is taken by a folder: it cannot be written, whoever runs this.
    let blocker = folder.path().join(format!(".settings.toml.{}.new", std::process::id()));
    fs::create_dir(&blocker).unwrap();
    let errors = replace(&path, &document("two.example")).unwrap_err();
    assert!(errors[0].what.starts_with("cannot be replaced"), "{errors:?}");
    assert_eq!(fs::read(&path).unwrap(), before);
    fs::remove_dir(&blocker).unwrap();
    assert_eq!(names(folder.path()), ["chain.pem", "key.pem", "settings.toml"]);
}

//! `postern check` needs no gateway.

#![allow(clippy::unwrap_used)] // tests fail so, in their helpers too

use std::process::{Command, Output};

/// Runs the command on a file among the settings' own tests.
fn check(file: &str, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_postern")).arg("check").arg(file).args(more).output().unwrap()
}

#[test]
fn a_good_file_is_good() {
    let output = check("../settings/example.toml", &["--no-files"]);
    assert_eq!(
        (output.status.code(), str::from_utf8(&output.stdout)),
        (Some(0), Ok("../settings/example.toml: good\n"))
    );
    // Its files are on no machine.
    assert_eq!(check("../settings/example.toml", &[]).status.code(), Some(1));
}

#[test]
fn a_bad_file_is_told_with_place_and_mend() {
    let output = check("../settings/tests/settings/schema.toml", &[]);
    let expected = "\
../settings/tests/settings/schema.toml:1:10: this version of Postern reads schema 1
 1 | schema = 2
   |          ^
  mend: bring the document to this layout; the changelog says what changed

../settings/tests/settings/schema.toml: 1 mistake
";
    assert_eq!((output.status.code(), str::from_utf8(&output.stdout)), (Some(1), Ok(expected)));
}

#[test]
fn programs_get_an_object() {
    let output = check("../settings/tests/settings/unknown-key.toml", &["--json"]);
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), object["good"].as_bool()), (Some(1), Some(false)));
    let first = &object["mistakes"][0];
    assert_eq!((first["line"].as_u64(), first["column"].as_u64()), (Some(2), Some(1)));
    assert_eq!((first["kind"].as_str(), first["key"].as_str()), (Some("unknown-key"), Some("box.hostnmae")));
}

#[test]
fn a_file_that_is_not_there_is_told() {
    let output = check("no-such.toml", &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        str::from_utf8(&output.stdout).unwrap().starts_with("no-such.toml: cannot be read: No such file")
    );
}

//! Every bad descriptor in `descriptors/` has what is said of it beside it, word for word; every board is a good one.
//!
//! After a change of wording, `POSTERN_BLESS=1 cargo test -p board --features std` writes the texts anew, to be read in
//! the diff.
#![cfg(feature = "std")]
#![allow(clippy::unwrap_used, clippy::panic)] // tests fail so, in their helpers too

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use board::descriptor::AesClaim;
use board::{Descriptor, DescriptorError};

/// Relative, so that messages hold no path of the machine; tests run in the crate's folder.
fn files(folder: &str) -> Vec<PathBuf> {
    let mut files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    files
}

#[test]
fn bad_descriptors_are_told_what_where_and_how_to_mend() {
    let bless = std::env::var_os("POSTERN_BLESS").is_some();
    let mut wrong = Vec::new();
    let bad = files("tests/descriptors");
    assert!(bad.len() > 5, "where have the bad descriptors gone?");
    for file in bad {
        let mistakes = Descriptor::load(&file).err();
        let mistakes = mistakes.unwrap_or_else(|| panic!("{} should be bad", file.display()));
        let said = mistakes.iter().map(DescriptorError::to_string).collect::<Vec<_>>().join("\n") + "\n";
        let expected = file.with_extension("expected");
        if bless {
            fs::write(&expected, &said).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != said {
            wrong.push(said);
        }
    }
    assert!(wrong.is_empty(), "other words than expected:\n{}", wrong.join("\n"));
}

#[test]
fn every_board_is_described_without_a_mistake() {
    let boards = files("boards").iter().map(|file| Descriptor::load(file).unwrap()).collect::<Vec<_>>();
    let ids = boards.iter().map(|board| board.id.as_str()).collect::<Vec<_>>();
    assert_eq!(ids, ["imx8mp-evk", "raspi4b", "systemready", "virt"]);
    // Two boards that answer to one name would make the choice a matter of file names.
    let mut names = boards.iter().flat_map(|board| board.compatible.iter()).collect::<Vec<_>>();
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all);
    assert_eq!(boards.iter().filter(|board| board.fallback).count(), 1);
    assert!(boards.iter().all(|board| board.watchdog.is_some()));
}

#[test]
fn the_generic_board_is_built_in() {
    let generic = Descriptor::generic();
    assert_eq!(generic, Descriptor::load(Path::new("boards/systemready.toml")).unwrap());
    assert_eq!((generic.id.as_str(), generic.console.device.as_deref()), ("systemready", None));
}

#[test]
fn keys_mean_what_they_say() {
    let board = Descriptor::load(Path::new("boards/raspi4b.toml")).unwrap();
    assert_eq!(board.compatible, ["raspberrypi,4-model-b", "raspberrypi,4-compute-module"]);
    assert_eq!(board.cpu.aes, AesClaim::Absent);
    assert_eq!(board.watchdog.unwrap().timeout, Duration::from_secs(15));
    let button = board.button.unwrap();
    assert_eq!((button.chip, button.line), (vec!["pinctrl-bcm2711".to_owned()], 21));
    assert_eq!((button.active_low, button.hold), (true, Duration::from_secs(10)));
}

#[test]
fn a_file_that_is_misnamed_or_missing_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("other.toml");
    fs::copy("boards/virt.toml", &file).unwrap();
    let told = |file: &Path| {
        Descriptor::load(file).unwrap_err().iter().map(DescriptorError::to_string).collect::<String>()
    };
    assert!(told(&file).ends_with("other.toml: its id is \"virt\"; name the file after its id"));
    let none = told(&folder.path().join("none.toml"));
    assert!(none.contains("none.toml: cannot be read: No such file"), "{none}");
}

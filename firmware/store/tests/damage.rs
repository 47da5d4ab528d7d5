//! Damaged files: whatever is broken, every record comes back or the loss is told, and never is the database silently empty.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on should stop"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use policy::rules::Mode;
use store::{OpenReport, Overview, Store, StoreError};
use support::*;

/// A database with a locked account, an older and a newer export, and operations in the tail since.
fn sound() -> (Box_, Vec<Overview>) {
    let home = Box_::new();
    let store = home.open();
    for n in 0..60 {
        let account = format!("user{n}@example.net");
        let phone = approved(&store, &account, "phone");
        store.set_account_mode(&account, Some(Mode::Lock), NOW).unwrap();
        if n % 3 == 0 {
            store.revoke(&account, &phone, NOW).unwrap();
        }
        if n == 20 || n == 40 {
            store.export_now().unwrap();
        }
    }
    let gone =
        store.find("user1@example.net", &token(&store, "user1@example.net", "phone")).unwrap().unwrap();
    store.forget("user1@example.net", &gone.alias).unwrap();
    let all = store.accounts(NOW).unwrap();
    (home, all)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.metadata().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// A copy to break.
fn broken(home: &Box_, breaking: impl FnOnce(&Path)) -> Box_ {
    let other = Box_::new();
    copy(home.folder.path(), other.folder.path());
    breaking(&other.db());
    other
}

fn find(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(prefix))
        .collect();
    found.sort();
    found
}

fn data(db: &Path) -> PathBuf {
    find(db, "db.").pop().unwrap().join("db")
}

fn expect_all(home: &Box_, all: &[Overview]) -> OpenReport {
    let (store, report) = home.try_open().unwrap();
    assert_eq!(store.accounts(NOW).unwrap(), all, "{report:?}");
    assert_eq!(report.lost, None);
    // And it works on, and what was mended is mended.
    approved(&store, "zoe@example.net", "phone");
    drop(store);
    let (store, again) = home.try_open().unwrap();
    assert!(!again.is_alarming(), "{again:?} after {report:?}");
    assert_eq!(store.accounts(NOW).unwrap().len(), all.len() + 1);
    report
}

#[test]
fn a_sound_copy_opens_silently() {
    let (home, all) = sound();
    assert!(!expect_all(&broken(&home, |_| {}), &all).is_alarming());
}

#[test]
fn flipped_bits_in_sled_are_found_or_harmless() {
    let (home, all) = sound();
    let mut rng = Rng(7);
    let mut alarming = 0;
    for _ in 0..30 {
        let other = broken(&home, |db| {
            let path = data(db);
            let mut bytes = fs::read(&path).unwrap();
            let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
            let at = rng.below(used);
            bytes[at] ^= 1 << rng.below(8);
            fs::write(&path, bytes).unwrap();
        });
        alarming += usize::from(expect_all(&other, &all).is_alarming());
    }
    assert!(alarming > 0, "not one of 30 flips hit anything: the test flips the wrong bits");
}

#[test]
fn zeroed_blocks_and_cut_files_are_mended() {
    let (home, all) = sound();
    let length = fs::metadata(data(&home.db())).unwrap().len();
    let mut alarming = 0;
    for block in (0..length / 4_096).step_by(16) {
        let other = broken(&home, |db| {
            let path = data(db);
            let mut bytes = fs::read(&path).unwrap();
            bytes[block as usize * 4_096..][..4_096].fill(0);
            fs::write(&path, bytes).unwrap();
        });
        alarming += usize::from(expect_all(&other, &all).is_alarming());
    }
    for keep in [0, 100, 4_096, length / 2, length.saturating_sub(512 * 1_024), length - 4_096, length - 1] {
        let other = broken(&home, |db| {
            fs::OpenOptions::new().write(true).open(data(db)).unwrap().set_len(keep).unwrap();
        });
        alarming += usize::from(expect_all(&other, &all).is_alarming());
    }
    assert!(alarming > 0);
}

#[test]
fn sleds_own_files_may_be_missing_or_nonsense() {
    let (home, all) = sound();
    let folder = |db: &Path| find(db, "db.").pop().unwrap();
    let report = expect_all(&broken(&home, |db| fs::remove_dir_all(folder(db)).unwrap()), &all);
    assert!(report.rebuilt.is_some());
    expect_all(&broken(&home, |db| fs::remove_file(folder(db).join("db")).unwrap()), &all);
    expect_all(&broken(&home, |db| fs::remove_file(folder(db).join("conf")).unwrap()), &all);
    expect_all(&broken(&home, |db| fs::write(folder(db).join("conf"), "rubbish").unwrap()), &all);
    expect_all(
        &broken(&home, |db| fs::write(folder(db).join("snap.00000000000000FF"), "rubbish").unwrap()),
        &all,
    );
    let generating =
        broken(&home, |db| fs::write(folder(db).join("snap.00000000000000FF.generating"), "x").unwrap());
    assert!(!expect_all(&generating, &all).is_alarming(), "a cut-off snapshot is nothing to speak of");
    let half_built = broken(&home, |db| fs::create_dir_all(db.join("db.00000099.building/blobs")).unwrap());
    assert!(!expect_all(&half_built, &all).is_alarming());
}

#[test]
fn a_damaged_export_or_tail_is_told_and_costs_nothing() {
    let (home, all) = sound();
    for which in [0, 1] {
        let other = broken(&home, |db| {
            let path = find(db, "export.").remove(which);
            let mut bytes = fs::read(&path).unwrap();
            bytes[100] ^= 1;
            fs::write(&path, bytes).unwrap();
        });
        let report = expect_all(&other, &all);
        assert_eq!(report.is_alarming(), which == 1, "the newest is used, and missed");
    }
    for (breaking, alarming) in [
        ((|db| fs::remove_file(find(db, "tail.").pop().unwrap()).unwrap()) as fn(&Path), true),
        (
            |db| {
                let path = find(db, "tail.").pop().unwrap();
                let mut bytes = fs::read(&path).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::write(path, bytes).unwrap();
            },
            true,
        ),
        (
            |db| {
                let path = find(db, "tail.").pop().unwrap();
                let bytes = fs::read(&path).unwrap();
                fs::write(path, &bytes[..bytes.len() - 3]).unwrap();
            },
            true,
        ),
        (
            |db| {
                let path = find(db, "tail.").pop().unwrap();
                let mut bytes = fs::read(&path).unwrap();
                bytes.extend([7; 1_000]);
                fs::write(path, bytes).unwrap();
            },
            false,
        ),
        (
            |db| {
                find(db, "export.")
                    .iter()
                    .chain(&find(db, "tail."))
                    .for_each(|path| fs::remove_file(path).unwrap());
            },
            true,
        ),
    ] {
        let report = expect_all(&broken(&home, breaking), &all);
        assert_eq!(report.is_alarming(), alarming, "{report:?}");
    }
}

/// sled put back to an earlier state, sound in itself: nothing in it says that it is old.
#[test]
fn an_older_sled_is_brought_up_to_date() {
    let (home, _) = sound();
    let old = broken(&home, |_| {});
    let store = home.open();
    for n in 0..300 {
        approved(&store, &format!("late{n}@example.net"), "phone");
    }
    let all = store.accounts(NOW).unwrap();
    drop(store);
    let mixed = broken(&home, |db| {
        let folder = find(db, "db.").pop().unwrap();
        fs::remove_dir_all(&folder).unwrap();
        copy(&find(&old.db(), "db.").pop().unwrap(), &folder);
    });
    let report = expect_all(&mixed, &all);
    assert!(report.replayed >= 600, "{report:?}");
}

#[test]
fn when_everything_is_gone_the_store_says_so_and_does_not_start_empty() {
    let (home, _) = sound();
    let empty = broken(&home, |db| fs::remove_dir_all(db).unwrap());
    assert!(matches!(empty.try_open().err(), Some(StoreError::Lost(_))));
    let ruined = broken(&home, |db| {
        for path in find(db, "export.") {
            fs::write(path, "rubbish").unwrap();
        }
        fs::write(data(db), vec![0xa5; 100_000]).unwrap();
    });
    assert!(matches!(ruined.try_open().err(), Some(StoreError::Lost(_))));
    // The keys gone with a database left: no token could be recognised, so this is no fresh start either.
    let keyless = broken(&home, |_| {});
    fs::remove_file(keyless.keys()).unwrap();
    let opened = Store::open(&keyless.db(), &keyless.keys());
    assert!(matches!(opened.err(), Some(StoreError::Keys(_))));
}

#[test]
fn a_data_file_ruined_under_way_is_rebuilt_at_the_next_start() {
    let (home, all) = sound();
    let store = home.open();
    // Behind the store's back; sled reads pages from the file once its small cache has let them go, which a test cannot
    // force, so this only shows that nothing breaks when the data file is ruined under way.
    let path = data(&home.db());
    let length = fs::metadata(&path).unwrap().len();
    fs::write(&path, vec![0xa5; length as usize]).unwrap();
    let _ = store.accounts(NOW);
    drop(store);
    let (store, report) = home.try_open().unwrap();
    assert!(report.rebuilt.is_some());
    assert_eq!(store.accounts(NOW).unwrap(), all);
}

//! What owners, operators and the gateway see of the database.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on should stop"
)]

mod support;

use std::sync::Arc;

use policy::device::{Alias, Device, Mark, Standing};
use policy::login::Traits;
use policy::rules::{Layer, Mode};
use policy::verdict::{Admitted, Held, Verdict};
use store::{Attempt, Options, PENDING_MAX, Store, StoreError, Success};
use support::*;

#[test]
fn a_device_is_observed_approved_renamed_and_revoked() {
    let home = Box_::new();
    let store = home.open();
    let marks = token(&store, ANN, "phone");
    assert!(!store.lookup(ANN, &marks, NOW).unwrap().known);

    let recorded = store.record_success(success(&store, ANN, "phone", Admitted::Observed)).unwrap();
    assert!(recorded.new);
    assert_eq!(recorded.standing, Standing::Pending);
    let alias = recorded.alias.unwrap();
    assert_eq!(alias.0.len(), 6);
    let again = store.record_success(success(&store, ANN, "phone", Admitted::Observed)).unwrap();
    assert_eq!((again.alias.as_ref(), again.new), (Some(&alias), false));

    let found = store.lookup(ANN, &marks, NOW).unwrap();
    assert_eq!((found.known, found.approved, found.pending), (true, 0, 1));
    assert_eq!(found.device.unwrap().alias, alias);
    assert_eq!(store.find(ANN, &token(&store, ANN, "laptop")).unwrap(), None);
    assert_eq!(store.find("bob@example.net", &marks).unwrap(), None);

    store.approve(ANN, &alias, Some(NOW + 10), NOW).unwrap();
    assert_eq!(store.lookup(ANN, &marks, NOW + 9).unwrap().approved, 1);
    assert_eq!(store.lookup(ANN, &marks, NOW + 10).unwrap().approved, 0);
    store.rename(ANN, &alias, "Ann's\u{7} phone").unwrap();
    store.revoke(ANN, &alias, NOW).unwrap();
    let device = store.find(ANN, &marks).unwrap().unwrap();
    assert_eq!((device.name.as_str(), device.standing), ("Ann's phone", Standing::Revoked));
    // A login that was decided before the revocation does not bring it back.
    let late = store.record_success(success(&store, ANN, "phone", Admitted::Learning)).unwrap();
    assert_eq!(late.standing, Standing::Revoked);

    let listing = store.list(ANN).unwrap();
    assert_eq!(listing.devices.len(), 1);
    assert_eq!(listing.devices[0].logins, 3);
    store.forget(ANN, &alias).unwrap();
    assert_eq!(store.forget(ANN, &alias), Err(StoreError::NoDevice));
    assert_eq!(store.approve(ANN, &alias, None, NOW), Err(StoreError::NoDevice));
    store.forget_account(ANN).unwrap();
    assert_eq!(store.list(ANN), Err(StoreError::NoAccount));
}

#[test]
fn everything_comes_back_after_closing() {
    let home = Box_::new();
    let store = home.open();
    let alias = approved(&store, ANN, "phone");
    let layer = Layer { mode: Some(Mode::Lock), max_devices: Some(3), ..Layer::default() };
    store.set_account_layer(ANN, layer.clone(), NOW).unwrap();
    store.set_account_mode(ANN, Some(Mode::Learn { until: 5 }), NOW).unwrap();
    store.set_account_mode("new@example.net", Some(Mode::Lock), NOW).unwrap();
    store
        .pending_from_refusal(
            ANN,
            &token(&store, ANN, "stranger"),
            &traits("?"),
            &sighting(NOW, "198.51.100.1"),
        )
        .unwrap();
    let before = (store.list(ANN).unwrap(), store.logins(ANN).unwrap(), store.accounts(NOW).unwrap());
    drop(store);
    let store = home.open();
    let after = (store.list(ANN).unwrap(), store.logins(ANN).unwrap(), store.accounts(NOW).unwrap());
    assert_eq!(before, after);
    assert_eq!(after.0.account.layer, Layer { mode: Some(Mode::Learn { until: 5 }), ..layer });
    assert_eq!((after.0.attempts.len(), after.0.devices[0].alias.clone()), (1, alias));
    assert_eq!(
        after.2.iter().map(|o| (o.account.name.as_str(), o.approved)).collect::<Vec<_>>(),
        [(ANN, 1), ("new@example.net", 0)]
    );
    assert!(store.lookup("new@example.net", &[], NOW).unwrap().layer.mode == Some(Mode::Lock));
}

#[test]
fn learning_approves_up_to_the_limit_and_days_run_out() {
    let home = Box_::new();
    let store = home.open();
    let login = |name: &str, admitted| Success { max_devices: 2, ..success(&store, ANN, name, admitted) };
    for (name, admitted, standing) in [
        ("a", Admitted::Learning, Standing::Approved { until: None }),
        ("b", Admitted::Provisional { days: 7 }, Standing::Approved { until: Some(NOW + 7 * 86_400) }),
        // Two came at the same time and both were let through: one is too many.
        ("c", Admitted::Learning, Standing::Pending),
        ("d", Admitted::Provisional { days: 7 }, Standing::Pending),
        ("e", Admitted::Observed, Standing::Pending),
        ("b", Admitted::Observed, Standing::Approved { until: Some(NOW + 7 * 86_400) }),
    ] {
        assert_eq!(store.record_success(login(name, admitted)).unwrap().standing, standing, "{name}");
    }
}

#[test]
fn weak_marks_are_never_tied_to_a_token_by_themselves() {
    let home = Box_::new();
    let store = home.open();
    let says = traits("Thunderbird");
    let mut both = success(&store, ANN, "phone", Admitted::Learning);
    both.marks.push(store.cluster_mark(ANN, &says));
    let phone = store.record_success(both).unwrap().alias.unwrap();
    let cluster = [store.cluster_mark(ANN, &says)];
    assert_eq!(store.find(ANN, &cluster).unwrap(), None, "an imitator gains nothing");
    // A second token of the same program (Thunderbird has one for sending) is joined by the owner.
    let sender =
        store.record_success(success(&store, ANN, "sender", Admitted::Observed)).unwrap().alias.unwrap();
    assert_ne!(phone, sender);
    let merged = store.merge(ANN, &phone, &sender).unwrap();
    assert_eq!(
        (merged.marks.len(), merged.logins, merged.standing),
        (2, 2, Standing::Approved { until: None })
    );
    for name in ["phone", "sender"] {
        assert_eq!(store.find(ANN, &token(&store, ANN, name)).unwrap().unwrap().alias, phone);
    }
    // Without a token the cluster is a device of its own, and an update of the program stays the same one.
    let weak = Success { marks: cluster.to_vec(), ..success(&store, ANN, "", Admitted::Observed) };
    let weak = store.record_success(weak).unwrap().alias.unwrap();
    let updated = Traits { version: "141".into(), ..says };
    assert_eq!(store.find(ANN, &[store.cluster_mark(ANN, &updated)]).unwrap().unwrap().alias, weak);
    let shown = Success { marks: vec![], ..success(&store, ANN, "", Admitted::Observed) };
    assert_eq!(store.record_success(shown).unwrap().alias, None);
}

#[test]
fn a_refused_attempt_waits_for_its_owner_who_approves_it() {
    let home = Box_::new();
    let store = home.open();
    approved(&store, ANN, "phone");
    let marks = token(&store, ANN, "new phone");
    let seen = sighting(NOW, "198.51.100.7");
    let noted = store.pending_from_refusal(ANN, &marks, &traits("K-9"), &seen).unwrap().unwrap();
    assert!(noted.new && noted.count == 1);
    let again = store.pending_from_refusal(ANN, &marks, &traits("K-9"), &seen).unwrap().unwrap();
    assert_eq!((again.new, again.count, &again.alias), (false, 2, &noted.alias));
    assert_eq!(store.find(ANN, &marks).unwrap(), None, "an attempt is no device");
    store.password_known(ANN, &noted.alias, true).unwrap();
    assert_eq!(store.list(ANN).unwrap().attempts[0].password_known, Some(true));
    let device = store.approve(ANN, &noted.alias, None, NOW).unwrap();
    assert_eq!((device.standing, device.logins), (Standing::Approved { until: None }, 0));
    assert_eq!(store.find(ANN, &marks).unwrap().unwrap().alias, noted.alias);
    assert!(store.list(ANN).unwrap().attempts.is_empty());
    // Refused again for another reason: it is listed once, as a device.
    let again = store.pending_from_refusal(ANN, &marks, &traits("K-9"), &seen).unwrap().unwrap();
    assert_eq!((again.new, again.alias), (false, noted.alias));
    assert!(store.list(ANN).unwrap().attempts.is_empty());
}

#[test]
fn an_attempt_at_an_account_never_seen_can_be_approved_too() {
    let home = Box_::new();
    let store = home.open();
    let marks = token(&store, "new@example.net", "phone");
    let seen = sighting(NOW, "198.51.100.7");
    let noted =
        store.pending_from_refusal("new@example.net", &marks, &traits("K-9"), &seen).unwrap().unwrap();
    assert!(store.accounts(NOW).unwrap().is_empty(), "a stranger makes no accounts");
    assert_eq!(store.list("new@example.net").unwrap().attempts[0].alias, noted.alias);
    store.approve("new@example.net", &noted.alias, None, NOW).unwrap();
    assert!(store.find("new@example.net", &marks).unwrap().is_some());
    assert_eq!(store.accounts(NOW).unwrap()[0].approved, 1);
}

#[test]
fn a_flood_of_attempts_displaces_the_flooder() {
    let home = Box_::new();
    let store = home.open();
    approved(&store, ANN, "phone");
    let attempt = |name: &str, at: u64, address: &str| {
        store
            .pending_from_refusal(ANN, &token(&store, ANN, name), &traits("x"), &sighting(at, address))
            .unwrap()
            .unwrap()
    };
    let owner = attempt("owner's new phone", NOW, "203.0.113.1").alias;
    let thief = attempt("thief", NOW, "198.51.100.9").alias;
    store.password_known(ANN, &thief, true).unwrap();
    for n in 0..200 {
        attempt(&format!("flood {n}"), NOW + 1 + n, &format!("198.51.100.{}", n % 200));
    }
    let attempts = store.list(ANN).unwrap().attempts;
    assert_eq!(attempts.len(), Attempt::MAX);
    for kept in [owner, thief] {
        assert!(attempts.iter().any(|attempt| attempt.alias == kept));
    }
}

#[test]
fn pending_devices_are_bounded_and_the_least_used_gives_way() {
    let home = Box_::new();
    let store = home.open();
    let phone = approved(&store, ANN, "phone");
    for n in 0..PENDING_MAX as u64 + 10 {
        let login = success(&store, ANN, &format!("token {n}"), Admitted::Observed);
        let login = Success { sighting: sighting(NOW + n, "192.0.2.1"), ..login };
        store.record_success(login).unwrap();
    }
    let listing = store.list(ANN).unwrap();
    assert_eq!(listing.devices.len(), PENDING_MAX + 1);
    assert!(listing.devices.iter().any(|device| device.alias == phone));
    assert!(store.find(ANN, &token(&store, ANN, "token 0")).unwrap().is_none());
    assert!(store.find(ANN, &token(&store, ANN, "token 41")).unwrap().is_some());
}

#[test]
fn the_simulation_counts_logins_and_follows_approvals() {
    let home = Box_::new();
    let store = home.open();
    for _ in 0..409 {
        store.record_success(success(&store, ANN, "phone", Admitted::Observed)).unwrap();
    }
    for _ in 0..3 {
        store.record_success(success(&store, ANN, "tablet", Admitted::Observed)).unwrap();
    }
    assert_eq!(store.simulate(ANN, NOW).unwrap().refused, 412);
    let phone = store.find(ANN, &token(&store, ANN, "phone")).unwrap().unwrap().alias;
    store.approve(ANN, &phone, None, NOW).unwrap();
    let report = store.simulate(ANN, NOW).unwrap();
    assert_eq!(report.headline(), "locking now would have refused 3 of 412 logins, these");
    assert_eq!(report.lines[0].verdict, Verdict::Hold(Held::UnknownDevice));
}

#[test]
fn a_rotated_key_still_recognises_and_moves_devices() {
    let home = Box_::new();
    let store = home.open();
    let phone = approved(&store, ANN, "phone");
    let old = token(&store, ANN, "phone").remove(0);
    store.rotate_keys().unwrap();
    let marks = token(&store, ANN, "phone");
    assert_eq!((marks.len(), &marks[1]), (2, &old));
    assert_eq!(store.find(ANN, &marks).unwrap().unwrap().alias, phone);
    store.record_success(success(&store, ANN, "phone", Admitted::Approved)).unwrap();
    let device = store.find(ANN, &marks).unwrap().unwrap();
    assert_eq!(device.marks, [marks[0].clone()]);
}

#[test]
fn addresses_are_stripped_when_their_time_is_over() {
    let home = Box_::new();
    let store = home.open();
    approved(&store, ANN, "old");
    let fresh = success(&store, ANN, "fresh", Admitted::Observed);
    store.record_success(Success { sighting: sighting(NOW + 100, "192.0.2.9"), ..fresh }).unwrap();
    store
        .pending_from_refusal(ANN, &token(&store, ANN, "x"), &traits("x"), &sighting(NOW, "198.51.100.1"))
        .unwrap();
    assert_eq!(store.strip_addresses(NOW + 50).unwrap(), 3);
    assert_eq!(store.strip_addresses(NOW + 50).unwrap(), 0);
    let listing = store.list(ANN).unwrap();
    let address = |device: &Device| device.last_seen.as_ref().unwrap().address;
    assert_eq!(listing.devices.iter().map(address).collect::<Vec<_>>(), ["192.0.2.9".parse().ok(), None]);
    assert_eq!(listing.devices[1].traits.network, "");
    assert_eq!(listing.attempts[0].last_seen.as_ref().unwrap().address, None);
    assert_eq!(store.logins(ANN).unwrap().iter().filter(|line| line.address.is_some()).count(), 1);
}

#[test]
fn alerts_are_remembered_by_device() {
    let home = Box_::new();
    let store = home.open();
    approved(&store, ANN, "phone");
    assert_eq!(store.alerted(ANN, "device abcdef", 5).unwrap(), None);
    assert_eq!(store.alerted(ANN, "device abcdef", 9).unwrap(), Some(5));
    assert_eq!(store.alerted(ANN, "device ghijkl", 9).unwrap(), None);
    drop(store);
    assert_eq!(home.open().alerted(ANN, "device abcdef", 10).unwrap(), Some(9));
}

#[test]
fn an_export_goes_round_and_a_changed_one_is_refused_whole() {
    let home = Box_::new();
    let store = home.open();
    let phone = approved(&store, ANN, "phone");
    store.set_account_mode(ANN, Some(Mode::Lock), NOW).unwrap();
    store
        .pending_from_refusal(ANN, &token(&store, ANN, "x"), &traits("x"), &sighting(NOW, "198.51.100.1"))
        .unwrap();
    let mut file = Vec::new();
    store.export(&mut file).unwrap();
    let text = String::from_utf8(file.clone()).unwrap();
    assert!(text.contains(ANN) && text.contains(&phone.0));
    let saved = (store.list(ANN).unwrap(), store.logins(ANN).unwrap());

    // Later changes, undone by the import.
    store.revoke(ANN, &phone, NOW).unwrap();
    approved(&store, "bob@example.net", "laptop");
    let changed = store.list(ANN).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let mut bad: Vec<(String, usize)> = vec![
        (text.replace("\"lock\"", "\"observe\""), lines.len()),
        (lines[..lines.len() - 1].join("\n") + "\n", lines.len() - 1),
        (text.clone() + lines[1] + "\n", lines.len()),
        (text.replacen(lines[2], "{\"device\":1}", 1), 3),
        (text.replacen("\"keys\":\"", "\"keys\":\"00", 1), 1),
        (String::new(), 1),
        ("\n".into(), 1),
    ];
    for at in (0..text.len() - 2).step_by(97) {
        bad.push((text[..at].to_owned(), 0));
    }
    for (bad, line) in bad {
        match store.import(&mut bad.as_bytes()) {
            Err(StoreError::Import { line: told, reason }) => {
                assert!(line == 0 || (told == line || told == line + 1), "{told} for {line}: {reason}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(store.list(ANN).unwrap(), changed, "a refused import changes nothing");

    let imported = store.import(&mut file.as_slice()).unwrap();
    assert_eq!((imported.accounts, imported.devices), (1, 1));
    assert_eq!((store.list(ANN).unwrap(), store.logins(ANN).unwrap()), saved);
    assert_eq!(store.list("bob@example.net"), Err(StoreError::NoAccount));
    approved(&store, "cid@example.net", "goes on");
    drop(store);
    let store = home.open();
    assert_eq!((store.list(ANN).unwrap(), store.logins(ANN).unwrap()), saved);
    assert_eq!(store.accounts(NOW).unwrap().len(), 2);

    // Another box has other keys: its marks would recognise nobody.
    let other = Box_::new();
    assert!(matches!(other.open().import(&mut file.as_slice()), Err(StoreError::Import { line: 1, .. })));
}

#[test]
fn many_writers_share_their_fences() {
    let home = Box_::new();
    let store = Arc::new(home.open());
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let store = store.clone();
            std::thread::spawn(move || {
                for n in 0..25 {
                    approved(&store, &format!("user{thread}-{n}@example.net"), "phone");
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    drop(store);
    let store = home.open();
    let accounts = store.accounts(NOW).unwrap();
    assert_eq!(accounts.len(), 200);
    assert!(accounts.iter().all(|account| account.approved == 1));
}

#[test]
fn a_full_disk_refuses_writes_and_keeps_reading() {
    let home = Box_::new();
    let store = home.open();
    let phone = approved(&store, ANN, "phone");
    drop(store);
    let options = Options { reserve: u64::MAX, ..Options::default() };
    let (store, _) = Store::open_with(&home.db(), &home.keys(), options).unwrap();
    assert_eq!(store.revoke(ANN, &phone, NOW).err(), Some(StoreError::Full));
    assert_eq!(
        store.find(ANN, &token(&store, ANN, "phone")).unwrap().unwrap().standing,
        Standing::Approved { until: None }
    );
    // A counter is not worth refusing a login for; a new device cannot be promised.
    store.record_success(success(&store, ANN, "phone", Admitted::Approved)).unwrap();
    let new = store.record_success(success(&store, ANN, "laptop", Admitted::Learning));
    assert_eq!(new.err(), Some(StoreError::Full));
    assert!(store.find(ANN, &token(&store, ANN, "laptop")).unwrap().is_none());
}

#[test]
fn compaction_and_exports_lose_nothing() {
    let home = Box_::new();
    let store = home.open();
    for round in 0..5 {
        for n in 0..20 {
            approved(&store, &format!("user{n}@example.net"), &format!("phone {round}"));
        }
        store.export_now().unwrap();
        store.compact().unwrap();
    }
    assert_eq!(store.safety_copies().0, 2, "two generations");
    let before = store.accounts(NOW).unwrap();
    assert!(before.iter().all(|account| account.approved == 5));
    assert!(store.stats().read_only.is_none() && store.stats().bytes_on_disk > 0);
    drop(store);
    assert_eq!(home.open().accounts(NOW).unwrap(), before);
}

#[test]
fn links_and_misplaced_keys_are_refused() {
    let home = Box_::new();
    drop(home.open());
    let inside = Store::open(&home.db(), &home.db().join("keys"));
    assert!(matches!(inside.err(), Some(StoreError::Keys(_))));
    let export = std::fs::read_dir(home.db())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().contains("export."))
        .unwrap();
    let elsewhere = home.folder.path().join("elsewhere");
    std::fs::rename(&export, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &export).unwrap();
    assert!(matches!(home.try_open().err(), Some(StoreError::Symlink(_))));
}

#[test]
fn another_databases_keys_are_refused() {
    let (one, two) = (Box_::new(), Box_::new());
    drop(one.open());
    drop(two.open());
    std::fs::copy(two.keys(), one.keys()).unwrap();
    assert!(matches!(one.try_open().err(), Some(StoreError::Keys(_))));
}

#[test]
fn a_database_in_use_is_left_alone() {
    let home = Box_::new();
    let store = home.open();
    approved(&store, ANN, "phone");
    assert_eq!(home.try_open().err(), Some(StoreError::InUse));
    // Whoever came second changed nothing: the first one goes on, and what it says is there.
    approved(&store, ANN, "tablet");
    drop(store);
    assert_eq!(home.open().list(ANN).unwrap().devices.len(), 2);
}

#[test]
fn oversized_things_are_refused_or_cut() {
    let home = Box_::new();
    let store = home.open();
    let phone = approved(&store, ANN, "phone");
    let networks = (0..200_u8).map(|n| format!("10.{n}.0.0/16").parse().unwrap()).collect();
    let layer = Layer { networks: Some(networks), ..Layer::default() };
    assert!(matches!(store.set_account_layer(ANN, layer, NOW), Err(StoreError::TooLarge(_))));
    assert_eq!(store.rename(ANN, &phone, &"é".repeat(500)).unwrap().name.chars().count(), 64);
    assert!(matches!(store.set_account_mode(&"x".repeat(400), None, NOW), Err(StoreError::TooLarge(_))));
    assert_eq!(store.rename(ANN, &Alias("nobody".into()), "x"), Err(StoreError::NoDevice));
    let nonsense = Success {
        marks: vec![Mark::Cluster { mac: "zz".into() }],
        ..success(&store, ANN, "", Admitted::Observed)
    };
    assert!(store.record_success(nonsense).is_err());
}

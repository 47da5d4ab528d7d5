//! Power cuts, kills and full disks. What was acknowledged is there afterwards, and no lock or revocation is undone.
//!
//! The writer is this test itself, run again as a child process with [`CHILD`] set. `POSTERN_STORE_CUTS` asks for more power
//! cuts than the default.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on should stop"
)]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, setrlimit};
use policy::device::Standing;
use policy::rules::Mode;
use policy::verdict::Admitted;
use store::{Store, StoreError};
use support::disk::{Cut, Disk, Event};
use support::strace;
use support::*;

/// The folder a child works in, and its role: `writer`, `endless` or `limited`.
const CHILD: &str = "POSTERN_STORE_CHILD";
const ROLE: &str = "POSTERN_STORE_ROLE";

fn as_child(role: &str, folder: &Path) -> (Vec<String>, [(&'static str, String); 2]) {
    let arguments = ["child", "--exact", "--ignored", "--nocapture", "--test-threads=1"];
    (
        arguments.map(str::to_owned).to_vec(),
        [(CHILD, folder.to_str().unwrap().to_owned()), (ROLE, role.to_owned())],
    )
}

#[test]
#[ignore = "a role the other tests start as a process of its own"]
fn child() {
    let folder = std::env::var_os(CHILD).unwrap();
    let folder = Path::new(&folder);
    match std::env::var(ROLE).unwrap().as_str() {
        "writer" => {
            // Closing and opening are places to be cut off in, too.
            let mut writer = Writer::default();
            for part in 0..3 {
                let store = open_in(folder).unwrap().0;
                for round in 0..8 {
                    writer.round(&store);
                    match (part, round) {
                        (0, 4) | (1, 2) => store.export_now().unwrap(),
                        (1, 4) => store.compact().unwrap(),
                        (2, 3) => {
                            let mut file = Vec::new();
                            store.export(&mut file).unwrap();
                            store.import(&mut file.as_slice()).unwrap();
                        }
                        _ => {}
                    }
                }
            }
        }
        "endless" => {
            let store = open_in(folder).unwrap().0;
            let mut writer = Writer::default();
            for round in 0.. {
                writer.round(&store);
                if round % 7 == 6 {
                    store.export_now().unwrap();
                }
                if round % 40 == 39 {
                    store.compact().unwrap();
                }
            }
        }
        "limited" => limited(folder),
        other => panic!("{other}"),
    }
}

/// Says that something is safe. Only after the store has said so.
fn say(what: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\nack {what}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// Makes changes whose loss can be told.
#[derive(Default)]
struct Writer {
    number: u64,
}

impl Writer {
    fn round(&mut self, store: &Store) {
        self.number += 1;
        let n = self.number;
        let account = format!("user{}@example.net", n % 5);
        let phone = approved(store, &account, "phone");
        say(&format!("approved {account} 0"));
        store.set_account_mode(&account, Some(Mode::Lock), NOW).unwrap();
        say(&format!("locked {account} 0"));
        store.rename(&account, &phone, &n.to_string()).unwrap();
        say(&format!("named {account} {n}"));
        if n.is_multiple_of(3) {
            let login = success(store, &account, "stolen", Admitted::Observed);
            let stolen = store.record_success(login).unwrap().alias.unwrap();
            store.revoke(&account, &stolen, NOW).unwrap();
            say(&format!("revoked {account} 0"));
        }
        // Something lazy, which may be lost, in between.
        store.record_success(success(store, &account, "phone", Admitted::Approved)).unwrap();
    }
}

/// What was acknowledged so far: (what, account) and the highest number with it.
#[derive(Clone, Debug, Default)]
struct Promises(BTreeMap<(String, String), u64>);

impl Promises {
    fn hear(&mut self, line: &str) {
        if let Some(promise) = line.strip_prefix("ack ") {
            let words: Vec<&str> = promise.split(' ').collect();
            let number: u64 = words[2].parse().unwrap();
            let kept = self.0.entry((words[0].to_owned(), words[1].to_owned())).or_default();
            *kept = number.max(*kept);
        }
    }

    /// What of it is broken.
    fn broken(&self, store: &Store) -> Vec<String> {
        let mut broken = Vec::new();
        for ((what, account), number) in &self.0 {
            let found = |name: &str| store.lookup(account, &token(store, account, name), NOW).unwrap();
            let kept = match what.as_str() {
                "approved" => found("phone")
                    .device
                    .is_some_and(|device| matches!(device.standing, Standing::Approved { .. })),
                "locked" => found("phone").layer.mode == Some(Mode::Lock),
                "named" => found("phone")
                    .device
                    .and_then(|device| device.name.parse().ok())
                    .is_some_and(|n: u64| n >= *number),
                "revoked" => {
                    found("stolen").device.is_some_and(|device| device.standing == Standing::Revoked)
                }
                other => panic!("{other}"),
            };
            if !kept {
                broken.push(format!("{what} {account} {number}"));
            }
        }
        broken
    }
}

#[test]
fn a_power_cut_at_any_instant_loses_nothing_acknowledged() {
    let strace = Command::new("strace").arg("-V").output();
    assert!(
        strace.is_ok_and(|strace| strace.status.success()),
        "this test records file operations with strace: apt-get install --yes strace"
    );
    let home = tempfile::tempdir().unwrap();
    let record = home.path().join("strace");
    let folder = home.path().join("box");
    std::fs::create_dir(&folder).unwrap();
    let (arguments, environment) = as_child("writer", &folder);
    let traced = Command::new("strace")
        .args(["-f", "-y", "-xx", "-s", "16777216", "-e", &format!("trace={}", strace::CALLS), "-o"])
        .arg(&record)
        .arg(std::env::current_exe().unwrap())
        .args(arguments)
        .envs(environment)
        .output()
        .unwrap();
    assert!(traced.status.success(), "{}", String::from_utf8_lossy(&traced.stderr));
    let events: Vec<Event> = strace::parse(&std::fs::read_to_string(&record).unwrap());
    let promises =
        events.iter().filter(|event| matches!(event, Event::Said(said) if said.starts_with("ack "))).count();
    assert!(promises >= 3 * 24, "only {promises} acknowledgements were recorded");

    let cuts = std::env::var("POSTERN_STORE_CUTS").ok().map_or(400, |cuts| cuts.parse().unwrap());
    let with_syncs = cut_everywhere(&events, &folder, cuts, true);
    println!("{} events, {cuts} cuts: {with_syncs:?}", events.len());
    assert!(with_syncs.failures.is_empty(), "{:#?}", with_syncs.failures);
    assert!(with_syncs.opened > cuts / 2);
    // The same judge on a disk whose syncs do nothing must find losses, or it could not find any.
    let without = cut_everywhere(&events, &folder, 60, false);
    assert!(!without.failures.is_empty(), "a disk that syncs nothing was found safe");
}

#[derive(Debug, Default)]
struct Verdicts {
    opened: usize,
    replayed: usize,
    rebuilt: BTreeMap<String, usize>,
    failures: Vec<String>,
}

fn cut_everywhere(events: &[Event], folder: &Path, cuts: usize, syncs: bool) -> Verdicts {
    let mut rng = Rng(20_261_122);
    let mut at: Vec<usize> = (0..cuts).map(|_| rng.below(events.len() + 1)).collect();
    at.sort_unstable();
    let mut disk = Disk::default();
    disk.take(&Event::MakeFolder(folder.to_owned()), true);
    let mut promises = Promises::default();
    let mut verdicts = Verdicts::default();
    let mut done = 0;
    for (number, at) in at.into_iter().enumerate() {
        for event in &events[done..at] {
            disk.take(event, syncs);
            if let Event::Said(line) = event {
                promises.hear(line);
            }
        }
        done = at;
        let cut = [Cut::AllLost, Cut::AllKept, Cut::Pages, Cut::Torn][rng.below(4)];
        let left = tempfile::tempdir().unwrap();
        disk.after_cut(folder, left.path(), cut, &mut rng);
        let mut fail =
            |what: String| verdicts.failures.push(format!("cut {number} at {at}, {cut:?}: {what}"));
        let (store, report) = match open_in(left.path()) {
            Ok(opened) => opened,
            Err(error) => {
                fail(error.to_string());
                continue;
            }
        };
        verdicts.opened += 1;
        verdicts.replayed += usize::from(report.replayed > 0);
        if let Some(why) = &report.rebuilt {
            *verdicts.rebuilt.entry(why.clone()).or_default() += 1;
        }
        let broken = promises.broken(&store);
        if !broken.is_empty() {
            fail(format!("lost {broken:?}; {report:?}"));
        }
        if report.lost.is_some() || report.read_only.is_some() {
            fail(format!("{report:?}"));
        }
        // Every so often: it works on, and what it then promises survives being closed.
        if number % 8 == 0 {
            let phone = approved(&store, "later@example.net", "phone");
            drop(store);
            let (store, again) = open_in(left.path()).unwrap();
            if again.is_alarming()
                || store
                    .find("later@example.net", &token(&store, "later@example.net", "phone"))
                    .unwrap()
                    .is_none_or(|device| device.alias != phone)
            {
                fail(format!("does not go on: {again:?} after {report:?}"));
            }
        }
    }
    verdicts
}

#[test]
fn kill_9_at_any_instant_loses_nothing_acknowledged() {
    let mut rng = Rng(9);
    let home = tempfile::tempdir().unwrap();
    let mut promises = Promises::default();
    for round in 0..12 {
        let (arguments, environment) = as_child("endless", home.path());
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(arguments)
            .envs(environment)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = process.stdout.take().unwrap();
        let listener =
            std::thread::spawn(move || BufReader::new(out).lines().map_while(Result::ok).collect::<Vec<_>>());
        std::thread::sleep(Duration::from_millis(100 + rng.below(900) as u64));
        process.kill().unwrap();
        process.wait().unwrap();
        // Each child counts from one again: only what this one said counts for names.
        promises.0.retain(|(what, _), _| what != "named");
        listener.join().unwrap().iter().for_each(|line| promises.hear(line));
        let (store, report) = open_in(home.path()).unwrap();
        assert!(!report.is_alarming(), "round {round}: {report:?}");
        let broken = promises.broken(&store);
        assert!(broken.is_empty(), "round {round}: {broken:?}");
    }
    assert!(promises.0.len() >= 15, "{promises:?}");
}

#[test]
fn a_full_disk_stops_writing_keeps_reading_and_recovers() {
    let home = tempfile::tempdir().unwrap();
    let (arguments, environment) = as_child("limited", home.path());
    // The shell makes the child ignore the signal that comes with the error.
    let run = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(arguments)
        .envs(environment)
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{out}{}", String::from_utf8_lossy(&run.stderr));
    assert!(out.contains("it was full") && out.contains("it recovered"), "{out}");
    let mut promises = Promises::default();
    out.lines().for_each(|line| promises.hear(line));
    let (store, report) = open_in(home.path()).unwrap();
    assert_eq!(report.lost, None, "{report:?}");
    assert!(promises.broken(&store).is_empty());
}

/// Writes until no file may grow any more, then until it may again.
fn limited(folder: &Path) {
    let store = open_in(folder).unwrap().0;
    let account = |n: u64| format!("user{n}@example.net");
    for limit in [700_u64 << 10, 1_100 << 10] {
        setrlimit(Resource::RLIMIT_FSIZE, limit, nix::sys::resource::RLIM_INFINITY).unwrap();
        let mut n = limit;
        let error = loop {
            n += 1;
            match store.set_account_mode(&account(n), Some(Mode::Lock), NOW) {
                Ok(()) => say(&format!("locked {} 0", account(n))),
                Err(error) => break error,
            }
            assert!(n < limit + 50_000, "the limit was never met");
        };
        assert!(matches!(error, StoreError::Full | StoreError::ReadOnly(_)), "{error}");
        println!("\nit was full: {error}");
        for known in limit + 1..n {
            assert_eq!(
                store.lookup(&account(known), &[], NOW).unwrap().layer.mode,
                Some(Mode::Lock),
                "{known}"
            );
        }
        let infinity = nix::sys::resource::RLIM_INFINITY;
        setrlimit(Resource::RLIMIT_FSIZE, infinity, infinity).unwrap();
        let since = Instant::now();
        while let Err(error) = store.set_account_mode(&account(1), Some(Mode::Lock), NOW) {
            assert!(since.elapsed() < Duration::from_secs(20), "{error}");
            std::thread::sleep(Duration::from_millis(100));
        }
        say(&format!("locked {} 0", account(1)));
        println!("\nit recovered");
    }
}

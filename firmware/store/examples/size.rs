//! Measures the database at the size it is made for: `cargo run --release -p store --example size`.
//!
//! 50,000 accounts with 200,000 devices: time to fill, memory, disk, look-ups of known and unknown accounts, durable writes
//! alone and together, start-up. Then 1,000,000 updates of 500 devices. Linux only (`/proc`).
#![allow(clippy::unwrap_used, clippy::cast_precision_loss, reason = "a measurement that fails should stop")]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mail::{ClientId, Secret};
use policy::device::{Mark, Sighting};
use policy::login::Traits;
use policy::verdict::{Admitted, Verdict};
use store::{Options, Store, Success};

const ACCOUNTS: u32 = 50_000;
const DEVICES: u32 = 4;
const NOW: u64 = 1_800_000_000;

fn main() {
    // Each part in a process of its own, so that one's memory is not taken for another's.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["fill", home] => fill(Path::new(home)),
        ["read", home] => read(Path::new(home)),
        ["write", home] => write(Path::new(home)),
        ["update", home] => updates(Path::new(home)),
        _ => {
            let home = tempfile::tempdir().unwrap();
            for (part, folder) in
                [("fill", "large"), ("read", "large"), ("write", "large"), ("update", "small")]
            {
                println!("{part}:");
                let mut again = Command::new(std::env::current_exe().unwrap());
                assert!(again.arg(part).arg(home.path().join(folder)).status().unwrap().success());
            }
        }
    }
}

fn open(home: &Path) -> Store {
    // Lazy changes may pile up further than on a box, or filling would take an hour of fences.
    let options = Options { lazy: Duration::from_secs(5), ..Options::default() };
    let (store, report) = Store::open_with(&home.join("devices"), &home.join("keys"), options).unwrap();
    assert!(!report.is_alarming(), "{report:?}");
    store
}

fn account(n: u32) -> String {
    format!("person{n}@customer{}.example.net", n % 700)
}

fn marks(store: &Store, account: &str, device: u32) -> Vec<Mark> {
    let token = format!("23bf83be-aad7-46aa-9e0f-{device:012x}");
    let id =
        ClientId { kind: "UUID".try_into().unwrap(), token: Secret::copy_from(token.as_bytes()).unwrap() };
    store.token_marks(account, &id)
}

fn login(store: &Store, account: &str, device: u32) -> Success {
    Success {
        account: account.to_owned(),
        marks: marks(store, account, device),
        traits: Traits {
            client: "Thunderbird".into(),
            version: "140.5.0".into(),
            os: "Linux".into(),
            ehlo: "literal".into(),
            ja4: "t13d1516h2_8daaf6152771_b0da82dd1658".into(),
            network: "192.0.2.0/24".into(),
            country: "CA".into(),
        },
        sighting: Sighting {
            at: NOW,
            protocol: "imap".into(),
            address: Some([192, 0, 2, 7].into()),
            country: Some("CA".into()),
        },
        admitted: Admitted::Learning,
        max_devices: 32,
        if_locked: Verdict::Admit(Admitted::Approved),
    }
}

fn fill(home: &Path) {
    let store = Arc::new(open(home));
    println!("  memory of an empty store: {}", memory());
    let begun = Instant::now();
    let threads: Vec<_> = (0..64)
        .map(|thread| {
            let store = store.clone();
            std::thread::spawn(move || {
                for n in (thread..ACCOUNTS).step_by(64) {
                    let account = account(n);
                    for device in 0..DEVICES {
                        store.record_success(login(&store, &account, device)).unwrap();
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let took = begun.elapsed();
    let each = f64::from(ACCOUNTS * DEVICES) / took.as_secs_f64();
    println!("  filled by 64 threads in {took:.1?}: {each:.0} durable new devices a second");
    println!("  memory: {}", memory());
    print_stats(&store);
}

fn read(home: &Path) {
    let begun = Instant::now();
    let store = open(home);
    println!("  opened and compared in {:.2?}; memory {}", begun.elapsed(), memory());
    lookups("known", &store, |n| account(n % ACCOUNTS));
    lookups("unknown", &store, |n| format!("nobody{n}@example.net"));
    println!("  memory: {}", memory());
}

fn write(home: &Path) {
    let store = open(home);
    let times = timed(300, |n| {
        let name = account(n * 131 % ACCOUNTS);
        store.set_account_mode(&name, Some(policy::Mode::Lock), NOW).unwrap();
    });
    println!("  durable write, alone: {}", quantiles(times));
    let begun = Instant::now();
    store.export_now().unwrap();
    println!("  export in {:.2?}", begun.elapsed());
    let begun = Instant::now();
    let mut readable = Counted(0);
    store.export(&mut readable).unwrap();
    println!("  readable export in {:.2?}, {} MB", begun.elapsed(), readable.0 / 1_000_000);
    println!("  memory: {}", memory());
    let begun = Instant::now();
    store.compact().unwrap();
    println!("  compacted in {:.2?}; memory {}", begun.elapsed(), memory());
    print_stats(&store);
}

/// Counts what is written to it.
struct Counted(usize);

impl std::io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn lookups(what: &str, store: &Store, name: impl Fn(u32) -> String) {
    let times = (0..100_000_u32)
        .map(|n| {
            let name = name(n.wrapping_mul(7_919));
            let marks = marks(store, &name, n % DEVICES);
            let begun = Instant::now();
            let _ = std::hint::black_box(store.lookup(&name, &marks, NOW).unwrap());
            begun.elapsed()
        })
        .collect();
    println!("  look-up, {what}: {}", quantiles(times));
}

fn updates(home: &Path) {
    let store = open(home);
    let all: Vec<_> = (0..500).map(|n| login(&store, &account(n), 0)).collect();
    let begun = Instant::now();
    let mut largest = 0;
    for n in 0..1_000_000_usize {
        store.record_success(all[n % 500].clone()).unwrap();
        if n % 500 == 499 && (n / 500) % 4 == 3 {
            store.flush().unwrap();
        }
        if n % 20_000 == 0 {
            largest = largest.max(store.stats().database_bytes);
        }
    }
    store.flush().unwrap();
    println!("  1,000,000 updates of 500 devices in {:.1?}", begun.elapsed());
    println!("  largest database file under way: {:.1} MB; memory {}", largest as f64 / 1e6, memory());
    print_stats(&store);
}

fn timed(count: u32, mut work: impl FnMut(u32)) -> Vec<Duration> {
    (0..count)
        .map(|n| {
            let begun = Instant::now();
            work(n);
            begun.elapsed()
        })
        .collect()
}

fn quantiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |part: usize| times[times.len() * part / 1_000];
    format!("p50 {:.1?}, p99 {:.1?}, p99.9 {:.1?}", at(500), at(990), at(999))
}

fn print_stats(store: &Store) {
    let stats = store.stats();
    assert_eq!(stats.read_only, None);
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    println!(
        "  {} records, {:.1} MB live, sled {:.1} MB, all files {:.1} MB",
        stats.records,
        megabytes(stats.live_bytes),
        megabytes(stats.database_bytes),
        megabytes(stats.bytes_on_disk)
    );
}

/// Resident memory now and at its highest.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let of = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) / 1_024
    };
    format!("{} MiB (highest {} MiB)", of("VmRSS"), of("VmHWM"))
}

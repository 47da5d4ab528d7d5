//! What the tests share: a store in a folder of its own, and short words for logins.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of this module")]

pub mod disk;
pub mod strace;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mail::{ClientId, Secret};
use policy::device::{Alias, Mark, Sighting};
use policy::login::Traits;
use policy::verdict::{Admitted, Held, Verdict};
use store::{OpenReport, Options, Store, StoreError, Success};

pub const ANN: &str = "ann@example.net";
pub const NOW: u64 = 1_800_000_000;

pub struct Box_ {
    pub folder: tempfile::TempDir,
}

impl Box_ {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn db(&self) -> PathBuf {
        self.folder.path().join("devices")
    }

    pub fn keys(&self) -> PathBuf {
        self.folder.path().join("keys")
    }

    pub fn try_open(&self) -> Result<(Store, OpenReport), StoreError> {
        open_in(self.folder.path())
    }

    /// Opens and expects nothing to tell.
    pub fn open(&self) -> Store {
        let (store, report) = self.try_open().unwrap();
        assert!(!report.is_alarming(), "{report:?}");
        store
    }
}

/// Opens with a small reserve, so that tests run on small disks, and quick exports only where asked for.
pub fn open_in(folder: &Path) -> Result<(Store, OpenReport), StoreError> {
    let options = Options { reserve: 1 << 20, lazy: Duration::from_millis(50), ..Options::default() };
    Store::open_with(&folder.join("devices"), &folder.join("keys"), options)
}

pub fn id(token: &str) -> ClientId {
    ClientId { kind: "UUID".try_into().unwrap(), token: Secret::copy_from(token.as_bytes()).unwrap() }
}

pub fn token(store: &Store, account: &str, token: &str) -> Vec<Mark> {
    store.token_marks(account, &id(token))
}

pub fn traits(client: &str) -> Traits {
    Traits { client: client.into(), os: "Linux".into(), network: "192.0.2.0/24".into(), ..Traits::default() }
}

pub fn sighting(at: u64, address: &str) -> Sighting {
    let address: IpAddr = address.parse().unwrap();
    Sighting { at, protocol: "imap".into(), address: Some(address), country: Some("CA".into()) }
}

pub fn success(store: &Store, account: &str, name: &str, admitted: Admitted) -> Success {
    Success {
        account: account.into(),
        marks: token(store, account, name),
        traits: traits("Thunderbird"),
        sighting: sighting(NOW, "192.0.2.1"),
        admitted,
        max_devices: 32,
        if_locked: Verdict::Hold(Held::UnknownDevice),
    }
}

/// Records an approved device and says what it is called.
pub fn approved(store: &Store, account: &str, name: &str) -> Alias {
    let alias =
        store.record_success(success(store, account, name, Admitted::Observed)).unwrap().alias.unwrap();
    store.approve(account, &alias, None, NOW).unwrap();
    alias
}

/// The `SplitMix64` generator: the same seed gives the same run.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

//! The box's secret keys: what turns tokens into marks. Kept in a file outside the database's folder.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use policy::device::Mark;
use policy::login::Traits;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::{Zeroize, Zeroizing};

use crate::codec::{hex, unhex};
use crate::error::StoreError;
use crate::file::{NO_FOLLOW, replace};

/// Keys, newest first. An older version still recognises the devices recorded under it.
pub(crate) struct Keys {
    versions: Vec<Version>,
    /// The database these keys have served, once there was one.
    pub(crate) database: Option<[u8; 16]>,
    path: PathBuf,
}

struct Version {
    number: u32,
    token: Secret,
    cluster: Secret,
}

struct Secret([u8; 32]);

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(…)")
    }
}

const MAGIC: &str = "postern device keys 1";

impl Keys {
    /// Reads the key file, or makes one. The file is text: a magic line, `database HEX` once one exists, and a line
    /// `NUMBER TOKEN-KEY CLUSTER-KEY` per version, newest first. It must belong to us and be closed to others.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let mut file = match OpenOptions::new().read(true).custom_flags(NO_FOLLOW).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Self::create(path),
            Err(error) => return Err(StoreError::Keys(error.to_string())),
        };
        let metadata = file.metadata().map_err(|error| StoreError::Keys(error.to_string()))?;
        if !metadata.is_file() || metadata.mode() & 0o077 != 0 {
            return Err(StoreError::Keys("must be a plain file of mode 0600".to_owned()));
        }
        let mut text = Zeroizing::new(String::new());
        Read::by_ref(&mut file)
            .take(16 * 1_024)
            .read_to_string(&mut text)
            .map_err(|error| StoreError::Keys(error.to_string()))?;
        Self::parse(path, &text)
            .ok_or_else(|| StoreError::Keys("not a key file of ours, or damaged".to_owned()))
    }

    fn create(path: &Path) -> Result<Self, StoreError> {
        let version = Version { number: 1, token: random()?, cluster: random()? };
        let keys = Self { versions: vec![version], database: None, path: path.to_owned() };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|error| StoreError::io(parent, &error))?;
        }
        keys.write()?;
        Ok(keys)
    }

    fn parse(path: &Path, text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next()? != MAGIC {
            return None;
        }
        let mut keys = Self { versions: Vec::new(), database: None, path: path.to_owned() };
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["database", id] => keys.database = Some(unhex(id)?),
                [number, token, cluster] => keys.versions.push(Version {
                    number: number.parse().ok()?,
                    token: Secret(unhex(token)?),
                    cluster: Secret(unhex(cluster)?),
                }),
                _ => return None,
            }
        }
        (!keys.versions.is_empty() && keys.versions.is_sorted_by(|newer, older| newer.number > older.number))
            .then_some(keys)
    }

    fn write(&self) -> Result<(), StoreError> {
        use std::fmt::Write as _;
        let mut text = Zeroizing::new(format!("{MAGIC}\n"));
        if let Some(id) = self.database {
            let _ = writeln!(text, "database {}", hex(&id));
        }
        for version in &self.versions {
            let token = Zeroizing::new(hex(&version.token.0));
            let cluster = Zeroizing::new(hex(&version.cluster.0));
            let _ = writeln!(text, "{} {} {}", version.number, *token, *cluster);
        }
        replace(&self.path, |file| file.write_all(text.as_bytes()))
    }

    /// Remembers that these keys serve this database: from then on its absence is a loss, not a first start.
    pub(crate) fn bind(&mut self, database: [u8; 16]) -> Result<(), StoreError> {
        self.database = Some(database);
        self.write()
    }

    /// Puts a new version in front. Devices recorded under older ones are still recognised, and move to the newest version
    /// with their next login.
    pub(crate) fn rotate(&mut self) -> Result<(), StoreError> {
        let number = self.versions.first().map_or(1, |newest| newest.number.saturating_add(1));
        self.versions.insert(0, Version { number, token: random()?, cluster: random()? });
        self.versions.truncate(4);
        self.write()
    }

    /// Names these keys without telling them: the first 64 bits of a keyed hash, in hexadecimal.
    pub(crate) fn fingerprint(&self) -> String {
        let tag = self.versions.last().map(|oldest| sign(&oldest.token, &[b"fingerprint"]));
        hex(tag.as_ref().and_then(|tag| tag.get(..8)).unwrap_or_default())
    }

    /// HMAC-SHA-256(key, account 0x00 TYPE 0x00 token), one mark per key version, newest first (clientid.md Q25).
    pub(crate) fn token_marks(&self, account: &str, kind: &str, token: &[u8]) -> Vec<Mark> {
        self.versions
            .iter()
            .map(|version| {
                let mac = sign(&version.token, &[account.as_bytes(), &[0], kind.as_bytes(), &[0], token]);
                Mark::Token { kind: kind.to_owned(), mac: hex(&mac) }
            })
            .collect()
    }

    /// The same for the traits that make a cluster. The client's version is left out: an update must not lock it out.
    pub(crate) fn cluster_marks(&self, account: &str, traits: &Traits) -> Vec<Mark> {
        let Traits { client, version: _, os, ehlo, ja4, network, country: _ } = traits;
        self.versions
            .iter()
            .map(|version| {
                let words = [account, client, os, ehlo, ja4, network];
                let words: Vec<&[u8]> = words.iter().flat_map(|word| [word.as_bytes(), &[0]]).collect();
                Mark::Cluster { mac: hex(&sign(&version.cluster, &words)) }
            })
            .collect()
    }
}

fn sign(key: &Secret, pieces: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &key.0));
    for piece in pieces {
        context.update(piece);
    }
    let mut mac = [0; 32];
    for (to, from) in mac.iter_mut().zip(context.sign().as_ref()) {
        *to = *from;
    }
    mac
}

fn random() -> Result<Secret, StoreError> {
    let mut secret = Secret([0; 32]);
    SystemRandom::new()
        .fill(&mut secret.0)
        .map_err(|_| StoreError::Keys("the system has no randomness".to_owned()))?;
    Ok(secret)
}

/// Sixteen random octets, for a new database's identity.
pub(crate) fn random_id() -> Result<[u8; 16], StoreError> {
    let mut id = [0; 16];
    SystemRandom::new()
        .fill(&mut id)
        .map_err(|_| StoreError::Keys("the system has no randomness".to_owned()))?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_are_made_once_closed_to_others_and_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let made = Keys::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let read = Keys::open(&path).unwrap();
        let mark = |keys: &Keys| keys.token_marks("ann@example.net", "UUID", b"23bf83be");
        assert_eq!(mark(&made), mark(&read));
        assert_ne!(
            mark(&made),
            made.token_marks("bob@example.net", "UUID", b"23bf83be"),
            "bound to the account"
        );
        assert_ne!(mark(&made), made.token_marks("ann@example.net", "MAC", b"23bf83be"), "and to the type");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Keys::open(&path), Err(StoreError::Keys(_))));
        assert_eq!(format!("{made:?}"), "Keys(…)");
    }

    #[test]
    fn a_link_or_a_damaged_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        drop(Keys::open(&path).unwrap());
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(Keys::open(&link), Err(StoreError::Keys(_))));
        let text = fs::read_to_string(&path).unwrap();
        for bad in ["", "postern device keys 1\n", &text[..text.len() - 2], &text.replacen("1 ", "x ", 1)] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(Keys::open(&path), Err(StoreError::Keys(_))), "{}", bad.len());
        }
    }

    #[test]
    fn rotation_keeps_the_older_marks() {
        let folder = tempfile::tempdir().unwrap();
        let mut keys = Keys::open(&folder.path().join("keys")).unwrap();
        let fingerprint = keys.fingerprint();
        let old = keys.token_marks("ann", "UUID", b"x");
        keys.rotate().unwrap();
        let keys = Keys::open(&folder.path().join("keys")).unwrap();
        let both = keys.token_marks("ann", "UUID", b"x");
        assert_eq!(both.len(), 2);
        assert_eq!(both[1], old[0]);
        assert_eq!(keys.fingerprint(), fingerprint);
    }
}

//! Keys of records: a letter for the kind, then the account, then what tells its records apart. At most 64 octets.

use policy::device::Alias;

use crate::codec::sha256_16;

/// Kinds of records.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Name and rules of an account.
    Account = b'A',
    /// A device.
    Device = b'D',
    /// When alerts went out.
    Alerts = b'N',
    /// The journal of the last operations. Not exported.
    Journal = b'J',
    /// The log of logins for the simulation.
    Logins = b'L',
    /// Sequence and identity of this copy of the database. Not exported.
    Meta = b'M',
    /// A refused attempt that the owner may approve.
    Attempt = b'T',
}

/// An account's place: the first 16 octets of SHA-256 of its canonical name.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Place(pub(crate) [u8; 16]);

impl Place {
    pub(crate) fn of(account: &str) -> Self {
        Self(sha256_16(&[account.as_bytes()]))
    }

    /// The key of the account's only record of a kind, and the beginning of the keys of its many.
    pub(crate) fn key(self, kind: Kind) -> Vec<u8> {
        let mut key = Vec::with_capacity(24);
        key.push(kind as u8);
        key.extend_from_slice(&self.0);
        key
    }

    /// The key of one device or attempt.
    pub(crate) fn keyed(self, kind: Kind, alias: &Alias) -> Vec<u8> {
        let mut key = self.key(kind);
        key.extend_from_slice(alias.0.as_bytes());
        key
    }

    /// The account of a key.
    pub(crate) fn of_key(key: &[u8]) -> Option<Self> {
        key.get(1..17)?.try_into().ok().map(Self)
    }
}

/// The key of the meta record.
pub(crate) const META: &[u8] = &[Kind::Meta as u8];

/// The key of journal slot `sequence % 256`.
pub(crate) fn journal(sequence: u64) -> [u8; 2] {
    let [low, ..] = sequence.to_le_bytes();
    [Kind::Journal as u8, low]
}

/// Whether a record belongs to this copy of the database alone and is neither exported nor compared.
pub(crate) fn is_local(key: &[u8]) -> bool {
    matches!(key.first(), Some(&kind) if kind == Kind::Journal as u8 || kind == Kind::Meta as u8)
}

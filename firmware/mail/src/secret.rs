//! Octets that must not outlive their use.

use core::fmt;

use zeroize::Zeroize;

/// Up to `N` octets that are wiped when dropped and that `Debug` never shows, in any build.
#[derive(Clone, Default)]
pub struct Secret<const N: usize>(heapless::Vec<u8, N>);

impl<const N: usize> Secret<N> {
    /// An empty secret.
    pub const fn new() -> Self {
        Self(heapless::Vec::new())
    }

    /// A copy of `bytes`, or `None` when they do not fit.
    pub fn copy_from(bytes: &[u8]) -> Option<Self> {
        heapless::Vec::from_slice(bytes).ok().map(Self)
    }

    /// Adds one octet; `false` when full.
    #[must_use]
    pub fn push(&mut self, byte: u8) -> bool {
        self.0.push(byte).is_ok()
    }

    /// Adds `bytes`, all or none; `false` when they do not fit.
    #[must_use]
    pub fn extend(&mut self, bytes: &[u8]) -> bool {
        self.0.extend_from_slice(bytes).is_ok()
    }

    /// `more` fresh octets behind the present ones, to be written to; `None`, and nothing changed, without room.
    pub fn grow(&mut self, more: usize) -> Option<&mut [u8]> {
        let old = self.0.len();
        self.0.resize(old.checked_add(more)?, 0).ok()?;
        self.0.get_mut(old..)
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The octets. Their reader must not log or store them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The octets, to change in place.
    pub fn expose_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// Forgets the content and overwrites it. Nothing else makes it shorter, so the length covers all that was written.
    pub fn wipe(&mut self) {
        self.0.as_mut_slice().zeroize();
        self.0.clear();
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.wipe();
    }
}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<const N: usize> PartialEq for Secret<N> {
    /// For tests and duplicate checks only; tokens are compared as keyed hashes, in constant time, by `store`.
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<const N: usize> Eq for Secret<N> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_and_wipes() {
        let mut secret = Secret::<8>::copy_from(b"abc").unwrap();
        assert!(secret.push(b'd') && secret.extend(b"ef"));
        assert!(!secret.extend(b"ghi"), "all or none");
        assert_eq!(secret.expose(), b"abcdef");
        secret.grow(2).unwrap().copy_from_slice(b"gh");
        assert!(secret.grow(1).is_none() && !secret.push(b'i'));
        assert_eq!(secret.expose(), b"abcdefgh");
        secret.wipe();
        assert!(secret.is_empty());
        assert_eq!(secret.grow(8).unwrap(), [0; 8]);
        assert!(Secret::<2>::copy_from(b"abc").is_none());
    }

    #[test]
    fn debug_shows_nothing() {
        extern crate std;
        assert_eq!(std::format!("{:?}", Secret::<8>::copy_from(b"abc")), "Some(Secret(…))");
    }
}

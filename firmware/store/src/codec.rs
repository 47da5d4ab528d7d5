//! Bytes of records: little-endian numbers, LEB128 for counts and times, strings with their length before them.

use std::net::IpAddr;

/// Builds a body.
#[derive(Default)]
pub(crate) struct Put(pub(crate) Vec<u8>);

impl Put {
    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    /// Unsigned LEB128.
    pub(crate) fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push((value & 0x7f) as u8);
    }

    /// Text, cut to `max` octets (at most 255) at a character border.
    pub(crate) fn text(&mut self, text: &str, max: u8) {
        let cut = text.floor_char_boundary(usize::from(max));
        // At most 255 by the cut above.
        self.0.push(u8::try_from(cut).unwrap_or(0));
        self.0.extend_from_slice(text.get(..cut).unwrap_or_default().as_bytes());
    }

    pub(crate) fn address(&mut self, address: Option<IpAddr>) {
        match address {
            None => self.u8(0),
            Some(IpAddr::V4(v4)) => {
                self.u8(4);
                self.0.extend_from_slice(&v4.octets());
            }
            Some(IpAddr::V6(v6)) => {
                self.u8(6);
                self.0.extend_from_slice(&v6.octets());
            }
        }
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

/// Takes a body apart; `None` is a body that ends early or holds nonsense.
pub(crate) struct Take<'a>(pub(crate) &'a [u8]);

impl<'a> Take<'a> {
    pub(crate) fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.slice(N)?.try_into().ok()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    pub(crate) fn text(&mut self) -> Option<String> {
        let length = self.u8()?;
        String::from_utf8(self.slice(usize::from(length))?.to_vec()).ok()
    }

    #[allow(clippy::option_option, reason = "outer: whether it could be read; inner: whether there was one")]
    pub(crate) fn address(&mut self) -> Option<Option<IpAddr>> {
        match self.u8()? {
            0 => Some(None),
            4 => self.array::<4>().map(|octets| Some(octets.into())),
            6 => self.array::<16>().map(|octets| Some(octets.into())),
            _ => None,
        }
    }
}

const CRC32C: crc::Crc<u32, crc::Table<16>> = crc::Crc::<u32, crc::Table<16>>::new(&crc::CRC_32_ISCSI);

/// CRC-32C (Castagnoli) of several pieces as one.
pub(crate) fn crc32c(pieces: &[&[u8]]) -> u32 {
    let mut digest = CRC32C.digest();
    for piece in pieces {
        digest.update(piece);
    }
    digest.finalize()
}

/// The first 16 octets of SHA-256 of several pieces as one.
pub(crate) fn sha256_16(pieces: &[&[u8]]) -> [u8; 16] {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for piece in pieces {
        context.update(piece);
    }
    let mut short = [0; 16];
    for (to, from) in short.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    short
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What [`hex`] made; `None` if it is something else.
pub(crate) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        for value in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, u64::from(u32::MAX), u64::MAX] {
            let mut put = Put::default();
            put.number(value);
            assert_eq!(Take(&put.0).number(), Some(value));
        }
        assert_eq!(Take(&[0x80; 11]).number(), None);
    }

    #[test]
    fn text_is_cut_between_characters() {
        let mut put = Put::default();
        put.text("aé", 2);
        assert_eq!(Take(&put.0).text().as_deref(), Some("a"));
    }

    #[test]
    fn crc32c_known_answer() {
        // RFC 3720 appendix B.4: 32 octets of zeros.
        assert_eq!(crc32c(&[&[0; 16], &[0; 16]]), 0x8a91_36aa);
    }

    #[test]
    fn hex_comes_back() {
        assert_eq!(unhex::<3>(&hex(&[0, 0xab, 0xff])), Some([0, 0xab, 0xff]));
        assert_eq!(unhex::<3>("00abf"), None);
        assert_eq!(unhex::<3>("00abfg"), None);
    }
}

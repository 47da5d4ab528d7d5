//! Mail domains.

use core::fmt;
use core::str::FromStr;

/// A mail domain: lower-case A-labels, no trailing dot. Valid by construction, so nothing checks it again.
///
/// At most 253 octets (RFC 1035 §2.3.4) in labels of 1 to 63 letters, digits and inner hyphens (RFC 5321 §2.3.5).
/// Unicode names must arrive as A-labels (RFC 5890 §2.3.2.1). The last label is never all digits (RFC 3696 §2), so
/// that a bare IPv4 address is not taken for a name.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Domain(heapless::String<253>);

impl Domain {
    /// Reads a domain and lower-cases it. A trailing dot is refused: who wants to allow it removes it first.
    pub fn parse(raw: &[u8]) -> Result<Self, DomainError> {
        if raw.is_empty() {
            return Err(DomainError::Empty);
        }
        if raw.len() > 253 {
            return Err(DomainError::TooLong);
        }
        let mut text = heapless::String::new();
        let mut last = &[][..];
        for label in raw.split(|&byte| byte == b'.') {
            check_label(label)?;
            last = label;
            if !text.is_empty() {
                text.push('.').map_err(|_| DomainError::TooLong)?;
            }
            for &byte in label {
                text.push(char::from(byte.to_ascii_lowercase())).map_err(|_| DomainError::TooLong)?;
            }
        }
        if last.iter().all(u8::is_ascii_digit) {
            return Err(DomainError::Numeric);
        }
        Ok(Self(text))
    }

    /// The domain, as in `example.net`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// RFC 5321 §4.1.2 `sub-domain`, at most 63 octets.
fn check_label(label: &[u8]) -> Result<(), DomainError> {
    let (Some(first), Some(last)) = (label.first(), label.last()) else {
        return Err(DomainError::Label);
    };
    if label.len() > 63 || *first == b'-' || *last == b'-' {
        return Err(DomainError::Label);
    }
    if label.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-') {
        Ok(())
    } else {
        Err(DomainError::Character)
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Domain {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for Domain {
    type Err = DomainError;

    fn from_str(raw: &str) -> Result<Self, DomainError> {
        Self::parse(raw.as_bytes())
    }
}

/// Why something is not a [`Domain`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DomainError {
    /// Nothing there.
    Empty,
    /// More than 253 octets.
    TooLong,
    /// A label is empty, longer than 63 octets, or has a hyphen at an end.
    Label,
    /// Something other than ASCII letters, digits, hyphens and dots.
    Character,
    /// The last label is a number, as in an IPv4 address.
    Numeric,
}

impl fmt::Display for DomainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "a domain is missing",
            Self::TooLong => "a domain has at most 253 characters",
            Self::Label => "each part of a domain has 1 to 63 characters and no hyphen at its ends",
            Self::Character => {
                "a domain has only ASCII letters, digits, hyphens and dots (write Unicode names as xn--…)"
            }
            Self::Numeric => "the last part of a domain is not a number",
        })
    }
}

impl core::error::Error for DomainError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lower_cases_and_keeps_a_labels() {
        assert_eq!(Domain::parse(b"Mail.EXAMPLE.net").unwrap().as_str(), "mail.example.net");
        assert_eq!(Domain::parse(b"xn--bcher-kva.example").unwrap().as_str(), "xn--bcher-kva.example");
        assert_eq!(Domain::parse(b"localhost").unwrap().as_str(), "localhost");
    }

    #[test]
    fn refuses_what_is_no_domain() {
        for (raw, error) in [
            (&b""[..], DomainError::Empty),
            (b".", DomainError::Label),
            (b"a..b", DomainError::Label),
            (b"example.net.", DomainError::Label),
            (b"-a.net", DomainError::Label),
            (b"a-.net", DomainError::Label),
            (b"a_b.net", DomainError::Character),
            ("bücher.example".as_bytes(), DomainError::Character),
            (b"192.0.2.1", DomainError::Numeric),
            (b"a b.net", DomainError::Character),
            (b"a.net\0", DomainError::Character),
            (&[b'a'; 64], DomainError::Label),
            (&[b'a'; 254], DomainError::TooLong),
        ] {
            assert_eq!(Domain::parse(raw), Err(error), "{raw:?}");
        }
    }

    #[test]
    fn takes_the_longest_name() {
        let mut raw = [b'a'; 253];
        for dot in [63, 127, 191] {
            raw[dot] = b'.';
        }
        assert_eq!(Domain::parse(&raw).unwrap().as_str().len(), 253);
    }
}

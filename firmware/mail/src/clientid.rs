//! CLIENTID's two arguments (draft-storey-smtp-client-id-12 §3, draft-yu-imap-client-id-07 §3).
//!
//! The command's framing (raw in SMTP; raw, quoted or literal in IMAP) is the protocol's; what comes here is
//! decoded. The answers to what the drafts leave open are clientid.md Q9 to Q12.
use core::fmt;

use crate::secret::Secret;

/// A device's name for itself: a type and a bearer token, normalised so that equal devices compare equal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientId {
    /// Upper case, letters, digits and `-`, 1 to 16 octets.
    pub kind: heapless::String<16>,
    /// 1 to 128 VCHAR, UUIDs in lower case without braces.
    pub token: Secret<128>,
}

impl ClientId {
    /// Takes a type and a token, both as sent, without quotes of IMAP or line ends.
    ///
    /// - The type is 1 to 16 of letters, digits, `-`, and `_`, which the drafts' own example type has though their
    ///   grammar forbids it: it becomes `-`, and the flag says so (Q11).
    /// - The token is 1 to 128 of %x21-7E. Under a type `UUID` or `…UUID` an 8-4-4-4-12 hex token, perhaps in braces,
    ///   becomes lower case without braces; every other token stays as it is (Q9).
    pub fn parse(kind: &[u8], token: &[u8]) -> Result<(Self, bool), ClientIdError> {
        if kind.is_empty() || token.is_empty() {
            return Err(ClientIdError::Missing);
        }
        let mut underscore = false;
        let mut upper = heapless::String::new();
        for &octet in kind {
            let octet = match octet {
                b'_' => {
                    underscore = true;
                    b'-'
                }
                b'-' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => octet.to_ascii_uppercase(),
                _ => return Err(ClientIdError::Kind),
            };
            upper.push(char::from(octet)).map_err(|_| ClientIdError::Kind)?;
        }
        if !token.iter().all(u8::is_ascii_graphic) {
            return Err(ClientIdError::Token);
        }
        let bare = if upper.ends_with("UUID") { uuid(token) } else { None };
        let mut kept = Secret::copy_from(bare.unwrap_or(token)).ok_or(ClientIdError::Token)?;
        if bare.is_some() {
            kept.expose_mut().make_ascii_lowercase();
        }
        Ok((Self { kind: upper, token: kept }, underscore))
    }

    /// Takes what stands between `CLIENTID SP` and CRLF where arguments are raw: `type SP token`, and one trailing
    /// space is passed over (Q12).
    pub fn parse_arguments(arguments: &[u8]) -> Result<(Self, bool), ClientIdError> {
        let arguments = arguments.strip_suffix(b" ").unwrap_or(arguments);
        let gap = arguments.iter().position(|&octet| octet == b' ').ok_or(ClientIdError::Missing)?;
        let (kind, rest) = arguments.split_at_checked(gap).ok_or(ClientIdError::Missing)?;
        Self::parse(kind, rest.get(1..).unwrap_or_default())
    }

    /// The same device as an IMAP client would have it after quoting: SMTP has no quotes, so they are part of the
    /// token there. `None` if the token is not enclosed in them (end of clientid.md §6.2).
    pub fn unquoted(&self) -> Option<Self> {
        let inner = self.token.expose().strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        Self::parse(self.kind.as_bytes(), inner).ok().map(|(id, _)| id)
    }
}

/// The 36 characters of a hex UUID, without braces, or `None` if `token` is not one.
fn uuid(token: &[u8]) -> Option<&[u8]> {
    let bare = match token.strip_prefix(b"{") {
        Some(rest) => rest.strip_suffix(b"}")?,
        None => token,
    };
    let shaped = bare.len() == 36
        && bare.iter().enumerate().all(|(at, octet)| match at {
            8 | 13 | 18 | 23 => *octet == b'-',
            _ => octet.is_ascii_hexdigit(),
        });
    shaped.then_some(bare)
}

/// Why a CLIENTID command is malformed. All are one reply on the wire (501, BAD); the difference is for counters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClientIdError {
    /// An argument is missing or empty.
    Missing,
    /// The type is longer than 16 octets or holds something else than letters, digits, `-` and `_`.
    Kind,
    /// The token is longer than 128 octets, or holds a space, a control or an 8-bit octet.
    Token,
}

impl fmt::Display for ClientIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "argument missing",
            Self::Kind => "type outside 1*16 of letters, digits and dashes",
            Self::Token => "token outside 1*128 VCHAR",
        })
    }
}

impl core::error::Error for ClientIdError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &str) -> (ClientId, bool) {
        ClientId::parse_arguments(arguments.as_bytes()).unwrap()
    }

    fn refused(arguments: &[u8]) -> ClientIdError {
        ClientId::parse_arguments(arguments).unwrap_err()
    }

    /// clientid.md §6.2, what concerns the arguments.
    #[test]
    fn vectors() {
        let (id, underscore) = parsed("UUID 23bf83be-aad7-46aa-9e0f-39191ccf402f");
        assert_eq!((id.kind.as_str(), underscore), ("UUID", false));
        assert_eq!(parsed("uuid 23BF83BE-AAD7-46AA-9E0F-39191CCF402F").0, id, "same device");
        assert_eq!(
            parsed("UUID {23BF83BE-aad7-46AA-9E0F-39191CCF402F}").0,
            id,
            "braces are form, not content"
        );
        assert_eq!(parsed("TB-UUID x").0.kind, "TB-UUID");
        assert_eq!(parsed("MAC 08:9e:01:70:f6:46").0.token.expose(), b"08:9e:01:70:f6:46");
        let (id, underscore) = parsed("DEVICE_ID abc");
        assert_eq!((id.kind.as_str(), underscore), ("DEVICE-ID", true));
        assert_eq!(parsed(&format_token(128)).0.token.expose().len(), 128);
        assert_eq!(refused(format_token(129).as_bytes()), ClientIdError::Token);
        assert_eq!(refused(b"ABCDEFGHIJKLMNOPQ x"), ClientIdError::Kind);
        assert_eq!(parsed("ABCDEFGHIJKLMNOP x").0.kind, "ABCDEFGHIJKLMNOP");
        for (arguments, error) in [
            (&b"UUID"[..], ClientIdError::Missing),
            (b"", ClientIdError::Missing),
            (b"UUID ", ClientIdError::Missing),
            (b" x", ClientIdError::Missing),
            (b"A B C", ClientIdError::Token),
            (b"UUID a\xffb", ClientIdError::Token),
            (b"UUID a\tb", ClientIdError::Token),
            (b"UU:ID x", ClientIdError::Kind),
            (b"A  x", ClientIdError::Token),
            (b"A x  ", ClientIdError::Token),
        ] {
            assert_eq!(refused(arguments), error, "{arguments:?}");
        }
    }

    fn format_token(length: usize) -> heapless::String<140> {
        let mut line = heapless::String::new();
        line.push_str("X ").unwrap();
        for _ in 0..length {
            line.push('~').unwrap();
        }
        line
    }

    #[test]
    fn one_trailing_space_is_passed_over() {
        assert_eq!(parsed("TB-UUID x ").0, parsed("TB-UUID x").0);
    }

    /// A token that only looks like a UUID, or stands under another type, keeps its case.
    #[test]
    fn only_uuids_change_case() {
        assert_eq!(parsed("UUID 23BF83BE").0.token.expose(), b"23BF83BE");
        assert_eq!(
            parsed("UUID {23BF83BE-AAD7-46AA-9E0F-39191CCF402F").0.token.expose().first(),
            Some(&b'{')
        );
        let other = parsed("LICENSE 23BF83BE-AAD7-46AA-9E0F-39191CCF402F").0;
        assert_eq!(other.token.expose(), b"23BF83BE-AAD7-46AA-9E0F-39191CCF402F");
        assert_eq!(
            parsed("K9-UUID 23BF83BE-AAD7-46AA-9E0F-39191CCF402F").0.token.expose().first(),
            Some(&b'2')
        );
        assert!(parsed("K9-UUID 23BF83BE-AAD7-46AA-9E0F-39191CCF402F").0.token.expose().ends_with(b"402f"));
    }

    /// SMTP keeps the quotes, IMAP takes them off; the alternative makes one device of both.
    #[test]
    fn quotes_of_smtp() {
        let smtp = parsed("MAC \"08:9e:01:70:f6:46\"").0;
        assert_eq!(smtp.token.expose(), b"\"08:9e:01:70:f6:46\"");
        assert_eq!(smtp.unquoted().unwrap(), parsed("MAC 08:9e:01:70:f6:46").0);
        assert_eq!(parsed("MAC 08:9e").0.unquoted(), None);
        assert_eq!(parsed("MAC \"").0.unquoted(), None);
        assert_eq!(parsed("MAC \"\"").0.unquoted(), None);
        let uuid = parsed("UUID \"23BF83BE-AAD7-46AA-9E0F-39191CCF402F\"").0;
        assert!(uuid.unquoted().unwrap().token.expose().starts_with(b"23bf"));
    }

    #[test]
    fn debug_hides_the_token() {
        extern crate std;
        assert!(!std::format!("{:?}", parsed("MAC s3cret").0).contains("s3cret"));
    }
}

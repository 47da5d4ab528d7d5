//! Envelope paths (RFC 5321 §4.1.2), parsed once into a form that has one spelling.

use core::fmt::{self, Write as _};
use core::net::{Ipv4Addr, Ipv6Addr};

use crate::account::{Account, LocalCase, is_atext};
use crate::domain::Domain;

/// Most octets of an address without its angle brackets (RFC 5321 §4.5.3.1.3: a path has 256).
pub const MAX_ADDRESS: usize = 254;

/// Whether local parts and domains may hold UTF-8 (RFC 6531).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Charset {
    /// ASCII only.
    Ascii,
    /// SMTPUTF8 was asked for.
    Utf8,
}

/// A reverse-path or forward-path.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there is no heap here to keep a mailbox on")]
pub enum Path {
    /// `<>`, the sender of notifications (RFC 5321 §4.5.5).
    Null,
    /// `<postmaster>` without a domain, which every server must know (RFC 5321 §4.5.1).
    Postmaster,
    /// `<local@domain>`.
    Mailbox(Mailbox),
}

impl Path {
    /// Reads a path that is the whole of `raw`, with its angle brackets.
    pub fn parse(raw: &[u8], charset: Charset) -> Result<Self, AddressError> {
        match Self::take(raw, charset)? {
            (path, []) => Ok(path),
            _ => Err(AddressError::Syntax),
        }
    }

    /// Reads the path that `raw` starts with, and gives what follows its `>`.
    ///
    /// A source route (`<@a,@b:x@c>`) must be valid and is then dropped (RFC 5321 §4.1.1.3 and appendix C).
    pub fn take(raw: &[u8], charset: Charset) -> Result<(Self, &[u8]), AddressError> {
        let mut rest = raw.strip_prefix(b"<").ok_or(AddressError::Syntax)?;
        if let Some(behind) = rest.strip_prefix(b">") {
            return Ok((Self::Null, behind));
        }
        if let Some((word, behind)) = rest.split_at_checked(11)
            && word.eq_ignore_ascii_case(b"postmaster>")
        {
            return Ok((Self::Postmaster, behind));
        }
        if rest.first() == Some(&b'@') {
            rest = skip_route(rest, charset)?;
        }
        let (mailbox, behind) = Mailbox::take(rest, charset)?;
        Ok((Self::Mailbox(mailbox), behind.strip_prefix(b">").ok_or(AddressError::Syntax)?))
    }

    /// The address, unless the path is special.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Mailbox(mailbox) => Some(mailbox),
            Self::Null | Self::Postmaster => None,
        }
    }
}

impl fmt::Display for Path {
    /// With its angle brackets, as it goes on the wire.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("<>"),
            Self::Postmaster => f.write_str("<postmaster>"),
            Self::Mailbox(mailbox) => write!(f, "<{mailbox}>"),
        }
    }
}

/// `@a,@b:` → what follows the colon.
fn skip_route(mut rest: &[u8], charset: Charset) -> Result<&[u8], AddressError> {
    loop {
        rest = rest.strip_prefix(b"@").ok_or(AddressError::Syntax)?;
        let end = rest.iter().position(|byte| matches!(byte, b',' | b':')).ok_or(AddressError::Syntax)?;
        let (name, behind) = rest.split_at_checked(end).ok_or(AddressError::Syntax)?;
        check_domain(name, charset)?;
        match behind.split_first() {
            Some((b',', next)) => rest = next,
            Some((_, next)) => return Ok(next),
            None => return Err(AddressError::Syntax),
        }
    }
}

/// `local@domain`, with quoting undone and the domain in lower case.
///
/// `"alice"@x` equals `alice@x` (RFC 5321 §4.1.2: a local part that needs no quotes is the same without). Case of
/// the local part is kept: only the domain's own server knows whether it matters.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Mailbox {
    /// Local part without quotes, `@`, domain.
    text: heapless::String<MAX_ADDRESS>,
    /// Where the `@` stands; the local part may hold others.
    at: usize,
}

/// What stands behind the `@`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Host<'a> {
    /// Lower-case A-labels.
    Domain(&'a str),
    /// A name with U-labels; its ASCII letters are lower-case (RFC 6531 §3.3).
    Unicode(&'a str),
    /// `[192.0.2.1]` or `[IPv6:2001:db8::1]`, brackets included (RFC 5321 §4.1.3).
    Literal(&'a str),
}

impl Mailbox {
    /// Reads `local@domain`, without angle brackets, that is the whole of `raw`.
    pub fn parse(raw: &[u8], charset: Charset) -> Result<Self, AddressError> {
        match Self::take(raw, charset)? {
            (mailbox, []) => Ok(mailbox),
            _ => Err(AddressError::Syntax),
        }
    }

    /// Reads up to what cannot belong to an address any more.
    fn take(raw: &[u8], charset: Charset) -> Result<(Self, &[u8]), AddressError> {
        let mut text = heapless::String::new();
        let rest = match raw.strip_prefix(b"\"") {
            Some(quoted) => take_quoted(quoted, charset, &mut text)?,
            None => take_dot_atom(raw, charset, &mut text)?,
        };
        let rest = rest.strip_prefix(b"@").ok_or(AddressError::Syntax)?;
        let at = text.len();
        text.push('@').map_err(|_| AddressError::TooLong)?;
        let end = rest.iter().position(|byte| matches!(byte, b'>' | b' ')).unwrap_or(rest.len());
        let (name, behind) = rest.split_at_checked(end).ok_or(AddressError::Syntax)?;
        match check_domain(name, charset)? {
            Checked::Name => push_lower(&mut text, name)?,
            Checked::V4(address) => write!(text, "[{address}]").map_err(|_| AddressError::TooLong)?,
            Checked::V6(address) => write!(text, "[IPv6:{address}]").map_err(|_| AddressError::TooLong)?,
        }
        Ok((Self { text, at }, behind))
    }

    /// The local part, quoting undone.
    pub fn local(&self) -> &str {
        self.text.get(..self.at).unwrap_or_default()
    }

    /// What stands behind the `@`.
    pub fn host(&self) -> Host<'_> {
        let host = self.text.get(self.at + 1..).unwrap_or_default();
        if host.starts_with('[') {
            Host::Literal(host)
        } else if host.is_ascii() {
            Host::Domain(host)
        } else {
            Host::Unicode(host)
        }
    }

    /// Whether anything in it needs SMTPUTF8.
    pub fn is_ascii(&self) -> bool {
        self.text.is_ascii()
    }

    /// The account of this name, if it can be one: a plain local part at a domain.
    pub fn account(&self, case: LocalCase) -> Option<Account> {
        let Host::Domain(domain) = self.host() else { return None };
        let domain = Domain::parse(domain.as_bytes()).ok()?;
        Account::new(self.local().as_bytes(), Some(&domain), case).ok()
    }
}

impl fmt::Display for Mailbox {
    /// As it goes on the wire: with quotes only where they are needed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local = self.local();
        if is_dot_atom(local) {
            return f.write_str(&self.text);
        }
        f.write_char('"')?;
        for character in local.chars() {
            if matches!(character, '"' | '\\') {
                f.write_char('\\')?;
            }
            f.write_char(character)?;
        }
        f.write_char('"')?;
        f.write_str(self.text.get(self.at..).unwrap_or_default())
    }
}

fn is_dot_atom(local: &str) -> bool {
    !local.is_empty()
        && local
            .split('.')
            .all(|atom| !atom.is_empty() && atom.bytes().all(|byte| is_atext(byte) || byte >= 0x80))
}

type Text = heapless::String<MAX_ADDRESS>;

fn take_dot_atom<'a>(raw: &'a [u8], charset: Charset, text: &mut Text) -> Result<&'a [u8], AddressError> {
    let end =
        raw.iter().position(|&byte| !(is_atext(byte) || byte == b'.' || byte >= 0x80)).unwrap_or(raw.len());
    let (local, rest) = raw.split_at_checked(end).ok_or(AddressError::Syntax)?;
    let local = decode(local, charset)?;
    if !is_dot_atom(local) {
        return Err(AddressError::Syntax);
    }
    text.push_str(local).map_err(|_| AddressError::TooLong)?;
    Ok(rest)
}

/// RFC 5321 §4.1.2 `Quoted-string`, without its first quote: printable ASCII and blanks (and UTF-8), so no CR, LF,
/// NUL, TAB. The empty string `""` is a local part by that grammar.
fn take_quoted<'a>(raw: &'a [u8], charset: Charset, text: &mut Text) -> Result<&'a [u8], AddressError> {
    let mut end = 0;
    loop {
        match raw.get(end) {
            Some(b'"') => break,
            Some(b'\\') => match raw.get(end + 1) {
                Some(0x20..=0x7e) => end += 2,
                _ => return Err(AddressError::Syntax),
            },
            Some(0x20..=0x7e | 0x80..) => end += 1,
            _ => return Err(AddressError::Syntax),
        }
    }
    let (quoted, rest) = raw.split_at_checked(end).ok_or(AddressError::Syntax)?;
    let mut characters = decode(quoted, charset)?.chars();
    while let Some(character) = characters.next() {
        let character = if character == '\\' { characters.next().unwrap_or('\\') } else { character };
        text.push(character).map_err(|_| AddressError::TooLong)?;
    }
    rest.strip_prefix(b"\"").ok_or(AddressError::Syntax)
}

fn decode(raw: &[u8], charset: Charset) -> Result<&str, AddressError> {
    let text = core::str::from_utf8(raw).map_err(|_| AddressError::Syntax)?;
    match charset {
        Charset::Ascii if !text.is_ascii() => Err(AddressError::NotAscii),
        // C1 controls are UTF-8, but nobody's name.
        _ if text.chars().any(char::is_control) => Err(AddressError::Syntax),
        _ => Ok(text),
    }
}

enum Checked {
    Name,
    V4(Ipv4Addr),
    V6(Ipv6Addr),
}

fn check_domain(raw: &[u8], charset: Charset) -> Result<Checked, AddressError> {
    if let Some(literal) = raw.strip_prefix(b"[") {
        let literal = literal.strip_suffix(b"]").ok_or(AddressError::Syntax)?;
        let literal = core::str::from_utf8(literal).map_err(|_| AddressError::Syntax)?;
        return match literal.split_at_checked(5) {
            Some((tag, address)) if tag.eq_ignore_ascii_case("IPv6:") => {
                address.parse().map(Checked::V6).map_err(|_| AddressError::Syntax)
            }
            _ => literal.parse().map(Checked::V4).map_err(|_| AddressError::Syntax),
        };
    }
    if raw.is_ascii() {
        return Domain::parse(raw).map(|_| Checked::Name).map_err(|_| AddressError::Syntax);
    }
    // U-labels: passed on as they are; whether they are valid IDNA is for the server that looks them up.
    let name = decode(raw, charset)?;
    let fits = |label: &str| {
        !label.is_empty()
            && label.len() <= 252
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| {
                c == '-' || if c.is_ascii() { c.is_ascii_alphanumeric() } else { !c.is_whitespace() }
            })
    };
    if name.split('.').all(fits) { Ok(Checked::Name) } else { Err(AddressError::Syntax) }
}

fn push_lower(text: &mut Text, raw: &[u8]) -> Result<(), AddressError> {
    let name = core::str::from_utf8(raw).map_err(|_| AddressError::Syntax)?;
    for character in name.chars() {
        text.push(character.to_ascii_lowercase()).map_err(|_| AddressError::TooLong)?;
    }
    Ok(())
}

/// Why something is not a path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AddressError {
    /// Not in the grammar.
    Syntax,
    /// More than [`MAX_ADDRESS`] octets.
    TooLong,
    /// UTF-8 where SMTPUTF8 was not asked for (reply 553 5.6.7, RFC 6531 §3.5).
    NotAscii,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syntax => "not a mail address",
            Self::TooLong => "an address has at most 254 characters",
            Self::NotAscii => "an address outside ASCII needs SMTPUTF8",
        })
    }
}

impl core::error::Error for AddressError {}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;

    fn ascii(raw: &str) -> Result<Path, AddressError> {
        Path::parse(raw.as_bytes(), Charset::Ascii)
    }

    fn wire(raw: &str) -> std::string::String {
        ascii(raw).unwrap().to_string()
    }

    #[test]
    fn reads_paths_of_rfc_5321() {
        assert_eq!(ascii("<>"), Ok(Path::Null));
        assert_eq!(ascii("<PostMaster>"), Ok(Path::Postmaster));
        assert_eq!(wire("<Smith@Bar.COM>"), "<Smith@bar.com>");
        // Appendix C and D: source routes are dropped.
        assert_eq!(wire("<@foo.com,@baz.org:Jones@XYZ.COM>"), "<Jones@xyz.com>");
        assert_eq!(wire("<a@[192.0.2.1]>"), "<a@[192.0.2.1]>");
        assert_eq!(wire("<a@[ipv6:2001:DB8:0:0::1]>"), "<a@[IPv6:2001:db8::1]>");
    }

    #[test]
    fn quotes_only_where_needed() {
        assert_eq!(ascii("<\"alice\"@x.net>"), ascii("<alice@x.net>"));
        assert_eq!(wire("<\"al\\ice\"@x.net>"), "<alice@x.net>");
        assert_eq!(wire("<\"a b\"@x.net>"), "<\"a b\"@x.net>");
        assert_eq!(wire("<\"a>b@c\"@x.net>"), "<\"a>b@c\"@x.net>");
        assert_eq!(wire("<\"a\\\"\\\\b\"@x.net>"), "<\"a\\\"\\\\b\"@x.net>");
        assert_eq!(wire("<\".a\"@x.net>"), "<\".a\"@x.net>");
        assert_eq!(wire("<\"\"@x.net>"), "<\"\"@x.net>");
        let path = ascii("<\"a>b@c\"@x.net>").unwrap();
        assert_eq!(path.mailbox().unwrap().local(), "a>b@c");
        assert_eq!(path.mailbox().unwrap().host(), Host::Domain("x.net"));
    }

    #[test]
    fn gives_what_follows() {
        let (path, rest) = Path::take(b"<a@b.net> SIZE=1", Charset::Ascii).unwrap();
        assert_eq!((path.to_string().as_str(), rest), ("<a@b.net>", &b" SIZE=1"[..]));
    }

    #[test]
    fn utf8_only_when_asked() {
        let raw = "<pelé@example.com>".as_bytes();
        assert_eq!(Path::parse(raw, Charset::Ascii), Err(AddressError::NotAscii));
        assert_eq!(Path::parse(raw, Charset::Utf8).unwrap().to_string(), "<pelé@example.com>");
        let host = "<a@Bücher.example>".as_bytes();
        assert_eq!(Path::parse(host, Charset::Ascii), Err(AddressError::NotAscii));
        let path = Path::parse(host, Charset::Utf8).unwrap();
        assert_eq!(path.mailbox().unwrap().host(), Host::Unicode("bücher.example"));
        assert!(!path.mailbox().unwrap().is_ascii());
        assert_eq!(Path::parse(b"<\xff@example.com>", Charset::Utf8), Err(AddressError::Syntax));
    }

    #[test]
    fn refuses_what_is_no_path() {
        for raw in [
            "",
            "<",
            ">",
            "a@b.net",
            "<a>",
            "<@b.net>",
            "<a@>",
            "<a@b.net",
            "<a@b.net>>",
            "<a b@c.net>",
            "<.a@b.net>",
            "<a.@b.net>",
            "<a..b@c.net>",
            "<a@b..net>",
            "<a@b.net.>",
            "<a@[1.2.3]>",
            "<a@[IPv6:1.2.3.4]>",
            "<a@1.2.3.4>",
            "<\"a@b.net>",
            "<\"a\r\nb\"@c.net>",
            "<\"a\0b\"@c.net>",
            "<\"a\\\r\"@c.net>",
            "<a\0@b.net>",
            "<a@b.net\r>",
            "<@a,b:c@d.net>",
            "<@a:>",
            "<<a@b.net>>",
            "< a@b.net>",
            "<a@b.net >",
            "<\"a\tb\"@c.net>",
            "<\u{85}@b.net>",
        ] {
            assert!(Path::parse(raw.as_bytes(), Charset::Utf8).is_err(), "{raw:?}");
        }
        let long = std::format!("<{}@example.net>", "a".repeat(243));
        assert_eq!(ascii(&long), Err(AddressError::TooLong));
        assert!(ascii(&std::format!("<{}@example.net>", "a".repeat(242))).is_ok());
    }

    #[test]
    fn names_accounts() {
        let account = |raw| ascii(raw).unwrap().mailbox().unwrap().account(LocalCase::Fold);
        assert_eq!(account("<\"Alice\"@X.net>").unwrap().as_str(), "alice@x.net");
        assert_eq!(account("<\"a*b\"@x.net>"), None);
        assert_eq!(account("<a@[192.0.2.1]>"), None);
    }

    proptest::proptest! {
        /// What is printed reads back as the same path, whatever was sent.
        #[test]
        fn print_reads_back(raw in "<(@a.b:)?[a\"\\\\ .@>é]{0,8}@[aB.\\[\\]1é-]{1,8}>") {
            if let Ok(path) = Path::parse(raw.as_bytes(), Charset::Utf8) {
                proptest::prop_assert_eq!(Path::parse(path.to_string().as_bytes(), Charset::Utf8), Ok(path));
            }
        }

        #[test]
        fn never_panics(raw in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            let _ = Path::parse(&raw, Charset::Utf8);
        }
    }
}

//! MAIL and RCPT, parsed into types and printed anew, so that nothing unparsed reaches the backend.

use core::fmt::{self, Write as _};

use mail::address::{AddressError, Charset, Path};

use crate::command::number;
use crate::offer::{Extension, Extensions};

/// What kind of octets a message has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BodyKind {
    /// RFC 6152.
    SevenBit,
    /// RFC 6152.
    EightBitMime,
    /// RFC 3030: not lines at all.
    BinaryMime,
}

/// DELIVERBY's parameter (RFC 2852 §4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct DeliverBy {
    /// 9 digits at most, perhaps negative.
    seconds: i64,
    /// `N` or `R`.
    mode: u8,
    trace: bool,
}

/// `MAIL FROM:` and its parameters, all of them offered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MailCommand<'a> {
    /// Who sends.
    pub sender: Path,
    /// Octets the client expects the message to have (RFC 1870 §5).
    pub size: Option<u64>,
    /// BODY, if given.
    pub body: Option<BodyKind>,
    /// SMTPUTF8 was given.
    pub utf8: bool,
    /// RET=FULL or HDRS (RFC 3461 §4.3).
    full: Option<bool>,
    /// Checked xtext (RFC 3461 §4.4).
    envid: Option<&'a [u8]>,
    by: Option<DeliverBy>,
}

/// `RCPT TO:` and its parameters, all of them offered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RcptCommand<'a> {
    /// For whom.
    pub recipient: Path,
    /// NOTIFY (RFC 3461 §4.1): bits of [`NOTIFY`], 0 if not given.
    notify: u8,
    /// Checked `type;xtext` (RFC 3461 §4.2).
    orcpt: Option<(&'a [u8], &'a [u8])>,
}

/// Why MAIL or RCPT is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EnvelopeError {
    /// The path is not in the grammar, or has no domain.
    Path,
    /// UTF-8 without SMTPUTF8 (RFC 6531 §3.5).
    NotAscii,
    /// A parameter's value is not in its grammar, or it comes twice.
    Value,
    /// A parameter of an extension that is not offered (RFC 5321 §4.1.1.11).
    Unknown,
}

const NOTIFY: [(&str, u8); 4] = [("NEVER", 1), ("SUCCESS", 2), ("FAILURE", 4), ("DELAY", 8)];

impl<'a> MailCommand<'a> {
    /// Reads what follows `MAIL FROM:`.
    pub fn parse(arguments: &'a [u8], offer: Extensions) -> Result<Self, EnvelopeError> {
        let (sender, parameters) = Path::take(arguments, Charset::Utf8).map_err(EnvelopeError::from)?;
        if sender == Path::Postmaster {
            return Err(EnvelopeError::Path);
        }
        let mut mail =
            Self { sender, size: None, body: None, utf8: false, full: None, envid: None, by: None };
        let mut seen = heapless::Vec::<&[u8], 8>::new();
        let mut auth = false;
        for (name, value) in Parameters::new(parameters, &mut seen)? {
            let has = |extension| if offer.has(extension) { Ok(()) } else { Err(EnvelopeError::Unknown) };
            match (&*upper::<8>(name), value) {
                (b"SIZE", Some(value)) => {
                    has(Extension::Size)?;
                    once(&mut mail.size, number(value))?;
                }
                (b"BODY", Some(value)) => {
                    let kind = match &*upper::<10>(value) {
                        b"7BIT" => BodyKind::SevenBit,
                        b"8BITMIME" => BodyKind::EightBitMime,
                        b"BINARYMIME" => BodyKind::BinaryMime,
                        _ => return Err(EnvelopeError::Value),
                    };
                    has(if kind == BodyKind::BinaryMime {
                        Extension::BinaryMime
                    } else {
                        Extension::EightBitMime
                    })?;
                    once(&mut mail.body, Some(kind))?;
                }
                (b"SMTPUTF8", None) => {
                    has(Extension::SmtpUtf8)?;
                    if core::mem::replace(&mut mail.utf8, true) {
                        return Err(EnvelopeError::Value);
                    }
                }
                (b"RET", Some(value)) => {
                    has(Extension::Dsn)?;
                    let full = match &*upper::<4>(value) {
                        b"FULL" => true,
                        b"HDRS" => false,
                        _ => return Err(EnvelopeError::Value),
                    };
                    once(&mut mail.full, Some(full))?;
                }
                (b"ENVID", Some(value)) => {
                    has(Extension::Dsn)?;
                    once(&mut mail.envid, (value.len() <= 100 && is_xtext(value)).then_some(value))?;
                }
                (b"BY", Some(value)) => {
                    has(Extension::DeliverBy)?;
                    once(&mut mail.by, DeliverBy::parse(value))?;
                }
                // Who wrote it first (RFC 4954 §5): of use between servers that trust each other only, so it is
                // checked and left out.
                (b"AUTH", Some(value)) => {
                    if !is_xtext(value) || core::mem::replace(&mut auth, true) {
                        return Err(EnvelopeError::Value);
                    }
                }
                _ => return Err(EnvelopeError::Unknown),
            }
        }
        if !mail.utf8 && mail.sender.mailbox().is_some_and(|mailbox| !mailbox.is_ascii()) {
            return Err(EnvelopeError::NotAscii);
        }
        Ok(mail)
    }
}

impl fmt::Display for MailCommand<'_> {
    /// The whole command line with its CRLF.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MAIL FROM:{}", self.sender)?;
        if let Some(size) = self.size {
            write!(f, " SIZE={size}")?;
        }
        match self.body {
            None => {}
            Some(BodyKind::SevenBit) => f.write_str(" BODY=7BIT")?,
            Some(BodyKind::EightBitMime) => f.write_str(" BODY=8BITMIME")?,
            Some(BodyKind::BinaryMime) => f.write_str(" BODY=BINARYMIME")?,
        }
        if self.utf8 {
            f.write_str(" SMTPUTF8")?;
        }
        if let Some(full) = self.full {
            f.write_str(if full { " RET=FULL" } else { " RET=HDRS" })?;
        }
        if let Some(envid) = self.envid {
            f.write_str(" ENVID=")?;
            ascii(envid, f)?;
        }
        if let Some(by) = self.by {
            let trace = if by.trace { "T" } else { "" };
            write!(f, " BY={};{}{trace}", by.seconds, char::from(by.mode))?;
        }
        f.write_str("\r\n")
    }
}

impl<'a> RcptCommand<'a> {
    /// Reads what follows `RCPT TO:`. `utf8`: the transaction's MAIL had SMTPUTF8.
    pub fn parse(arguments: &'a [u8], offer: Extensions, utf8: bool) -> Result<Self, EnvelopeError> {
        let charset = if utf8 { Charset::Utf8 } else { Charset::Ascii };
        let (recipient, parameters) = Path::take(arguments, charset).map_err(EnvelopeError::from)?;
        if recipient == Path::Null {
            return Err(EnvelopeError::Path);
        }
        let mut rcpt = Self { recipient, notify: 0, orcpt: None };
        let mut seen = heapless::Vec::<&[u8], 8>::new();
        for (name, value) in Parameters::new(parameters, &mut seen)? {
            let (b"NOTIFY" | b"ORCPT", Some(value), true) =
                (&*upper::<8>(name), value, offer.has(Extension::Dsn))
            else {
                return Err(EnvelopeError::Unknown);
            };
            if name.eq_ignore_ascii_case(b"NOTIFY") {
                if rcpt.notify != 0 {
                    return Err(EnvelopeError::Value);
                }
                rcpt.notify = notify(value).ok_or(EnvelopeError::Value)?;
            } else {
                once(&mut rcpt.orcpt, original(value))?;
            }
        }
        Ok(rcpt)
    }
}

impl fmt::Display for RcptCommand<'_> {
    /// The whole command line with its CRLF.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RCPT TO:{}", self.recipient)?;
        let mut separator = " NOTIFY=";
        for (word, bit) in NOTIFY {
            if self.notify & bit != 0 {
                write!(f, "{separator}{word}")?;
                separator = ",";
            }
        }
        if let Some((kind, address)) = self.orcpt {
            f.write_str(" ORCPT=")?;
            ascii(kind, f)?;
            f.write_char(';')?;
            ascii(address, f)?;
        }
        f.write_str("\r\n")
    }
}

impl From<AddressError> for EnvelopeError {
    fn from(error: AddressError) -> Self {
        match error {
            AddressError::Syntax | AddressError::TooLong => Self::Path,
            AddressError::NotAscii => Self::NotAscii,
        }
    }
}

impl DeliverBy {
    /// `[-]1*9DIGIT ";" (N|R)[T]`.
    fn parse(value: &[u8]) -> Option<Self> {
        let at = value.iter().position(|octet| *octet == b';')?;
        let (time, rest) = value.split_at_checked(at)?;
        let (digits, sign) = time.strip_prefix(b"-").map_or((time, 1), |digits| (digits, -1));
        let seconds = sign * i64::try_from(number(digits).filter(|_| digits.len() <= 9)?).ok()?;
        let (mode, trace) = match rest {
            [b';', mode] => (mode, false),
            [b';', mode, b'T' | b't'] => (mode, true),
            _ => return None,
        };
        let mode = mode.to_ascii_uppercase();
        // RFC 2852 §4: R with a time that has passed makes no sense.
        (mode == b'N' || mode == b'R' && seconds > 0).then_some(Self { seconds, mode, trace })
    }
}

/// `NEVER`, or a list of the others.
fn notify(value: &[u8]) -> Option<u8> {
    let mut bits = 0;
    for word in value.split(|octet| *octet == b',') {
        let (_, bit) = NOTIFY.iter().find(|(name, _)| word.eq_ignore_ascii_case(name.as_bytes()))?;
        if bits & bit != 0 {
            return None;
        }
        bits |= bit;
    }
    (bits & 1 == 0 || bits == 1).then_some(bits)
}

/// `addr-type ";" xtext`, 500 octets at most.
fn original(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = value.iter().position(|octet| *octet == b';')?;
    let (kind, address) = (value.get(..at)?, value.get(at + 1..)?);
    let atom = |octet: &u8| octet.is_ascii_alphanumeric() || *octet == b'-';
    let good = value.len() <= 500
        && !kind.is_empty()
        && kind.iter().all(atom)
        && !address.is_empty()
        && is_xtext(address);
    good.then_some((kind, address))
}

/// RFC 3461 §4: %x21-7E without `+` and `=`, or `+` and two upper-case hex digits.
pub(crate) fn is_xtext(value: &[u8]) -> bool {
    let mut octets = value.iter();
    while let Some(octet) = octets.next() {
        match octet {
            b'+' => {
                let hex = |octet: Option<&u8>| matches!(octet, Some(b'0'..=b'9' | b'A'..=b'F'));
                if !hex(octets.next()) || !hex(octets.next()) {
                    return false;
                }
            }
            b'=' => return false,
            0x21..=0x7e => {}
            _ => return false,
        }
    }
    true
}

fn once<T>(slot: &mut Option<T>, value: Option<T>) -> Result<(), EnvelopeError> {
    if slot.is_some() || value.is_none() {
        return Err(EnvelopeError::Value);
    }
    *slot = value;
    Ok(())
}

/// `value` in upper case, or nothing if it is longer than any word we look for.
fn upper<const N: usize>(value: &[u8]) -> heapless::Vec<u8, N> {
    let mut upper = heapless::Vec::from_slice(value).unwrap_or_default();
    upper.make_ascii_uppercase();
    upper
}

/// Writes octets that were checked to be ASCII.
fn ascii(octets: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(core::str::from_utf8(octets).map_err(|_| fmt::Error)?)
}

/// The words behind a path: `keyword` or `keyword=value` (RFC 5321 §4.1.2).
struct Parameters<'a, 'v> {
    words: core::slice::Iter<'v, &'a [u8]>,
}

impl<'a, 'v> Parameters<'a, 'v> {
    fn new(rest: &'a [u8], words: &'v mut heapless::Vec<&'a [u8], 8>) -> Result<Self, EnvelopeError> {
        if !rest.is_empty() && rest.first() != Some(&b' ') {
            return Err(EnvelopeError::Path);
        }
        for word in rest.split(|octet| *octet == b' ').filter(|word| !word.is_empty()) {
            words.push(word).map_err(|_| EnvelopeError::Value)?;
        }
        Ok(Self { words: words.iter() })
    }
}

impl<'a> Iterator for Parameters<'a, '_> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let word = *self.words.next()?;
        match word.iter().position(|octet| *octet == b'=') {
            None => Some((word, None)),
            Some(at) => Some((word.get(..at).unwrap_or_default(), word.get(at + 1..))),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::{String, ToString};

    use super::*;

    const ALL: Extensions = Extensions::default_all();

    impl Extensions {
        const fn default_all() -> Self {
            Self::EMPTY
                .with(Extension::Size)
                .with(Extension::EightBitMime)
                .with(Extension::BinaryMime)
                .with(Extension::Chunking)
                .with(Extension::SmtpUtf8)
                .with(Extension::Dsn)
                .with(Extension::DeliverBy)
        }
    }

    fn mail(arguments: &str) -> Result<String, EnvelopeError> {
        MailCommand::parse(arguments.as_bytes(), ALL).map(|mail| mail.to_string())
    }

    fn rcpt(arguments: &str) -> Result<String, EnvelopeError> {
        RcptCommand::parse(arguments.as_bytes(), ALL, false).map(|rcpt| rcpt.to_string())
    }

    #[test]
    fn prints_what_it_read() {
        assert_eq!(mail("<a@B.net>"), Ok("MAIL FROM:<a@b.net>\r\n".into()));
        assert_eq!(mail("<>  size=12  Body=8bitmime"), Ok("MAIL FROM:<> SIZE=12 BODY=8BITMIME\r\n".into()));
        assert_eq!(
            mail("<a@b.net> RET=hdrs ENVID=QQ314+2B SMTPUTF8 BY=-120;nt AUTH=<>"),
            Ok("MAIL FROM:<a@b.net> SMTPUTF8 RET=HDRS ENVID=QQ314+2B BY=-120;NT\r\n".into())
        );
        assert_eq!(
            rcpt("<a@b.net> notify=delay,SUCCESS ORCPT=rfc822;Bob@x.net"),
            Ok("RCPT TO:<a@b.net> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Bob@x.net\r\n".into())
        );
        assert_eq!(rcpt("<Postmaster>"), Ok("RCPT TO:<postmaster>\r\n".into()));
    }

    #[test]
    fn refuses_what_is_wrong() {
        use EnvelopeError::{NotAscii, Path, Unknown, Value};
        for (arguments, error) in [
            ("a@b.net", Path),
            ("<a@b.net>SIZE=1", Path),
            ("<postmaster>", Path),
            ("<é@b.net>", NotAscii),
            ("<a@b.net> SIZE=x", Value),
            ("<a@b.net> SIZE=1 SIZE=1", Value),
            ("<a@b.net> SIZE", Unknown),
            ("<a@b.net> BODY=9BIT", Value),
            ("<a@b.net> SMTPUTF8=1", Unknown),
            ("<a@b.net> SMTPUTF8 SMTPUTF8", Value),
            ("<a@b.net> ENVID=a=b", Value),
            ("<a@b.net> ENVID=a+2b", Value),
            ("<a@b.net> BY=-1;R", Value),
            ("<a@b.net> BY=1;X", Value),
            ("<a@b.net> BY=1234567890;N", Value),
            ("<a@b.net> XCLIENT=1", Unknown),
            ("<a@b.net> FOO", Unknown),
            ("<a@b.net> a b c d e f g h i", Value),
        ] {
            assert_eq!(mail(arguments), Err(error), "{arguments}");
        }
        for (arguments, error) in [
            ("<>", Path),
            ("<é@b.net>", NotAscii),
            ("<a@b.net> NOTIFY=NEVER,DELAY", Value),
            ("<a@b.net> NOTIFY=DELAY,DELAY", Value),
            ("<a@b.net> NOTIFY=", Value),
            ("<a@b.net> ORCPT=rfc822", Value),
            ("<a@b.net> ORCPT=;x", Value),
            ("<a@b.net> NOTIFY=DELAY NOTIFY=DELAY", Value),
            ("<a@b.net> SIZE=1", Unknown),
        ] {
            assert_eq!(rcpt(arguments), Err(error), "{arguments}");
        }
        // Nothing that is not offered.
        for arguments in [
            "<a@b.net> SIZE=1",
            "<a@b.net> BODY=7BIT",
            "<é@b.net> SMTPUTF8",
            "<a@b.net> RET=FULL",
            "<a@b.net> BY=1;N",
        ] {
            assert_eq!(
                MailCommand::parse(arguments.as_bytes(), Extensions::default()),
                Err(Unknown),
                "{arguments}"
            );
        }
    }
}

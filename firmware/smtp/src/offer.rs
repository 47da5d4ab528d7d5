//! What a listener advertises: the backend's extensions, minus what a proxy cannot carry, plus CLIENTID.

use core::fmt::Write as _;

use mail::sasl::{Mechanism, Mechanisms};

use crate::command::number;

/// An extension that the relay carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u16)]
pub enum Extension {
    /// RFC 2920.
    Pipelining = 1,
    /// RFC 1870.
    Size = 1 << 1,
    /// RFC 6152.
    EightBitMime = 1 << 2,
    /// RFC 3030, only with CHUNKING.
    BinaryMime = 1 << 3,
    /// RFC 3030.
    Chunking = 1 << 4,
    /// RFC 6531.
    SmtpUtf8 = 1 << 5,
    /// RFC 3461.
    Dsn = 1 << 6,
    /// RFC 2034.
    EnhancedStatusCodes = 1 << 7,
    /// RFC 2852.
    DeliverBy = 1 << 8,
}

impl Extension {
    /// In the order they are advertised.
    const ALL: [Self; 9] = [
        Self::Pipelining,
        Self::Size,
        Self::EightBitMime,
        Self::BinaryMime,
        Self::Chunking,
        Self::SmtpUtf8,
        Self::Dsn,
        Self::EnhancedStatusCodes,
        Self::DeliverBy,
    ];

    const fn keyword(self) -> &'static str {
        match self {
            Self::Pipelining => "PIPELINING",
            Self::Size => "SIZE",
            Self::EightBitMime => "8BITMIME",
            Self::BinaryMime => "BINARYMIME",
            Self::Chunking => "CHUNKING",
            Self::SmtpUtf8 => "SMTPUTF8",
            Self::Dsn => "DSN",
            Self::EnhancedStatusCodes => "ENHANCEDSTATUSCODES",
            Self::DeliverBy => "DELIVERBY",
        }
    }
}

/// A set of [`Extension`]s.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Extensions(u16);

impl Extensions {
    /// None of them.
    pub const EMPTY: Self = Self(0);

    /// Whether `extension` is among them.
    pub const fn has(self, extension: Extension) -> bool {
        self.0 & extension as u16 != 0
    }

    /// These and `extension`.
    #[must_use]
    pub const fn with(self, extension: Extension) -> Self {
        Self(self.0 | extension as u16)
    }

    /// These without `extension`.
    #[must_use]
    pub const fn without(self, extension: Extension) -> Self {
        Self(self.0 & !(extension as u16))
    }
}

/// What a submission listener offers. Made once from the backend's EHLO reply and shared by its sessions.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Offer {
    hostname: heapless::String<255>,
    extensions: Extensions,
    /// Octets of a message; 0: no limit that we know of.
    size: u64,
    /// Seconds, DELIVERBY's parameter (RFC 2852 §4.1); 0: none given.
    deliver_by: u64,
    mechanisms: Mechanisms,
    clientid: bool,
}

impl Offer {
    /// From the backend's EHLO reply: its keyword lines without the code, CRLF between, as
    /// [`mail::session::Outcome::Capabilities`] has them.
    ///
    /// `hostname` is our own name, cut at 255 octets. `size_limit`, in octets, is our own limit: the smaller of both
    /// holds, and it holds even where the backend does not know SIZE. Keywords that are not carried (STARTTLS,
    /// XCLIENT, XFORWARD, CLIENTID, ETRN, VRFY, BURL, `AUTH=` …) are dropped; AUTH becomes what can be relayed.
    pub fn from_backend(ehlo_lines: &[u8], hostname: &str, clientid: bool, size_limit: Option<u64>) -> Self {
        let mut extensions = Extensions::default();
        let mut mechanisms = Mechanisms::default();
        let (mut size, mut deliver_by) = (0, 0);
        for line in ehlo_lines.split(|octet| *octet == b'\n') {
            let mut words = line.trim_ascii().split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            let Some(keyword) = words.next() else { continue };
            if keyword.eq_ignore_ascii_case(b"AUTH") {
                words.filter_map(Mechanism::parse).for_each(|mechanism| mechanisms.add(mechanism));
                continue;
            }
            let known = |extension: &Extension| keyword.eq_ignore_ascii_case(extension.keyword().as_bytes());
            let Some(extension) = Extension::ALL.into_iter().find(known) else { continue };
            extensions = extensions.with(extension);
            let parameter = words.next().and_then(number).unwrap_or(0);
            match extension {
                Extension::Size => size = parameter,
                Extension::DeliverBy => deliver_by = parameter,
                _ => {}
            }
        }
        if !extensions.has(Extension::Chunking) {
            extensions = extensions.without(Extension::BinaryMime);
        }
        let mut name = heapless::String::new();
        for character in hostname.chars() {
            if name.push(character).is_err() {
                break;
            }
        }
        let size = smaller_limit(size, size_limit.unwrap_or(0));
        Self { hostname: name, extensions, size, deliver_by, mechanisms, clientid }
    }

    /// Our own name.
    pub fn hostname(&self) -> &str {
        &self.hostname
    }

    /// What is carried.
    pub const fn extensions(&self) -> Extensions {
        self.extensions
    }

    /// The mechanisms clients may use.
    pub const fn mechanisms(&self) -> Mechanisms {
        self.mechanisms
    }

    /// Most octets of a message; 0: no limit.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Adds the whole EHLO reply. In clear it has STARTTLS and nothing that needs a login; under TLS it has AUTH, and
    /// CLIENTID bare and in upper case on a line of its own, which is the one form that every client knows
    /// (clientid.md §3.3).
    pub(crate) fn write_ehlo<const N: usize>(&self, tls: bool, out: &mut heapless::Vec<u8, N>) {
        let mut reply = Writer(out);
        // The last line has no hyphen, and which one that is depends on what is offered: our name goes first, so
        // every other line can be written behind the one before it.
        let _ = write!(reply, "250-{}\r\n", self.hostname);
        for extension in Extension::ALL.into_iter().filter(|extension| self.extensions.has(*extension)) {
            let _ = match extension {
                // An offer of SIZE without a number says that the number is unknown (RFC 1870 §4).
                Extension::Size if self.size > 0 => write!(reply, "250-SIZE {}\r\n", self.size),
                Extension::DeliverBy if self.deliver_by > 0 => {
                    write!(reply, "250-DELIVERBY {}\r\n", self.deliver_by)
                }
                other => write!(reply, "250-{}\r\n", other.keyword()),
            };
        }
        if tls {
            if self.mechanisms.offered().next().is_some() {
                let _ = reply.write_str("250-AUTH");
                for mechanism in self.mechanisms.offered() {
                    let _ = write!(reply, " {}", mechanism.name());
                }
                let _ = reply.write_str("\r\n");
            }
            if self.clientid {
                let _ = reply.write_str("250-CLIENTID\r\n");
            }
        } else {
            let _ = reply.write_str("250-STARTTLS\r\n");
        }
        last_line(reply.0);
    }
}

/// Turns the hyphen of the last line into a blank.
fn last_line(reply: &mut [u8]) {
    let body = reply.len().saturating_sub(2);
    let start = reply
        .get(..body)
        .and_then(|body| body.iter().rposition(|octet| *octet == b'\n'))
        .map_or(0, |newline| newline + 1);
    if let Some(separator) = reply.get_mut(start + 3) {
        *separator = b' ';
    }
}

/// The smaller of two limits, of which 0 is none.
pub(crate) const fn smaller_limit(one: u64, other: u64) -> u64 {
    match (one, other) {
        (0, limit) | (limit, 0) => limit,
        (one, other) => {
            if one < other {
                one
            } else {
                other
            }
        }
    }
}

/// `core::fmt` into a buffer; what does not fit whole is left out.
pub(crate) struct Writer<'a, const N: usize>(pub(crate) &'a mut heapless::Vec<u8, N>);

impl<const N: usize> core::fmt::Write for Writer<'_, N> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.0.extend_from_slice(text.as_bytes()).map_err(|_| core::fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::String;

    use super::*;

    const POSTFIX: &[u8] = b"PIPELINING\r\nSIZE 10240000\r\nVRFY\r\nETRN\r\nSTARTTLS\r\n\
        XCLIENT NAME ADDR PROTO HELO REVERSE_NAME PORT LOGIN DESTADDR DESTPORT\r\nXFORWARD NAME ADDR\r\n\
        AUTH PLAIN LOGIN CRAM-MD5 SCRAM-SHA-256-PLUS\r\nAUTH=PLAIN LOGIN\r\nENHANCEDSTATUSCODES\r\n8BITMIME\r\n\
        DSN\r\nSMTPUTF8\r\nCHUNKING\r\nBURL imap\r\nCLIENTID";

    fn ehlo(offer: &Offer, tls: bool) -> String {
        let mut out = heapless::Vec::<u8, 1024>::new();
        offer.write_ehlo(tls, &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn offers_what_can_be_carried() {
        let offer = Offer::from_backend(POSTFIX, "mx.example.net", true, None);
        assert_eq!(
            ehlo(&offer, true),
            "250-mx.example.net\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-8BITMIME\r\n250-CHUNKING\r\n\
             250-SMTPUTF8\r\n250-DSN\r\n250-ENHANCEDSTATUSCODES\r\n250-AUTH PLAIN LOGIN\r\n250 CLIENTID\r\n"
        );
        assert_eq!(
            ehlo(&offer, false),
            "250-mx.example.net\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-8BITMIME\r\n250-CHUNKING\r\n\
             250-SMTPUTF8\r\n250-DSN\r\n250-ENHANCEDSTATUSCODES\r\n250 STARTTLS\r\n"
        );
    }

    #[test]
    fn offers_nothing_that_is_not_there() {
        let offer = Offer::from_backend(b"BINARYMIME\r\nauth xoauth2", "mx", false, Some(5));
        assert_eq!(ehlo(&offer, true), "250-mx\r\n250 AUTH XOAUTH2\r\n");
        assert_eq!(offer.size(), 5);
        assert_eq!(ehlo(&Offer::from_backend(b"", "mx", false, None), true), "250 mx\r\n");
    }

    #[test]
    fn the_smaller_size_holds() {
        for (lines, limit, size, line) in [
            (&b"SIZE 100"[..], Some(50), 50, "250-SIZE 50"),
            (b"SIZE 100", Some(500), 100, "250-SIZE 100"),
            (b"SIZE 100", None, 100, "250-SIZE 100"),
            (b"SIZE 0", Some(500), 500, "250-SIZE 500"),
            (b"SIZE", None, 0, "250-SIZE\r\n"),
        ] {
            let offer = Offer::from_backend(lines, "mx", true, limit);
            assert_eq!(offer.size(), size);
            assert!(ehlo(&offer, true).contains(line), "{line}");
        }
    }
}

//! Commands before login (RFC 9051 §6.1, §6.2, RFC 3501 §6.1, §6.2), as octets of a complete command.
use core::ops::Range;

use crate::line::number;

/// A command's tag: `1*<any ASTRING-CHAR except "+">` (RFC 9051 §9), at most 64 octets here; the RFCs give no limit
/// and no client comes near it.
pub(crate) type Tag = heapless::Vec<u8, 64>;

/// What begins every command.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Head {
    pub(crate) tag: Tag,
    pub(crate) verb: Verb,
    /// Where the arguments begin, behind the space; `None` if the line ends with the verb.
    pub(crate) arguments: Option<usize>,
}

/// What stands behind the tag.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verb {
    Capability,
    Noop,
    Logout,
    StartTls,
    Id,
    ClientId,
    Login,
    Authenticate,
    /// Anything else, whether IMAP has it after login or not at all.
    Unknown,
}

impl Head {
    /// Reads the head of a line without its CRLF. `None`: no tag that could be answered to.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        let mut words = line.splitn(3, |&octet| octet == b' ');
        let tag = words.next().filter(|tag| is_tag(tag))?;
        let word = words.next()?;
        let arguments = words.next().map(|_| tag.len() + word.len() + 2);
        Some(Self { tag: Tag::from_slice(tag).ok()?, verb: Verb::parse(word), arguments })
    }

    /// Whether `octets` begin with `tag SP ID SP`: its arguments may be longer than a line and are read as they come.
    pub(crate) fn of_id(octets: &[u8]) -> Option<(Tag, usize)> {
        // No further than a tag can be: a line that comes octet by octet is not to be searched anew for each.
        let start = octets.get(..octets.len().min(65)).unwrap_or_default();
        let tag = start.split(|&octet| octet == b' ').next().filter(|tag| is_tag(tag))?;
        let end = tag.len() + 4;
        let verb = octets.get(tag.len()..end)?;
        verb.eq_ignore_ascii_case(b" ID ").then_some((Tag::from_slice(tag).ok()?, end))
    }
}

impl Verb {
    fn parse(word: &[u8]) -> Self {
        const VERBS: [(&[u8], Verb); 8] = [
            (b"CAPABILITY", Verb::Capability),
            (b"NOOP", Verb::Noop),
            (b"LOGOUT", Verb::Logout),
            (b"STARTTLS", Verb::StartTls),
            (b"ID", Verb::Id),
            (b"CLIENTID", Verb::ClientId),
            (b"LOGIN", Verb::Login),
            (b"AUTHENTICATE", Verb::Authenticate),
        ];
        VERBS
            .into_iter()
            .find(|(name, _)| word.eq_ignore_ascii_case(name))
            .map_or(Self::Unknown, |(_, verb)| verb)
    }
}

fn is_tag(tag: &[u8]) -> bool {
    (1..=64).contains(&tag.len()) && tag.iter().all(|&octet| is_astring_char(octet) && octet != b'+')
}

/// ATOM-CHAR or `]` (RFC 9051 §9).
pub(crate) const fn is_astring_char(octet: u8) -> bool {
    octet.is_ascii_graphic() && !matches!(octet, b'(' | b')' | b'{' | b'%' | b'*' | b'"' | b'\\')
}

/// Reads a command's arguments from left to right. Quoted strings are unescaped in place, so a reader passes over
/// the same octets only once.
pub(crate) struct Arguments<'a> {
    octets: &'a mut [u8],
    at: usize,
}

/// What a word may be if it is neither quoted nor a literal.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Bare {
    /// ASTRING-CHARs.
    Astring,
    /// Anything up to a space: CLIENTID's arguments, whose own check comes after (Q10).
    Raw,
}

/// The arguments are outside the grammar.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Malformed;

impl<'a> Arguments<'a> {
    /// `octets` is the whole command without its last CRLF; arguments begin at `at`.
    pub(crate) fn new(octets: &'a mut [u8], at: usize) -> Self {
        Self { octets, at }
    }

    /// A word as an offset range of the decoded octets.
    pub(crate) fn word(&mut self, bare: Bare) -> Result<Range<usize>, Malformed> {
        match self.octets.get(self.at) {
            Some(b'"') => self.quoted(),
            Some(b'{') => self.literal(),
            Some(_) => self.bare(bare),
            None => Err(Malformed),
        }
    }

    /// Exactly one space.
    pub(crate) fn space(&mut self) -> Result<(), Malformed> {
        if self.octets.get(self.at) != Some(&b' ') {
            return Err(Malformed);
        }
        self.at += 1;
        Ok(())
    }

    /// Nothing more.
    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.at == self.octets.len() { Ok(()) } else { Err(Malformed) }
    }

    /// Nothing more but perhaps one space (Q12).
    pub(crate) fn end_or_space(&mut self) -> Result<(), Malformed> {
        let _ = self.space();
        self.end()
    }

    /// Everything that is left.
    pub(crate) fn rest(&self) -> Range<usize> {
        self.at..self.octets.len()
    }

    pub(crate) fn get(&self, range: &Range<usize>) -> &[u8] {
        self.octets.get(range.clone()).unwrap_or_default()
    }

    /// A word that is neither quoted nor a literal.
    pub(crate) fn bare(&mut self, bare: Bare) -> Result<Range<usize>, Malformed> {
        let left = self.octets.get(self.at..).unwrap_or_default();
        let length = left
            .iter()
            .position(|&octet| match bare {
                Bare::Astring => !is_astring_char(octet),
                Bare::Raw => matches!(octet, b' ' | b'\r' | b'\n'),
            })
            .unwrap_or(left.len());
        let start = self.at;
        self.at += length;
        if length == 0 { Err(Malformed) } else { Ok(start..self.at) }
    }

    /// `DQUOTE *QUOTED-CHAR DQUOTE`: 7-bit text, or UTF-8 (RFC 9051 §9), `\` before `"` and `\` only.
    fn quoted(&mut self) -> Result<Range<usize>, Malformed> {
        let start = self.at + 1;
        let (mut read, mut write) = (start, start);
        loop {
            let octet = match self.octets.get(read) {
                Some(b'"') => break,
                Some(b'\\') => {
                    read += 1;
                    self.octets.get(read).filter(|octet| matches!(octet, b'"' | b'\\'))
                }
                other => other.filter(|octet| !matches!(octet, 0 | b'\r' | b'\n')),
            };
            let octet = *octet.ok_or(Malformed)?;
            *self.octets.get_mut(write).ok_or(Malformed)? = octet;
            (read, write) = (read + 1, write + 1);
        }
        self.at = read + 1;
        let content = self.octets.get(start..write).ok_or(Malformed)?;
        core::str::from_utf8(content).map_err(|_| Malformed)?;
        Ok(start..write)
    }

    /// `{n}` CRLF and n octets but NUL; the framing has made sure that they are here.
    fn literal(&mut self) -> Result<Range<usize>, Malformed> {
        let left = self.octets.get(self.at + 1..).ok_or(Malformed)?;
        let digits = left.iter().position(|octet| !octet.is_ascii_digit()).ok_or(Malformed)?;
        let size = number(left.get(..digits).ok_or(Malformed)?);
        let mode = usize::from(matches!(left.get(digits), Some(b'+' | b'-')));
        let opened = left.get(digits + mode..digits + mode + 3);
        if digits == 0 || opened != Some(b"}\r\n") {
            return Err(Malformed);
        }
        let start = self.at + 1 + digits + mode + 3;
        let size = usize::try_from(size).map_err(|_| Malformed)?;
        let end = start.checked_add(size).ok_or(Malformed)?;
        let content = self.octets.get(start..end).ok_or(Malformed)?;
        self.at = end;
        if content.contains(&0) { Err(Malformed) } else { Ok(start..end) }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn heads() {
        let head = Head::parse(b"a1 login ann s3cret").unwrap();
        assert_eq!((&head.tag[..], head.verb, head.arguments), (&b"a1"[..], Verb::Login, Some(9)));
        let head = Head::parse(b". NOOP").unwrap();
        assert_eq!((&head.tag[..], head.verb, head.arguments), (&b"."[..], Verb::Noop, None));
        assert_eq!(Head::parse(b"a1 NOOP ").unwrap().arguments, Some(8));
        assert_eq!(Head::parse(b"a1 ").unwrap().verb, Verb::Unknown);
        for none in [&b""[..], b"a1", b" NOOP", b"+ NOOP", b"a+ NOOP", b"* NOOP", b"a\x00 NOOP", b"\xff NOOP"]
        {
            assert_eq!(Head::parse(none), None, "{none:?}");
        }
        let mut long = std::vec![b'x'; 64];
        long.extend(b" NOOP");
        assert!(Head::parse(&long).is_some());
        long.insert(0, b'x');
        assert!(Head::parse(&long).is_none());
    }

    #[test]
    fn id_is_known_from_its_first_octets() {
        assert_eq!(Head::of_id(b"a1 iD (").unwrap().1, 6);
        for none in [&b"a1 ID"[..], b"a1 ID\r\n", b"a1 IDLE x", b" ID x", b"* ID x", b""] {
            assert_eq!(Head::of_id(none), None, "{none:?}");
        }
    }

    fn words(command: &[u8], bare: Bare) -> Result<Vec<Vec<u8>>, Malformed> {
        let mut octets = command.to_vec();
        let mut arguments = Arguments::new(&mut octets, 0);
        let mut found = Vec::new();
        loop {
            let range = arguments.word(bare)?;
            found.push(arguments.get(&range).to_vec());
            if arguments.end().is_ok() {
                return Ok(found);
            }
            arguments.space()?;
        }
    }

    #[test]
    fn strings_of_every_form() {
        let both = |command: &[u8], one: &[u8], two: &[u8]| {
            assert_eq!(words(command, Bare::Astring).unwrap(), [one, two], "{command:?}");
        };
        both(b"ann s3cret", b"ann", b"s3cret");
        both(b"ann] \"\"", b"ann]", b"");
        both(b"\"a\\\"n\\\\n\" \"s3 cret\"", b"a\"n\\n", b"s3 cret");
        both(b"{3}\r\nann {6+}\r\ns3\r\nc}", b"ann", b"s3\r\nc}");
        both(b"{0}\r\n {3-}\r\n\xff\xfe\x01", b"", b"\xff\xfe\x01");
        both("\"zoë\" x".as_bytes(), "zoë".as_bytes(), b"x");
    }

    #[test]
    fn strings_outside_the_grammar() {
        for none in [
            &b""[..],
            b" ann",
            b"ann  x",
            b"(ann)",
            b"a\"nn\"",
            b"\"ann",
            b"\"a\\nn\"",
            b"\"ann\\\"",
            b"\"a\0n\"",
            b"\"\xff\"",
            b"\xc3\xab",
            b"a*n",
            b"{3}ann",
            b"{}\r\nann",
            b"{4}\r\nann",
            b"{3}\r\na\0n",
            b"{3+-}\r\nann",
            b"{18446744073709551615}\r\nann",
            b"{3}\r\nannx",
        ] {
            assert_eq!(words(none, Bare::Astring), Err(Malformed), "{none:?}");
        }
        assert_eq!(words(b"MAC 08:9e(%*", Bare::Raw).unwrap(), [&b"MAC"[..], b"08:9e(%*"]);
    }
}

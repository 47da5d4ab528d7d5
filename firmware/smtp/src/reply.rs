//! Reply lines (RFC 5321 §4.2): those we write, and those of a backend, read strictly.

use crate::line::{Lines, Next};

/// Octets of a backend's reply line with its CRLF. RFC 5321 §4.5.3.1.5 has 512.
const REPLY_LINE: usize = 1024;
/// Lines of one reply. The longest in use are EHLO replies of some twenty.
const REPLY_LINES: u16 = 128;

/// The constant answers, without CRLF. One place, so that equal answers are equal octets.
pub(crate) mod text {
    pub(crate) const UNKNOWN: &[u8] = b"500 5.5.1 Command unrecognized";
    pub(crate) const SYNTAX: &[u8] = b"500 5.5.2 Syntax error";
    pub(crate) const LINE_TOO_LONG: &[u8] = b"500 5.5.2 Line too long";
    pub(crate) const BARE: &[u8] = b"500 5.5.2 Lines end with CR LF";
    pub(crate) const NO_ARGUMENT: &[u8] = b"501 5.5.4 No argument expected";
    pub(crate) const EHLO_SYNTAX: &[u8] = b"501 5.5.4 Syntax: EHLO hostname";
    pub(crate) const SEQUENCE: &[u8] = b"503 5.5.1 Bad sequence of commands";
    pub(crate) const EHLO_FIRST: &[u8] = b"503 5.5.1 Send EHLO first";
    pub(crate) const TOO_MANY: &[u8] = b"421 4.7.0 Too many errors";
    pub(crate) const OK: &[u8] = b"250 2.0.0 OK";
    pub(crate) const BYE: &[u8] = b"221 2.0.0 Bye";
    pub(crate) const VRFY: &[u8] = b"252 2.0.0 Send some mail, I will try";
    pub(crate) const HELP: &[u8] = b"214 2.0.0 See RFC 5321 and RFC 6409";
    pub(crate) const EXPN: &[u8] = b"502 5.5.1 EXPN not available";
}

/// One line of a reply.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ReplyLine<'a> {
    /// 200 to 599.
    pub(crate) code: u16,
    /// No line of this reply follows.
    pub(crate) last: bool,
    /// What stands behind code and separator.
    pub(crate) text: &'a [u8],
}

impl<'a> ReplyLine<'a> {
    /// Reads a line without its CRLF: three digits, a hyphen or a blank, text without controls. The blank may be
    /// missing where the text is (RFC 5321 §4.2.1).
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        let (digits, rest) = line.split_first_chunk::<3>()?;
        if !matches!(digits.first(), Some(b'2'..=b'5')) || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
        let (last, text) = match rest.split_first() {
            None => (true, &[][..]),
            Some((b' ', text)) => (true, text),
            Some((b'-', text)) => (false, text),
            Some(_) => return None,
        };
        let clean = text.iter().all(|octet| matches!(octet, b'\t' | 0x20..=0x7e | 0x80..));
        clean.then_some(Self { code, last, text })
    }
}

/// `text` without the enhanced status code (RFC 3463 §2) it may begin with.
pub(crate) fn without_enhanced(text: &[u8]) -> &[u8] {
    let (word, rest) = match text.iter().position(|octet| *octet == b' ') {
        Some(at) => (text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default()),
        None => (text, &[][..]),
    };
    let mut parts = word.split(|octet| *octet == b'.');
    let class = matches!(parts.next(), Some(b"2" | b"4" | b"5"));
    let number = |part: Option<&[u8]>| {
        part.is_some_and(|part| (1..=3).contains(&part.len()) && part.iter().all(u8::is_ascii_digit))
    };
    if class && number(parts.next()) && number(parts.next()) && parts.next().is_none() { rest } else { text }
}

/// The replies of a backend.
pub(crate) struct Replies {
    lines: Lines<REPLY_LINE>,
    /// The code of a reply of which more lines follow; 0 between replies.
    code: u16,
    count: u16,
}

/// What [`Replies::advance`] found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Got {
    /// More octets are needed.
    Wait,
    /// A line; [`Replies::text`] and [`Replies::raw`] have it.
    Line {
        /// Its code.
        code: u16,
        /// It begins a reply.
        first: bool,
        /// It ends one.
        last: bool,
    },
    /// Not SMTP.
    Broken(&'static str),
}

impl Replies {
    pub(crate) const fn new() -> Self {
        Self { lines: Lines::new(), code: 0, count: 0 }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) -> usize {
        self.lines.push(bytes)
    }

    /// Goes on to the next line.
    pub(crate) fn advance(&mut self) -> Got {
        match self.lines.advance(REPLY_LINE) {
            Next::Wait if !self.lines.skips() => return Got::Wait,
            Next::Wait | Next::TooLong | Next::Endless => return Got::Broken("reply line too long"),
            Next::Bare => return Got::Broken("bare CR or LF in a reply"),
            Next::Line => {}
        }
        let Some(line) = ReplyLine::parse(self.lines.line()) else {
            return Got::Broken("malformed reply");
        };
        let (code, last, first) = (line.code, line.last, self.code == 0);
        if !first && code != self.code {
            return Got::Broken("codes of one reply differ");
        }
        self.count = if first { 1 } else { self.count + 1 };
        if self.count > REPLY_LINES {
            return Got::Broken("reply of too many lines");
        }
        self.code = if last { 0 } else { code };
        Got::Line { code, first, last }
    }

    /// The current line behind its code.
    pub(crate) fn text(&self) -> &[u8] {
        ReplyLine::parse(self.lines.line()).map_or(&[], |line| line.text)
    }

    /// The current line, verbatim with its CRLF.
    pub(crate) fn raw(&self) -> &[u8] {
        self.lines.raw()
    }

    /// What stands behind the current line.
    pub(crate) fn behind(&self) -> &[u8] {
        self.lines.behind()
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.lines.clear();
        (self.code, self.count) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_reply_lines() {
        let line = |raw: &'static [u8]| ReplyLine::parse(raw).map(|line| (line.code, line.last, line.text));
        assert_eq!(line(b"250 ok"), Some((250, true, &b"ok"[..])));
        assert_eq!(line(b"250-ok"), Some((250, false, &b"ok"[..])));
        assert_eq!(line(b"354"), Some((354, true, &b""[..])));
        assert_eq!(line("250 Größe".as_bytes()).map(|line| line.0), Some(250));
        for raw in
            [&b""[..], b"25", b"250_x", b"150 x", b"650 x", b"2x0 x", b"250 a\0b", b"250 a\x1bb", b" 250 x"]
        {
            assert_eq!(ReplyLine::parse(raw), None, "{raw:?}");
        }
    }

    #[test]
    fn takes_off_enhanced_codes() {
        assert_eq!(without_enhanced(b"2.7.0 Authentication successful"), b"Authentication successful");
        assert_eq!(without_enhanced(b"2.7.0"), b"");
        for raw in [
            &b"Authentication successful"[..],
            b"2.7 x",
            b"2.7.0.1 x",
            b"3.7.0 x",
            b"2.7.x y",
            b"",
            b"2..0 x",
        ] {
            assert_eq!(without_enhanced(raw), raw);
        }
    }

    #[test]
    fn multi_line_replies_are_of_one_code() {
        let mut replies = Replies::new();
        let bytes = b"250-a\r\n250 b\r\n250-c\r\n251 d\r\n";
        assert_eq!(replies.push(bytes), bytes.len());
        assert_eq!(replies.advance(), Got::Line { code: 250, first: true, last: false });
        assert_eq!((replies.text(), replies.raw()), (&b"a"[..], &b"250-a\r\n"[..]));
        assert_eq!(replies.advance(), Got::Line { code: 250, first: false, last: true });
        assert_eq!(replies.advance(), Got::Line { code: 250, first: true, last: false });
        assert_eq!(replies.advance(), Got::Broken("codes of one reply differ"));
    }
}

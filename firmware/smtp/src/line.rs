//! Lines that end in CRLF and nothing else (RFC 5321 §2.3.8), of bounded length.

use mail::input::{Input, Line};

/// Octets after which a line without an end ends the connection; shorter ones are read over and answered 500.
const ENDLESS: usize = 65_536;

/// Lines in a buffer of `N` octets. The current line stays until the next call of [`Lines::advance`] or
/// [`Lines::release`], and is then wiped.
pub(crate) struct Lines<const N: usize> {
    input: Input<N>,
    /// Octets of the current line with its CRLF; 0 if there is none.
    current: usize,
    /// Octets read over so far of a line that is too long.
    skipped: Option<usize>,
    /// How a line that is too long begins.
    head: [u8; 5],
}

/// What [`Lines::advance`] found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Next {
    /// More octets are needed.
    Wait,
    /// [`Lines::line`] has it.
    Line,
    /// A whole line went by that was over the limit; [`Lines::head`] says how it began.
    TooLong,
    /// More than [`ENDLESS`] octets without a line end.
    Endless,
    /// CR without LF, or LF without CR.
    Bare,
}

impl<const N: usize> Lines<N> {
    pub(crate) const fn new() -> Self {
        Self { input: Input::new(), current: 0, skipped: None, head: [0; 5] }
    }

    /// Takes what fits.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        loop {
            let rest = bytes.get(taken..).unwrap_or_default();
            taken += self.input.push(rest);
            // A line being read over makes room for itself, so that the caller never sees a full buffer that
            // nothing but more octets could empty.
            if taken >= bytes.len() || self.skipped.is_none() || self.current > 0 || !self.skip_more() {
                return taken;
            }
        }
    }

    /// Takes octets up to the end of one line, so that what follows it stays with the caller.
    pub(crate) fn push_line(&mut self, bytes: &[u8]) -> usize {
        let end = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
        self.push(bytes.get(..end).unwrap_or_default())
    }

    /// Goes on to the next line. Whether a line is too long depends on its octets, never on how they came.
    pub(crate) fn advance(&mut self, limit: usize) -> Next {
        self.release();
        if self.skipped.is_some() {
            return self.skip();
        }
        match self.input.line(0, limit) {
            Line::Partial => Next::Wait,
            Line::Until(at) => {
                self.current = at + 2;
                Next::Line
            }
            Line::Bare => Next::Bare,
            Line::TooLong => {
                for (slot, octet) in self.head.iter_mut().zip(self.input.octets()) {
                    *slot = *octet;
                }
                self.skipped = Some(0);
                self.skip()
            }
        }
    }

    fn skip(&mut self) -> Next {
        loop {
            let skipped = self.skipped.unwrap_or(0);
            match self.input.line(0, N) {
                Line::Until(at) => {
                    self.input.consume(at + 2);
                    self.skipped = None;
                    return if skipped + at > ENDLESS { Next::Endless } else { Next::TooLong };
                }
                Line::Bare => return Next::Bare,
                Line::Partial | Line::TooLong => {
                    if skipped > ENDLESS {
                        return Next::Endless;
                    }
                    if !self.skip_more() {
                        return Next::Wait;
                    }
                }
            }
        }
    }

    /// Reads over what holds no line end; `false` if that is nothing. A CR at the end may be half of one: it stays.
    fn skip_more(&mut self) -> bool {
        let octets = self.input.octets();
        let end = octets.iter().position(|octet| matches!(octet, b'\r' | b'\n')).unwrap_or(octets.len());
        if end == 0 {
            return false;
        }
        self.input.consume(end);
        self.skipped = self.skipped.map(|skipped| skipped.saturating_add(end));
        true
    }

    /// The current line without its CRLF.
    pub(crate) fn line(&self) -> &[u8] {
        self.input.octets().get(..self.current.saturating_sub(2)).unwrap_or_default()
    }

    /// The current line without its CRLF, to decode in place.
    pub(crate) fn line_mut(&mut self) -> &mut [u8] {
        let end = self.current.saturating_sub(2);
        self.input.octets_mut().get_mut(..end).unwrap_or_default()
    }

    /// The current line with its CRLF.
    pub(crate) fn raw(&self) -> &[u8] {
        self.input.octets().get(..self.current).unwrap_or_default()
    }

    /// Whether the line that arrives is known to be too long.
    pub(crate) const fn skips(&self) -> bool {
        self.skipped.is_some()
    }

    /// How the last line that was too long began.
    pub(crate) const fn head(&self) -> [u8; 5] {
        self.head
    }

    /// What stands behind the current line.
    pub(crate) fn behind(&self) -> &[u8] {
        self.input.octets().get(self.current..).unwrap_or_default()
    }

    /// Reads over up to `count` octets behind the current line, whatever they are, and says how many there were.
    pub(crate) fn discard(&mut self, count: u64) -> u64 {
        let waiting = self.behind().len();
        let dropped = usize::try_from(count).map_or(waiting, |count| count.min(waiting));
        self.release();
        self.input.consume(dropped);
        dropped as u64
    }

    /// Wipes the current line.
    pub(crate) fn release(&mut self) {
        self.input.consume(self.current);
        self.current = 0;
    }

    /// Wipes everything.
    pub(crate) fn clear(&mut self) {
        self.input.clear();
        (self.current, self.skipped) = (0, None);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    /// Everything `lines` says of `bytes`, given in chunks of `size`.
    fn all(bytes: &[u8], size: usize) -> Vec<(Next, Vec<u8>)> {
        let (mut lines, mut found) = (Lines::<16>::new(), Vec::new());
        for chunk in bytes.chunks(size) {
            let mut rest = chunk;
            loop {
                let taken = lines.push(rest);
                rest = &rest[taken..];
                loop {
                    match lines.advance(10) {
                        Next::Wait => break,
                        next @ (Next::Bare | Next::Endless) => {
                            found.push((next, Vec::new()));
                            return found;
                        }
                        next => found.push((next, lines.line().to_vec())),
                    }
                }
                if rest.is_empty() {
                    break;
                }
                assert!(taken > 0, "stuck");
            }
        }
        found
    }

    #[test]
    fn lines_do_not_depend_on_splits() {
        let mut endless = std::vec![b'x'; ENDLESS + 2];
        endless.extend(b"\r\nafter\r\n");
        let long = [&[b'y'; 300][..], b"\r\nnext\r\n"].concat();
        let inputs: [&[u8]; 9] = [
            b"one\r\ntwo\r\n\r\nfour\r\n",
            b"0123456789\r\n01234567890\r\nok\r\n",
            b"0123456789abcdef\r\nok\r\n",
            b"0123456789abcde\r\nok\r\n",
            b"0123456789abcdefg\rx\r\n",
            b"0123456789abcdefgh\n",
            b"a\rb\r\n",
            &long,
            &endless,
        ];
        for input in inputs {
            let whole = all(input, input.len());
            for size in [1, 2, 3, 7, 16, 17] {
                assert_eq!(all(input, size), whole, "{size}");
            }
        }
        assert_eq!(
            all(b"01234567890\r\nok\r\n", 99),
            [(Next::TooLong, std::vec![]), (Next::Line, b"ok".to_vec())]
        );
        assert_eq!(all(&endless, 4096).last(), Some(&(Next::Endless, std::vec![])));
    }
}

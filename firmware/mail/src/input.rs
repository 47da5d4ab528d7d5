//! Octets that arrived and wait to be parsed, in fixed memory; what was parsed is wiped.
use zeroize::Zeroize;

/// At most `N` octets, in order of arrival. Every octet is overwritten as soon as it is consumed, so a password
/// lives here exactly as long as the machine needs it.
pub struct Input<const N: usize> {
    octets: [u8; N],
    start: usize,
    end: usize,
    /// Octets behind `start` known to hold no line end: a line that comes octet by octet is searched once.
    searched: usize,
}

/// Where a line ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Line {
    /// More octets are needed.
    Partial,
    /// The content ends before this offset, and CRLF stands there.
    Until(usize),
    /// More than the limit without a line end; or the buffer is full.
    TooLong,
    /// CR without LF, or LF without CR.
    Bare,
}

impl<const N: usize> Default for Input<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Input<N> {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self { octets: [0; N], start: 0, end: 0, searched: 0 }
    }

    /// Takes what fits of `bytes` and says how much that was.
    #[must_use]
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        if N - self.end < bytes.len() && self.start > 0 {
            self.octets.copy_within(self.start..self.end, 0);
            let length = self.end - self.start;
            if let Some(left) = self.octets.get_mut(length..self.end) {
                left.zeroize();
            }
            (self.start, self.end) = (0, length);
        }
        let taken = bytes.len().min(N - self.end);
        if let (Some(room), Some(bytes)) =
            (self.octets.get_mut(self.end..self.end + taken), bytes.get(..taken))
        {
            room.copy_from_slice(bytes);
            self.end += taken;
        }
        taken
    }

    /// All that waits.
    pub fn octets(&self) -> &[u8] {
        self.octets.get(self.start..self.end).unwrap_or_default()
    }

    /// All that waits, to decode in place.
    pub fn octets_mut(&mut self) -> &mut [u8] {
        self.octets.get_mut(self.start..self.end).unwrap_or_default()
    }

    /// How many octets wait.
    pub const fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether none waits.
    pub const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Wipes the first `count` octets, or as many as there are.
    pub fn consume(&mut self, count: usize) {
        let count = count.min(self.len());
        if let Some(used) = self.octets.get_mut(self.start..self.start + count) {
            used.zeroize();
        }
        self.start += count;
        self.searched = self.searched.saturating_sub(count);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Wipes everything.
    pub fn clear(&mut self) {
        self.consume(N);
        self.searched = 0;
    }

    /// Looks for the end of the line that begins at offset `from` and may hold `limit` octets, CRLF not counted.
    /// The answer depends on the octets alone, never on how they came.
    pub fn line(&mut self, from: usize, limit: usize) -> Line {
        let length = self.len();
        let begin = from.max(self.searched);
        let last = from.saturating_add(limit).saturating_add(1);
        let Some(window) = self.octets().get(begin..length.min(last)) else {
            return if length >= N { Line::TooLong } else { Line::Partial };
        };
        let Some(at) = window.iter().position(|octet| matches!(octet, b'\r' | b'\n')) else {
            if length >= last || length >= N {
                return Line::TooLong;
            }
            self.searched = length;
            return Line::Partial;
        };
        let at = begin + at;
        match (self.octets().get(at), self.octets().get(at + 1)) {
            (Some(b'\r'), Some(b'\n')) => Line::Until(at),
            (Some(b'\r'), None) if length >= N => Line::TooLong,
            (Some(b'\r'), None) => {
                self.searched = at;
                Line::Partial
            }
            _ => Line::Bare,
        }
    }
}

impl<const N: usize> Drop for Input<N> {
    fn drop(&mut self) {
        self.clear();
    }
}

impl<const N: usize> core::fmt::Debug for Input<N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Input({} octets)", self.len())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn filled<const N: usize>(bytes: &[u8]) -> Input<N> {
        let mut input = Input::new();
        assert_eq!(input.push(bytes), bytes.len());
        input
    }

    #[test]
    fn lines() {
        let mut input = filled::<16>(b"ab\r\ncd");
        assert_eq!(input.line(0, 5), Line::Until(2));
        assert_eq!(input.line(0, 2), Line::Until(2));
        assert_eq!(input.line(0, 1), Line::TooLong);
        assert_eq!(input.line(4, 5), Line::Partial);
        assert_eq!(input.line(9, 5), Line::Partial);
        input.consume(4);
        assert_eq!(input.octets(), b"cd");
        assert_eq!(filled::<16>(b"ab\n").line(0, 9), Line::Bare);
        assert_eq!(filled::<16>(b"ab\rc").line(0, 9), Line::Bare);
        assert_eq!(filled::<16>(b"ab\r").line(0, 9), Line::Partial);
        assert_eq!(filled::<4>(b"abcd").line(0, 9), Line::TooLong);
        assert_eq!(filled::<4>(b"abc\r").line(0, 9), Line::TooLong);
        assert_eq!(filled::<4>(b"abcd").line(4, 9), Line::TooLong);
    }

    #[test]
    fn what_is_consumed_is_wiped() {
        let mut input = filled::<16>(b"s3cret\r\nnext");
        input.consume(8);
        assert_eq!(input.octets(), b"next");
        assert!(!input.octets.windows(2).any(|pair| pair == b"s3"));
        assert_eq!(input.push(b"123456789"), 9); // moves what waits to the front
        assert_eq!(input.octets(), b"next123456789");
        assert_eq!(&input.octets[13..], b"\0\0\0");
        input.clear();
        assert_eq!(input.octets, [0; 16]);
    }

    proptest! {
        /// Against a plain Vec: same octets and same line ends for any pushes, searches and consumption.
        #[test]
        fn like_a_vec(steps in proptest::collection::vec((0..3u8, proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'x')], 0..6), 0..6usize), 0..60)) {
            let (mut input, mut model) = (Input::<12>::new(), Vec::new());
            for (step, bytes, number) in steps {
                match step {
                    0 => {
                        let taken = input.push(&bytes);
                        prop_assert_eq!(taken, bytes.len().min(12 - model.len()));
                        model.extend_from_slice(&bytes[..taken]);
                    }
                    1 => {
                        input.consume(number);
                        model.drain(..number.min(model.len()));
                    }
                    _ => {
                        let fresh = filled::<12>(&model).line(0, number);
                        prop_assert_eq!(input.line(0, number), fresh);
                        // Nothing but a longer limit may be asked later, so start over with a fresh memory.
                        input.searched = 0;
                    }
                }
                prop_assert_eq!(input.octets(), &model[..]);
            }
        }
    }
}

//! Literals at the end of a line (RFC 9051 §4.3, RFC 7888), and the limits of what is buffered.
use mail::sasl;

/// Octets of a line before its CRLF: a whole SASL response (RFC 4954 §4) behind a tag, a command and a mechanism.
pub(crate) const LINE: usize = sasl::LINE + 128;

/// Octets of a whole command with its literals and line ends, and so of a session's input buffer.
pub(crate) const COMMAND: usize = LINE + 2;

/// Octets of a literal in LOGIN: what LITERAL- allows without asking (RFC 7888 §5), and more than a password needs.
pub(crate) const LITERAL: usize = 4096;

/// Octets of literals behind commands we refuse that are read and dropped to stay in step; past this we hang up.
pub(crate) const SWALLOW: usize = 65_536;

/// A literal announced by the end of a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Literal {
    /// Octets to come; what does not fit is `u64::MAX`, which is over every limit.
    pub(crate) size: u64,
    /// Whether the client waits for our go-ahead. `{n-}` is nobody's grammar; who writes it means `{n+}` (Q10).
    pub(crate) waits: bool,
}

impl Literal {
    /// What the end of `line` (without its CRLF) announces: `{n}`, `{n+}` or `{n-}`. It is taken as a literal whatever
    /// stands before it, known command or not, so that refused commands leave us in step (RFC 7888 §5).
    pub(crate) fn at_end_of(line: &[u8]) -> Option<Self> {
        let inner = line.strip_suffix(b"}")?;
        let (inner, waits) = match inner.strip_suffix(b"+").or_else(|| inner.strip_suffix(b"-")) {
            Some(inner) => (inner, false),
            None => (inner, true),
        };
        let brace = inner.iter().rposition(|octet| !octet.is_ascii_digit())?;
        let digits = inner.get(brace + 1..)?;
        if inner.get(brace) != Some(&b'{') || digits.is_empty() {
            return None;
        }
        Some(Self { size: number(digits), waits })
    }

    /// The size, if it is at most `limit` octets.
    pub(crate) fn within(self, limit: usize) -> Option<usize> {
        usize::try_from(self.size).ok().filter(|&size| size <= limit)
    }
}

/// Decimal digits; what does not fit is `u64::MAX`.
pub(crate) fn number(digits: &[u8]) -> u64 {
    digits
        .iter()
        .fold(0u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit.saturating_sub(b'0'))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals() {
        let found = |line: &[u8]| Literal::at_end_of(line).map(|literal| (literal.size, literal.waits));
        assert_eq!(found(b"a LOGIN {3}"), Some((3, true)));
        assert_eq!(found(b"a LOGIN {0+}"), Some((0, false)));
        assert_eq!(found(b"a LOGIN {128-}"), Some((128, false)));
        assert_eq!(found(b"a APPEND ~{17}"), Some((17, true)));
        assert_eq!(found(b"{4294967295}"), Some((4_294_967_295, true)));
        assert_eq!(found(b"{18446744073709551615}"), Some((u64::MAX, true)));
        assert_eq!(found(b"{99999999999999999999999999}"), Some((u64::MAX, true)));
        for none in
            [&b""[..], b"}", b"{}", b"{+}", b"3}", b"{3} ", b"{3++}", b"{-3}", b"{3", b"{ 3}", b"a{b3}"]
        {
            assert_eq!(found(none), None, "{none:?}");
        }
        let huge = Literal { size: u64::MAX, waits: true };
        assert_eq!(
            (huge.within(usize::MAX - 1), Literal { size: 5, waits: true }.within(5)),
            (None, Some(5))
        );
    }
}

//! A message on its way through: DATA up to CRLF.CRLF, or one BDAT chunk of counted octets.
//!
//! Nothing is copied. The driver's own buffer is looked at, and the driver is told which prefix of it to forward.
//!
//! Dots are passed as they are. A line that begins with a dot arrives stuffed (RFC 5321 §4.5.2) and must leave
//! stuffed; because both sides agree on what a line is, CRLF alone, taking a dot off and putting it back changes no
//! octet. The one stream where it would is one with bare CR or LF, and that is refused.

/// Refuse in this order of importance, however the octets were split.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Refusal {
    /// The backend is gone.
    BackendLost,
    /// More octets than allowed.
    TooLarge,
    /// NUL, which neither 7bit nor 8bit has (RFC 2045 §2.7, §2.8) and which some servers drop, so that
    /// `CRLF NUL . CRLF` becomes an end mark.
    Nul,
    /// CR without LF, or LF without CR (CVE-2023-51764 and its kin).
    BareLineEnd,
}

/// What to do with the chunk given to [`crate::Relay::body`].
#[must_use]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BodyStep {
    /// Forward this first: a CR that was held back from an earlier chunk until its LF came.
    pub held: &'static [u8],
    /// Then forward this many octets of the chunk.
    pub forward: usize,
    /// Then drop this many octets of the chunk; what follows is not of this body.
    pub consumed: usize,
    /// Whether the body is over.
    pub end: BodyEnd,
}

/// How a body stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BodyEnd {
    /// More octets belong to it.
    More,
    /// It is complete, and so is what was forwarded.
    Complete,
    /// It is complete and refused: its end was not forwarded. [`crate::Relay::next`] gives reply and close.
    Refused,
}

/// Where in a line the next octet stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum At {
    LineStart,
    /// Behind a dot at the start of a line.
    Dot,
    /// Behind that and a CR.
    DotCr,
    Text,
    /// Behind a CR in or after text.
    Cr,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Framing {
    /// DATA.
    Dots,
    /// BDAT: octets left, whether it is the last chunk, whether lines matter.
    Counted { left: u64, last: bool, binary: bool },
}

/// The state of one message body.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    framing: Framing,
    at: At,
    /// A CR was looked at but not forwarded.
    holds_cr: bool,
    /// Octets of the message so far: no stuffing, no end mark.
    octets: u64,
    /// Most octets; 0: any number.
    limit: u64,
    refused: Option<Refusal>,
}

impl Body {
    /// A body as DATA sends it. It starts as if just behind CRLF, so that a lone `.` CRLF is an empty message.
    pub(crate) const fn data(limit: u64) -> Self {
        Self { framing: Framing::Dots, at: At::LineStart, holds_cr: false, octets: 0, limit, refused: None }
    }

    /// The first chunk of a body as BDAT sends it.
    pub(crate) const fn chunk(octets: u64, last: bool, binary: bool, limit: u64) -> Self {
        let framing = Framing::Counted { left: octets, last, binary };
        Self { framing, at: At::Text, holds_cr: false, octets: 0, limit, refused: None }
    }

    /// The next chunk of the same message: its size counts on, and a CR that ended the last one still wants its LF.
    pub(crate) fn next_chunk(&mut self, octets: u64, last: bool, binary: bool) {
        self.framing = Framing::Counted { left: octets, last, binary };
    }

    pub(crate) const fn octets(&self) -> u64 {
        self.octets
    }

    pub(crate) const fn refused(&self) -> Option<Refusal> {
        self.refused
    }

    /// From here on octets are read up to the true end and dropped.
    pub(crate) fn refuse(&mut self, why: Refusal) {
        self.refused = self.refused.max(Some(why));
    }

    /// Looks at `chunk`, some prefix of what the client sent and nobody consumed yet.
    pub(crate) fn step(&mut self, chunk: &[u8]) -> BodyStep {
        if chunk.is_empty() && !matches!(self.framing, Framing::Counted { left: 0, .. }) {
            return BodyStep { held: b"", forward: 0, consumed: 0, end: BodyEnd::More };
        }
        let held = core::mem::take(&mut self.holds_cr);
        let (consumed, complete) = match self.framing {
            Framing::Dots => self.dots(chunk),
            Framing::Counted { left, last, binary } => self.counted(chunk, left, last, binary),
        };
        if self.limit > 0 && self.octets > self.limit {
            self.refuse(Refusal::TooLarge);
        }
        if self.refused.is_some() {
            let end = if complete { BodyEnd::Refused } else { BodyEnd::More };
            return BodyStep { held: b"", forward: 0, consumed, end };
        }
        // The backend must not see a CR before it is sure to be followed by LF: one that takes a bare CR for a line
        // end would see an end mark in `CRLF . CR`. Where a counted chunk ends, the count wants the octet, and the
        // chunk is not the last: `counted` saw to that.
        self.holds_cr = !complete && matches!(self.at, At::Cr | At::DotCr);
        let forward = if self.holds_cr { consumed.saturating_sub(1) } else { consumed };
        let end = if complete { BodyEnd::Complete } else { BodyEnd::More };
        BodyStep { held: if held { b"\r" } else { b"" }, forward, consumed, end }
    }

    /// Gives the octets consumed and whether the end mark was the last of them.
    fn dots(&mut self, chunk: &[u8]) -> (usize, bool) {
        let (mut i, mut uncounted) = (0, 0);
        let mut complete = false;
        while let Some(&octet) = chunk.get(i) {
            match (self.at, octet) {
                (At::LineStart, b'.') => {
                    (self.at, i, uncounted) = (At::Dot, i + 1, uncounted + 1);
                }
                (At::Dot, b'\r') => {
                    (self.at, i, uncounted) = (At::DotCr, i + 1, uncounted + 1);
                }
                (At::DotCr, b'\n') => {
                    (i, uncounted, complete) = (i + 1, uncounted + 1, true);
                    break;
                }
                (At::Cr, b'\n') => (self.at, i) = (At::LineStart, i + 1),
                (At::DotCr | At::Cr, _) => {
                    self.refuse(Refusal::BareLineEnd);
                    self.at = At::Text;
                }
                (At::LineStart | At::Dot, _) => self.at = At::Text,
                (At::Text, _) => i = self.text(chunk, i),
            }
        }
        self.octets = self.octets.saturating_add((i - uncounted) as u64);
        (i, complete)
    }

    /// Runs through text from `i` on, and gives where it stopped.
    fn text(&mut self, chunk: &[u8], mut i: usize) -> usize {
        loop {
            let rest = chunk.get(i..).unwrap_or_default();
            let Some(found) = memchr::memchr3(b'\r', b'\n', 0, rest) else {
                return chunk.len();
            };
            i += found + 1;
            match (rest.get(found), rest.get(found + 1), rest.get(found + 2)) {
                // By far the most frequent: a line that ends, and another that does not begin with a dot.
                (Some(b'\r'), Some(b'\n'), Some(next)) if *next != b'.' => i += 1,
                (Some(b'\r'), ..) => {
                    self.at = At::Cr;
                    return i;
                }
                (Some(b'\n'), ..) => self.refuse(Refusal::BareLineEnd),
                _ => self.refuse(Refusal::Nul),
            }
        }
    }

    fn counted(&mut self, chunk: &[u8], left: u64, last: bool, binary: bool) -> (usize, bool) {
        let taken = usize::try_from(left).map_or(chunk.len(), |left| left.min(chunk.len()));
        let left = left.saturating_sub(taken as u64);
        self.framing = Framing::Counted { left, last, binary };
        self.octets = self.octets.saturating_add(taken as u64);
        if !binary {
            self.lines(chunk.get(..taken).unwrap_or_default());
            if left == 0 && last && self.at == At::Cr {
                self.refuse(Refusal::BareLineEnd);
            }
        }
        (taken, left == 0)
    }

    /// CRLF alone, without dots.
    fn lines(&mut self, chunk: &[u8]) {
        let mut i = 0;
        while let Some(&octet) = chunk.get(i) {
            match (self.at, octet) {
                (At::Cr, b'\n') => (self.at, i) = (At::Text, i + 1),
                (At::Cr, _) => {
                    self.refuse(Refusal::BareLineEnd);
                    self.at = At::Text;
                }
                _ => i = self.text(chunk, i),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// Feeds `input` cut at `cuts`; gives what was forwarded, the end, and what was left over.
    fn run(
        mut body: Body,
        input: &[u8],
        cuts: &[usize],
    ) -> (Vec<u8>, BodyEnd, Vec<u8>, u64, Option<Refusal>) {
        let mut forwarded = Vec::new();
        let mut at = 0;
        let mut cuts = cuts.iter().copied().chain([input.len()]);
        loop {
            let end = cuts.by_ref().find(|cut| *cut >= at).unwrap_or(input.len());
            let step = body.step(&input[at..end]);
            forwarded.extend_from_slice(step.held);
            forwarded.extend_from_slice(&input[at..at + step.forward]);
            assert!(step.forward <= step.consumed);
            at += step.consumed;
            if step.end != BodyEnd::More || at == input.len() {
                return (forwarded, step.end, input[at..].to_vec(), body.octets(), body.refused());
            }
        }
    }

    #[test]
    fn ends_at_crlf_dot_crlf_alone() {
        for (input, octets, left) in [
            (&b".\r\nQUIT"[..], 0, &b"QUIT"[..]),
            (b"a\r\n.\r\nx", 3, b"x"),
            (b"..\r\n.\r\n", 3, b""),
            (b"a\r\n..b\r\n.\r\n", 7, b""),
            (b"\r\n.\r\n", 2, b""),
            (b".a\r\n.\r\n", 3, b""),
            (b"a.\r\n.\r\n", 4, b""),
        ] {
            let (forwarded, end, rest, count, _) = run(Body::data(0), input, &[]);
            assert_eq!((end, &rest[..], count), (BodyEnd::Complete, left, octets), "{input:?}");
            assert_eq!(forwarded, input[..input.len() - left.len()]);
        }
    }

    #[test]
    fn a_cr_waits_for_its_lf() {
        let mut body = Body::data(0);
        let step = |held, forward, consumed, end| BodyStep { held, forward, consumed, end };
        assert_eq!(body.step(b"a\r"), step(b"", 1, 2, BodyEnd::More));
        assert_eq!(body.step(b""), step(b"", 0, 0, BodyEnd::More));
        assert_eq!(body.step(b"\n.\r"), step(b"\r", 2, 3, BodyEnd::More));
        assert_eq!(body.step(b"\nQ"), step(b"\r", 1, 1, BodyEnd::Complete));
    }

    #[test]
    fn counts_what_the_message_has() {
        // 5 octets fit: the stuffed dot and the end mark are not the message's.
        assert_eq!(run(Body::data(5), b"..ab\r\n.\r\n", &[]).1, BodyEnd::Complete);
        assert_eq!(run(Body::data(4), b"..ab\r\n.\r\n", &[]).4, Some(Refusal::TooLarge));
        assert_eq!(run(Body::data(4), b"..ab\r\n.\r\nQUIT", &[]).2, b"QUIT");
    }

    #[test]
    fn chunks_are_counted() {
        let (forwarded, end, rest, ..) = run(Body::chunk(5, true, false, 0), b"a\r\n.\r", &[]);
        assert_eq!((&forwarded[..], end, &rest[..]), (&b""[..], BodyEnd::Refused, &b""[..]));
        let (forwarded, end, rest, ..) = run(Body::chunk(6, true, false, 0), b"a\r\n.\r\nQUIT", &[2, 3]);
        assert_eq!((&forwarded[..], end, &rest[..]), (&b"a\r\n.\r\n"[..], BodyEnd::Complete, &b"QUIT"[..]));
        assert_eq!(run(Body::chunk(3, true, true, 0), b"\n\0\rx", &[]).0, b"\n\0\r");
        assert_eq!(run(Body::chunk(3, true, false, 0), b"\n\0\rx", &[]).4, Some(Refusal::BareLineEnd));
        // A CRLF may fall apart between two chunks, and only CRLF.
        for (second, end) in
            [(&b"\n"[..], BodyEnd::Complete), (b"x", BodyEnd::Refused), (b"", BodyEnd::Refused)]
        {
            let mut body = Body::chunk(2, false, false, 0);
            assert_eq!(body.step(b"a\r").forward, 2);
            body.next_chunk(second.len() as u64, true, false);
            let step = body.step(second);
            assert_eq!((step.held, step.end), (&b""[..], end), "{second:?}");
        }
    }

    proptest! {
        /// Any split gives the same octets, end, rest and reason.
        #[test]
        fn splits_do_not_matter(
            input in "[a.\r\n\0]{0,40}",
            ended in any::<bool>(),
            cuts in proptest::collection::btree_set(0..60usize, 0..20),
            limit in 0..30u64,
            counted in proptest::option::of((0..30u64, any::<bool>(), any::<bool>())),
        ) {
            let mut input = input.into_bytes();
            if ended {
                input.extend(b"\r\n.\r\nQUIT\r\n");
            }
            let body = match counted {
                None => Body::data(limit),
                Some((octets, last, binary)) => Body::chunk(octets, last, binary, limit),
            };
            let cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut < input.len()).collect();
            let (whole, parts) = (run(body.clone(), &input, &[]), run(body, &input, &cuts));
            prop_assert_eq!((whole.1, whole.2, whole.3), (parts.1, parts.2, parts.3));
            if whole.1 == BodyEnd::Complete {
                prop_assert_eq!(whole.0, parts.0);
            }
            if whole.1 == BodyEnd::Refused {
                prop_assert_eq!(whole.4, parts.4);
            }
        }
    }
}

//! Lines a backend sends before login is done (RFC 9051 §7, RFC 3501 §7).

/// Our command tags, one a step, so that a late or forged reply to another step is seen as such.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct OurTag(pub(crate) u8);

impl OurTag {
    /// `P` and a digit.
    pub(crate) const fn octets(self) -> [u8; 2] {
        [b'P', b'0' + self.0 % 10]
    }
}

/// One line from the backend, without its CRLF.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Response<'a> {
    /// `+`, with or without text.
    Continue,
    /// `* OK`, `* NO`, `* BAD`.
    Untagged(Status<'a>),
    /// `* PREAUTH`.
    PreAuth,
    /// `* BYE`.
    Bye,
    /// `* CAPABILITY` and the atoms.
    Capability(&'a [u8]),
    /// Any other untagged data; a literal at its end is not ours to read.
    Data,
    /// The reply to our command.
    Tagged(Status<'a>),
    /// Anything else: not IMAP, or a reply to what was not asked.
    Foreign,
}

/// OK, NO or BAD and what follows, response code included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Status<'a> {
    Ok(&'a [u8]),
    No(&'a [u8]),
    Bad,
}

impl<'a> Response<'a> {
    /// Reads `line` as an answer to our command `tag`.
    pub(crate) fn parse(line: &'a [u8], tag: OurTag) -> Self {
        let (first, rest) = word(line);
        if first == b"+" {
            return Self::Continue;
        }
        if first == tag.octets() {
            return Status::parse(rest).map_or(Self::Foreign, Self::Tagged);
        }
        if first != b"*" {
            return Self::Foreign;
        }
        if let Some(status) = Status::parse(rest) {
            return Self::Untagged(status);
        }
        match word(rest) {
            (kind, _) if kind.eq_ignore_ascii_case(b"PREAUTH") => Self::PreAuth,
            (kind, _) if kind.eq_ignore_ascii_case(b"BYE") => Self::Bye,
            (kind, list) if kind.eq_ignore_ascii_case(b"CAPABILITY") => Self::Capability(list),
            (b"", _) => Self::Foreign,
            _ => Self::Data,
        }
    }
}

impl<'a> Status<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        let (kind, text) = word(text);
        if kind.eq_ignore_ascii_case(b"OK") {
            Some(Self::Ok(text))
        } else if kind.eq_ignore_ascii_case(b"NO") {
            Some(Self::No(text))
        } else if kind.eq_ignore_ascii_case(b"BAD") {
            Some(Self::Bad)
        } else {
            None
        }
    }
}

/// The response code in brackets at the start of a status text: its atom, and its arguments.
pub(crate) fn code(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let inner = text.strip_prefix(b"[")?;
    let end = inner.iter().position(|&octet| octet == b']')?;
    inner.get(..end).map(word)
}

/// Whether a NO to a login speaks of the backend's state, or of how we asked, and not of the credentials
/// (RFC 5530 §3, RFC 9051 §7.1).
pub(crate) fn is_temporary(text: &[u8]) -> bool {
    const CODES: [&[u8]; 8] = [
        b"UNAVAILABLE",
        b"INUSE",
        b"LIMIT",
        b"SERVERBUG",
        b"CLIENTBUG",
        b"CONTACTADMIN",
        b"CANNOT",
        b"PRIVACYREQUIRED",
    ];
    code(text).is_some_and(|(atom, _)| CODES.iter().any(|code| atom.eq_ignore_ascii_case(code)))
}

/// The first word and what follows its space.
pub(crate) fn word(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|&octet| octet == b' ').unwrap_or(text.len());
    (text.get(..end).unwrap_or_default(), text.get(end + 1..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses() {
        let parse = |line: &'static str| Response::parse(line.as_bytes(), OurTag(3));
        assert_eq!(parse("+"), Response::Continue);
        assert_eq!(parse("+ go on"), Response::Continue);
        assert_eq!(parse("* ok [ALERT] x"), Response::Untagged(Status::Ok(b"[ALERT] x")));
        assert_eq!(parse("* PREAUTH x"), Response::PreAuth);
        assert_eq!(parse("* bye"), Response::Bye);
        assert_eq!(parse("* CAPABILITY IMAP4rev1 ID"), Response::Capability(b"IMAP4rev1 ID"));
        assert_eq!(parse("* 5 EXISTS"), Response::Data);
        assert_eq!(parse("P3 OK done"), Response::Tagged(Status::Ok(b"done")));
        assert_eq!(parse("P3 NO"), Response::Tagged(Status::No(b"")));
        assert_eq!(parse("P3 BAD x"), Response::Tagged(Status::Bad));
        for foreign in
            ["", "*", "P2 OK done", "p3 OK", "P3 YES", "P3", "220 mail ESMTP", "+OK ready", " * OK"]
        {
            assert_eq!(parse(foreign), Response::Foreign, "{foreign}");
        }
    }

    #[test]
    fn codes() {
        assert_eq!(code(b"[CAPABILITY IMAP4rev1 ID] hi"), Some((&b"CAPABILITY"[..], &b"IMAP4rev1 ID"[..])));
        assert_eq!(code(b"[ALERT] hi"), Some((&b"ALERT"[..], &b""[..])));
        assert_eq!((code(b"hi [ALERT]"), code(b"[ALERT")), (None, None));
        assert!(is_temporary(b"[unavailable] later") && is_temporary(b"[LIMIT]"));
        for lasting in [
            &b"[AUTHENTICATIONFAILED] no"[..],
            b"[AUTHORIZATIONFAILED] no",
            b"[EXPIRED]",
            b"UNAVAILABLE",
            b"",
        ] {
            assert!(!is_temporary(lasting), "{lasting:?}");
        }
    }
}

//! Command lines (RFC 5321 §4.1.1 and extensions), read once.

/// A command with its arguments still as they came; [`crate::MailCommand`] and its like read those.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Command<'a> {
    /// The client's name.
    Ehlo(&'a [u8]),
    /// The client's name.
    Helo(&'a [u8]),
    /// RFC 3207.
    StartTls,
    /// Mechanism, and perhaps a blank and an initial response (RFC 4954 §4).
    Auth(&'a [u8]),
    /// What follows the verb and its blank; `None` if nothing does.
    ClientId(Option<&'a [u8]>),
    /// What follows `MAIL FROM:`.
    Mail(&'a [u8]),
    /// What follows `RCPT TO:`.
    Rcpt(&'a [u8]),
    /// RFC 5321 §4.1.1.4.
    Data,
    /// RFC 3030 §2; `None` where its octets cannot be counted.
    Bdat(Option<BdatSize>),
    /// RFC 5321 §4.1.1.5.
    Rset,
    /// RFC 5321 §4.1.1.9.
    Noop,
    /// RFC 5321 §4.1.1.6.
    Vrfy,
    /// RFC 5321 §4.1.1.7.
    Expn,
    /// RFC 5321 §4.1.1.8.
    Help,
    /// RFC 5321 §4.1.1.10.
    Quit,
    /// A known verb, wrong arguments: the reply to give.
    Bad(&'static [u8]),
    /// Letters, but no verb we have.
    Unknown,
    /// Not even a verb.
    Malformed,
}

/// BDAT's arguments.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BdatSize {
    /// Octets that follow the command's CRLF.
    pub octets: u64,
    /// They are the message's last.
    pub last: bool,
}

impl<'a> Command<'a> {
    /// Reads a line without its CRLF. Blanks at its end are passed over, except in arguments whose own grammar
    /// decides (AUTH, CLIENTID).
    pub fn parse(line: &'a [u8]) -> Self {
        let verb_end = line.iter().position(|octet| *octet == b' ').unwrap_or(line.len());
        let (verb, rest) = line.split_at_checked(verb_end).unwrap_or((line, &[]));
        if verb.is_empty() || !verb.iter().all(u8::is_ascii_alphanumeric) {
            return Self::Malformed;
        }
        let raw = rest.strip_prefix(b" ");
        let arguments = raw.unwrap_or_default().trim_ascii();
        let mut upper = [0; 8];
        let Some(slot) = upper.get_mut(..verb.len()) else { return Self::Unknown };
        slot.copy_from_slice(verb);
        slot.make_ascii_uppercase();
        let alone =
            |command| if arguments.is_empty() { command } else { Self::Bad(crate::reply::text::NO_ARGUMENT) };
        match &*slot {
            b"EHLO" => Self::name(arguments, Self::Ehlo),
            b"HELO" => Self::name(arguments, Self::Helo),
            b"STARTTLS" => alone(Self::StartTls),
            b"AUTH" => Self::Auth(raw.unwrap_or_default()),
            b"CLIENTID" => Self::ClientId(raw),
            b"MAIL" => match behind(arguments, b"FROM:") {
                Some(path) => Self::Mail(path),
                None => Self::Bad(b"501 5.5.4 Syntax: MAIL FROM:<address>"),
            },
            b"RCPT" => match behind(arguments, b"TO:") {
                Some(path) => Self::Rcpt(path),
                None => Self::Bad(b"501 5.5.4 Syntax: RCPT TO:<address>"),
            },
            b"DATA" => alone(Self::Data),
            b"BDAT" => Self::Bdat(bdat(arguments)),
            b"RSET" => alone(Self::Rset),
            b"NOOP" => Self::Noop,
            b"VRFY" => Self::Vrfy,
            b"EXPN" => Self::Expn,
            b"HELP" => Self::Help,
            b"QUIT" => alone(Self::Quit),
            _ => Self::Unknown,
        }
    }

    /// EHLO's argument is taken in any form (RFC 5321 §4.1.4: it is no reason to refuse), if there is one word.
    fn name(argument: &'a [u8], command: fn(&'a [u8]) -> Self) -> Self {
        if argument.is_empty() || argument.contains(&b' ') {
            Self::Bad(crate::reply::text::EHLO_SYNTAX)
        } else {
            command(argument)
        }
    }
}

/// What follows `keyword` and blanks: many clients write `MAIL FROM: <…>`, and as the path is printed anew towards
/// the backend nothing depends on it.
fn behind<'a>(arguments: &'a [u8], keyword: &[u8]) -> Option<&'a [u8]> {
    let (word, rest) = arguments.split_at_checked(keyword.len())?;
    word.eq_ignore_ascii_case(keyword).then(|| rest.trim_ascii_start())
}

/// `size [SP LAST]` (RFC 3030 §2).
fn bdat(arguments: &[u8]) -> Option<BdatSize> {
    let mut words = arguments.split(|octet| *octet == b' ').filter(|word| !word.is_empty());
    let octets = number(words.next()?)?;
    let last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case(b"LAST") => true,
        Some(_) => return None,
    };
    words.next().is_none().then_some(BdatSize { octets, last })
}

/// 1 to 18 digits: a number that fits.
pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_commands() {
        for (line, command) in [
            (&b"EHLO laptop"[..], Command::Ehlo(b"laptop")),
            (b"ehlo [192.0.2.1] ", Command::Ehlo(b"[192.0.2.1]")),
            (b"EHLO", Command::Bad(crate::reply::text::EHLO_SYNTAX)),
            (b"EHLO a b", Command::Bad(crate::reply::text::EHLO_SYNTAX)),
            (b"MAIL FROM:<a@b.net> SIZE=1", Command::Mail(b"<a@b.net> SIZE=1")),
            (b"mail from: <a@b.net>", Command::Mail(b"<a@b.net>")),
            (b"RCPT to:<a@b.net>", Command::Rcpt(b"<a@b.net>")),
            (b"STARTTLS", Command::StartTls),
            (b"STARTTLS now", Command::Bad(crate::reply::text::NO_ARGUMENT)),
            (b"AUTH PLAIN =", Command::Auth(b"PLAIN =")),
            (b"CLIENTID", Command::ClientId(None)),
            (b"CLIENTID UUID x ", Command::ClientId(Some(b"UUID x "))),
            (b"BDAT 86 LAST", Command::Bdat(Some(BdatSize { octets: 86, last: true }))),
            (b"bdat 0", Command::Bdat(Some(BdatSize { octets: 0, last: false }))),
            (b"BDAT", Command::Bdat(None)),
            (b"BDAT -1", Command::Bdat(None)),
            (b"BDAT 1 LAST LAST", Command::Bdat(None)),
            (b"BDAT 99999999999999999999", Command::Bdat(None)),
            (b"NOOP anything", Command::Noop),
            (b"XCLIENT ADDR=192.0.2.1", Command::Unknown),
            (b"XFORWARD ADDR=192.0.2.1", Command::Unknown),
            (b"ETRN example.net", Command::Unknown),
            (b"DATADATADATA", Command::Unknown),
            (b"", Command::Malformed),
            (b" NOOP", Command::Malformed),
            (b"\x80\x01", Command::Malformed),
            (b"MAIL\tFROM:<a@b.net>", Command::Malformed),
        ] {
            assert_eq!(Command::parse(line), command, "{line:?}");
        }
        assert!(matches!(Command::parse(b"MAIL <a@b.net>"), Command::Bad(_)));
    }
}

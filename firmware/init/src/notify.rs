//! What services say of themselves: `sd_notify(3)` datagrams on a socket of their own.

/// One line of a datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Word<'t> {
    /// `READY=1`: it serves.
    Ready,
    /// `WATCHDOG=1`: it lives.
    Alive,
    /// `STOPPING=1`: it drains.
    Stopping,
    /// `STATUS=…`: for people.
    Status(&'t str),
    /// `X_STAGE=…`: a stage line in its name, without sequence, time and checksum.
    Stage {
        /// The first word.
        name: &'t str,
        /// `k=v …`.
        pairs: &'t str,
    },
}

/// The lines of a datagram that mean something here; others are passed over, as `sd_notify(3)` wants it.
pub(crate) fn words(datagram: &[u8]) -> impl Iterator<Item = Word<'_>> {
    core::str::from_utf8(datagram).unwrap_or_default().lines().filter_map(word)
}

fn word(line: &str) -> Option<Word<'_>> {
    let (key, value) = line.split_once('=')?;
    match (key, value) {
        ("READY", "1") => Some(Word::Ready),
        ("WATCHDOG", "1") => Some(Word::Alive),
        ("STOPPING", "1") => Some(Word::Stopping),
        ("STATUS", status) => Some(Word::Status(status)),
        ("X_STAGE", stage) => {
            let (name, pairs) = stage.split_once(' ').unwrap_or((stage, ""));
            Some(Word::Stage { name, pairs })
        }
        _ => None,
    }
}

/// The `k=v` of a stage that a service sent; what does not look like one is dropped.
pub(crate) fn pairs(pairs: &str) -> impl Iterator<Item = (&str, &str)> {
    let plain = |key: &str| {
        !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    pairs.split(' ').filter_map(|pair| pair.split_once('=')).filter(move |(key, _)| plain(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_lines_and_passes_over_the_rest() {
        let datagram = b"READY=1\nSTATUS=all well\nMAINPID=7\nWATCHDOG=1\nWATCHDOG=trigger\nnonsense";
        let words = words(datagram).collect::<Vec<_>>();
        assert_eq!(words, [Word::Ready, Word::Status("all well"), Word::Alive]);
    }

    #[test]
    fn a_stage_comes_apart() {
        let datagram = b"X_STAGE=network if=eth0 addr=10.0.2.15/24 how=dhcp";
        let word = words(datagram).next().unwrap();
        let Word::Stage { name, pairs: text } = word else { panic!("{word:?}") };
        let pairs = pairs(text).collect::<Vec<_>>();
        assert_eq!(
            (name, pairs),
            ("network", vec![("if", "eth0"), ("addr", "10.0.2.15/24"), ("how", "dhcp")])
        );
    }

    #[test]
    fn a_service_cannot_forge_a_line_of_another_shape() {
        assert_eq!(words(&[0xff, 0xfe]).count(), 0);
        assert_eq!(pairs("=x *deadbeef A=b @hil if=eth0").collect::<Vec<_>>(), [("if", "eth0")]);
    }
}

//! The octets that travel, and how either end knows that none was lost or changed.

use std::fmt::Write as _;
use std::sync::LazyLock;

/// Size of the message that is fetched, in octets: 20 MB.
pub const LITERAL_SIZE: usize = 20_000_000;
/// Size of a submitted message as it stands on the wire, without the end mark, in octets.
pub const MESSAGE_SIZE: usize = 4096;

/// The message that is fetched: printable lines whose pattern repeats with no power of two, so that a chunk that is
/// lost, doubled or moved cannot match.
pub static LITERAL: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_u32;
    let block: Vec<u8> = (0..65_521)
        .map(|at| match at % 78 {
            76 => b'\r',
            77 => b'\n',
            _ => {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                b'!' + u8::try_from(state % 94).unwrap_or(0)
            }
        })
        .collect();
    block.iter().copied().cycle().take(LITERAL_SIZE).collect()
});

/// The `number`-th message as DATA carries it: dots stuffed, CRLF at its end, [`MESSAGE_SIZE`] octets.
pub fn message(number: u32) -> Vec<u8> {
    let mut text = String::with_capacity(MESSAGE_SIZE + 128);
    let _ = write!(
        text,
        "From: <user@bench.test>\r\nTo: <someone@elsewhere.test>\r\nSubject: number {number}\r\n\
         Message-ID: <{number}@bench.test>\r\n\r\n..a line that begins with a dot\r\n"
    );
    let line = "All that is gold does not glitter, and not all those who wander are lost\r\n";
    while text.len() < MESSAGE_SIZE {
        text.push_str(line);
    }
    text.truncate(MESSAGE_SIZE - 2);
    // A cut right behind a CR would leave it bare.
    let mut octets = text.trim_end_matches('\r').as_bytes().to_vec();
    octets.resize(MESSAGE_SIZE - 2, b'x');
    octets.extend_from_slice(b"\r\n");
    octets
}

/// FNV-1a, 64 bits: tells a damaged message from a whole one; nobody forges anything here.
pub fn checksum(octets: &[u8]) -> u64 {
    octets.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &octet| {
        (sum ^ u64::from(octet)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// What the backend says of a message it took; a client compares it with what it sent.
pub fn receipt(octets: &[u8]) -> String {
    format!("taken {} {:016x}", octets.len(), checksum(octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_whole_lines_of_the_promised_size() {
        for number in [0, 9, 10, 999, 12_345] {
            let message = message(number);
            assert_eq!(message.len(), MESSAGE_SIZE);
            let text = String::from_utf8(message).unwrap();
            assert!(text.ends_with("\r\n"));
            let bare = text.replace("\r\n", "");
            assert!(!bare.contains(['\r', '\n']));
            assert!(!text.contains("\r\n.\r\n"));
        }
    }

    #[test]
    fn receipts_tell_a_changed_octet() {
        let sent = message(1);
        let mut changed = sent.clone();
        changed[2000] ^= 1;
        assert_ne!(receipt(&sent), receipt(&changed));
        assert_ne!(receipt(&sent), receipt(&sent[1..]));
        assert_eq!(LITERAL.len(), LITERAL_SIZE);
    }
}

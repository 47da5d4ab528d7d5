//! However the input is split, the same octets give the same actions.
#![allow(clippy::unwrap_used, clippy::needless_raw_string_hashes)] // a test fails by panicking; dialogues are quoted alike

#[path = "../../mail/tests/talk/mod.rs"]
mod talk;

use imap::{Offer, Session};
use mail::session::Transport::{self, Clear, Tls};
use proptest::prelude::*;

fn offer() -> Offer {
    Offer::from_backend(b"IMAP4rev1 AUTH=PLAIN AUTH=XOAUTH2", "box", true)
}

fn run(transport: Transport, offer: &Offer, input: &[u8], pieces: &[usize]) -> Vec<String> {
    talk::run(Session::new(transport), offer, input, pieces)
}

/// Pieces of dialogues, whole and broken, in an order nobody would choose.
fn octets() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "a NOOP\r\n",
        "b CAPABILITY\r\n",
        "c LOGOUT\r\n",
        "d STARTTLS\r\n",
        "e LOGIN joe x\r\n",
        "f LOGIN {3}\r\n",
        "g LOGIN {3+}\r\n",
        "h LOGIN \"jo\\\"e\" {2+}\r\n",
        "joe",
        " {4}\r\n",
        " s3cret\r\n",
        "i LOGIN ann x\r\n",
        "j LOGIN last x\r\n",
        "k LOGIN away x\r\n",
        "l AUTHENTICATE PLAIN\r\n",
        "AGpvZQB4\r\n",
        "m AUTHENTICATE LOGIN\r\n",
        "am9l\r\n",
        "*\r\n",
        "n AUTHENTICATE PLAIN AGpvZQB4\r\n",
        "o CLIENTID UUID x\r\n",
        "p CLIENTID MAC {5+}\r\n08:9e\r\n",
        "q CLIENTID DEVICE_ID \"x\"\r\n",
        "r CLIENTID\r\n",
        "s ID NIL\r\n",
        "t ID (\"name\" \"sodr\")\r\n",
        "u ID (\"name\" {3}\r\n",
        "u ID (\"os\" {2000+}\r\n",
        "abc)\r\n",
        "v ID (",
        "w ID x\r\n",
        "x FOO {9+}\r\n",
        "y FOO {99}\r\n",
        "z FOO {99999999999}\r\n",
        "\r\n",
        "\r",
        "\n",
        "(",
        "{",
        "\0",
        "\u{e9}",
        " ",
        "a ",
        "{7-}\r\n",
    ]);
    let chunk = prop_oneof![
        20 => known.prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..20),
        1 => (1..14_000usize).prop_map(|size| vec![b'x'; size]),
    ];
    prop::collection::vec(chunk, 0..14).prop_map(|chunks| chunks.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]

    #[test]
    fn any_split(octets in octets(), pieces in prop::collection::vec(prop_oneof![4 => 1..30usize, 1 => 1..9000usize], 1..40), clear in any::<bool>()) {
        let transport = if clear { Clear } else { Tls };
        let offer = offer();
        prop_assert_eq!(run(transport, &offer, &octets, &pieces), run(transport, &offer, &octets, &[octets.len().max(1)]));
    }

    #[test]
    fn octet_by_octet(octets in octets(), clear in any::<bool>()) {
        let transport = if clear { Clear } else { Tls };
        let offer = offer();
        let ones = vec![1; octets.len()];
        prop_assert_eq!(run(transport, &offer, &octets, &ones), run(transport, &offer, &octets, &[octets.len().max(1)]));
    }
}

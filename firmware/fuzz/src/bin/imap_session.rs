//! IMAP towards clients, from every state before login.
#![no_main]

use fuzz::{Input, assert_same, run_session};
use imap::{Offer, Session};
use libfuzzer_sys::fuzz_target;
use mail::session::Transport::{Clear, Tls};

/// Words that lead to each state; the first two start in clear.
const STATES: [&[u8]; 13] = [
    b"",
    b"a LOGIN {5+}\r\n",
    b"",
    b"a CLIENTID UUID x\r\n",
    b"a CLIENTID MAC {17+}\r\n",
    b"a LOGIN {3}\r\n",
    b"a LOGIN joe {6+}\r\n",
    b"a AUTHENTICATE PLAIN\r\n",
    b"a AUTHENTICATE LOGIN\r\nam9l\r\n",
    b"a AUTHENTICATE OAUTHBEARER\r\n",
    b"a ID (\"name\" ",
    b"a ID ({4}\r\n",
    b"a FOO {9+}\r\n",
];

fuzz_target!(|data: &[u8]| {
    let Some(input) = Input::read(data) else { return };
    let transport = if usize::from(input.start) % STATES.len() < 2 { Clear } else { Tls };
    let offer =
        Offer::from_backend(b"IMAP4rev1 SASL-IR ID AUTH=PLAIN AUTH=XOAUTH2 AUTH=OAUTHBEARER", "box", true);
    let octets = input.behind(&STATES);
    let whole = run_session(Session::new(transport), transport, &offer, &octets, octets.len().max(1));
    let cut = run_session(Session::new(transport), transport, &offer, &octets, usize::from(input.cut) + 1);
    assert_same(&whole, &cut);
});

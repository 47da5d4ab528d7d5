//! Submission towards clients, from every state before login.
#![no_main]

use fuzz::{Input, assert_same, run_session};
use libfuzzer_sys::fuzz_target;
use mail::session::Transport::{Clear, Tls};
use smtp::{Offer, Session};

/// Words that lead to each state; the first two start in clear.
const STATES: [&[u8]; 8] = [
    b"",
    b"EHLO x\r\n",
    b"",
    b"EHLO x\r\n",
    b"EHLO x\r\nCLIENTID UUID x\r\n",
    b"EHLO x\r\nAUTH PLAIN\r\n",
    b"EHLO x\r\nAUTH LOGIN am9l\r\n",
    b"EHLO x\r\nBDAT 7\r\n",
];

fuzz_target!(|data: &[u8]| {
    let Some(input) = Input::read(data) else { return };
    let transport = if usize::from(input.start) % STATES.len() < 2 { Clear } else { Tls };
    let offer = Offer::from_backend(
        b"PIPELINING\r\nSIZE 1000\r\nAUTH PLAIN LOGIN XOAUTH2 OAUTHBEARER",
        "box",
        true,
        None,
    );
    let octets = input.behind(&STATES);
    let whole = run_session(Session::new(transport), transport, &offer, &octets, octets.len().max(1));
    let cut = run_session(Session::new(transport), transport, &offer, &octets, usize::from(input.cut) + 1);
    assert_same(&whole, &cut);
});

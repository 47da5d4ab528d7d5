//! POP3 towards clients, from every state before login.
#![no_main]

use fuzz::{Input, assert_same, run_session};
use libfuzzer_sys::fuzz_target;
use mail::session::Transport::{Clear, Tls};
use pop3::{Offer, Session};

/// Words that lead to each state; the first starts in clear.
const STATES: [&[u8]; 6] =
    [b"", b"", b"USER joe\r\n", b"AUTH PLAIN\r\n", b"AUTH LOGIN am9l\r\n", b"AUTH XOAUTH2\r\n"];

fuzz_target!(|data: &[u8]| {
    let Some(input) = Input::read(data) else { return };
    let transport = if usize::from(input.start) % STATES.len() < 1 { Clear } else { Tls };
    let offer = Offer::from_backend(b"TOP\r\nUSER\r\nSASL PLAIN LOGIN XOAUTH2", "box");
    let octets = input.behind(&STATES);
    let whole = run_session(Session::new(transport), transport, &offer, &octets, octets.len().max(1));
    let cut = run_session(Session::new(transport), transport, &offer, &octets, usize::from(input.cut) + 1);
    assert_same(&whole, &cut);
});

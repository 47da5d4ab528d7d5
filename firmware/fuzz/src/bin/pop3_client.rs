//! POP3 towards a backend that says anything, from every state before login.
#![no_main]

use std::net::{Ipv4Addr, SocketAddr};

use fuzz::{Input, assert_same, run_backend};
use libfuzzer_sys::fuzz_target;
use mail::sasl::Mechanism;
use mail::session::{Job, Peer, Task, Transport};
use pop3::{Client, Offer};

/// What the backend says to lead to each state.
const STATES: [&[u8]; 8] = [
    b"",
    b"+OK x\r\n",
    b"+OK [XCLIENT] x\r\n+OK\r\n",
    b"+OK [XCLIENT] x\r\n+OK\r\nSASL PLAIN\r\n.\r\n",
    b"+OK x\r\n+OK\r\nSASL PLAIN XOAUTH2 OAUTHBEARER\r\n.\r\n",
    b"+OK x\r\n+OK\r\nSASL LOGIN\r\n.\r\n+ \r\n",
    b"+OK x\r\n-ERR\r\n",
    b"+OK x\r\n-ERR\r\n+OK\r\n",
];

fuzz_target!(|data: &[u8]| {
    let Some(input) = Input::read(data) else { return };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 995));
    let peer = Peer {
        client: address,
        local: address,
        session: "s",
        tls: true,
        sni: None,
        device: Some("a"),
        helo: "",
    };
    // The upper bits of the state choose the job.
    let job = Job {
        task: match input.start >> 5 & 3 {
            0 => Task::Probe,
            1 => Task::Login { mechanism: Mechanism::Plain, user: b"ann", secret: b"s3 cret" },
            2 => Task::Login {
                mechanism: Mechanism::XOAuth2,
                user: b"u",
                secret: b"user=u\x01auth=Bearer t\x01\x01",
            },
            _ => Task::Login {
                mechanism: Mechanism::OAuthBearer,
                user: b"u",
                secret: b"n,a=u,\x01auth=Bearer t\x01\x01",
            },
        },
        starttls: input.start >= 128 && input.start % 8 < 2,
        peer: (input.start & 8 != 0).then_some(&peer),
        hostname: "edge",
    };
    let octets = input.behind(&STATES);
    let whole = run_backend(Client::new(), &job, &octets, octets.len().max(1));
    let cut = run_backend(Client::new(), &job, &octets, usize::from(input.cut) + 1);
    assert_same(&whole, &cut);
    // Whatever a backend says of itself makes an offer of whole lines, none of them the end mark.
    let offer = Offer::from_backend(input.octets, "box");
    let list = offer.capabilities(Transport::Tls);
    assert!(list.is_empty() || list.ends_with("\r\n"), "line broken");
    assert!(list.lines().all(|line| line != "."), "list ended");
});

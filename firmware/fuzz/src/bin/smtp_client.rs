//! Submission towards a backend that says anything, from every state before login.
#![no_main]

use std::net::{Ipv6Addr, SocketAddr};

use fuzz::{Input, assert_same, run_backend};
use libfuzzer_sys::fuzz_target;
use mail::sasl::Mechanism;
use mail::session::{Job, Peer, Task, Transport};
use smtp::{Client, Offer, Session};

/// What the backend says to lead to each state.
const STATES: [&[u8]; 8] = [
    b"",
    b"220 x\r\n",
    b"220 x\r\n250-x\r\n250 AUTH PLAIN\r\n",
    b"220 x\r\n250-x\r\n250 AUTH LOGIN\r\n334 \r\n",
    b"220 x\r\n250-x\r\n250 AUTH XOAUTH2 OAUTHBEARER\r\n",
    b"220 x\r\n250-x\r\n250-AUTH PLAIN\r\n250 XCLIENT NAME ADDR PROTO HELO PORT\r\n",
    b"220 x\r\n250-x\r\n250-AUTH PLAIN\r\n250 XCLIENT ADDR HELO DESTNAME SESSION\r\n220 x\r\n",
    b"220 x\r\n250-x\r\n250 STARTTLS\r\n",
];

fuzz_target!(|data: &[u8]| {
    let Some(input) = Input::read(data) else { return };
    let address = SocketAddr::from((Ipv6Addr::LOCALHOST, 465));
    let helo = "h".repeat(usize::from(input.cut));
    let peer = Peer {
        client: address,
        local: address,
        session: "s",
        tls: true,
        sni: Some("smtp.example.net"),
        device: Some("a"),
        helo: &helo,
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
        starttls: input.start >= 128,
        peer: (input.start & 16 != 0).then_some(&peer),
        hostname: "edge",
    };
    let octets = input.behind(&STATES);
    let whole = run_backend(Client::new(), &job, &octets, octets.len().max(1));
    let cut = run_backend(Client::new(), &job, &octets, usize::from(input.cut) + 1);
    if !job.starttls {
        assert_same(&whole, &cut); // with STARTTLS, octets behind it are told by when they come
    }
    // Whatever a backend says of itself makes a reply of whole lines, of which the last alone ends it.
    let offer = Offer::from_backend(input.octets, "box", true, Some(1000));
    let told = fuzz::run_session(Session::new(Transport::Tls), Transport::Tls, &offer, b"EHLO x\r\n", 99);
    let reply = told.split(|octet| *octet == b'\n').skip(1).filter(|line| !line.is_empty());
    let last = reply.clone().count();
    for (number, line) in reply.enumerate() {
        let end: &[u8] = if number + 1 == last { b"250 " } else { b"250-" };
        assert!(line.starts_with(end) && line.ends_with(b"\r"), "{}", line.escape_ascii());
    }
});

//! IMAP towards a backend that says anything, from every state before login.
#![no_main]

use std::net::{Ipv4Addr, SocketAddr};

use fuzz::{Input, assert_same, run_backend};
use imap::{Client, Offer};
use libfuzzer_sys::fuzz_target;
use mail::sasl::Mechanism;
use mail::session::{Backend, Job, Peer, Step, Task};

/// What the backend says to lead to each state.
const STATES: [&[u8]; 8] = [
    b"",
    b"* OK x\r\n",
    b"* OK [CAPABILITY IMAP4rev1 ID SASL-IR AUTH=PLAIN AUTH=XOAUTH2 AUTH=OAUTHBEARER] x\r\n",
    b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN AUTH=XOAUTH2] x\r\n",
    b"* OK [CAPABILITY IMAP4rev1 LITERAL+] x\r\n",
    b"* OK [CAPABILITY IMAP4rev1] x\r\n+ \r\n",
    b"* OK [CAPABILITY IMAP4rev1 LOGINDISABLED AUTH=LOGIN] x\r\n+ \r\n",
    b"* OK [CAPABILITY ID] x\r\n* ID ({3}\r\n",
];

fuzz_target!(|data: &[u8]| {
    let Some(input) = Input::read(data) else { return };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 993));
    let peer =
        Peer { client: address, local: address, session: "s", tls: true, sni: None, device: None, helo: "" };
    // The upper bits of the state choose the job.
    let job = Job {
        task: match input.start >> 5 & 3 {
            0 => Task::Probe,
            1 => Task::Login { mechanism: Mechanism::Plain, user: b"ann", secret: b"gar\xc3\xa7on" },
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
    // Whatever a backend says of itself makes an offer that fits on one line.
    let offer = Offer::from_backend(input.octets, "box", true);
    assert!(!offer.capabilities(mail::session::Transport::Tls).contains(['\r', '\n']), "line broken");
    let mut idle = Client::new();
    assert!(!matches!(idle.next(&job), Some(Step::Send(_))), "we spoke first");
});

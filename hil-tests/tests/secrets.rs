//! Promise: passwords and device tokens are written nowhere: not to a log of any level, not to the journal, the database, the
//! metrics, an alert, an export. (Every other test checks the same of what it made the gateway write.)

use std::time::Duration;

use anyhow::{Result, ensure};
use base64ct::{Base64, Encoding};
use hil_tests::backends::{Backends, Options};
use hil_tests::client::Client;
use hil_tests::gateway::Gateway;
use hil_tests::port::{free, loopback};
use hil_tests::session::{Protocol, Session};
use hil_tests::{random, secrets};

#[test]
fn secrets_are_written_nowhere() -> Result<()> {
    for format in ["json", "human"] {
        let backends = Backends::with(&Options { failure_delay: Duration::ZERO, ..Options::default() })?;
        let metrics = loopback(free()?);
        let gateway = Gateway::with(
            &backends,
            &format!(
                "[log]\nlevel = \"trace\"\nformat = \"{format}\"\n[metrics]\nlisten = \"{metrics}\"\n\
                 [domains.\"example.test\"]\nprobe-refused-passwords = true\n\
                 [abuse]\nfailure-deadline = \"300ms\"\nfailure-deadline-max = \"300ms\"\n"
            ),
        )?;
        show_secrets(&gateway, &backends)?;
        let ada = backends.ada();
        let log = gateway.log().text();
        ensure!(log.contains(&ada.user), "the log says too little to prove anything:\n{log}");

        let answers = [
            http_get(metrics)?,
            gateway.postern(&["events"])?.to_string(),
            gateway.postern(&["sessions"])?.to_string(),
            gateway.postern(&["devices", "list", &ada.user])?.to_string(),
            String::from_utf8(gateway.postern_raw(&["export"])?.stdout)?,
            backends.inbox(ada)?.join("\n"),
        ];
        let shown = gateway.workshop().write("shown.log", 0o600, answers.join("\n"))?;
        let found = gateway.find_secrets(&[shown, gateway.workshop().file("gateway.log"), gateway.data()]);
        ensure!(found.is_empty(), "{found:?}");
    }
    Ok(())
}

/// Everything that can carry a secret, rightly and wrongly.
fn show_secrets(gateway: &Gateway, backends: &Backends) -> Result<()> {
    let ada = backends.ada();
    let trust = gateway.trust()?;
    let secret = |gateway: &Gateway| {
        let secret = random::password();
        gateway.keep_secret(&secret);
        secret
    };
    let token = random::uuid();
    gateway.enrol(ada, &token)?;
    for protocol in Protocol::ALL {
        let mut session = Session::open(gateway, protocol)?;
        session.identify(&token)?;
        session.login(&ada.user, &secret(gateway))?;
        session.enter(&ada.user, &ada.password)?;
    }
    gateway.lock(ada)?;
    for protocol in Protocol::ALL {
        let mut session = Session::open(gateway, protocol)?;
        session.identify(&random_token(gateway))?;
        session.login(&ada.user, &ada.password)?;
        session.login("nobody@example.test", &secret(gateway))?;
    }
    // In clear, where it is refused unread.
    let mut imap = Client::clear(gateway.listeners.imap)?;
    imap.line()?;
    imap.ask(&format!("a LOGIN {} {}", ada.user, secret(gateway)))?;
    imap.ask(&format!("b CLIENTID UUID {}", random_token(gateway)))?;
    let mut smtp = Client::clear(gateway.listeners.submission)?;
    smtp.smtp_reply()?;
    smtp.smtp("EHLO [192.0.2.4]")?;
    smtp.smtp(&format!("AUTH PLAIN {}", secrets::plain_base64(&ada.user, &secret(gateway))))?;
    smtp.smtp(&format!("CLIENTID UUID {}", random_token(gateway)))?;
    // Malformed and out of place.
    let mut imap = Client::tls(gateway.listeners.imaps, &trust)?;
    imap.line()?;
    imap.ask(&format!("a LOGIN {} {} {}", ada.user, secret(gateway), secret(gateway)))?;
    imap.ask(&format!("b CLIENTID UUID {} {}", random_token(gateway), secret(gateway)))?;
    let mut imap = Client::tls(gateway.listeners.imaps, &trust)?;
    imap.line()?;
    let password = secret(gateway);
    ensure!(imap.ask(&format!("c LOGIN {} {{{}}}", ada.user, password.len()))?.starts_with('+'));
    imap.ask(&password)?;
    let mut imap = Client::tls(gateway.listeners.imaps, &trust)?;
    imap.line()?;
    imap.ask("d AUTHENTICATE PLAIN")?;
    imap.ask(&format!("{}!", Base64::encode_string(secret(gateway).as_bytes())))?;
    let mut pop3 = Client::tls(gateway.listeners.pop3s, &trust)?;
    pop3.line()?;
    pop3.ask(&format!("PASS {}", secret(gateway)))?;
    pop3.ask(&format!("USER {} {}", ada.user, secret(gateway)))?;
    let mut smtp = Client::tls(gateway.listeners.submissions, &trust)?;
    smtp.smtp_reply()?;
    smtp.smtp(&format!("AUTH PLAIN {}", secrets::plain_base64(&ada.user, &secret(gateway))))?;
    smtp.smtp("EHLO [192.0.2.4]")?;
    ensure!(smtp.smtp("AUTH LOGIN")?.starts_with("334"));
    ensure!(smtp.smtp(&Base64::encode_string(ada.user.as_bytes()))?.starts_with("334"));
    smtp.smtp(&Base64::encode_string(secret(gateway).as_bytes()))?;
    smtp.smtp(&secret(gateway))?;
    Ok(())
}

fn random_token(gateway: &Gateway) -> String {
    let token = random::uuid();
    gateway.keep_secret(&token);
    token
}

fn http_get(address: std::net::SocketAddr) -> Result<String> {
    let mut client = Client::clear(address)?;
    client
        .raw(format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let page = String::from_utf8(client.rest()?)?;
    ensure!(page.starts_with("HTTP/1.1 200") && page.contains("# TYPE "), "{page}");
    Ok(page)
}

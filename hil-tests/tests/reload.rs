//! Promise: settings and certificates are replaced, and the box shuts down, without dropping a session.

use std::time::Duration;

use anyhow::{Result, ensure};
use hil_tests::backends::Backends;
use hil_tests::certificate::Certificate;
use hil_tests::client::{Client, Trust};
use hil_tests::gateway::Gateway;
use hil_tests::session::{Protocol, Session};

#[test]
fn a_new_certificate_is_shown_and_old_sessions_live() -> Result<()> {
    let backends = Backends::start()?;
    let gateway = Gateway::start(&backends)?;
    let ada = backends.ada();
    let mut session = Session::open(&gateway, Protocol::Imap)?;
    session.enter(&ada.user, &ada.password)?;

    let renewed = Certificate::new(gateway.workshop(), "renewed")?;
    gateway.certificate.replace_with(&renewed)?;
    gateway.postern(&["reload"])?;

    let mut client = Client::tls(gateway.listeners.imaps, &Trust::new(&renewed.ca_der)?)?;
    ensure!(client.line()?.starts_with("* OK"));
    ensure!(
        Client::tls(gateway.listeners.imaps, &gateway.trust()?).is_err(),
        "the old certificate is still shown"
    );
    ensure!(session.nothing()?.starts_with("n OK"), "the reload cost a session");
    Ok(())
}

#[test]
fn new_settings_hold_at_once_and_bad_ones_never() -> Result<()> {
    let backends = Backends::start()?;
    let gateway = Gateway::start(&backends)?;
    let ada = backends.ada();
    let mut live = Session::open(&gateway, Protocol::Imap)?;
    live.enter(&ada.user, &ada.password)?;

    gateway.reload("[accounts.\"ada@example.test\".policy]\nprotocols = [\"imap\"]")?;
    let mut pop3 = Session::open(&gateway, Protocol::Pop3)?;
    ensure!(pop3.login(&ada.user, &ada.password)? == Protocol::Pop3.failure());
    ensure!(live.nothing()?.starts_with("n OK"));

    // A document that contradicts itself is refused with its place, and what holds goes on holding.
    gateway.rewrite("[accounts.\"ada@example.test\".policy]\nprotocols = [\"gopher\"]")?;
    let output = gateway.postern_raw(&["reload"])?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(
        !output.status.success() && words.contains("settings.toml:") && words.contains("gopher"),
        "{words}"
    );
    let mut imap = Session::open(&gateway, Protocol::Imap)?;
    imap.enter(&ada.user, &ada.password)?;
    Ok(())
}

/// SIGTERM: no new connection; IMAP clients, who would stay for days, are told to come back later; a message under way is
/// finished and acknowledged.
#[test]
fn a_shutdown_drains() -> Result<()> {
    let backends = Backends::start()?;
    let mut gateway = Gateway::with(&backends, "[limits]\ndrain = \"10s\"")?;
    let (ada, ben) = (backends.ada().clone(), backends.ben().clone());
    let mut imap = Session::open(&gateway, Protocol::Imap)?;
    imap.enter(&ada.user, &ada.password)?;
    let mut sending = Session::open(&gateway, Protocol::Submission)?;
    sending.enter(&ada.user, &ada.password)?;
    ensure!(sending.client.smtp(&format!("MAIL FROM:<{}>", ada.user))?.starts_with("250 "));
    ensure!(sending.client.smtp(&format!("RCPT TO:<{}>", ben.user))?.starts_with("250 "));
    ensure!(sending.client.smtp("DATA")?.starts_with("354 "));
    sending.client.send("Subject: late\r\n\r\nstarted before the shutdown")?;
    let address = gateway.listeners.imaps;

    gateway.signal(nix::sys::signal::Signal::SIGTERM)?;
    ensure!(imap.client.is_closed_within(Duration::from_secs(2))?, "an idle session holds the shutdown up");
    ensure!(imap.client.heard().contains("\r\n* BYE"), "{}", imap.client.heard());
    ensure!(Client::clear(address).is_err(), "it still accepts");
    std::thread::sleep(Duration::from_secs(1));
    let reply = sending.client.smtp("and ended after it\r\n.")?;
    ensure!(reply.starts_with("250 "), "{reply}");
    backends.wait_for_mail(&ben, "and ended after it", Duration::from_secs(10))?;
    let status = gateway.process()?.wait(Duration::from_secs(3))?;
    ensure!(status.success(), "{status}");
    Ok(())
}

/// Without sessions it ends at once.
#[test]
fn an_idle_gateway_ends_at_once() -> Result<()> {
    let backends = Backends::start()?;
    let mut gateway = Gateway::start(&backends)?;
    gateway.stop(Duration::from_secs(3))
}

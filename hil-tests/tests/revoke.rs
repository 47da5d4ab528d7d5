//! Promise: revoking a device, or locking a mailbox, ends the sessions that are open, within a second.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hil_tests::backends::Backends;
use hil_tests::gateway::Gateway;
use hil_tests::random;
use hil_tests::session::{Protocol, Session};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn revoking_a_device_ends_its_sessions_and_no_other() -> Result<()> {
    let backends = Backends::start()?;
    let gateway = Gateway::start(&backends)?;
    let ada = backends.ada();
    let (stolen, kept) = (random::uuid(), random::uuid());
    let alias = gateway.enrol(ada, &stolen)?;
    gateway.enrol(ada, &kept)?;
    gateway.lock(ada)?;
    let open = |token: &str, protocol| -> Result<Session> {
        let mut session = Session::open(&gateway, protocol)?;
        session.identify(token)?;
        session.enter(&ada.user, &ada.password)?;
        Ok(session)
    };
    let mut imap = open(&stolen, Protocol::Imap)?;
    imap.client.send("b SELECT INBOX")?;
    imap.client.until("b OK")?;
    imap.client.send("c IDLE")?;
    imap.client.until("+")?;
    let mut submission = open(&stolen, Protocol::Submission)?;
    let mut other = open(&kept, Protocol::Imap)?;

    gateway.revoke(ada, &alias)?;
    let start = Instant::now();
    ensure!(imap.client.is_closed_within(SECOND)?, "the IMAP session went on");
    ensure!(imap.client.heard().contains("\r\n* BYE"), "it ended without a word: {}", imap.client.heard());
    ensure!(submission.client.is_closed_within(SECOND)?, "the submission session went on");
    ensure!(
        submission.client.heard().contains("\r\n421 "),
        "it ended without a word: {}",
        submission.client.heard()
    );
    ensure!(start.elapsed() < SECOND, "it took {:?}", start.elapsed());

    ensure!(other.nothing()?.starts_with("n OK"), "another device's session ended too");
    let mut again = Session::open(&gateway, Protocol::Imap)?;
    again.identify(&stolen)?;
    ensure!(again.login(&ada.user, &ada.password)? == Protocol::Imap.failure());
    Ok(())
}

#[test]
fn locking_a_mailbox_ends_what_the_lock_would_not_have_let_in() -> Result<()> {
    let backends = Backends::start()?;
    let gateway = Gateway::start(&backends)?;
    let ada = backends.ada();
    let token = random::uuid();
    gateway.enrol(ada, &token)?;
    let mut approved = Session::open(&gateway, Protocol::Imap)?;
    approved.identify(&token)?;
    approved.enter(&ada.user, &ada.password)?;
    let mut stranger = Session::open(&gateway, Protocol::Imap)?;
    stranger.enter(&ada.user, &ada.password)?;
    let mut somebody_else = Session::open(&gateway, Protocol::Pop3)?;
    somebody_else.enter(&backends.ben().user, &backends.ben().password)?;

    gateway.lock(ada)?;
    ensure!(stranger.client.is_closed_within(SECOND)?, "a device that is not approved stayed");
    ensure!(approved.nothing()?.starts_with("n OK"));
    ensure!(somebody_else.nothing()?.starts_with("+OK"));
    Ok(())
}

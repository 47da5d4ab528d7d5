//! The bench itself: its servers serve, tell who the client is, and leave nothing behind.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use base64ct::{Base64, Encoding};
use hil_tests::backends::{Backends, Options};
use hil_tests::client::{Client, Trust};

/// Mail handed to Postfix by ada reaches ben's inbox in Dovecot; both logs hold the address that the front end named.
#[test]
fn mail_goes_from_postfix_to_dovecot_and_both_name_the_client() -> Result<()> {
    let backends = Backends::start()?;
    let (ada, ben) = (backends.ada(), backends.ben());

    let mut smtp = Client::clear(backends.postfix.submission)?;
    ensure!(smtp.smtp_reply()?.starts_with("220 "));
    let hello = smtp.smtp("EHLO front.example.test")?;
    ensure!(hello.contains("XCLIENT") && hello.contains("AUTH PLAIN"), "{hello}");
    ensure!(smtp.smtp("XCLIENT ADDR=192.0.2.77 PORT=40001 PROTO=ESMTP HELO=laptop")?.starts_with("220 "));
    ensure!(smtp.smtp("EHLO laptop")?.contains("AUTH"));
    let secret = Base64::encode_string(format!("\0{}\0{}", ada.user, ada.password).as_bytes());
    ensure!(smtp.smtp(&format!("AUTH PLAIN {secret}"))?.starts_with("235 "));
    ensure!(smtp.smtp(&format!("MAIL FROM:<{}>", ada.user))?.starts_with("250 "));
    ensure!(smtp.smtp(&format!("RCPT TO:<{}>", ben.user))?.starts_with("250 "));
    ensure!(smtp.smtp("RCPT TO:<somebody@elsewhere.example>")?.starts_with("250 "));
    ensure!(smtp.smtp("DATA")?.starts_with("354 "));
    ensure!(smtp.smtp("Subject: hello\r\n\r\nfrom the bench\r\n.")?.starts_with("250 "));

    backends.wait_for_mail(ben, "from the bench", Duration::from_secs(20))?;
    let log = backends.log();
    log.wait(&["192.0.2.77", "sasl_username=ada@example.test"], Duration::from_secs(5))?;
    log.wait(
        &["somebody@elsewhere.example", "relay=none", "status=sent (the bench sends nothing out)"],
        Duration::from_secs(5),
    )?;

    let mut imap = Client::clear(backends.dovecot.imap)?;
    ensure!(imap.line()?.starts_with("* OK"));
    imap.send(r#"i ID ("x-originating-ip" "192.0.2.78" "x-originating-port" "40002")"#)?;
    imap.until("i OK")?;
    imap.send(&format!("a LOGIN {} {}", ben.user, ben.password))?;
    imap.until("a OK")?;
    imap.send("b SELECT INBOX")?;
    ensure!(imap.until("b OK")?.iter().any(|line| line == "* 1 EXISTS"));
    log.wait(&["Login: user=<ben@example.test>", "rip=192.0.2.78"], Duration::from_secs(5))?;
    Ok(())
}

/// A server that trusts loopback by address relays for everybody behind a front end: the trap that a self-test must see.
#[test]
fn the_open_relay_trap_is_one() -> Result<()> {
    let relay = |open_relay_trap| -> Result<String> {
        let backends = Backends::with(&Options { open_relay_trap, ..Options::default() })?;
        let mut smtp = Client::clear(backends.postfix.submission)?;
        smtp.smtp_reply()?;
        smtp.smtp("EHLO front.example.test")?;
        smtp.smtp("MAIL FROM:<stranger@elsewhere.example>")?;
        smtp.smtp("RCPT TO:<somebody@elsewhere.example>")
    };
    ensure!(relay(true)?.starts_with("250 "));
    ensure!(relay(false)?.starts_with("554 "));
    Ok(())
}

/// Both offer STARTTLS where asked to, and can go away and come back on the same ports.
#[test]
fn the_backends_can_do_starttls_and_can_go_away() -> Result<()> {
    let mut backends = Backends::with(&Options { starttls: true, ..Options::default() })?;
    let trust = Trust::new(&backends.certificate.ca_der)?;
    let mut imap = Client::clear(backends.dovecot.imap)?;
    imap.line()?;
    imap.send("a STARTTLS")?;
    imap.until("a OK")?;
    imap.start_tls(&trust)?;
    imap.send(&format!("b LOGIN {} {}", backends.ada().user, backends.ada().password))?;
    imap.until("b OK")?;

    let address = backends.dovecot.imap;
    backends.dovecot.pause();
    ensure!(imap.is_closed_within(Duration::from_secs(5))?);
    ensure!(Client::clear(address).is_err());
    backends.dovecot.resume()?;
    ensure!(Client::clear(address)?.line()?.starts_with("* OK"));
    Ok(())
}

/// Nothing is left when the servers are dropped: no process, no file.
#[test]
fn nothing_is_left_behind() -> Result<()> {
    let backends = Backends::start()?;
    let folder = backends.workshop().path().to_owned();
    ensure!(folder.exists() && processes_of(&folder)? > 0);
    drop(backends);
    ensure!(!folder.exists() && processes_of(&folder)? == 0);
    Ok(())
}

/// How many processes were started with a path of `folder` on their command line.
fn processes_of(folder: &Path) -> Result<usize> {
    let needle = folder.to_string_lossy().into_owned();
    let mut count = 0;
    for entry in std::fs::read_dir("/proc")? {
        let line = std::fs::read(entry?.path().join("cmdline")).unwrap_or_default();
        count += usize::from(String::from_utf8_lossy(&line).contains(&needle));
    }
    Ok(count)
}

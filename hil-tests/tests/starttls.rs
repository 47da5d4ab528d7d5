//! Promise: on the STARTTLS ports nothing is believed that came in clear, and no login happens there.

use std::time::Duration;

use anyhow::{Result, ensure};
use hil_tests::backends::Backends;
use hil_tests::client::Client;
use hil_tests::gateway::Gateway;
use hil_tests::secrets;

const SOON: Duration = Duration::from_secs(5);

/// No login and no CLIENTID in clear, and neither is offered; the credentials are not looked at.
#[test]
fn nothing_is_offered_or_taken_in_clear() -> Result<()> {
    let backends = Backends::start()?;
    let gateway = Gateway::start(&backends)?;
    let ada = backends.ada();
    let log = backends.log().from_now();

    let mut imap = Client::clear(gateway.listeners.imap)?;
    let greeting = imap.line()?;
    imap.send("a CAPABILITY")?;
    let capabilities = format!("{greeting}\n{}", imap.until("a OK")?.join("\n"));
    ensure!(capabilities.contains("STARTTLS") && capabilities.contains("LOGINDISABLED"), "{capabilities}");
    ensure!(!capabilities.contains("CLIENTID") && !capabilities.contains("AUTH="), "{capabilities}");
    let reply = imap.ask(&format!("b LOGIN {} {}", ada.user, ada.password))?;
    ensure!(reply.starts_with("b NO [PRIVACYREQUIRED]"), "{reply}");
    ensure!(imap.ask("c CLIENTID UUID 23bf83be-aad7-46aa-9e0f-39191ccf402f")?.starts_with("c BAD"));

    let mut pop3 = Client::clear(gateway.listeners.pop3)?;
    ensure!(pop3.line()?.starts_with("+OK"));
    pop3.send("CAPA")?;
    let capabilities = pop3.until(".")?.join("\n");
    ensure!(
        capabilities.contains("STLS") && !capabilities.contains("USER") && !capabilities.contains("SASL"),
        "{capabilities}"
    );
    let user = pop3.ask(&format!("USER {}", ada.user))?;
    let pass = pop3.ask(&format!("PASS {}", ada.password))?;
    ensure!(user.starts_with("-ERR") && pass.starts_with("-ERR"), "{user} {pass}");

    let mut smtp = Client::clear(gateway.listeners.submission)?;
    smtp.smtp_reply()?;
    let hello = smtp.smtp("EHLO [192.0.2.4]")?;
    ensure!(hello.contains("STARTTLS") && !hello.contains("AUTH") && !hello.contains("CLIENTID"), "{hello}");
    let secret = secrets::plain_base64(&ada.user, &ada.password);
    let reply = smtp.smtp(&format!("AUTH PLAIN {secret}"))?;
    ensure!(reply.starts_with("538 ") || reply.starts_with("530 ") || reply.starts_with("503 "), "{reply}");
    ensure!(smtp.smtp("CLIENTID UUID 23bf83be-aad7-46aa-9e0f-39191ccf402f")?.starts_with("500 "));
    ensure!(smtp.smtp(&format!("MAIL FROM:<{}>", ada.user))?.starts_with("530 "));
    ensure!(log.lines(&[&ada.user]).is_empty(), "a login in clear reached the server");
    Ok(())
}

/// CVE-2011-0411 and the NO STARTTLS work: octets behind the STARTTLS line are never read as if they came under TLS.
#[test]
fn octets_behind_starttls_close_the_connection() -> Result<()> {
    let backends = Backends::start()?;
    let gateway = Gateway::start(&backends)?;
    for (address, before, injection) in [
        (gateway.listeners.imap, "", "a STARTTLS\r\nb NOOP\r\n"),
        (gateway.listeners.pop3, "", "STLS\r\nNOOP\r\n"),
        (gateway.listeners.submission, "EHLO [192.0.2.4]", "STARTTLS\r\nRSET\r\n"),
    ] {
        let mut client = Client::clear(address)?;
        client.smtp_reply()?;
        if !before.is_empty() {
            client.smtp(before)?;
        }
        client.raw(injection.as_bytes())?;
        ensure!(client.is_closed_within(SOON)?, "{injection:?} did not end the connection");
        ensure!(
            !client.heard().contains("b OK") && !client.heard().contains("250 2.0.0"),
            "{}",
            client.heard()
        );
    }
    Ok(())
}

/// After STARTTLS all starts anew: STARTTLS is gone from the list, CLIENTID and logins are in it.
#[test]
fn after_starttls_all_starts_anew() -> Result<()> {
    let backends = Backends::start()?;
    let gateway = Gateway::start(&backends)?;
    let trust = gateway.trust()?;
    let mut imap = Client::clear(gateway.listeners.imap)?;
    imap.line()?;
    ensure!(imap.ask("a STARTTLS")?.starts_with("a OK"));
    imap.start_tls(&trust)?;
    imap.send("b CAPABILITY")?;
    let capabilities = imap.until("b OK")?.join("\n");
    ensure!(capabilities.contains("CLIENTID") && capabilities.contains("AUTH=PLAIN"), "{capabilities}");
    ensure!(!capabilities.contains("STARTTLS") && !capabilities.contains("LOGINDISABLED"), "{capabilities}");

    let mut smtp = Client::clear(gateway.listeners.submission)?;
    smtp.smtp_reply()?;
    smtp.smtp("EHLO [192.0.2.4]")?;
    ensure!(smtp.smtp("STARTTLS")?.starts_with("220 "));
    smtp.start_tls(&trust)?;
    let reply = smtp.smtp("CLIENTID UUID 23bf83be-aad7-46aa-9e0f-39191ccf402f")?;
    ensure!(reply.starts_with("503 "), "EHLO in clear was remembered: {reply}");
    let hello = smtp.smtp("EHLO [192.0.2.4]")?;
    ensure!(hello.contains("CLIENTID") && hello.contains("AUTH ") && !hello.contains("STARTTLS"), "{hello}");
    Ok(())
}

//! Promise: Thunderbird's dialogue (clientid.md §3.3) works on IMAP and submission, with one approval for both. Thunderbird
//! gives up when CLIENTID is answered with anything but success, so a refused device must hear of it at its login only.

use anyhow::{Result, ensure};
use hil_tests::backends::{Account, Backends};
use hil_tests::client::Client;
use hil_tests::gateway::Gateway;
use hil_tests::session::Protocol;
use hil_tests::{random, secrets};
use std::time::Duration;

#[test]
fn one_approval_serves_imap_and_submission() -> Result<()> {
    let backends = Backends::start()?;
    let gateway = Gateway::with(&backends, "[accounts.\"ada@example.test\".policy]\nmode = \"lock\"")?;
    let ada = backends.ada();
    let token = random::uuid();
    gateway.keep_secret(&token);

    ensure!(imap(&gateway, ada, &token)?.0 == "3 NO [AUTHENTICATIONFAILED] Authentication failed.");
    ensure!(submission(&gateway, ada, &token)?.0 == Protocol::Submission.failure());

    let alias = gateway.wait_for_device(ada, "pending")?;
    ensure!(gateway.devices(ada)?.len() == 1, "one token is one device, whatever the protocol");
    gateway.approve(ada, &alias)?;

    let (reply, mut client) = imap(&gateway, ada, &token)?;
    ensure!(reply.starts_with("3 OK"), "{reply}");
    client.send(r#"4 ID ("name" "Thunderbird" "version" "140.3.0")"#)?;
    client.until("4 OK")?;
    client.send("5 select \"INBOX\"")?;
    client.until("5 OK")?;

    let (reply, mut client) = submission(&gateway, ada, &token)?;
    ensure!(reply.starts_with("235 "), "{reply}");
    ensure!(client.smtp(&format!("MAIL FROM:<{}> BODY=8BITMIME SIZE=60", ada.user))?.starts_with("250 "));
    ensure!(client.smtp(&format!("RCPT TO:<{}>", backends.ben().user))?.starts_with("250 "));
    ensure!(client.smtp("DATA")?.starts_with("354 "));
    ensure!(client.smtp("Subject: from Thunderbird\r\n\r\nGrüße\r\n.")?.starts_with("250 "));
    ensure!(client.smtp("QUIT")?.starts_with("221 "));
    backends.wait_for_mail(backends.ben(), "Grüße", Duration::from_secs(10))?;
    ensure!(gateway.devices(ada)?.len() == 1);
    Ok(())
}

/// nsImapProtocol.cpp, `TryToLogon`: capabilities, CLIENTID raw, then `authenticate PLAIN` without initial response.
fn imap(gateway: &Gateway, account: &Account, token: &str) -> Result<(String, Client)> {
    let mut client = Client::tls(gateway.listeners.imaps, &gateway.trust()?)?;
    ensure!(client.line()?.starts_with("* OK"));
    client.send("1 capability")?;
    let capabilities = client.until("1 OK")?.join(" ");
    ensure!(capabilities.contains(" CLIENTID") && capabilities.contains("AUTH=PLAIN"), "{capabilities}");
    ensure!(!capabilities.contains("STARTTLS") && !capabilities.contains("LOGINDISABLED"), "{capabilities}");
    let reply = client.ask(&format!("2 CLIENTID UUID {token}"))?;
    ensure!(reply.starts_with("2 OK"), "{reply}");
    let go = client.ask("3 authenticate PLAIN")?;
    ensure!(go.starts_with('+'), "{go}");
    client.send(&secrets::plain_base64(&account.user, &account.password))?;
    let reply = client.until("3 ")?.pop().unwrap_or_default();
    Ok((reply, client))
}

/// SmtpClient.sys.mjs, `_actionEHLO` and `_actionCLIENTID`; older releases want the EHLO line to be exactly `CLIENTID`.
fn submission(gateway: &Gateway, account: &Account, token: &str) -> Result<(String, Client)> {
    let mut client = Client::tls(gateway.listeners.submissions, &gateway.trust()?)?;
    ensure!(client.smtp_reply()?.starts_with("220 "));
    let hello = client.smtp("EHLO [192.0.2.4]")?;
    let keywords: Vec<&str> = hello.lines().skip(1).filter_map(|line| line.get(4..)).collect();
    ensure!(keywords.contains(&"CLIENTID"), "{hello}");
    ensure!(
        keywords.iter().any(|keyword| keyword.starts_with("AUTH ") && keyword.contains("PLAIN")),
        "{hello}"
    );
    ensure!(
        !keywords.iter().any(|keyword| keyword.starts_with("XCLIENT") || keyword.starts_with("STARTTLS")),
        "{hello}"
    );
    let reply = client.smtp(&format!("CLIENTID UUID {token}"))?;
    ensure!(reply.starts_with("250 "), "{reply}");
    ensure!(client.smtp("AUTH PLAIN")?.starts_with("334"));
    let reply = client.smtp(&secrets::plain_base64(&account.user, &account.password))?;
    Ok((reply, client))
}

//! Promise: when somebody is refused at a locked mailbox, its owner gets one mail that says who, what, when and from where;
//! an approval lets the same client in without a restart; and she learns it if the stranger knows her password.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use hil_tests::backends::{Account, Backends};
use hil_tests::gateway::Gateway;
use hil_tests::random;
use hil_tests::session::{Origin, Protocol, Session};

const SETTINGS: &str = "
[listen.proxy-protocol]
from = [\"127.0.0.1\"]
[accounts.\"ada@example.test\".policy]
mode = \"lock\"
[abuse]
failure-deadline = \"300ms\"
failure-deadline-max = \"300ms\"
";

const STRANGER: &str = "198.51.100.23:52311";

/// A stranger, or ada's new phone: it names itself, as RFC 2971 lets it.
fn phone(gateway: &Gateway, account: &Account, password: &str, token: &str) -> Result<(String, Session)> {
    gateway.keep_secret(token);
    let source: SocketAddr = STRANGER.parse()?;
    let mut session = Session::open_from(gateway, Protocol::Imap, Origin::Behind(source), &gateway.trust()?)?;
    session.client.send(r#"i ID ("name" "Pocket Mail" "version" "7.1" "os" "Linux")"#)?;
    session.client.until("i OK")?;
    session.identify(token)?;
    let reply = session.login(&account.user, password)?;
    Ok((reply, session))
}

#[test]
fn the_owner_hears_once_and_approves_without_a_restart() -> Result<()> {
    let backends = Backends::start()?;
    let gateway = Gateway::with(&backends, SETTINGS)?;
    let ada = backends.ada();
    let token = random::uuid();

    ensure!(phone(&gateway, ada, &ada.password, &token)?.0 == Protocol::Imap.failure());
    let alert = backends.wait_for_mail(ada, "198.51.100.23", Duration::from_secs(20))?;
    let alias = gateway.wait_for_device(ada, "pending")?;
    for field in [
        format!("To: <{}>", ada.user),
        "<postern@example.test>".into(),
        "Subject: A login to your mailbox was refused".into(),
        "Date: ".into(),
        "Message-ID: <".into(),
        "Auto-Submitted: auto-generated".into(), // RFC 3834: no vacation answers back
        "IMAP client, Linux, Pocket Mail 7.1, with CLIENTID (UUID)".into(),
        format!("Known as:  {alias}"),
        "Protocol:  IMAP".into(),
        "Result:    Refused".into(),
        "Address:   198.51.100.23".into(),
        "Country:   unknown".into(), // the bench has no table of countries
        "Time:      ".into(),
        format!("postern devices approve {} {alias}", ada.user),
    ] {
        ensure!(alert.contains(&field), "{field:?} is missing in:\n{alert}");
    }
    // One link, the same in the plain part and in the HTML part.
    let link = format!("https://mail.example.test/devices/{alias}");
    ensure!(alert.matches(&link).count() == 2 && alert.matches("https://").count() == 2, "{alert}");
    ensure!(!alert.contains(&token) && !alert.contains(&ada.password), "a secret in mail");

    for _ in 0..20 {
        ensure!(phone(&gateway, ada, &ada.password, &token)?.0 == Protocol::Imap.failure());
    }
    std::thread::sleep(Duration::from_secs(3));
    let alerts = backends.inbox(ada)?.len();
    ensure!(alerts == 1, "21 refusals of one device made {alerts} mails");

    gateway.approve(ada, &alias)?;
    let (reply, mut session) = phone(&gateway, ada, &ada.password, &token)?;
    ensure!(reply.starts_with("a OK"), "{reply}");
    session.client.send("b SELECT INBOX")?;
    ensure!(
        session.client.until("b OK")?.iter().any(|line| line == "* 1 EXISTS"),
        "she reads the alert itself"
    );
    Ok(())
}

/// Guessing makes noise for nobody: 300 wrong passwords from 60 strangers are one mail at most, and the digest later.
#[test]
fn an_attack_does_not_flood_the_mailbox() -> Result<()> {
    let backends = Backends::start()?;
    let gateway = Gateway::with(&backends, SETTINGS)?;
    let ada = backends.ada();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..12u8)
            .map(|worker| {
                let gateway = &gateway;
                scope.spawn(move || -> Result<()> {
                    for host in 0..5 {
                        let source = SocketAddr::new([192, 0, 2, worker * 5 + host].into(), 40_000);
                        let origin = Origin::Behind(source);
                        let mut session =
                            Session::open_from(gateway, Protocol::Submission, origin, &gateway.trust()?)?;
                        session.identify(&random::uuid())?;
                        for guess in 0..4 {
                            if session.login(&ada.user, &format!("guess-{guess}")).is_err() {
                                break; // closed after too many
                            }
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))?)
    })?;
    std::thread::sleep(Duration::from_secs(3));
    let mails = backends.inbox(ada)?.len();
    ensure!((1..=3).contains(&mails), "{mails} mails");
    ensure!(gateway.devices(ada)?.len() <= 32, "pending devices are bounded");
    Ok(())
}

/// Where the domain asks for it, refused credentials are tried after the reply, off the wire, and the owner hears the
/// difference between "somebody guessed" and "somebody knows your password".
#[test]
fn the_owner_hears_that_her_password_is_known() -> Result<()> {
    let backends = Backends::start()?;
    let settings = format!("{SETTINGS}\n[domains.\"example.test\"]\nprobe-refused-passwords = true\n");
    let gateway = Gateway::with(&backends, &settings)?;
    let ada = backends.ada();
    let log = backends.log().from_now();
    ensure!(phone(&gateway, ada, &ada.password, &random::uuid())?.0 == Protocol::Imap.failure());
    ensure!(log.lines(&[&ada.user, "imap-login"]).is_empty(), "the server was asked before the reply");
    log.wait(&[&ada.user, "imap-login"], Duration::from_secs(20))?;
    let alert = backends.wait_for_mail(
        ada,
        "Subject: Somebody knows your mailbox password",
        Duration::from_secs(20),
    )?;
    ensure!(!alert.contains(&ada.password));
    Ok(())
}

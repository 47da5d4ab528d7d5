//! The onboarding self-test: does each backend answer, does it believe who the client is, and would it relay for the
//! whole world because it trusts this box's address (clientid.md §5)?
//!
//! It pretends to be a client at an address of TEST-NET-1 (RFC 5737), which no real client has, and never logs in.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use control::{Finding, Severity};
use mail::address::Mailbox;
use mail::session::{Backend, Peer, Protocol};
use settings::IdentityVia;
use smtp::{RelayTest, RelayTestStep, RelayVerdict};
use tokio::time::timeout;

use crate::backend::{self, Security, Target};
use crate::gateway::Gateway;
use crate::stream::Read;

/// Who the pretended client is.
const OUTSIDER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77)), 50_123);
/// A mailbox at a domain that can never exist (RFC 2606 §2): the test asks, and never sends.
const STRANGER: &str = "postern-self-test@postern-self-test.invalid";
/// One backend's test in all.
const LIMIT: Duration = Duration::from_secs(30);

/// Tries every service of every backend.
pub async fn run(gateway: &Gateway) -> Vec<Finding> {
    let upstreams = gateway.upstreams();
    let mut services: Vec<_> = upstreams.all().map(|upstream| upstream.target()).collect();
    services.sort_by_key(|target| (target.name.to_string(), target.protocol));
    let mut findings = Vec::new();
    for target in services {
        let tested = timeout(LIMIT, test(&target)).await;
        findings.extend(tested.unwrap_or_else(|_| {
            vec![finding(
                &target,
                Severity::Error,
                "reach",
                "does not answer within 30 seconds",
                "look at its log and at the network between",
            )]
        }));
    }
    findings
}

async fn test(target: &Target) -> Vec<Finding> {
    let mut findings = Vec::new();
    let probed = match target.protocol {
        Protocol::Imap => backend::probe(Box::new(imap::Client::new()), target).await,
        Protocol::Pop3 => backend::probe(Box::new(pop3::Client::new()), target).await,
        Protocol::Submission => backend::probe(Box::new(smtp::Client::new()), target).await,
    };
    if let Err(why) = probed {
        let text = format!("{} cannot be used: {why}", target.address);
        return vec![finding(
            target,
            Severity::Error,
            "reach",
            &text,
            "look at its log and at the network between",
        )];
    }
    findings.push(finding(target, Severity::Fine, "reach", "answers and names its capabilities", ""));
    findings.push(protection(target));
    findings.push(belief(target).await);
    if target.protocol == Protocol::Submission {
        findings.push(open_relay(target, None).await);
        if target.identity == IdentityVia::Protocol {
            findings.push(open_relay(target, Some(&outsider())).await);
        }
    }
    findings
}

fn protection(target: &Target) -> Finding {
    let near = target.address.ip().is_loopback();
    match target.security {
        Security::Clear if !near => {
            let mend = "set tls = \"starttls\" or \"implicit\", or keep this cable to yourself";
            finding(target, Severity::Warning, "protection", "passwords cross the way to it in clear", mend)
        }
        Security::Clear => finding(target, Severity::Fine, "protection", "in clear, on this machine", ""),
        Security::StartTls(..) | Security::Implicit(..) => {
            finding(target, Severity::Fine, "protection", "under TLS, its certificate checked", "")
        }
    }
}

/// Whether it takes our word for the client's address, as far as its protocol can show that without a login.
async fn belief(target: &Target) -> Finding {
    let check = "client-address";
    match target.identity {
        IdentityVia::None => {
            let mend = "set identity = \"protocol\", and trust this box there (login_trusted_networks, smtpd_authorized_xclient_hosts)";
            return finding(
                target,
                Severity::Warning,
                check,
                "it sees this box's address instead of its clients'",
                mend,
            );
        }
        IdentityVia::ProxyV1 | IdentityVia::ProxyV2 => {
            let text =
                "it read the PROXY header; whether it logs the client's address shows at the first login";
            return finding(target, Severity::Fine, check, text, "");
        }
        IdentityVia::Protocol => {}
    }
    let believed = match target.protocol {
        Protocol::Imap => introduce(Box::<imap::Client>::default(), target, imap::Client::believed).await,
        Protocol::Pop3 => introduce(Box::<pop3::Client>::default(), target, pop3::Client::believed).await,
        Protocol::Submission => {
            introduce(Box::<smtp::Client>::default(), target, smtp::Client::believed).await
        }
    };
    let mend = match target.protocol {
        Protocol::Imap | Protocol::Pop3 => "add this box's address to login_trusted_networks there",
        Protocol::Submission => "add this box's address to smtpd_authorized_xclient_hosts there",
    };
    match believed {
        Ok(Some(true)) => finding(target, Severity::Fine, check, "it believes who the client is", ""),
        Ok(Some(false)) => finding(
            target,
            Severity::Error,
            check,
            "it does not believe who the client is: every client will look like this box",
            mend,
        ),
        Ok(None) => {
            let text = "it does not say whether it believes who the client is (Dovecot says so from 2.4 on)";
            let mend = format!("{mend}; then look in its log for rip={}", OUTSIDER.ip());
            finding(target, Severity::Warning, check, text, &mend)
        }
        Err(why) => finding(target, Severity::Error, check, &format!("it could not be asked: {why}"), mend),
    }
}

/// Says who the client is, and leaves before any login.
async fn introduce<B: Backend>(
    mut machine: Box<B>,
    target: &Target,
    believed: fn(&B) -> Option<bool>,
) -> Result<Option<bool>, String> {
    backend::introduce(machine.as_mut(), target, &outsider()).await?;
    Ok(believed(&machine))
}

fn outsider() -> Peer<'static> {
    Peer {
        client: OUTSIDER,
        local: SocketAddr::new(Ipv4Addr::new(192, 0, 2, 1).into(), 993),
        session: "selftest",
        tls: true,
        sni: None,
        device: None,
        helo: "self-test.invalid",
    }
}

/// Asks whether a message to a stranger would be taken without a login; takes the question back at once.
async fn open_relay(target: &Target, outsider: Option<&Peer<'_>>) -> Finding {
    let (check, who) = match outsider {
        None => ("open-relay", "this box without a login"),
        Some(_) => ("open-relay-as-client", "an outside client without a login"),
    };
    match ask_relay(target, outsider).await {
        Ok(Relaying::Open) => {
            let text = format!("OPEN RELAY: it takes mail to strangers from {who}");
            let mend =
                "take this box's address out of mynetworks there (permit_mynetworks), and ask for a login";
            finding(target, Severity::Error, check, &text, mend)
        }
        Ok(Relaying::Refused(reply)) => {
            finding(target, Severity::Fine, check, &format!("refuses {who}: {reply}"), "")
        }
        Ok(Relaying::Unknown(why)) | Err(why) => {
            let text = format!("could not be tried for {who}: {why}");
            finding(target, Severity::Warning, check, &text, "look at its log, then run the self-test again")
        }
    }
}

enum Relaying {
    Open,
    Refused(String),
    Unknown(String),
}

/// Drives the relay test over a connection of its own. Under TLS where the target wants it from the first octet; where it
/// wants STARTTLS the question is asked in clear, as an outsider would.
async fn ask_relay(target: &Target, outsider: Option<&Peer<'_>>) -> Result<Relaying, String> {
    let recipient = Mailbox::parse(STRANGER.as_bytes(), mail::address::Charset::Ascii)
        .map_err(|error| error.to_string())?;
    let fault = |error: std::io::Error| error.to_string();
    let mut stream = backend::open(target, None).await.map_err(fault)?;
    let mut inbox = Vec::new();
    if let Security::Implicit(config, name) = &target.security {
        inbox = stream.connect_tls(std::sync::Arc::clone(config), name.clone()).await.map_err(fault)?;
    }
    let mut machine = Box::new(RelayTest::new());
    loop {
        let taken = machine.push(&inbox);
        inbox.drain(..taken);
        while let Some(step) = machine.next(&target.hostname, outsider, &recipient) {
            match step {
                RelayTestStep::Send(bytes) => stream.send(bytes).await.map_err(fault)?,
                RelayTestStep::Done(RelayVerdict::Open) => return Ok(Relaying::Open),
                RelayTestStep::Done(RelayVerdict::Refused { text }) => {
                    return Ok(Relaying::Refused(text.to_owned()));
                }
                RelayTestStep::Done(RelayVerdict::Away(step)) => {
                    return Ok(Relaying::Unknown(format!("stopped at {step}")));
                }
            }
        }
        if taken > 0 && !inbox.is_empty() {
            continue;
        }
        let limit = target.timeout;
        let read = timeout(limit, stream.read(&mut |bytes| inbox.extend_from_slice(bytes))).await;
        match read.map_err(|_| "timed out".to_owned())?.map_err(fault)? {
            Read::Data => {}
            Read::End => return Err("closed the connection".into()),
        }
    }
}

fn finding(target: &Target, severity: Severity, check: &str, text: &str, mend: &str) -> Finding {
    Finding {
        severity,
        backend: target.name.to_string(),
        protocol: target.protocol.name().into(),
        check: check.into(),
        text: text.into(),
        mend: mend.into(),
    }
}

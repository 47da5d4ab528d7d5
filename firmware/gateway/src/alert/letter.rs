//! The mail an owner gets: what happened in plain words, every fact of it, and what to do.
//!
//! Everything a stranger could choose (client name, pointer, EHLO form) is cut, cleaned and, in the HTML part, escaped,
//! so that an alert cannot be made to carry somebody else's text or link.

use std::fmt::Write as _;

use jiff::Timestamp;
use mail_builder::MessageBuilder;
use mail_builder::headers::address::Address;
use mail_builder::headers::date::Date;
use mail_builder::headers::text::Text as TextHeader;
use ring::rand::{SecureRandom, SystemRandom};

use crate::alert::{Digest, DigestDevice, Incident, Mail, What};
use crate::event::{Reason, Text, UnixSeconds};

/// What every letter says.
#[derive(Clone, Debug)]
pub struct LetterSettings {
    /// Name in From, such as `Mail security`.
    pub from_name: String,
    /// Address in From.
    pub from: String,
    /// Envelope sender; `None`: the null sender, so that no bounce comes back.
    pub envelope_from: Option<String>,
    /// Our own name, for Message-ID.
    pub hostname: String,
    /// Added to accounts that are no addresses.
    pub default_domain: Option<String>,
    /// Where device pages are, such as `https://mail.example.net/devices/`; the page's id is put behind it. `None`: the
    /// letter names the help desk instead.
    pub devices_url: Option<String>,
    /// Whom to ask, such as a telephone number or an address; may be empty.
    pub help: String,
    /// Shown under the country; [`crate::geo::ATTRIBUTION`] for the data this box comes with.
    pub attribution: String,
}

/// Writes letters.
#[derive(Clone, Debug)]
pub struct Letter {
    settings: LetterSettings,
}

/// Rows of facts, as (label, value).
type Facts = Vec<(&'static str, String)>;

/// A letter before it becomes MIME.
#[derive(Debug, Default)]
struct Content {
    subject: String,
    /// One sentence each.
    opening: Vec<String>,
    /// Blocks of facts, one a device.
    facts: Vec<Facts>,
    link: Option<String>,
    advice: Vec<String>,
}

impl Letter {
    /// Letters with these settings.
    pub const fn new(settings: LetterSettings) -> Self {
        Self { settings }
    }

    /// The letter about one incident.
    pub fn first(&self, incident: &Incident, pointer: Option<&str>, now: UnixSeconds) -> Mail {
        let mut content = Content {
            subject: subject(incident.what).into(),
            opening: vec![opening(incident.what).into()],
            facts: vec![facts(incident, pointer)],
            link: self.link(incident),
            advice: self.advice(incident),
        };
        if matches!(incident.what, What::Refused(_) | What::Guessed(_)) {
            content.advice.push(
                "If it goes on, you will not get a mail for each attempt, but a summary after an hour."
                    .into(),
            );
        }
        self.write(&incident.account, &incident.also, &content, now)
    }

    /// The letter that sums up; `pointers` go with the digest's devices.
    pub fn digest(&self, digest: &Digest, pointers: &[Option<String>], now: UnixSeconds) -> Mail {
        let since = time(digest.since);
        let known = digest.devices.iter().any(|device| device.last.what == What::PasswordKnown);
        let refused = digest
            .devices
            .iter()
            .all(|device| matches!(device.last.what, What::Refused(_) | What::Guessed(_)));
        let (one, many, at) =
            if refused { ("refused login", "refused logins", "to") } else { ("event", "events", "in") };
        let number = plural(usize::try_from(digest.count).unwrap_or(usize::MAX), one, many);
        let mut content = Content {
            subject: format!("Summary: {number} {at} your mailbox"),
            opening: vec![format!("Since {since}: {number} {at} your mailbox.")],
            ..Content::default()
        };
        if known {
            content.opening.push("At least one of them came with your right password.".into());
        }
        for (index, device) in digest.devices.iter().enumerate() {
            let pointer = pointers.get(index).and_then(Option::as_deref);
            let mut rows = facts(&device.last, pointer);
            let more = if device.addresses >= DigestDevice::ADDRESSES { "at least " } else { "" };
            rows.insert(
                0,
                (
                    "Number",
                    format!(
                        "{}, from {more}{}",
                        device.count,
                        plural(device.addresses, "address", "addresses")
                    ),
                ),
            );
            content.facts.push(rows);
            content.link = content.link.or_else(|| self.link(&device.last));
        }
        if digest.others > 0 {
            content.facts.push(vec![("Others", format!("{} of other devices, not listed", digest.others))]);
        }
        let worst = digest.devices.iter().find(|device| device.last.what == What::PasswordKnown);
        if let Some(device) = worst.or(digest.devices.first()) {
            content.advice = self.advice(&device.last);
        }
        self.write(&digest.account, &digest.also, &content, now)
    }

    /// A letter to the operators.
    pub fn operator(&self, to: &[String], subject: &str, lines: &[String], now: UnixSeconds) -> Mail {
        let mut text = String::new();
        for line in lines {
            // Writing into a String does not fail.
            let _ = write!(text, "{line}\r\n");
        }
        self.mail(to.to_vec(), subject, text, None, now)
    }

    /// Where mail to an account goes; none if it is no address and no domain is set.
    fn recipients(&self, account: &Text, also: &[Text]) -> Vec<String> {
        let own = match (account.as_str().contains('@'), &self.settings.default_domain) {
            (true, _) => Some(account.to_string()),
            (false, Some(domain)) => Some(format!("{account}@{domain}")),
            (false, None) => None,
        };
        own.into_iter().chain(also.iter().map(ToString::to_string)).collect()
    }

    fn link(&self, incident: &Incident) -> Option<String> {
        let opaque = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
        let page = incident.page.as_ref().filter(|page| page.as_str().bytes().all(opaque))?;
        Some(format!("{}{page}", self.settings.devices_url.as_ref()?))
    }

    fn advice(&self, incident: &Incident) -> Vec<String> {
        let mut advice = Vec::new();
        match incident.what {
            What::Refused(reason) | What::Guessed(reason) => {
                advice.push(format!("If this was you{}.", if_own(reason)));
                let stays = if reason == Reason::Credentials {
                    "the password was wrong"
                } else {
                    "the device stays outside"
                };
                advice.push(format!("If it was not you, nothing needs to be done: {stays}."));
            }
            What::NewDevice { .. } => {
                advice.push("If this was you, nothing needs to be done.".into());
                advice.push("If it was not you: revoke the device and change your password at once.".into());
            }
            What::PasswordKnown => {
                advice.push("If this was you, with a new device: approve the device.".into());
                advice.push(
                    "If it was not you, CHANGE YOUR PASSWORD NOW, here and wherever else you use the same one.".into(),
                );
            }
            What::SendingStopped => {
                advice.push("If you have sent that much yourself, ask for a higher limit.".into());
                advice.push("If not, somebody sends in your name: change your password at once.".into());
            }
        }
        if !self.settings.help.is_empty() {
            advice.push(format!("Questions? {}", self.settings.help));
        }
        let verb = match incident.what {
            What::NewDevice { .. } => Some("revoke"),
            What::PasswordKnown => Some("approve"),
            What::Refused(reason) | What::Guessed(reason) => approvable(reason).then_some("approve"),
            What::SendingStopped => None,
        };
        if let (Some(alias), Some(verb)) = (&incident.alias, verb) {
            advice.push(format!("For the help desk: postern devices {verb} {} {alias}", incident.account));
        }
        advice
    }

    fn write(&self, account: &Text, also: &[Text], content: &Content, now: UnixSeconds) -> Mail {
        let text = self.text(account, content);
        let html = self.html(account, content);
        self.mail(self.recipients(account, also), &content.subject, text, Some(html), now)
    }

    fn text(&self, account: &Text, content: &Content) -> String {
        let mut text = String::new();
        let mut line = |line: &str| {
            text.push_str(line);
            text.push_str("\r\n");
        };
        line("Hello,");
        line("");
        line("this is an automatic message from the system that guards your mailbox");
        line(&format!("{account}."));
        line("");
        for sentence in &content.opening {
            line(sentence);
        }
        for block in &content.facts {
            line("");
            for (label, value) in block {
                line(&format!("  {:<10} {value}", format!("{label}:")));
            }
        }
        line("");
        if let Some(link) = &content.link {
            line("See and decide, on the page of your devices:");
            line(link);
            line("");
        }
        for advice in &content.advice {
            line(&format!("- {advice}"));
        }
        line("");
        line("The country is a guess from the address.");
        if !self.settings.attribution.is_empty() {
            line(&self.settings.attribution);
        }
        line("Please do not reply to this mail.");
        text
    }

    fn html(&self, account: &Text, content: &Content) -> String {
        let mut html = String::from("<!DOCTYPE html>\r\n<html lang=\"en\"><body>\r\n<p>Hello,</p>\r\n");
        let mut part = |part: &str| {
            html.push_str(part);
            html.push_str("\r\n");
        };
        part(&format!(
            "<p>this is an automatic message from the system that guards your mailbox <b>{}</b>.</p>",
            escape(account.as_str())
        ));
        part(&format!("<p>{}</p>", escape(&content.opening.join(" "))));
        for block in &content.facts {
            part("<table cellpadding=\"4\">");
            for (label, value) in block {
                part(&format!("<tr><th align=\"left\">{label}</th><td>{}</td></tr>", escape(value)));
            }
            part("</table>");
        }
        if let Some(link) = &content.link {
            part(&format!(
                "<p><a href=\"{0}\">See and decide, on the page of your devices</a></p>",
                escape(link)
            ));
        }
        part("<ul>");
        for advice in &content.advice {
            part(&format!("<li>{}</li>", escape(advice)));
        }
        part("</ul>");
        part(&format!(
            "<p><small>The country is a guess from the address. {} Please do not reply to this mail.</small></p>",
            escape(&self.settings.attribution)
        ));
        part("</body></html>");
        html
    }

    fn mail(
        &self,
        to: Vec<String>,
        subject: &str,
        text: String,
        html: Option<String>,
        now: UnixSeconds,
    ) -> Mail {
        let settings = &self.settings;
        let id = random_id();
        let mut builder = MessageBuilder::new()
            .from(Address::new_address(Some(settings.from_name.as_str()), settings.from.as_str()))
            .to(Address::new_list(
                to.iter().map(|to| Address::new_address(None::<&str>, to.as_str())).collect::<Vec<_>>(),
            ))
            .subject(subject)
            .date(Date::new(i64::try_from(now).unwrap_or_default()))
            .message_id(format!("{id}@{}", settings.hostname))
            // RFC 3834 §5: no automatic answer to an automatic message.
            .header("Auto-Submitted", TextHeader::new("auto-generated"))
            .header("X-Auto-Response-Suppress", TextHeader::new("All"))
            .text_body(text);
        if let Some(html) = html {
            builder = builder.html_body(html);
        }
        // Writing into memory does not fail.
        let message = builder.write_to_vec().unwrap_or_default();
        Mail { id, from: settings.envelope_from.clone().unwrap_or_default(), to, message }
    }
}

const fn subject(what: What) -> &'static str {
    match what {
        What::Refused(_) | What::Guessed(_) => "A login to your mailbox was refused",
        What::NewDevice { .. } => "A new device has logged in to your mailbox",
        What::PasswordKnown => "Somebody knows your mailbox password",
        What::SendingStopped => "Sending from your mailbox was stopped",
    }
}

const fn opening(what: What) -> &'static str {
    match what {
        What::Refused(_) | What::Guessed(_) => "A login to your mailbox was refused.",
        What::NewDevice { .. } => "A device that was never seen before has logged in to your mailbox.",
        What::PasswordKnown => {
            "A login to your mailbox was refused because of its device, but it came with your right password."
        }
        What::SendingStopped => "So much was sent from your mailbox that sending was stopped for now.",
    }
}

/// Whether the owner's approval is what a refused device lacks.
const fn approvable(reason: Reason) -> bool {
    matches!(reason, Reason::UnknownDevice | Reason::Unapproved | Reason::Expired | Reason::Revoked)
}

/// What an owner can do about the refusal of his own device, to follow "If this was you".
const fn if_own(reason: Reason) -> &'static str {
    match reason {
        Reason::UnknownDevice | Reason::Unapproved | Reason::Expired => {
            ", with a new device or on a journey: approve the device"
        }
        Reason::Revoked => ", and the device is yours again: approve it",
        Reason::Protocol
        | Reason::Network
        | Reason::Country
        | Reason::ClientIdRequired
        | Reason::UntrustedType => ": the rules of your mailbox forbid it; ask for a change of the rules",
        Reason::NoIdentity => {
            ": this program does not tell which device it runs on; use another, or ask for help"
        }
        Reason::TooManyDevices => ": revoke a device that you no longer use, then approve this one",
        Reason::Credentials => ", check the password that this device has stored",
        Reason::Budget | Reason::Unavailable => ": wait for a while, then try again",
        Reason::BadName => ", check the login name in the settings of your mail program",
    }
}

/// Every fact of one incident.
fn facts(incident: &Incident, pointer: Option<&str>) -> Facts {
    let result = match incident.what {
        What::Refused(reason) | What::Guessed(reason) => format!("Refused: {}", reason.text()),
        What::NewDevice { days: Some(days) } => {
            format!("Let in, for {} from now", plural(days as usize, "day", "days"))
        }
        What::NewDevice { days: None } => "Let in".into(),
        What::PasswordKnown => "Refused because of its device".into(),
        What::SendingStopped => "Refused for now, nothing is lost".into(),
    };
    let password = match incident.what {
        What::Refused(Reason::Credentials) | What::Guessed(_) => Some("Wrong"),
        What::Refused(_) => Some("Not looked at"),
        What::PasswordKnown | What::NewDevice { .. } => Some("Right"),
        What::SendingStopped => None,
    };
    let address = match pointer {
        Some(pointer) => format!("{} ({pointer})", incident.address),
        None => incident.address.to_string(),
    };
    let mut facts = vec![("Device", describe(incident))];
    facts.extend(incident.alias.as_ref().map(|alias| ("Known as", alias.to_string())));
    facts.push(("Protocol", protocol(incident).into()));
    facts.push(("Result", result));
    facts.extend(password.map(|password| ("Password", password.into())));
    facts.push(("Address", address));
    // Two letters or nothing: whatever else a table holds is not shown.
    let code = incident.country.as_ref().filter(|code| code.as_str().len() == 2);
    facts.push(("Country", code.map_or_else(|| "unknown".into(), ToString::to_string)));
    facts.push(("Time", time(incident.at)));
    facts
}

const fn protocol(incident: &Incident) -> &'static str {
    match incident.protocol {
        mail::session::Protocol::Imap => "IMAP (reading mail)",
        mail::session::Protocol::Pop3 => "POP3 (fetching mail)",
        mail::session::Protocol::Submission => "SMTP submission (sending mail)",
    }
}

/// A device in words: `IMAP client, Linux, unknown mail software`. What it says of itself proves nothing.
pub fn describe(incident: &Incident) -> String {
    let traits = &incident.traits;
    let kind = match incident.protocol {
        mail::session::Protocol::Imap => "IMAP client",
        mail::session::Protocol::Pop3 => "POP3 client",
        mail::session::Protocol::Submission => "Sending client",
    };
    // Only letters, digits and a little more: no name that a stranger chose may become a link in the reader's program,
    // and programs make links of anything with a dot in it.
    let word = |text: &str, unknown: &str| {
        let safe =
            |letter: char| if letter.is_alphanumeric() || "-_()+".contains(letter) { letter } else { ' ' };
        let word: String = text.chars().map(safe).take(40).collect();
        let word = word.split_whitespace().collect::<Vec<_>>().join(" ");
        if word.is_empty() { unknown.to_owned() } else { word }
    };
    let version: String =
        traits.version.chars().filter(|letter| letter.is_ascii_digit() || *letter == '.').take(16).collect();
    let software = word(&traits.client, "unknown mail software");
    let software = if traits.client.is_empty() || version.is_empty() {
        software
    } else {
        format!("{software} {version}")
    };
    let mut text = format!("{kind}, {}, {software}", word(&traits.os, "unknown system"));
    if let Some(kind) = &incident.clientid {
        let _ = write!(text, ", with CLIENTID ({kind})");
    }
    text
}

/// RFC 5322 date, in UTC: the box does not know where its owner lives.
fn time(at: UnixSeconds) -> String {
    let stamp = i64::try_from(at).ok().and_then(|at| Timestamp::from_second(at).ok()).unwrap_or_default();
    stamp.strftime("%a, %-d %b %Y %H:%M:%S +0000 (UTC)").to_string()
}

fn plural(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// 128 random bits in hex: unique, and says nothing about us.
fn random_id() -> String {
    let mut octets = [0; 16];
    if SystemRandom::new().fill(&mut octets).is_err() {
        // Only before the kernel's generator is seeded; uniqueness still comes from the clock.
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        octets = since.as_nanos().to_be_bytes();
    }
    octets.iter().fold(String::with_capacity(32), |mut id, octet| {
        let _ = write!(id, "{octet:02x}");
        id
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::alert::ledger::tests::incident;

    pub(crate) fn settings() -> LetterSettings {
        LetterSettings {
            from_name: "Mail security".into(),
            from: "security@isp.example".into(),
            envelope_from: Some("security@isp.example".into()),
            hostname: "postern.isp.example".into(),
            default_domain: Some("isp.example".into()),
            devices_url: Some("https://mail.isp.example/devices/".into()),
            help: "Call 555-0100.".into(),
            attribution: crate::geo::ATTRIBUTION.into(),
        }
    }

    const MARCH: UnixSeconds = 1_584_985_234;

    fn body(mail: &Mail) -> String {
        // Quoted-printable soft line ends would hide what is looked for.
        String::from_utf8(mail.message.clone()).unwrap().replace("=\r\n", "").replace("=3D", "=")
    }

    #[test]
    fn every_field_of_the_first_mail() {
        let mail = Letter::new(settings()).first(
            &incident("ann@example.net", "x", MARCH),
            Some("208-53-45-68.c7dc.com"),
            MARCH + 5,
        );
        let text = body(&mail);
        for field in [
            "From: \"Mail security\" <security@isp.example>\r\n",
            "To: <ann@example.net>\r\n",
            "Subject: A login to your mailbox was refused\r\n",
            "Date: Mon, 23 Mar 2020 17:40:39 +0000\r\n",
            "Auto-Submitted: auto-generated\r\n",
            "@postern.isp.example>\r\n",
            "Content-Type: text/plain",
            "Content-Type: text/html",
            "IMAP client, Linux, unknown mail software",
            "Refused: this device has not been approved for your mailbox",
            "208.53.45.68 (208-53-45-68.c7dc.com)",
            "Country:   US",
            "Mon, 23 Mar 2020 17:40:34 +0000",
            "https://mail.isp.example/devices/Zm9v\r\n",
            "<a href=\"https://mail.isp.example/devices/Zm9v\">",
            "postern devices approve ann@example.net k3x9qa",
            "Number Resource Organization",
        ] {
            assert!(text.contains(field), "{field} is missing in:\n{text}");
        }
        assert_eq!(mail.to, ["ann@example.net"]);
        assert_eq!(mail.from, "security@isp.example");
        assert_eq!(text.matches("https://").count(), 2, "one link, in two parts");
    }

    #[test]
    fn each_matter_has_its_words() {
        let letter = Letter::new(settings());
        let write =
            |what| body(&letter.first(&Incident { what, ..incident("ann", "x", MARCH) }, None, MARCH));
        let known = write(What::PasswordKnown);
        assert!(
            known.contains("To: <ann@isp.example>") && known.contains("CHANGE YOUR PASSWORD NOW"),
            "{known}"
        );
        assert!(known.contains("Subject: Somebody knows your mailbox password"));
        let guessed = write(What::Guessed(Reason::Revoked));
        assert!(guessed.contains("Password:  Wrong") && guessed.contains("you have revoked"), "{guessed}");
        let new = write(What::NewDevice { days: Some(14) });
        assert!(new.contains("Let in, for 14 days from now") && new.contains("devices revoke ann"), "{new}");
        let wrong = write(What::Refused(Reason::Credentials));
        assert!(wrong.contains("the password was wrong") && !wrong.contains("devices approve"), "{wrong}");
        let abroad = write(What::Refused(Reason::Country));
        assert!(abroad.contains("change of the rules") && !abroad.contains("devices approve"), "{abroad}");
        assert!(write(What::SendingStopped).contains("nothing is lost"));
    }

    #[test]
    fn strangers_cannot_write_in_it() {
        let mut odd = incident("ann@example.net", "x", MARCH);
        odd.traits.client =
            "Your bank\r\nSubject: x <a href='https://evil.example'>click</a> www.evil.example".into();
        odd.traits.os = "<script>".into();
        odd.page = Some("../../evil?x=".into());
        odd.country = Some("<i>".into());
        let mail = Letter::new(settings()).first(&odd, None, MARCH);
        let text = body(&mail);
        assert!(text.contains("Your bank Subject x"), "the name is shown: {text}");
        assert!(
            !text.contains("evil.example")
                && !text.contains("https://evil")
                && !text.contains("<script")
                && !text.contains("<i>"),
            "{text}"
        );
        assert!(!text.contains("devices/../"), "{text}");
        let (head, _) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(head.matches("Subject:").count(), 1);
    }

    #[test]
    fn a_digest_counts() {
        let device = |what, count, addresses| DigestDevice {
            last: Incident { what, ..incident("ann@example.net", "x", MARCH) },
            count,
            addresses,
        };
        let digest = Digest {
            account: "ann@example.net".into(),
            also: vec!["ann@home.example".into()],
            since: MARCH,
            count: 9_999,
            devices: vec![
                device(What::Refused(Reason::UnknownDevice), 9_000, 64),
                device(What::PasswordKnown, 1, 1),
            ],
            others: 998,
        };
        let mail = Letter::new(settings()).digest(&digest, &[None, Some("a.example".into())], MARCH + 3_600);
        let text = body(&mail);
        for field in [
            "Subject: Summary: 9999 events in your mailbox",
            "Since Mon, 23 Mar 2020 17:40:34 +0000 (UTC): 9999 events in your mailbox.",
            "9000, from at least 64 addresses",
            "1, from 1 address",
            "998 of other devices",
            "your right password",
            "(a.example)",
            "CHANGE YOUR PASSWORD NOW",
        ] {
            assert!(text.contains(field), "{field} is missing in:\n{text}");
        }
        assert_eq!(mail.to, ["ann@example.net", "ann@home.example"]);
    }
}

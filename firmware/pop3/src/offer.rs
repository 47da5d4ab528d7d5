//! What we advertise: the backend's CAPA lines minus what a proxy cannot carry. Nothing is invented.
use mail::sasl::{Mechanism, Mechanisms};
use mail::session::Transport;

/// Octets of one capability list with its line ends; a backend's own is a tenth of it.
const LIST: usize = 1024;

/// What a POP3 listener offers, made once from the backend's capabilities and shared by its sessions.
#[derive(Clone, Debug)]
pub struct Offer {
    hostname: heapless::String<253>,
    clear: heapless::String<LIST>,
    tls: heapless::String<LIST>,
    mechanisms: Mechanisms,
}

impl Offer {
    /// - `capabilities`: the backend's CAPA lines, as [`mail::session::Outcome::Capabilities`] has them: CRLF between.
    ///   Empty (never probed, or no CAPA there): passwords, and nothing else said.
    /// - `hostname`: our name in the greeting; what is longer than 253 octets or not a host name becomes `mail`.
    pub fn from_backend(capabilities: &[u8], hostname: &str) -> Self {
        let lines = || capabilities.split(|&octet| octet == b'\n').filter_map(line);
        let mut mechanisms = Mechanisms::default();
        for line in lines() {
            let mut words = line.split(' ').filter(|word| !word.is_empty());
            match words.next() {
                Some(word) if word.eq_ignore_ascii_case("SASL") => words
                    .filter_map(|name| Mechanism::parse(name.as_bytes()))
                    .for_each(|mechanism| mechanisms.add(mechanism)),
                Some(word) if word.eq_ignore_ascii_case("USER") => mechanisms.add(Mechanism::Plain),
                _ => {}
            }
        }
        if lines().next().is_none() {
            mechanisms.add(Mechanism::Plain);
        }

        let mut tls = heapless::String::new();
        for line in lines().filter(|line| carries(line)) {
            // Room is kept for what we add ourselves; a list that long is nobody's, and loses its tail only.
            if tls.len() + line.len() < LIST - 128 {
                add(&mut tls, &[line]);
            }
        }
        let mut clear = tls.clone();
        add(&mut clear, &["STLS"]);
        if mechanisms.takes(Mechanism::Plain) {
            add(&mut tls, &["USER"]);
        }
        if mechanisms.offered().next().is_some() {
            let mut names = heapless::String::<64>::new();
            for mechanism in mechanisms.offered() {
                // Four names and their spaces are 35 octets.
                let _ = names.push(' ');
                let _ = names.push_str(mechanism.name());
            }
            add(&mut tls, &["SASL", &names]);
        }
        Self { hostname: host(hostname), clear, tls, mechanisms }
    }

    /// The lines of CAPA's reply for this state of the connection, CRLF behind each, without the `+OK` and the dot.
    pub fn capabilities(&self, transport: Transport) -> &str {
        match transport {
            Transport::Clear => &self.clear,
            Transport::Tls => &self.tls,
        }
    }

    /// Our own name.
    pub fn hostname(&self) -> &str {
        &self.hostname
    }

    /// What clients may log in with, under TLS.
    pub const fn mechanisms(&self) -> Mechanisms {
        self.mechanisms
    }
}

/// Whether a capability of the backend still holds through us.
///
/// UTF8 (RFC 6856) is a command of the state before login, which the backend would not see; LANG may come after it.
fn carries(line: &str) -> bool {
    const OURS: [&str; 7] = ["STLS", "SASL", "USER", "APOP", "XCLIENT", "CLIENTID", "UTF8"];
    let word = line.split(' ').next().unwrap_or_default();
    !OURS.iter().any(|ours| word.eq_ignore_ascii_case(ours))
}

/// A capability line: printable 7-bit text, at most 512 octets with its CRLF (RFC 2449 §4), not the end mark.
fn line(octets: &[u8]) -> Option<&str> {
    let octets = octets.strip_suffix(b"\r").unwrap_or(octets);
    let valid = (1..=510).contains(&octets.len())
        && octets.iter().all(|octet| matches!(octet, b' '..=b'~'))
        && !octets.starts_with(b".")
        && !octets.starts_with(b" ");
    core::str::from_utf8(octets).ok().filter(|_| valid)
}

/// Adds one line made of `parts`.
fn add(list: &mut heapless::String<LIST>, parts: &[&str]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    if list.capacity() - list.len() >= length + 2 {
        for part in parts {
            let _ = list.push_str(part); // all of it fits
        }
        let _ = list.push_str("\r\n");
    }
}

fn host(name: &str) -> heapless::String<253> {
    let valid = !name.is_empty()
        && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.'));
    let mut host = heapless::String::new();
    if !valid || host.push_str(name).is_err() {
        host.clear();
        let _ = host.push_str("mail");
    }
    host
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::String;

    use super::*;

    #[test]
    fn of_dovecot() {
        let dovecot = b"CAPA\r\nTOP\r\nUIDL\r\nRESP-CODES\r\nPIPELINING\r\nAUTH-RESP-CODE\r\nSTLS\r\nUSER\r\nSASL PLAIN LOGIN SCRAM-SHA-256";
        let offer = Offer::from_backend(dovecot, "pop.example.net");
        let common = "CAPA\r\nTOP\r\nUIDL\r\nRESP-CODES\r\nPIPELINING\r\nAUTH-RESP-CODE\r\n";
        assert_eq!(offer.capabilities(Transport::Tls), String::from(common) + "USER\r\nSASL PLAIN LOGIN\r\n");
        assert_eq!(offer.capabilities(Transport::Clear), String::from(common) + "STLS\r\n");
        assert_eq!(offer.hostname(), "pop.example.net");
    }

    #[test]
    fn of_others() {
        let tls =
            |list: &str| String::from(Offer::from_backend(list.as_bytes(), "h").capabilities(Transport::Tls));
        assert_eq!(tls(""), "USER\r\nSASL PLAIN\r\n");
        assert_eq!(tls("sasl xoauth2 OAUTHBEARER"), "SASL XOAUTH2 OAUTHBEARER\r\n");
        assert_eq!(tls("TOP"), "TOP\r\n");
        assert_eq!(
            tls("UTF8 USER\r\nLANG\r\nXCLIENT\r\n.\r\nEXPIRE 60\r\nb\u{e9}\r\nUSER"),
            "LANG\r\nEXPIRE 60\r\nUSER\r\nSASL PLAIN\r\n"
        );
        assert_eq!(Offer::from_backend(b"", "<1.2@h>").hostname(), "mail");
        let huge = tls(&"X-SOMETHING\r\n".repeat(500));
        assert!(huge.len() <= LIST && huge.lines().all(|line| line == "X-SOMETHING"));
    }
}

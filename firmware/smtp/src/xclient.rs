//! XCLIENT: telling a Postfix or a Dovecot who the client is (clientid.md §5.3, §5.4).

use core::fmt::Write as _;
use core::net::IpAddr;

use mail::sasl;
use mail::secret::Secret;
use mail::session::Peer;

use crate::offer::Writer;

/// Octets of one XCLIENT command with its CRLF (Postfix reads no more).
const COMMAND: usize = 512;
/// Octets of one value (the same).
const VALUE: usize = 255;

/// The attributes a backend names in its EHLO line; only those are sent.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Attributes(u16);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u16)]
enum Attribute {
    Name = 1,
    ReverseName = 1 << 1,
    Port = 1 << 2,
    DestAddr = 1 << 3,
    DestPort = 1 << 4,
    Session = 1 << 5,
    Ttl = 1 << 6,
    Transport = 1 << 7,
    DestName = 1 << 8,
    Forward = 1 << 9,
    Proto = 1 << 10,
    Helo = 1 << 11,
    Addr = 1 << 12,
}

/// In the order they are sent. Postfix tests after each command whether the *new* address may go on, and a command
/// without PROTO or HELO clears those: so these three stand in the last command. LOGIN is never sent, because the
/// credentials themselves are replayed by AUTH.
const ORDER: [(Attribute, &str); 13] = [
    (Attribute::Name, "NAME"),
    (Attribute::ReverseName, "REVERSE_NAME"),
    (Attribute::Port, "PORT"),
    (Attribute::DestAddr, "DESTADDR"),
    (Attribute::DestPort, "DESTPORT"),
    (Attribute::Session, "SESSION"),
    (Attribute::Ttl, "TTL"),
    (Attribute::Transport, "CLIENT-TRANSPORT"),
    (Attribute::DestName, "DESTNAME"),
    (Attribute::Forward, "FORWARD"),
    (Attribute::Proto, "PROTO"),
    (Attribute::Helo, "HELO"),
    (Attribute::Addr, "ADDR"),
];

/// Which of the attributes one command carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Part {
    /// All of them.
    Whole,
    /// Those that may come early.
    First,
    /// Those that must come last.
    Last,
}

impl Attribute {
    const fn is_last(self) -> bool {
        matches!(self, Self::Proto | Self::Helo | Self::Addr)
    }
}

impl Attributes {
    /// None of them.
    pub(crate) const NONE: Self = Self(0);

    /// From the words behind `XCLIENT` in an EHLO reply.
    pub(crate) fn read<'a>(words: impl Iterator<Item = &'a [u8]>) -> Self {
        words.fold(Self::default(), |set, word| {
            let named = ORDER.iter().find(|(_, name)| word.eq_ignore_ascii_case(name.as_bytes()));
            Self(set.0 | named.map_or(0, |(attribute, _)| *attribute as u16))
        })
    }

    /// Whether the backend can be told an address at all.
    pub(crate) const fn any(self) -> bool {
        self.0 & Attribute::Addr as u16 != 0
    }

    /// The first command to send: everything, if that fits one line.
    pub(crate) fn first_part(self, peer: &Peer<'_>) -> Part {
        let mut probe = heapless::Vec::<u8, COMMAND>::new();
        if self.write(peer, Part::Whole, &mut probe) { Part::Whole } else { Part::First }
    }

    /// Writes one command line with its CRLF; `false` if it does not fit.
    pub(crate) fn write<const N: usize>(
        self,
        peer: &Peer<'_>,
        part: Part,
        out: &mut heapless::Vec<u8, N>,
    ) -> bool {
        let mut line = Writer(out);
        let mut fits = line.write_str("XCLIENT").is_ok();
        for (attribute, name) in ORDER {
            let wanted = match part {
                Part::Whole => true,
                Part::First => !attribute.is_last(),
                Part::Last => attribute.is_last(),
            };
            if !wanted || self.0 & attribute as u16 == 0 {
                continue;
            }
            let mut text = heapless::Vec::<u8, VALUE>::new();
            if value(attribute, peer, &mut text) {
                fits &= write!(line, " {name}=").is_ok() && xtext(&text, &mut line).is_ok();
            }
        }
        fits &= line.write_str("\r\n").is_ok();
        fits && line.0.len() <= COMMAND
    }
}

/// Writes the value of `attribute`; `false` where there is none.
fn value(attribute: Attribute, peer: &Peer<'_>, out: &mut heapless::Vec<u8, VALUE>) -> bool {
    let mut text = Writer(out);
    match attribute {
        Attribute::Name | Attribute::ReverseName => text.write_str("[UNAVAILABLE]").is_ok(),
        Attribute::Port => write!(text, "{}", peer.client.port()).is_ok(),
        Attribute::DestPort => write!(text, "{}", peer.local.port()).is_ok(),
        Attribute::DestAddr => address(peer.local.ip(), &mut text),
        Attribute::Addr => address(peer.client.ip(), &mut text),
        Attribute::Session => !peer.session.is_empty() && text.write_str(peer.session).is_ok(),
        // Dovecot's proxies begin with 7 and send one less; the loop guard counts the same hops for us.
        Attribute::Ttl => text.write_str("6").is_ok(),
        Attribute::Transport => text.write_str(if peer.tls { "TLS" } else { "insecure" }).is_ok(),
        Attribute::DestName => peer.sni.is_some_and(|sni| text.write_str(sni).is_ok()),
        Attribute::Forward => peer.device.is_some_and(|device| {
            // Base64 of tab-separated, tab-escaped key=value; an alias has nothing to escape.
            let mut base64 = Secret::<VALUE>::new();
            sasl::encode(&[b"edgedev=", device.as_bytes()], &mut base64)
                && out.extend_from_slice(base64.expose()).is_ok()
        }),
        Attribute::Proto => text.write_str("ESMTP").is_ok(),
        Attribute::Helo => !peer.helo.is_empty() && text.write_str(peer.helo).is_ok(),
    }
}

/// IPv4 bare, IPv6 with its prefix; an IPv4 client on an IPv6 socket is an IPv4 client.
fn address<const N: usize>(ip: IpAddr, text: &mut Writer<'_, N>) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => write!(text, "{ip}").is_ok(),
        IpAddr::V6(ip) => write!(text, "IPV6:{ip}").is_ok(),
    }
}

/// RFC 3461 §4.
fn xtext<const N: usize>(value: &[u8], line: &mut Writer<'_, N>) -> core::fmt::Result {
    for octet in value {
        match octet {
            b'+' | b'=' => write!(line, "+{octet:02X}")?,
            0x21..=0x7e => line.write_char(char::from(*octet))?,
            _ => write!(line, "+{octet:02X}")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::String;

    use super::*;

    const POSTFIX: &[u8] = b"NAME ADDR PROTO HELO REVERSE_NAME PORT LOGIN DESTADDR DESTPORT";
    const DOVECOT: &[u8] =
        b"ADDR PORT DESTADDR DESTPORT HELO PROTO LOGIN SESSION TTL TIMEOUT CLIENT-TRANSPORT DESTNAME FORWARD";

    fn peer<'a>(client: &str, helo: &'a str) -> Peer<'a> {
        Peer {
            client: client.parse().unwrap(),
            local: "192.0.2.10:465".parse().unwrap(),
            session: "abc123",
            tls: true,
            sni: Some("smtp.example.net"),
            device: Some("7f3k9q"),
            helo,
        }
    }

    fn write(list: &[u8], peer: &Peer<'_>, part: Part) -> String {
        let attributes = Attributes::read(list.split(|octet| *octet == b' '));
        let mut out = heapless::Vec::<u8, 512>::new();
        assert!(attributes.write(peer, part, &mut out));
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn postfix_gets_one_command_with_the_address_last() {
        assert_eq!(
            write(POSTFIX, &peer("[2001:db8::7]:50123", "laptop"), Part::Whole),
            "XCLIENT NAME=[UNAVAILABLE] REVERSE_NAME=[UNAVAILABLE] PORT=50123 DESTADDR=192.0.2.10 DESTPORT=465 \
             PROTO=ESMTP HELO=laptop ADDR=IPV6:2001:db8::7\r\n"
        );
    }

    #[test]
    fn dovecot_gets_what_it_names() {
        assert_eq!(
            write(DOVECOT, &peer("[::ffff:203.0.113.7]:5", ""), Part::Whole),
            "XCLIENT PORT=5 DESTADDR=192.0.2.10 DESTPORT=465 SESSION=abc123 TTL=6 CLIENT-TRANSPORT=TLS \
             DESTNAME=smtp.example.net FORWARD=ZWRnZWRldj03ZjNrOXE+3D PROTO=ESMTP ADDR=203.0.113.7\r\n"
        );
        assert_eq!(write(b"ADDR", &peer("203.0.113.7:5", "x"), Part::Whole), "XCLIENT ADDR=203.0.113.7\r\n");
    }

    #[test]
    fn what_does_not_fit_goes_in_two() {
        let helo = "x".repeat(250) + "+=\u{e9}";
        let long = peer("203.0.113.7:5", &helo);
        let sni = "y".repeat(250);
        let long = Peer { sni: Some(&sni), ..long };
        let attributes = Attributes::read(DOVECOT.split(|octet| *octet == b' '));
        assert_eq!(attributes.first_part(&long), Part::First);
        let last = write(DOVECOT, &peer("203.0.113.7:5", "a+b"), Part::Last);
        assert_eq!(last, "XCLIENT PROTO=ESMTP HELO=a+2Bb ADDR=203.0.113.7\r\n");
        let first = write(DOVECOT, &peer("203.0.113.7:5", "a"), Part::First);
        assert!(!first.contains("ADDR=203") && first.contains("SESSION="), "{first}");
        assert_eq!(attributes.first_part(&peer("203.0.113.7:5", "a")), Part::Whole);
    }

    #[test]
    fn without_addr_there_is_nothing_to_say() {
        assert!(!Attributes::read([&b"LOGIN"[..], b"NAME"].into_iter()).any());
    }
}

//! The PROXY protocol, versions 1 and 2 (`proxy-protocol.txt` of its authors): read from listed load balancers, written to
//! backends that want it (clientid.md §5.6). Octets in, values out; no socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Octets of the longest version 1 line, CRLF included (§2.1).
const V1_MAX: usize = 107;
/// What every version 2 header starts with (§2.2).
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Octets behind the fixed 16 of a version 2 header that are taken: addresses and TLVs of real balancers need less than
/// 512, a certificate name in the SSL TLV can add 256.
const V2_MAX: usize = 2048;

/// A header as received.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// Who is behind it; `None` for LOCAL, UNKNOWN and other families: the connection speaks for itself.
    pub ends: Option<Ends>,
    /// How many octets the header took; what follows belongs to the client.
    pub consumed: usize,
}

/// The two ends of the client's own connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ends {
    /// The client.
    pub source: SocketAddr,
    /// What it connected to.
    pub destination: SocketAddr,
}

/// Why octets are no PROXY header. The peer is a listed balancer, so this is a mistake in somebody's settings: close.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Malformed {
    /// Neither version's start.
    #[error("no PROXY protocol header")]
    Start,
    /// A version 1 line that breaks its grammar.
    #[error("malformed PROXY version 1 line")]
    Line,
    /// A version 2 header that breaks its grammar.
    #[error("malformed PROXY version 2 header")]
    Binary,
    /// Version 2 for a datagram socket.
    #[error("PROXY version 2 header for another kind of socket")]
    NotStream,
    /// Longer than is taken.
    #[error("PROXY header too long")]
    TooLong,
    /// The CRC-32C TLV does not match.
    #[error("PROXY version 2 checksum mismatch")]
    Checksum,
}

/// Reads a header from all octets that have arrived. `None`: not complete yet.
pub fn decode(raw: &[u8]) -> Result<Option<Header>, Malformed> {
    if starts(raw, &SIGNATURE) {
        decode_v2(raw)
    } else if starts(raw, b"PROXY ") {
        decode_v1(raw)
    } else {
        Err(Malformed::Start)
    }
}

/// Whether `raw` is, or may become, something that starts with `start`.
fn starts(raw: &[u8], start: &[u8]) -> bool {
    raw.iter().zip(start).all(|(have, want)| have == want)
}

fn decode_v1(raw: &[u8]) -> Result<Option<Header>, Malformed> {
    let window = raw.get(..V1_MAX).unwrap_or(raw);
    let Some(end) = window.iter().position(|octet| *octet == b'\n') else {
        return if window.len() < V1_MAX { Ok(None) } else { Err(Malformed::TooLong) };
    };
    let line = window.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(Malformed::Line)?;
    let line = str::from_utf8(line).map_err(|_| Malformed::Line)?;
    let mut words = line.split(' ').skip(1);
    let mut word = || words.next().ok_or(Malformed::Line);
    let family = word()?;
    let ends = match family {
        // §2.1: whatever follows UNKNOWN is ignored.
        "UNKNOWN" => return Ok(Some(Header { ends: None, consumed: end + 1 })),
        "TCP4" | "TCP6" => {
            let (source, destination) = (address(family, word()?)?, address(family, word()?)?);
            let (from, to) = (port(word()?)?, port(word()?)?);
            Ends { source: SocketAddr::new(source, from), destination: SocketAddr::new(destination, to) }
        }
        _ => return Err(Malformed::Line),
    };
    if words.next().is_some() {
        return Err(Malformed::Line);
    }
    Ok(Some(Header { ends: Some(ends), consumed: end + 1 }))
}

fn address(family: &str, word: &str) -> Result<IpAddr, Malformed> {
    if family == "TCP4" {
        word.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| Malformed::Line)
    } else {
        word.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| Malformed::Line)
    }
}

/// A port without sign or leading zero.
fn port(word: &str) -> Result<u16, Malformed> {
    let digits = word.bytes().all(|octet| octet.is_ascii_digit());
    if !digits || (word.len() > 1 && word.starts_with('0')) {
        return Err(Malformed::Line);
    }
    word.parse().map_err(|_| Malformed::Line)
}

fn decode_v2(raw: &[u8]) -> Result<Option<Header>, Malformed> {
    let Some((fixed, rest)) = raw.split_first_chunk::<16>() else { return Ok(None) };
    let &[.., version_command, family, high, low] = fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > V2_MAX {
        return Err(Malformed::TooLong);
    }
    let Some(body) = rest.get(..length) else { return Ok(None) };
    let consumed = fixed.len() + length;
    let local = match version_command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed::Binary),
    };
    let (ends, tlvs) = match family {
        // Unspecified: all that follows is skipped (§2.2).
        0x00 => (None, &[][..]),
        0x11 => ends_of::<4, 12>(body, |octets| IpAddr::from(*octets))?,
        0x21 => ends_of::<16, 36>(body, |octets| IpAddr::from(*octets))?,
        0x31 => (None, body.get(216..).ok_or(Malformed::Binary)?),
        0x12 | 0x22 | 0x32 => return Err(Malformed::NotStream),
        _ => return Err(Malformed::Binary),
    };
    if local {
        // §2.2: the address block of LOCAL is skipped, whatever it holds.
        return Ok(Some(Header { ends: None, consumed }));
    }
    check_tlvs(raw.get(..consumed).unwrap_or_default(), tlvs)?;
    Ok(Some(Header { ends, consumed }))
}

/// Two addresses of `A` octets and two ports, `ALL` octets together, and what follows them.
fn ends_of<const A: usize, const ALL: usize>(
    body: &[u8],
    address: impl Fn(&[u8; A]) -> IpAddr,
) -> Result<(Option<Ends>, &[u8]), Malformed> {
    let parse = || {
        let (block, tlvs) = body.split_first_chunk::<ALL>()?;
        let (source, rest) = block.split_first_chunk::<A>()?;
        let (destination, ports) = rest.split_first_chunk::<A>()?;
        let (from, to) = ports.split_first_chunk::<2>()?;
        let to = to.first_chunk::<2>()?;
        let source = SocketAddr::new(address(source), u16::from_be_bytes(*from));
        let destination = SocketAddr::new(address(destination), u16::from_be_bytes(*to));
        Some((Some(Ends { source, destination }), tlvs))
    };
    parse().ok_or(Malformed::Binary)
}

/// TLVs must fill the header exactly; their content is skipped but for the checksum (§2.2.3).
fn check_tlvs(header: &[u8], mut tlvs: &[u8]) -> Result<(), Malformed> {
    while !tlvs.is_empty() {
        let (&[kind, high, low], rest) = tlvs.split_first_chunk::<3>().ok_or(Malformed::Binary)?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (value, rest) = rest.split_at_checked(length).ok_or(Malformed::Binary)?;
        if kind == TLV_CRC32C {
            let given = u32::from_be_bytes(value.try_into().map_err(|_| Malformed::Binary)?);
            let start = header.len() - rest.len() - value.len();
            let zeroed = |(index, octet): (usize, &u8)| {
                if (start..start + 4).contains(&index) { 0 } else { *octet }
            };
            if crc32c(header.iter().enumerate().map(zeroed)) != given {
                return Err(Malformed::Checksum);
            }
        }
        tlvs = rest;
    }
    Ok(())
}

/// CRC-32C, bit by bit: a header is short, and most have none.
fn crc32c(octets: impl Iterator<Item = u8>) -> u32 {
    !octets.fold(!0, |crc, octet| {
        (0..8).fold(
            crc ^ u32::from(octet),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 },
        )
    })
}

// TLV types (§2.2).
const TLV_AUTHORITY: u8 = 0x02;
const TLV_CRC32C: u8 = 0x03;
const TLV_UNIQUE_ID: u8 = 0x05;
const TLV_SSL: u8 = 0x20;
const TLV_SSL_VERSION: u8 = 0x21;
const TLV_SSL_CIPHER: u8 = 0x23;

/// What a version 2 header may tell a backend beside the addresses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras<'a> {
    /// The server name the client asked for (SNI).
    pub authority: Option<&'a str>,
    /// Our connection id; at most 128 octets are sent.
    pub unique_id: Option<&'a str>,
    /// The client's TLS, if it is under TLS.
    pub tls: Option<Tls<'a>>,
}

/// The client's side of TLS.
#[derive(Clone, Copy, Debug)]
pub struct Tls<'a> {
    /// As OpenSSL writes it: `TLSv1.3`.
    pub version: &'a str,
    /// Name of the cipher suite.
    pub cipher: &'a str,
    /// A client certificate was given, and verified.
    pub certificate: bool,
}

/// A version 1 line, at most 107 octets. Ends of different families are both written as IPv6.
pub fn encode_v1(ends: Ends) -> Vec<u8> {
    let Ends { source, destination } = ends;
    let (family, from, to) = match (source.ip(), destination.ip()) {
        (IpAddr::V4(_), IpAddr::V4(_)) => ("TCP4", source.ip(), destination.ip()),
        _ => ("TCP6", mapped(source.ip()).into(), mapped(destination.ip()).into()),
    };
    format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
}

/// A version 2 header for a proxied connection; write it at once, ahead of everything, TLS included.
pub fn encode_v2(ends: Ends, extras: &Extras<'_>) -> Vec<u8> {
    let Ends { source, destination } = ends;
    let mut body = Vec::with_capacity(128);
    let family = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            body.extend_from_slice(&from.octets());
            body.extend_from_slice(&to.octets());
            0x11
        }
        (from, to) => {
            body.extend_from_slice(&mapped(from).octets());
            body.extend_from_slice(&mapped(to).octets());
            0x21
        }
    };
    body.extend_from_slice(&source.port().to_be_bytes());
    body.extend_from_slice(&destination.port().to_be_bytes());
    if let Some(name) = extras.authority {
        put_tlv(&mut body, TLV_AUTHORITY, name.as_bytes());
    }
    if let Some(id) = extras.unique_id {
        put_tlv(&mut body, TLV_UNIQUE_ID, id.as_bytes().get(..128).unwrap_or(id.as_bytes()));
    }
    if let Some(tls) = extras.tls {
        // Client bits: 1 TLS, 2 certificate on this connection, 4 in this session. Verify 0 is success, and also what
        // a client without a certificate gets, as from HAProxy.
        let mut value = vec![if tls.certificate { 0x07 } else { 0x01 }, 0, 0, 0, 0];
        put_tlv(&mut value, TLV_SSL_VERSION, tls.version.as_bytes());
        put_tlv(&mut value, TLV_SSL_CIPHER, tls.cipher.as_bytes());
        put_tlv(&mut body, TLV_SSL, &value);
    }
    header_v2(0x21, family, &body)
}

/// The version 2 header of the box's own connections, such as health probes.
pub fn encode_local() -> Vec<u8> {
    header_v2(0x20, 0, &[])
}

fn header_v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.extend_from_slice(&[command, family]);
    // Every part is cut by `put_tlv`, so the sum stays far below 65,535.
    header.extend_from_slice(&u16::try_from(body.len()).unwrap_or_default().to_be_bytes());
    header.extend_from_slice(body);
    header
}

/// Adds one TLV. Values longer than any name or id may be are left out: a cut name would be another name.
fn put_tlv(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    if let Ok(length) = u16::try_from(value.len())
        && length <= 1024
    {
        out.push(kind);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(value);
    }
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ends(source: &str, destination: &str) -> Ends {
        Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    #[test]
    fn version_1_known_lines() {
        let v4 = ends("203.0.113.7:50123", "192.0.2.10:993");
        assert_eq!(encode_v1(v4), b"PROXY TCP4 203.0.113.7 192.0.2.10 50123 993\r\n");
        let v6 = ends("[2001:db8::7]:50123", "[2001:db8::1]:993");
        assert_eq!(encode_v1(v6), b"PROXY TCP6 2001:db8::7 2001:db8::1 50123 993\r\n");
        let mixed = ends("203.0.113.7:1", "[2001:db8::1]:2");
        assert_eq!(encode_v1(mixed), b"PROXY TCP6 ::ffff:203.0.113.7 2001:db8::1 1 2\r\n");
        let raw = b"PROXY TCP4 203.0.113.7 192.0.2.10 50123 993\r\n* more";
        assert_eq!(decode(raw), Ok(Some(Header { ends: Some(v4), consumed: 45 })));
        // The longest line of the specification, 104 octets, and its UNKNOWN form of 107.
        let full = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let line = format!("PROXY UNKNOWN {full} {full} 65535 65535\r\n");
        assert_eq!(line.len(), 107);
        assert_eq!(decode(line.as_bytes()), Ok(Some(Header { ends: None, consumed: 107 })));
        assert_eq!(decode(b"PROXY UNKNOWN\r\n"), Ok(Some(Header { ends: None, consumed: 15 })));
    }

    #[test]
    fn version_2_known_octets() {
        let v4 = ends("203.0.113.7:50123", "192.0.2.10:993");
        let mut want = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21\x11\x00\x0c".to_vec();
        want.extend_from_slice(&[203, 0, 113, 7, 192, 0, 2, 10, 0xc3, 0xcb, 0x03, 0xe1]);
        assert_eq!(encode_v2(v4, &Extras::default()), want);
        assert_eq!(decode(&want), Ok(Some(Header { ends: Some(v4), consumed: 28 })));
        assert_eq!(encode_local(), b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x20\x00\x00\x00");
        assert_eq!(decode(&encode_local()), Ok(Some(Header { ends: None, consumed: 16 })));
        let extras = Extras {
            authority: Some("a.example"),
            unique_id: Some("7f3k9q"),
            tls: Some(Tls { version: "TLSv1.3", cipher: "X", certificate: false }),
        };
        let header = encode_v2(v4, &extras);
        let mut tlvs = b"\x02\x00\x09a.example\x05\x00\x067f3k9q".to_vec();
        tlvs.extend_from_slice(b"\x20\x00\x13\x01\x00\x00\x00\x00\x21\x00\x07TLSv1.3\x23\x00\x01X");
        assert_eq!(&header[28..], tlvs);
        assert_eq!(usize::from(header[15]), header.len() - 16);
    }

    #[test]
    fn checksum_is_checked_when_there() {
        // RFC 3720 §B.4: CRC-32C of 32 zeros.
        assert_eq!(crc32c([0; 32].into_iter()), 0x8a91_36aa);
        let mut header = encode_v2(ends("203.0.113.7:50123", "192.0.2.10:993"), &Extras::default());
        header[15] += 7;
        header.extend_from_slice(&[TLV_CRC32C, 0, 4, 0, 0, 0, 0]);
        let crc = crc32c(header.iter().copied());
        let at = header.len() - 4;
        header[at..].copy_from_slice(&crc.to_be_bytes());
        assert!(decode(&header).unwrap().is_some());
        header[20] ^= 1;
        assert_eq!(decode(&header), Err(Malformed::Checksum));
    }

    #[test]
    fn bad_headers() {
        for raw in [
            &b"* OK"[..],
            b"GET / HTTP/1.1\r\n",
            b"\r\n\r\n\x01",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
            b"PROXY TCP4 1.2.3.4  5.6.7.8 1 2\r\n",
            b"PROXY TCP4 01.2.3.4 5.6.7.8 1 2\r\n",
            b"PROXY TCP4 ::1 ::2 1 2\r\n",
            b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
            b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
            b"PROXY tcp4 1.2.3.4 5.6.7.8 1 2\r\n",
        ] {
            assert!(decode(raw).is_err(), "{:?}", String::from_utf8_lossy(raw));
        }
        let long = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat();
        assert_eq!(decode(&long), Err(Malformed::TooLong));
        let binary = |tail: &[u8]| decode(&[SIGNATURE.as_slice(), tail].concat());
        assert_eq!(binary(&[0x11, 0x11, 0, 0]), Err(Malformed::Binary)); // version 1 in binary
        assert_eq!(binary(&[0x22, 0x11, 0, 0]), Err(Malformed::Binary)); // unknown command
        assert_eq!(binary(&[0x21, 0x11, 0, 4, 1, 2, 3, 4]), Err(Malformed::Binary)); // too short for two addresses
        assert_eq!(binary(&[0x21, 0x12, 0, 0]), Err(Malformed::NotStream));
        assert_eq!(binary(&[0x21, 0x11, 0xff, 0xff]), Err(Malformed::TooLong));
        let half_tlv = [&[0x21, 0x11, 0, 14][..], &[0; 12], &[2, 0]].concat();
        assert_eq!(binary(&half_tlv), Err(Malformed::Binary));
    }

    fn any_ends() -> impl Strategy<Value = Ends> {
        let address =
            prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from),];
        (address.clone(), any::<u16>(), address, any::<u16>()).prop_map(|(from, a, to, b)| Ends {
            source: SocketAddr::new(from, a),
            destination: SocketAddr::new(to, b),
        })
    }

    /// As the other side reads it: mixed families come back as mapped IPv6.
    fn as_sent(ends: Ends) -> Ends {
        if ends.source.is_ipv4() == ends.destination.is_ipv4() {
            return ends;
        }
        let map = |end: SocketAddr| SocketAddr::new(mapped(end.ip()).into(), end.port());
        Ends { source: map(ends.source), destination: map(ends.destination) }
    }

    proptest! {
        #[test]
        fn round_trip(ends in any_ends(), name in "[a-z.]{0,60}", id in "[a-z0-9]{1,200}", tail in any::<[u8; 3]>()) {
            let tls = Some(Tls { version: "TLSv1.2", cipher: "ECDHE", certificate: true });
            let extras = Extras { authority: Some(&name), unique_id: Some(&id), tls };
            for header in [encode_v1(ends), encode_v2(ends, &extras)] {
                for cut in 0..header.len() {
                    prop_assert_eq!(decode(&header[..cut]), Ok(None));
                }
                let raw = [header.as_slice(), &tail].concat();
                let want = Header { ends: Some(as_sent(ends)), consumed: header.len() };
                prop_assert_eq!(decode(&raw), Ok(Some(want)));
            }
        }

        #[test]
        fn nothing_panics(raw in proptest::collection::vec(any::<u8>(), 0..300), start in 0_u8..3) {
            let raw = match start {
                0 => raw,
                1 => [b"PROXY TCP4 ".as_slice(), &raw].concat(),
                _ => [SIGNATURE.as_slice(), &raw].concat(),
            };
            if let Ok(Some(header)) = decode(&raw) { prop_assert!(header.consumed <= raw.len()); }
        }
    }
}

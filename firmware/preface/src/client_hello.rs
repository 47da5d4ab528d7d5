//! The first message of a TLS client, read before rustls sees it: server name, first ALPN, versions, JA4.
//!
//! rustls shows neither the extensions nor their order, so the message is parsed here, from the same octets that
//! rustls gets afterwards. Nothing here decides about TLS: what this parser refuses is still given to rustls, which
//! answers with the right alert. Pure functions of octets, no socket, at most [`CAP`] octets of input.

use std::fmt::Write as _;

use ring::digest::{SHA256, digest};

/// Raw octets looked at, record headers included. Browsers send 0.5 to 2 KiB; rustls itself would take 64 KiB.
pub const CAP: usize = 16 * 1024;

/// What is known after some octets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Progress {
    /// The message is not complete; read on.
    NeedMore,
    /// The whole `ClientHello`.
    Hello(Box<ClientHello>),
    /// These octets are no `ClientHello`, and more of them would not help.
    NotTls(NotTls),
}

/// Why octets are no `ClientHello`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NotTls {
    /// The first octets are not those of a TLS handshake record.
    OtherProtocol,
    /// Longer than [`CAP`].
    TooLong,
    /// A record or field that RFC 8446 does not allow.
    Malformed,
}

/// What a client says when it opens TLS (RFC 8446 §4.1.2).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientHello {
    /// Server name (RFC 6066 §3), lower-case, if it is a host name of letters, digits, hyphens and dots.
    pub sni: Option<String>,
    /// First protocol of ALPN (RFC 7301), 1 to 255 octets.
    pub alpn: Option<Vec<u8>>,
    /// JA4 as published: `t13d1516h2_8daaf6152771_e5627efa2ab1`, 36 characters.
    pub ja4: String,
    /// The same without the extensions that resumption and padding change (35, 41, 42, 21): one client, one value.
    pub ja4_stable: String,
    /// Newest version offered, as on the wire (0x0304 is TLS 1.3).
    pub version: u16,
}

/// Reads all of `raw` from its first octet: [`Scanner`] for those who have everything at hand.
pub fn read(raw: &[u8]) -> Progress {
    Scanner::new().advance(raw)
}

/// Follows the record headers of a growing buffer, so that one octet at a time costs no more than all at once.
#[derive(Clone, Debug, Default)]
pub struct Scanner {
    /// Where the next record header starts.
    record: usize,
    /// Handshake octets in the records before that.
    joined: usize,
    /// Type and length of the handshake message, once seen.
    head: [u8; 4],
}

impl Scanner {
    /// At the first octet of a connection.
    pub const fn new() -> Self {
        Self { record: 0, joined: 0, head: [0; 4] }
    }

    /// Looks at `raw`, which is everything read from the connection so far, always from its first octet.
    pub fn advance(&mut self, raw: &[u8]) -> Progress {
        loop {
            match self.step(raw) {
                Ok(true) => {}
                Ok(false) => return Progress::NeedMore,
                Err(reason) => return Progress::NotTls(reason),
            }
            if self.joined >= 4 && self.joined - 4 >= self.length() {
                return match join(raw, self.length()).and_then(|message| parse(&message)) {
                    Some(hello) => Progress::Hello(Box::new(hello)),
                    None => Progress::NotTls(NotTls::Malformed),
                };
            }
        }
    }

    /// Passes one whole record; false when it is not complete.
    fn step(&mut self, raw: &[u8]) -> Result<bool, NotTls> {
        let rest = raw.get(self.record..).unwrap_or_default();
        let strange = if self.record == 0 { NotTls::OtherProtocol } else { NotTls::Malformed };
        // 22 is handshake; the record version is 3.0 to 3.4 in practice and only its major part counts.
        if rest.first().is_some_and(|&kind| kind != 22) || rest.get(1).is_some_and(|&major| major != 3) {
            return Err(strange);
        }
        let Some((&[_, _, _, high, low], rest)) = rest.split_first_chunk::<5>() else { return Ok(false) };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length == 0 {
            return Err(strange); // RFC 8446 §5.1: no empty handshake fragments
        }
        if self.record + 5 + length > CAP {
            return Err(NotTls::TooLong);
        }
        let Some(payload) = rest.get(..length) else { return Ok(false) };
        for (slot, octet) in self.head.iter_mut().skip(self.joined).zip(payload) {
            *slot = *octet;
        }
        self.joined += length;
        self.record += 5 + length;
        if self.head[0] != 1 {
            return Err(NotTls::OtherProtocol); // a handshake message that is no ClientHello
        }
        if self.joined >= 4 && self.length() > CAP {
            return Err(NotTls::TooLong);
        }
        Ok(true)
    }

    fn length(&self) -> usize {
        let [_, a, b, c] = self.head;
        u32::from_be_bytes([0, a, b, c]) as usize
    }
}

/// The body of the handshake message, its records joined. They were found whole by [`Scanner::step`].
fn join(raw: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut message = Vec::with_capacity(length + 4);
    let mut rest = raw;
    while message.len() < length + 4 {
        let (&[_, _, _, high, low], behind) = rest.split_first_chunk::<5>()?;
        let (payload, behind) = behind.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
        message.extend_from_slice(payload);
        rest = behind;
    }
    message.truncate(length + 4);
    message.drain(..4);
    Some(message)
}

/// Octets taken from the front.
struct Field<'a>(&'a [u8]);

impl<'a> Field<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    /// A vector with a length of one octet.
    fn short(&mut self) -> Option<Self> {
        let length = self.u8()?;
        self.take(length.into()).map(Self)
    }

    /// A vector with a length of two octets.
    fn long(&mut self) -> Option<Self> {
        let length = self.u16()?;
        self.take(length.into()).map(Self)
    }

    /// All of it as 16-bit numbers.
    fn numbers(mut self) -> Option<Vec<u16>> {
        let mut numbers = Vec::with_capacity(self.0.len() / 2);
        while !self.0.is_empty() {
            numbers.push(self.u16()?);
        }
        Some(numbers)
    }
}

// Extensions with a meaning here.
const SERVER_NAME: u16 = 0;
const SIGNATURE_ALGORITHMS: u16 = 13;
const ALPN: u16 = 16;
const PADDING: u16 = 21;
const SESSION_TICKET: u16 = 35;
const PRE_SHARED_KEY: u16 = 41;
const EARLY_DATA: u16 = 42;
const SUPPORTED_VERSIONS: u16 = 43;

fn parse(message: &[u8]) -> Option<ClientHello> {
    let mut field = Field(message);
    let legacy = field.u16()?;
    field.take(32)?; // random
    field.short()?; // legacy session id
    let mut marks = Marks { ciphers: field.long()?.numbers()?, ..Marks::default() };
    field.short()?; // compression methods
    let mut versions = Vec::new();
    let mut sni = None;
    // A TLS 1.2 client may end here (RFC 5246 §7.4.1.2).
    let mut extensions = if field.0.is_empty() { Field(&[]) } else { field.long()? };
    if !field.0.is_empty() {
        return None;
    }
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let mut body = extensions.long()?;
        marks.extensions.push(kind);
        match kind {
            SERVER_NAME => {
                let mut names = body.long()?;
                let name_type = names.u8()?;
                let name = names.long()?;
                if name_type == 0 {
                    sni = host_name(name.0);
                }
            }
            SIGNATURE_ALGORITHMS => marks.signatures = body.long()?.numbers()?,
            ALPN => marks.alpn = Some(body.long()?.short()?.0.to_vec()).filter(|name| !name.is_empty()),
            SUPPORTED_VERSIONS => versions = body.short()?.numbers()?,
            _ => {}
        }
    }
    marks.version = versions.into_iter().filter(|version| !grease(*version)).max().unwrap_or(legacy);
    let stable = |kind: &u16| !matches!(*kind, PADDING | SESSION_TICKET | PRE_SHARED_KEY | EARLY_DATA);
    Some(ClientHello {
        sni,
        ja4: marks.ja4(|_| true),
        ja4_stable: marks.ja4(stable),
        version: marks.version,
        alpn: marks.alpn,
    })
}

/// A host name as SNI may carry it: A-labels without a final dot, never an address (RFC 6066 §3).
fn host_name(name: &[u8]) -> Option<String> {
    let label = |label: &[u8]| {
        (1..=63).contains(&label.len())
            && label.iter().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_'))
    };
    let numeric = name.iter().all(|octet| octet.is_ascii_digit() || *octet == b'.');
    let good = name.len() <= 253 && !numeric && name.split(|octet| *octet == b'.').all(label);
    good.then(|| name.iter().map(|octet| char::from(octet.to_ascii_lowercase())).collect())
}

/// What JA4 is made of, in the order of the wire.
#[derive(Default)]
struct Marks {
    version: u16,
    ciphers: Vec<u16>,
    extensions: Vec<u16>,
    signatures: Vec<u16>,
    alpn: Option<Vec<u8>>,
}

impl Marks {
    /// JA4 (the TLS client fingerprint of `FoxIO`, BSD-3-Clause) over the extensions that `keep` keeps.
    fn ja4(&self, keep: impl Fn(&u16) -> bool) -> String {
        let real =
            |values: &[u16]| values.iter().copied().filter(|value| !grease(*value)).collect::<Vec<_>>();
        let mut ciphers = real(&self.ciphers);
        let mut extensions = real(&self.extensions);
        extensions.retain(keep);
        let named = if self.extensions.contains(&SERVER_NAME) { 'd' } else { 'i' };
        let counts = (ciphers.len().min(99), extensions.len().min(99));
        let (first, last) = self.alpn_ends();
        let mut ja4 =
            format!("t{}{named}{:02}{:02}{first}{last}_", version_text(self.version), counts.0, counts.1);
        ciphers.sort_unstable();
        extensions.retain(|kind| !matches!(*kind, SERVER_NAME | ALPN));
        extensions.sort_unstable();
        ja4.push_str(&short_hash(&list(&ciphers)));
        ja4.push('_');
        let mut tail = list(&extensions);
        let signatures = real(&self.signatures);
        if !signatures.is_empty() {
            tail.push('_');
            tail.push_str(&list(&signatures)); // these keep their order
        }
        ja4.push_str(&short_hash(&tail));
        ja4
    }

    /// First and last character of the first ALPN value, of its hex digits when either is not alphanumeric.
    fn alpn_ends(&self) -> (char, char) {
        let Some((first, last)) = self.alpn.as_ref().and_then(|name| Some((*name.first()?, *name.last()?)))
        else {
            return ('0', '0');
        };
        if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
            return (first.into(), last.into());
        }
        let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or('0');
        (digit(first >> 4), digit(last & 0x0f))
    }
}

const fn version_text(version: u16) -> &'static str {
    match version {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        0x0002 => "s2",
        _ => "00",
    }
}

/// Reserved values that clients add at random (RFC 8701).
const fn grease(value: u16) -> bool {
    value & 0x0f0f == 0x0a0a && value >> 8 == value & 0xff
}

/// Four hex digits each, commas between.
fn list(values: &[u16]) -> String {
    let mut text = String::with_capacity(values.len() * 5);
    for (index, value) in values.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing into a String does not fail.
        let _ = write!(text, "{comma}{value:04x}");
    }
    text
}

/// First 12 hex digits of SHA-256, zeros for an empty list.
fn short_hash(text: &str) -> String {
    if text.is_empty() {
        return "0".repeat(12);
    }
    let mut hash = String::with_capacity(12);
    for octet in digest(&SHA256, text.as_bytes()).as_ref().iter().take(6) {
        let _ = write!(hash, "{octet:02x}");
    }
    hash
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

    use super::*;

    /// One handshake message in records of at most `size` octets.
    fn records(message: &[u8], size: usize) -> Vec<u8> {
        let mut raw = Vec::new();
        for chunk in message.chunks(size) {
            raw.extend_from_slice(&[22, 3, 1]);
            raw.extend_from_slice(&u16::try_from(chunk.len()).unwrap().to_be_bytes());
            raw.extend_from_slice(chunk);
        }
        raw
    }

    fn vector16(body: &[u8]) -> Vec<u8> {
        let mut vector = u16::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        vector.extend_from_slice(body);
        vector
    }

    fn numbers(values: &[u16]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_be_bytes()).collect()
    }

    /// A `ClientHello` message with these parts.
    fn message(ciphers: &[u16], extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend_from_slice(&[7; 32]);
        body.push(0);
        body.extend_from_slice(&vector16(&numbers(ciphers)));
        body.extend_from_slice(&[1, 0]);
        let mut block = Vec::new();
        for (kind, content) in extensions {
            block.extend_from_slice(&kind.to_be_bytes());
            block.extend_from_slice(&vector16(content));
        }
        body.extend_from_slice(&vector16(&block));
        let mut message = vec![1];
        message.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes()[1..]);
        message.extend_from_slice(&body);
        message
    }

    /// The Chrome of the JA4 paper, with GREASE where Chrome puts it.
    fn chrome() -> Vec<u8> {
        let ciphers = [
            0x2a2a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014,
            0x009c, 0x009d, 0x002f, 0x0035,
        ];
        let signatures = [0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601];
        let versions = numbers(&[0x7a7a, 0x0304, 0x0303]);
        let mut name = vec![0];
        name.extend_from_slice(&vector16(b"Mail.Example.net"));
        let mut supported = vec![u8::try_from(versions.len()).unwrap()];
        supported.extend_from_slice(&versions);
        let mut extensions = vec![(0x1a1a, vec![])];
        for kind in [
            0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005, 0x0023, 0x0012, 0x002b,
            0xff01, 0x000b, 0x000a, 0x0015,
        ] {
            let content = match kind {
                0x0000 => vector16(&name),
                0x000d => vector16(&numbers(&signatures)),
                0x0010 => vector16(b"\x02h2\x08http/1.1"),
                0x002b => supported.clone(),
                _ => vec![],
            };
            extensions.push((kind, content));
        }
        extensions.push((0xdada, vec![0]));
        message(&ciphers, &extensions)
    }

    #[test]
    fn published_chrome_value() {
        let Progress::Hello(hello) = read(&records(&chrome(), 16_000)) else { panic!("no hello") };
        assert_eq!(hello.ja4, "t13d1516h2_8daaf6152771_e5627efa2ab1");
        assert_eq!(hello.sni.as_deref(), Some("mail.example.net"));
        assert_eq!(hello.alpn.as_deref(), Some(&b"h2"[..]));
        assert_eq!(hello.version, 0x0304);
        // Without the ticket and the padding: two extensions fewer, another last part, the rest alike.
        assert!(hello.ja4_stable.starts_with("t13d1514h2_8daaf6152771_"), "{}", hello.ja4_stable);
        assert_ne!(hello.ja4_stable[24..], hello.ja4[24..]);
    }

    #[test]
    fn every_fragment_size_and_every_prefix() {
        let whole = read(&records(&chrome(), 16_000));
        for size in [1, 2, 3, 4, 5, 7, 100] {
            let raw = records(&chrome(), size);
            assert_eq!(read(&raw), whole, "records of {size}");
            let mut scanner = Scanner::new();
            for end in 0..raw.len() {
                assert_eq!(
                    scanner.advance(&raw[..end]),
                    Progress::NeedMore,
                    "records of {size}, {end} octets"
                );
            }
            assert_eq!(scanner.advance(&raw), whole);
        }
    }

    #[test]
    fn what_follows_is_left_alone() {
        let mut raw = records(&chrome(), 100);
        raw.extend_from_slice(b"\x17\x03\x03\x00\x05early");
        assert!(matches!(read(&raw), Progress::Hello(_)));
    }

    #[test]
    fn bare_old_client() {
        let mut body = vec![1, 0, 0, 43, 3, 1];
        body.extend_from_slice(&[9; 32]);
        body.extend_from_slice(&[0, 0, 4, 0x00, 0x2f, 0x00, 0x35, 1, 0]);
        let Progress::Hello(hello) = read(&records(&body, 999)) else { panic!("no hello") };
        // The hash of "002f,0035" and zeros for no extensions.
        assert_eq!(hello.ja4, format!("t10i020000_{}_000000000000", short_hash("002f,0035")));
        assert_eq!(hello.sni, None);
    }

    #[test]
    fn odd_alpn_is_shown_in_hex() {
        for (name, ends) in
            [(&b"\xab"[..], "ab"), (b"\xab\xcd", "ad"), (b"0\xab", "3b"), (b"h", "hh"), (b"imap", "ip")]
        {
            let mut list = vec![u8::try_from(name.len()).unwrap()];
            list.extend_from_slice(name);
            let raw = records(&message(&[0x1301], &[(16, vector16(&list))]), 999);
            let Progress::Hello(hello) = read(&raw) else { panic!("no hello") };
            assert_eq!(&hello.ja4[8..10], ends, "{}", hello.ja4);
        }
    }

    #[test]
    fn strangers() {
        for (raw, reason) in [
            (&b"GET / HTTP/1.1\r\n"[..], NotTls::OtherProtocol),
            (b"\x80\x2e\x01\x00\x02", NotTls::OtherProtocol), // SSL 2.0
            (b"\x16\x03\x01\x00\x00", NotTls::OtherProtocol), // an empty record
            (b"\x16\x03\x01\x00\x04\x02\x00\x00\x00", NotTls::OtherProtocol), // a ServerHello
            (b"\x16\x03\x01\x40\x00", NotTls::TooLong),
            (b"\x16\x03\x01\x00\x04\x01\x00\x50\x00", NotTls::TooLong),
            (b"\x16\x03\x01\x00\x01\x01\x15", NotTls::Malformed), // an alert in the middle
            (b"\x16\x03\x01\x00\x06\x01\x00\x00\x02\x03\x03", NotTls::Malformed), // ends after the version
        ] {
            assert_eq!(read(raw), Progress::NotTls(reason), "{raw:02x?}");
        }
        assert_eq!(read(b""), Progress::NeedMore);
    }

    #[test]
    fn server_names_are_host_names() {
        assert_eq!(host_name(b"IMAP.Example.ORG").as_deref(), Some("imap.example.org"));
        for bad in [&b""[..], b".", b"a..b", b"a.", b"192.0.2.1", b"a b", b"a\r\nb", b"caf\xc3\xa9"] {
            assert_eq!(host_name(bad), None, "{bad:?}");
        }
    }

    /// A real client's hello from rustls, and the pair that lets it resume.
    struct Pair {
        client: Arc<ClientConfig>,
        server: Arc<ServerConfig>,
    }

    impl Pair {
        fn new() -> Self {
            let issued = rcgen::generate_simple_self_signed(["mail.example.net".to_owned()]).unwrap();
            let certificate = CertificateDer::from(issued.cert.der().to_vec());
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(issued.signing_key.serialize_der()));
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let mut roots = RootCertStore::empty();
            roots.add(certificate.clone()).unwrap();
            let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            client.alpn_protocols = vec![b"imap".to_vec()];
            let mut server = ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate], key)
                .unwrap();
            server.alpn_protocols = vec![b"imap".to_vec()];
            Self { client: Arc::new(client), server: Arc::new(server) }
        }

        /// Connects once, whole, and gives the first flight.
        fn connect(&self) -> Vec<u8> {
            let name = ServerName::try_from("mail.example.net").unwrap();
            let mut client = ClientConnection::new(Arc::clone(&self.client), name).unwrap();
            let mut server = ServerConnection::new(Arc::clone(&self.server)).unwrap();
            let mut hello = Vec::new();
            client.write_tls(&mut hello).unwrap();
            server.read_tls(&mut &hello[..]).unwrap();
            server.process_new_packets().unwrap();
            for _ in 0..6 {
                let mut wire = Vec::new();
                while server.wants_write() {
                    server.write_tls(&mut wire).unwrap();
                }
                let mut wire = &wire[..];
                while !wire.is_empty() {
                    client.read_tls(&mut wire).unwrap();
                    client.process_new_packets().unwrap();
                }
                let mut wire = Vec::new();
                while client.wants_write() {
                    client.write_tls(&mut wire).unwrap();
                }
                let mut wire = &wire[..];
                while !wire.is_empty() {
                    server.read_tls(&mut wire).unwrap();
                    server.process_new_packets().unwrap();
                }
            }
            assert!(!client.is_handshaking());
            hello
        }
    }

    #[test]
    fn resumption_changes_ja4_and_not_the_stable_one() {
        let pair = Pair::new();
        let hellos = [pair.connect(), pair.connect()].map(|raw| match read(&raw) {
            Progress::Hello(hello) => *hello,
            other => panic!("{other:?}"),
        });
        assert_ne!(hellos[0].ja4, hellos[1].ja4, "the second connection resumes");
        assert_eq!(hellos[0].ja4_stable, hellos[1].ja4_stable);
        assert_eq!(hellos[0].sni.as_deref(), Some("mail.example.net"));
        assert_eq!(hellos[0].alpn.as_deref(), Some(&b"imap"[..]));
        assert!(hellos[0].ja4.starts_with("t13d"), "{}", hellos[0].ja4);
        assert_eq!(&hellos[0].ja4[8..10], "ip");
    }

    #[test]
    fn a_real_hello_in_records_of_one_octet() {
        let raw = Pair::new().connect();
        assert_eq!(read(&records(&raw[5..], 1)), read(&raw));
    }

    proptest! {
        #[test]
        fn nothing_panics(raw in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = read(&raw);
        }

        #[test]
        fn no_damaged_hello_panics(at in 0_usize..400, with in any::<u8>(), cut in 0_usize..400, size in 1_usize..300) {
            let mut message = chrome();
            if let Some(octet) = message.get_mut(at) { *octet = with; }
            message.truncate(message.len() - cut.min(message.len() - 1));
            let raw = records(&message, size);
            let mut scanner = Scanner::new();
            let mut last = Progress::NeedMore;
            for end in (0..=raw.len()).step_by(7).chain([raw.len()]) {
                last = scanner.advance(&raw[..end]);
                if last != Progress::NeedMore { break; }
            }
            prop_assert_eq!(last, read(&raw));
        }
    }
}

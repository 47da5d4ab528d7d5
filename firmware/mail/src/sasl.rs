//! SASL framing for the mechanisms a proxy can relay: PLAIN, LOGIN, XOAUTH2 and OAUTHBEARER.
//!
//! A mechanism that hides the password (SCRAM, CRAM-MD5) cannot be replayed to the backend, so it is not here.
//! Credentials are decoded in place, in the buffer of the line that brought them, and the caller wipes that line.
use core::fmt;
use core::ops::Range;

use base64ct::{Base64, Encoder, Encoding};
use zeroize::Zeroize;

use crate::secret::Secret;

/// Octets of base64 on one line of an exchange that must be taken (RFC 4954 §4).
pub const LINE: usize = 12_288;
/// Octets of a user name: 320 of an address, and room for the domain that a rule may take off.
pub const USER: usize = 384;

/// How a client authenticates.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Mechanism {
    /// RFC 4616; also IMAP LOGIN and POP3 USER/PASS, which carry the same two words.
    Plain,
    /// The two-prompt mechanism of draft-murchison-sasl-login.
    Login,
    /// Google's bearer framing.
    XOAuth2,
    /// RFC 7628.
    OAuthBearer,
}

impl Mechanism {
    /// All of them, in the order they are offered.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Login, Self::XOAuth2, Self::OAuthBearer];

    /// The registered name, upper case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::XOAuth2 => "XOAUTH2",
            Self::OAuthBearer => "OAUTHBEARER",
        }
    }

    /// The mechanism of that name in any case (RFC 4422 §3.1), or `None` if we do not relay it.
    pub fn parse(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| name.eq_ignore_ascii_case(mechanism.name().as_bytes()))
    }

    /// Whether it carries a password, so that any other of these may stand for it towards the backend.
    pub const fn is_password(self) -> bool {
        matches!(self, Self::Plain | Self::Login)
    }
}

/// What clients may log in with, made from what the backend has.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Mechanisms([bool; 4]);

impl Mechanisms {
    /// Adds a mechanism that the backend names. LOGIN there makes PLAIN possible here: both carry a password.
    pub fn add(&mut self, mechanism: Mechanism) {
        let [plain, login, xoauth2, oauthbearer] = &mut self.0;
        match mechanism {
            Mechanism::Plain => *plain = true,
            Mechanism::Login => (*plain, *login) = (true, true),
            Mechanism::XOAuth2 => *xoauth2 = true,
            Mechanism::OAuthBearer => *oauthbearer = true,
        }
    }

    /// Whether it is advertised.
    pub const fn offers(self, mechanism: Mechanism) -> bool {
        let [plain, login, xoauth2, oauthbearer] = self.0;
        match mechanism {
            Mechanism::Plain => plain,
            Mechanism::Login => login,
            Mechanism::XOAuth2 => xoauth2,
            Mechanism::OAuthBearer => oauthbearer,
        }
    }

    /// Whether it is taken: LOGIN is wherever PLAIN is, named or not.
    pub const fn takes(self, mechanism: Mechanism) -> bool {
        self.offers(mechanism) || (mechanism.is_password() && self.offers(Mechanism::Plain))
    }

    /// Those to advertise, in order.
    pub fn offered(self) -> impl Iterator<Item = Mechanism> {
        Mechanism::ALL.into_iter().filter(move |&mechanism| self.offers(mechanism))
    }
}

/// The server's side of one exchange: challenges out, response lines in.
///
/// `AUTH mechanism` without an initial response starts with [`Exchange::challenge`]; with one, the response goes
/// straight to [`Exchange::respond`] (through [`initial`]). Every challenge here is fixed base64 text.
#[derive(Debug)]
pub struct Exchange {
    mechanism: Mechanism,
    /// LOGIN's first answer.
    user: Option<Secret<USER>>,
}

/// What follows a response line.
#[derive(Debug)]
pub enum Progress {
    /// Send [`Exchange::challenge`] and wait for another line.
    Continue(Exchange),
    /// The credentials are complete.
    Complete(Proof),
}

impl Exchange {
    /// A new exchange.
    pub const fn start(mechanism: Mechanism) -> Self {
        Self { mechanism, user: None }
    }

    /// The next challenge in base64, to stand behind `334 ` or `+ `; may be empty.
    pub const fn challenge(&self) -> &'static str {
        match (self.mechanism, &self.user) {
            (Mechanism::Login, None) => "VXNlcm5hbWU6",    // "Username:"
            (Mechanism::Login, Some(_)) => "UGFzc3dvcmQ6", // "Password:"
            _ => "",
        }
    }

    /// Takes one response line without its CRLF and decodes it in place. What follows refers to that line, which
    /// the caller keeps until the credentials were used, and wipes.
    pub fn respond(self, line: &mut [u8]) -> Result<Progress, SaslError> {
        if line == b"*" {
            return Err(SaslError::Cancelled);
        }
        let decoded = decode(line)?;
        match (self.mechanism, self.user) {
            (Mechanism::Login, None) => {
                let user = Secret::copy_from(decoded).ok_or(SaslError::Malformed)?;
                if user.is_empty() || decoded.contains(&0) {
                    return Err(SaslError::Malformed);
                }
                Ok(Progress::Continue(Self { mechanism: Mechanism::Login, user: Some(user) }))
            }
            (mechanism, Some(user)) => {
                if decoded.is_empty() || decoded.contains(&0) {
                    return Err(SaslError::Malformed);
                }
                Ok(Progress::Complete(Proof::words(mechanism, user, 0..decoded.len())))
            }
            (mechanism, None) => {
                Credentials::parse(mechanism, decoded)?;
                Ok(Progress::Complete(Proof { mechanism, user: None, range: 0..decoded.len() }))
            }
        }
    }
}

/// Where complete credentials are: in the octets of the line or command that brought them, but for a user name
/// that came on an earlier line.
#[derive(Debug)]
pub struct Proof {
    mechanism: Mechanism,
    /// Set: `range` is the password. Not set: `range` is the mechanism's whole message.
    user: Option<Secret<USER>>,
    range: Range<usize>,
}

impl Proof {
    /// A user name and a password that came apart (IMAP LOGIN, POP3 USER and PASS): the password stands at `range`.
    pub const fn words(mechanism: Mechanism, user: Secret<USER>, range: Range<usize>) -> Self {
        Self { mechanism, user: Some(user), range }
    }

    /// How the client authenticates.
    pub const fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// The credentials in `line`, the octets that [`Exchange::respond`] was given, or that `range` speaks of.
    pub fn credentials<'a>(&'a self, line: &'a [u8]) -> Result<Credentials<'a>, SaslError> {
        let octets = line.get(self.range.clone()).ok_or(SaslError::Malformed)?;
        match &self.user {
            Some(user) => Ok(Credentials { user: user.expose(), authzid: None, secret: octets }),
            None => Credentials::parse(self.mechanism, octets),
        }
    }
}

/// What one login says, still encoded as the client's character set has it.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Credentials<'a> {
    /// The name to log in as, never empty, at most [`USER`] octets.
    pub user: &'a [u8],
    /// An authorization identity that is neither empty nor the same as `user`.
    pub authzid: Option<&'a [u8]>,
    /// The password; for OAuth the whole decoded message, to be relayed as is.
    pub secret: &'a [u8],
}

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

impl<'a> Credentials<'a> {
    /// Reads the one decoded message of PLAIN, XOAUTH2 or OAUTHBEARER. LOGIN has no such message: `Malformed`.
    pub fn parse(mechanism: Mechanism, message: &'a [u8]) -> Result<Self, SaslError> {
        let credentials = match mechanism {
            Mechanism::Plain => Self::plain(message),
            Mechanism::XOAuth2 => Self::xoauth2(message),
            Mechanism::OAuthBearer => Self::oauthbearer(message),
            Mechanism::Login => None,
        };
        credentials
            .filter(|found| !found.user.is_empty() && found.user.len() <= USER)
            .ok_or(SaslError::Malformed)
    }

    /// `[authzid] NUL authcid NUL passwd`, the last two not empty and without NUL (RFC 4616 §2).
    fn plain(message: &'a [u8]) -> Option<Self> {
        let mut fields = message.split(|&octet| octet == 0);
        let (authzid, user, secret) = (fields.next()?, fields.next()?, fields.next()?);
        if fields.next().is_some() || secret.is_empty() {
            return None;
        }
        let authzid = Some(authzid).filter(|authzid| !authzid.is_empty() && *authzid != user);
        Some(Self { user, authzid, secret })
    }

    /// `user=` name ^A `auth=Bearer ` token ^A ^A.
    fn xoauth2(message: &'a [u8]) -> Option<Self> {
        let (user, rest) = message.strip_prefix(b"user=").and_then(until_mark)?;
        let token = bearer(rest.strip_suffix(b"\x01\x01")?)?;
        (!token.is_empty() && !user.contains(&0)).then_some(Self { user, authzid: None, secret: message })
    }

    /// `n,a=name,` ^A key=value ^A … ^A (RFC 7628 §3.1), the GS2 header without channel binding (RFC 5801 §4).
    ///
    /// A name with `=2C` or `=3D` in it (RFC 5801's escapes) is refused: no mail address needs one, and decoding
    /// here what the backend decodes by itself would be two opinions of who logs in.
    fn oauthbearer(message: &'a [u8]) -> Option<Self> {
        let rest = message.strip_prefix(b"n,a=").or_else(|| message.strip_prefix(b"y,a="))?;
        let comma = rest.iter().position(|&octet| octet == b',')?;
        let (user, rest) = rest.split_at_checked(comma)?;
        let pairs = rest.strip_prefix(b",\x01")?.strip_suffix(b"\x01\x01")?;
        let token = pairs.split(|&octet| octet == 1).find_map(bearer)?;
        let plain = !user.iter().any(|octet| matches!(octet, 0 | 1 | b'='));
        (!token.is_empty() && plain).then_some(Self { user, authzid: None, secret: message })
    }
}

/// What stands before and behind the first ^A.
fn until_mark(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let mark = octets.iter().position(|&octet| octet == 1)?;
    Some((octets.get(..mark)?, octets.get(mark + 1..)?))
}

/// The token of `auth=Bearer token`; the scheme's case is free (RFC 7235 §2.1).
fn bearer(pair: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = pair.split_at_checked(b"auth=Bearer ".len())?;
    (scheme.eq_ignore_ascii_case(b"auth=Bearer ") && !token.contains(&1)).then_some(token)
}

/// The octets of an initial response as written in a command: `=` means an empty one (RFC 4954 §4, RFC 4959 §3).
pub fn initial(argument: &mut [u8]) -> &mut [u8] {
    if argument == b"=" { &mut [] } else { argument }
}

/// Decodes base64 in place, in time that does not depend on the content, and wipes what is left behind it.
///
/// Padding is required (RFC 4648 §3.2), as are the plain alphabet and zero bits behind the last octet (§3.5): one
/// message has one form.
pub fn decode(line: &mut [u8]) -> Result<&mut [u8], SaslError> {
    let mut last = line.last_chunk::<4>().copied().unwrap_or_default();
    let length = Base64::decode_in_place(line).map_err(|_| SaslError::Base64)?.len();
    let (decoded, tail) = line.split_at_mut_checked(length).ok_or(SaslError::Base64)?;
    tail.zeroize();
    let mut again = [0; 4];
    let quantum = decoded.chunks(3).next_back().unwrap_or_default();
    let canonical =
        quantum.is_empty() || Base64::encode(quantum, &mut again).is_ok_and(|text| text.as_bytes() == last);
    last.zeroize();
    again.zeroize();
    if canonical { Ok(decoded) } else { Err(SaslError::Base64) }
}

/// Adds the base64 of the joined `parts` to `out`; `false`, and `out` as before, if it does not fit.
#[must_use]
pub fn encode<const N: usize>(parts: &[&[u8]], out: &mut Secret<N>) -> bool {
    let octets: usize = parts.iter().map(|part| part.len()).sum();
    if octets == 0 {
        return true;
    }
    let Some(room) = out.grow(octets.div_ceil(3).saturating_mul(4)) else { return false };
    let Ok(mut encoder) = Encoder::<Base64>::new(room) else { return false };
    parts.iter().all(|part| encoder.encode(part).is_ok()) && encoder.finish().is_ok()
}

/// Adds PLAIN's message in base64, with an empty authorization identity (RFC 4616 §2), to `out`.
#[must_use]
pub fn encode_plain<const N: usize>(user: &[u8], password: &[u8], out: &mut Secret<N>) -> bool {
    encode(&[b"\0", user, b"\0", password], out)
}

/// Why an exchange ended without credentials. None of it depends on whether they would be right.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SaslError {
    /// The client sent `*`.
    Cancelled,
    /// Not base64.
    Base64,
    /// Not this mechanism's message, or no user name in it, or one of more than [`USER`] octets.
    Malformed,
}

impl fmt::Display for SaslError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cancelled => "cancelled by the client",
            Self::Base64 => "not base64",
            Self::Malformed => "not a message of this mechanism",
        })
    }
}

impl core::error::Error for SaslError {}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::String;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn respond(exchange: Exchange, line: &str) -> (Result<Progress, SaslError>, Vec<u8>) {
        let mut line = line.as_bytes().to_vec();
        (exchange.respond(&mut line), line)
    }

    fn complete(mechanism: Mechanism, line: &str) -> (Vec<u8>, Option<Vec<u8>>, Vec<u8>) {
        let (progress, line) = respond(Exchange::start(mechanism), line);
        let Ok(Progress::Complete(proof)) = progress else { panic!("{progress:?}") };
        let found = proof.credentials(&line).unwrap();
        (found.user.to_vec(), found.authzid.map(<[u8]>::to_vec), found.secret.to_vec())
    }

    fn base64(octets: &[u8]) -> String {
        let mut out = Secret::<16_384>::new();
        assert!(encode(&[octets], &mut out));
        String::from_utf8(out.expose().to_vec()).unwrap()
    }

    /// RFC 4616 §4 and RFC 4959 §7.
    #[test]
    fn plain_of_the_rfcs() {
        assert_eq!(Mechanism::parse(b"plain"), Some(Mechanism::Plain));
        let tim = (b"tim".to_vec(), None, b"tanstaaftanstaaf".to_vec());
        assert_eq!(complete(Mechanism::Plain, &base64(b"\0tim\0tanstaaftanstaaf")), tim);
        let ursel = (b"Kurt".to_vec(), Some(b"Ursel".to_vec()), b"xipj3plmq".to_vec());
        assert_eq!(complete(Mechanism::Plain, &base64(b"Ursel\0Kurt\0xipj3plmq")), ursel);
        // RFC 4959 has authzid = authcid, which is no delegation.
        let test = (b"test".to_vec(), None, b"test".to_vec());
        assert_eq!(complete(Mechanism::Plain, "dGVzdAB0ZXN0AHRlc3Q="), test);
    }

    #[test]
    fn plain_refuses() {
        for message in
            [&b""[..], b"\0", b"\0\0", b"\0tim\0", b"\0\0x", b"tim\0x", b"\0tim\0x\0", b"\0tim\0x\0y"]
        {
            assert_eq!(
                Credentials::parse(Mechanism::Plain, message),
                Err(SaslError::Malformed),
                "{message:?}"
            );
        }
        let mut long = b"\0".to_vec();
        long.resize(1 + USER, b'u');
        long.extend(b"\0x");
        assert!(Credentials::parse(Mechanism::Plain, &long).is_ok());
        long.insert(1, b'u');
        assert_eq!(Credentials::parse(Mechanism::Plain, &long), Err(SaslError::Malformed));
    }

    #[test]
    fn login_asks_twice() {
        let exchange = Exchange::start(Mechanism::Login);
        assert_eq!(exchange.challenge(), "VXNlcm5hbWU6");
        let (progress, _) = respond(exchange, &base64(b"ann"));
        let Ok(Progress::Continue(exchange)) = progress else { panic!("{progress:?}") };
        assert_eq!(exchange.challenge(), "UGFzc3dvcmQ6");
        let (progress, line) = respond(exchange, &base64(b"s3cret"));
        let Ok(Progress::Complete(proof)) = progress else { panic!("{progress:?}") };
        let found = proof.credentials(&line).unwrap();
        assert_eq!((found.user, found.authzid, found.secret), (&b"ann"[..], None, &b"s3cret"[..]));
        assert!(!std::format!("{proof:?} {found:?}").contains("ann"));
    }

    /// RFC 7628 §4.1, and Google's example.
    #[test]
    fn oauth() {
        let message = b"n,a=user@example.com,\x01host=server.example.com\x01port=143\x01auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01";
        let given = "bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVyIHZGOWRmdDRxbVRjMk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB";
        let found = complete(Mechanism::OAuthBearer, given);
        assert_eq!(found, (b"user@example.com".to_vec(), None, message.to_vec()));
        let google = "dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB2RjlkZnQ0cW1UYzJOdmIzUmxja0JoZEhSaGRtbHpkR0V1WTI5dENnPT0BAQ==";
        let found = complete(Mechanism::XOAuth2, google);
        assert_eq!(found.0, b"someuser@example.com");
        assert!(found.2.starts_with(b"user=someuser@example.com\x01auth=Bearer "));
    }

    #[test]
    fn oauth_refuses() {
        for message in [
            &b"n,,\x01auth=Bearer t\x01\x01"[..], // no user: nobody to ask the rules about
            b"n,a=,\x01auth=Bearer t\x01\x01",
            b"p=tls-unique,a=u,\x01auth=Bearer t\x01\x01",
            b"n,a=u=2Cx,\x01auth=Bearer t\x01\x01",
            b"n,a=u,\x01auth=Basic t\x01\x01",
            b"n,a=u,\x01auth=Bearer \x01\x01",
            b"n,a=u,\x01auth=Bearer t\x01",
            b"n,a=u,\x01host=x\x01\x01",
            b"n,a=u",
            b"",
        ] {
            assert_eq!(
                Credentials::parse(Mechanism::OAuthBearer, message),
                Err(SaslError::Malformed),
                "{message:?}"
            );
        }
        for message in [
            &b"user=\x01auth=Bearer t\x01\x01"[..],
            b"user=u\x01auth=Bearer \x01\x01",
            b"user=u\x01auth=Bearer t\x01",
            b"user=u\x01\x01",
            b"user=u",
            b"user=u\x01auth=Bearer t\x01x\x01\x01",
        ] {
            assert_eq!(
                Credentials::parse(Mechanism::XOAuth2, message),
                Err(SaslError::Malformed),
                "{message:?}"
            );
        }
    }

    #[test]
    fn a_password_is_taken_either_way() {
        let mut mechanisms = Mechanisms::default();
        assert!(!mechanisms.takes(Mechanism::Login) && mechanisms.offered().next().is_none());
        mechanisms.add(Mechanism::Plain);
        assert!(mechanisms.takes(Mechanism::Login) && !mechanisms.offers(Mechanism::Login));
        mechanisms.add(Mechanism::OAuthBearer);
        assert!(mechanisms.offered().eq([Mechanism::Plain, Mechanism::OAuthBearer]));
        let mut mechanisms = Mechanisms::default();
        mechanisms.add(Mechanism::Login);
        assert!(mechanisms.offered().eq([Mechanism::Plain, Mechanism::Login]));
    }

    #[test]
    fn cancel_and_nonsense() {
        for mechanism in Mechanism::ALL {
            assert_eq!(respond(Exchange::start(mechanism), "*").0.unwrap_err(), SaslError::Cancelled);
            assert_eq!(respond(Exchange::start(mechanism), "A").0.unwrap_err(), SaslError::Base64);
            assert_eq!(respond(Exchange::start(mechanism), "AGE").0.unwrap_err(), SaslError::Base64);
            assert_eq!(respond(Exchange::start(mechanism), "AGF=").0.unwrap_err(), SaslError::Base64);
            assert_eq!(respond(Exchange::start(mechanism), "AGE=AGE=").0.unwrap_err(), SaslError::Base64);
            assert_eq!(respond(Exchange::start(mechanism), "AA-_").0.unwrap_err(), SaslError::Base64);
            assert_eq!(respond(Exchange::start(mechanism), "").0.unwrap_err(), SaslError::Malformed);
        }
        assert_eq!(initial(&mut [b'=']), b"");
        assert_eq!(initial(&mut [b'A']), b"A");
    }

    #[test]
    fn encoding_keeps_what_is_there_and_refuses_what_does_not_fit() {
        let mut out = Secret::<24>::new();
        assert!(out.extend(b"a1 "));
        assert!(encode_plain(b"tim", b"x", &mut out)); // 6 octets, 8 of base64
        assert_eq!(out.expose(), b"a1 AHRpbQB4");
        assert!(!encode_plain(b"tim", b"longer than this", &mut out));
        assert_eq!(out.expose(), b"a1 AHRpbQB4");
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(user in "[^\0]{1,96}", password in "[^\0]{1,200}") {
            let mut out = Secret::<2048>::new();
            prop_assert!(encode_plain(user.as_bytes(), password.as_bytes(), &mut out));
            let decoded = decode(out.expose_mut()).unwrap();
            let found = Credentials::parse(Mechanism::Plain, decoded).unwrap();
            prop_assert_eq!((found.user, found.secret), (user.as_bytes(), password.as_bytes()));
            prop_assert_eq!(found.authzid, None);
        }

        #[test]
        fn no_message_panics(mechanism in 0..4usize, line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut line = line;
            let _ = Exchange::start(Mechanism::ALL[mechanism]).respond(&mut line);
            let _ = Credentials::parse(Mechanism::ALL[mechanism], &line);
        }
    }
}

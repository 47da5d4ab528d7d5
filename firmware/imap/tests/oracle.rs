//! An independent parser, imap-codec, reads the commands that our machine accepts, and must read the same in them.
#![allow(clippy::unwrap_used, clippy::needless_raw_string_hashes)] // a test fails by panicking; dialogues are quoted alike

use imap::{Offer, Session};
use imap_codec::CommandCodec;
use imap_codec::decode::Decoder;
use imap_codec::encode::{Encoder, Fragment};
use imap_types::command::{Command, CommandBody};
use imap_types::core::{AString, IString, NString};
use imap_types::secret::Secret;
use mail::session::{Action, Answer, Session as _, Transport};
use proptest::prelude::*;

fn offer() -> Offer {
    Offer::from_backend(b"IMAP4rev1 SASL-IR ID AUTH=PLAIN", "box", true)
}

/// What our machine reads in a login: name, password, decoded.
fn ours(octets: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (mut session, offer) = (Session::new(Transport::Tls), offer());
    let mut left = octets;
    loop {
        match session.next(&offer) {
            Some(Action::Login(login)) => {
                let found = (login.user.to_vec(), login.secret.to_vec());
                session.answer(Answer::Failed);
                return Some(found);
            }
            Some(_) => {}
            None if left.is_empty() => return None,
            None => {
                let taken = session.push(left);
                left = &left[taken..];
            }
        }
    }
}

fn label(octets: &[u8]) -> Option<mail::session::Label> {
    let (mut session, offer) = (Session::new(Transport::Tls), offer());
    let octets = [octets, b"z LOGIN joe x\r\n"].concat();
    let (mut left, mut accepted) = (&octets[..], false);
    loop {
        match session.next(&offer) {
            Some(Action::Login(login)) => return accepted.then(|| login.label.clone()),
            Some(Action::Send(text)) => accepted |= text.starts_with(b"* ID"),
            Some(_) => {}
            None if left.is_empty() => return None,
            None => {
                let taken = session.push(left);
                left = &left[taken..];
            }
        }
    }
}

/// What imap-codec reads in the same octets.
fn theirs(octets: &[u8]) -> Option<CommandBody<'_>> {
    match CommandCodec::default().decode(octets) {
        Ok(([], command)) => Some(command.body),
        _ => None,
    }
}

fn octets_of(word: &AString<'_>) -> Vec<u8> {
    word.as_ref().to_vec()
}

/// One string in a form chosen at random, as octets of a command.
fn string(content: impl Strategy<Value = String>) -> impl Strategy<Value = Vec<u8>> {
    (content, 0..4u8).prop_map(|(content, form)| match form {
        0 => format!("{{{}}}\r\n{content}", content.len()).into_bytes(),
        1 => format!("{{{}+}}\r\n{content}", content.len()).into_bytes(),
        2 if !content.contains(['\r', '\n']) && content.is_ascii() => {
            format!("\"{}\"", content.replace('\\', "\\\\").replace('"', "\\\"")).into_bytes()
        }
        _ => content.into_bytes(),
    })
}

fn encode(command: &Command<'_>) -> Vec<u8> {
    CommandCodec::default()
        .encode(command)
        .flat_map(|fragment| match fragment {
            Fragment::Line { data } | Fragment::Literal { data, .. } => data,
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    /// LOGIN with words right and wrong in every form: whatever we accept, they read alike.
    #[test]
    fn login(
        tag in "[A-Za-z0-9.]{1,8}",
        user in string("[ -~]{1,12}|[a-z0-9@.]{1,12}|[\x01-\x7fé]{0,6}"),
        gap in prop::sample::select(vec![" ", "", "  "]),
        secret in string("[ -~]{1,12}|[a-z0-9@.]{1,12}|[\x01-\x7fé]{0,6}"),
        tail in prop::sample::select(vec!["", "", "", " ", " x", ")"]),
    ) {
        let command = [tag.as_bytes(), b" LoGiN ", &user, gap.as_bytes(), &secret, tail.as_bytes(), b"\r\n"].concat();
        match (ours(&command), theirs(&command)) {
            (Some((user, secret)), Some(CommandBody::Login { username, password })) => {
                prop_assert_eq!(user, octets_of(&username));
                prop_assert_eq!(secret, octets_of(password.declassify()));
            }
            (Some(found), other) => prop_assert!(false, "we read {found:?}, they {other:?}"),
            // Refused by us alone: an empty name or password is in the grammar and is nobody.
            (None, Some(CommandBody::Login { username, password })) => {
                let (user, secret) = (octets_of(&username), octets_of(password.declassify()));
                prop_assert!(user.is_empty() || secret.is_empty(), "they read {user:?} {secret:?}");
            }
            (None, _) => {}
        }
    }

    /// What they write, we read.
    #[test]
    fn login_as_they_write_it(user in prop::collection::vec(1..=255u8, 1..40), secret in prop::collection::vec(1..=255u8, 1..40)) {
        let body = CommandBody::login(AString::try_from(user.clone()).unwrap(), AString::try_from(secret.clone()).unwrap()).unwrap();
        prop_assert_eq!(ours(&encode(&Command::new("A1", body).unwrap())), Some((user, secret)));
    }

    /// AUTHENTICATE PLAIN with an initial response, padded and not, right and wrong.
    #[test]
    fn authenticate(
        user in "[ -~]{1,12}",
        secret in "[ -~é]{1,12}",
        damage in prop::option::of((0..40usize, any::<u8>())),
    ) {
        let body = CommandBody::authenticate_with_ir(imap_types::auth::AuthMechanism::Plain, format!("\0{user}\0{secret}").into_bytes());
        let mut command = encode(&Command::new("A1", body).unwrap());
        if let Some((at, octet)) = damage {
            let at = (b"A1 AUTHENTICATE PLAIN ".len() + at).min(command.len() - 3);
            command[at] = octet;
        }
        if let Some((found_user, found_secret)) = ours(&command) {
            let Some(CommandBody::Authenticate { initial_response: Some(response), .. }) = theirs(&command) else {
                panic!("we read {found_user:?}, they {:?}", theirs(&command));
            };
            let expected = [b"\0", &found_user[..], b"\0", &found_secret].concat();
            prop_assert!(response.declassify().ends_with(&expected), "{response:?} {expected:?}");
        } else {
            prop_assert!(damage.is_some());
        }
    }

    /// ID with pairs right and wrong: whatever we accept, they read alike.
    #[test]
    fn id(
        pairs in prop::collection::vec((string("name|version|os|vendor|[a-z]{0,33}"), prop_oneof![string("[ -~]{0,20}"), Just(b"NIL".to_vec())]), 0..5),
        gap in prop::sample::select(vec![" ", " ", " ", "", "  "]),
        tail in prop::sample::select(vec!["", "", "", " ", ")"]),
    ) {
        let list: Vec<Vec<u8>> = pairs.iter().map(|(key, value)| [&key[..], b" ", value].concat()).collect();
        let command = [b"a ID (", &list.join(gap.as_bytes())[..], b")", tail.as_bytes(), b"\r\n"].concat();
        if let Some(label) = label(&command) {
            let Some(CommandBody::Id { parameters: Some(parameters) }) = theirs(&command) else {
                panic!("we accept {}, they read {:?}", command.escape_ascii(), theirs(&command));
            };
            let last = |name: &str| {
                parameters
                    .iter()
                    .rfind(|(key, value)| istring(key).eq_ignore_ascii_case(name.as_bytes()) && value.0.is_some())
                    .map(|(_, value)| nstring(value))
                    .unwrap_or_default()
            };
            prop_assert_eq!(label.name.as_bytes(), last("name"));
            prop_assert_eq!(label.os.as_bytes(), last("os"));
            prop_assert_eq!(label.version.as_bytes(), last("version"));
            prop_assert_eq!(label.vendor.as_bytes(), last("vendor"));
        }
    }
}

fn istring(word: &IString<'_>) -> Vec<u8> {
    word.as_ref().to_vec()
}

fn nstring(word: &NString<'_>) -> Vec<u8> {
    word.0.as_ref().map(istring).unwrap_or_default()
}

/// The types above must agree with what the codec calls them, or the tests above compare nothing.
#[test]
fn the_oracle_reads_the_examples() {
    let secret: Secret<AString<'_>> = Secret::new(AString::try_from("SESAME").unwrap());
    assert_eq!(
        theirs(b"a001 LOGIN SMITH SESAME\r\n"),
        Some(CommandBody::Login { username: AString::try_from("SMITH").unwrap(), password: secret })
    );
    assert_eq!(ours(b"a001 LOGIN SMITH SESAME\r\n"), Some((b"SMITH".to_vec(), b"SESAME".to_vec())));
    assert!(label(b"a023 ID (\"name\" \"sodr\")\r\n").is_some_and(|label| label.name == "sodr"));
    assert!(matches!(
        theirs(b"a023 ID (\"name\" \"sodr\")\r\n"),
        Some(CommandBody::Id { parameters: Some(_) })
    ));
}

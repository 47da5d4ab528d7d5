//! Against smtp-proto, which shares no code with us: what we accept, it reads as the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests fail by panicking

use std::fmt::Write as _;

use mail::address::{Charset, Path};
use proptest::prelude::*;
use smtp::{Command, Extension, Extensions, MailCommand, RcptCommand};
use smtp_proto::{
    MAIL_BODY_7BIT, MAIL_BODY_8BITMIME, MAIL_RET_FULL, MAIL_RET_HDRS, MAIL_SMTPUTF8, RCPT_NOTIFY_DELAY,
    RCPT_NOTIFY_FAILURE, RCPT_NOTIFY_NEVER, RCPT_NOTIFY_SUCCESS, Request,
};

const ALL: Extensions = Extensions::EMPTY
    .with(Extension::Size)
    .with(Extension::EightBitMime)
    .with(Extension::SmtpUtf8)
    .with(Extension::Dsn);

fn theirs(line: &str) -> Request<String> {
    Request::parse(&mut line.as_bytes().iter())
        .unwrap_or_else(|error| panic!("{line:?}: {error:?}"))
        .into_owned()
}

fn address() -> impl Strategy<Value = String> {
    let atom = "[a-zA-Z0-9!#$&'*+/=?^_`{|}~-]{1,8}";
    let local = prop_oneof![atom.prop_map(|atom| atom), "[a-z]{1,4}\\.[a-z0-9]{1,4}", "\"[a-z]{1,5}\""];
    (local, "[a-zA-Z][a-z0-9]{0,6}(\\.[a-z]{2,4}){1,2}")
        .prop_map(|(local, domain)| format!("{local}@{domain}"))
}

proptest! {
    #[test]
    fn mail_reads_the_same(
        address in proptest::option::of(address()),
        size in proptest::option::of(0..1_000_000_000u32),
        body in prop_oneof![Just(""), Just(" BODY=7BIT"), Just(" BODY=8BITMIME")],
        utf8 in any::<bool>(),
        ret in prop_oneof![Just(""), Just(" RET=FULL"), Just(" RET=HDRS")],
        envid in proptest::option::of("[a-zA-Z0-9]{1,20}"),
    ) {
        let mut line = format!("<{}>", address.unwrap_or_default());
        if let Some(size) = size {
            write!(line, " SIZE={size}").unwrap();
        }
        line.push_str(body);
        if utf8 {
            line.push_str(" SMTPUTF8");
        }
        line.push_str(ret);
        if let Some(envid) = &envid {
            write!(line, " ENVID={envid}").unwrap();
        }
        let ours = MailCommand::parse(line.as_bytes(), ALL).unwrap();
        let printed = ours.to_string();
        let Request::Mail { from } = theirs(&printed) else { panic!("{printed}") };
        let path = Path::parse(format!("<{}>", from.address).as_bytes(), Charset::Utf8).unwrap();
        prop_assert_eq!(&path, &ours.sender);
        prop_assert_eq!(from.size as u64, ours.size.unwrap_or(0));
        prop_assert_eq!(from.flags & MAIL_SMTPUTF8 != 0, utf8);
        prop_assert_eq!(from.flags & MAIL_BODY_7BIT != 0, body.ends_with("7BIT"));
        prop_assert_eq!(from.flags & MAIL_BODY_8BITMIME != 0, body.ends_with("8BITMIME"));
        prop_assert_eq!(from.flags & MAIL_RET_FULL != 0, ret.ends_with("FULL"));
        prop_assert_eq!(from.flags & MAIL_RET_HDRS != 0, ret.ends_with("HDRS"));
        prop_assert_eq!(from.env_id, envid);
    }

    #[test]
    fn rcpt_reads_the_same(address in address(), notify in 0..16u8, orcpt in proptest::option::of("[a-z]{1,8}@[a-z]{1,8}")) {
        let mut line = format!("<{address}>");
        let words: Vec<_> = [(1, "NEVER"), (2, "SUCCESS"), (4, "FAILURE"), (8, "DELAY")]
            .into_iter().filter(|(bit, _)| notify & bit != 0).map(|(_, word)| word).collect();
        if notify != 0 {
            write!(line, " NOTIFY={}", words.join(",")).unwrap();
        }
        if let Some(orcpt) = &orcpt {
            write!(line, " ORCPT=rfc822;{orcpt}").unwrap();
        }
        let ours = RcptCommand::parse(line.as_bytes(), ALL, false);
        if notify & 1 != 0 && notify != 1 {
            prop_assert!(ours.is_err(), "NEVER stands alone");
            return Ok(());
        }
        let ours = ours.unwrap();
        let printed = ours.to_string();
        let Request::Rcpt { to } = theirs(&printed) else { panic!("{printed}") };
        prop_assert_eq!(&Path::parse(format!("<{}>", to.address).as_bytes(), Charset::Utf8).unwrap(), &ours.recipient);
        for (bit, flag) in [(1, RCPT_NOTIFY_NEVER), (2, RCPT_NOTIFY_SUCCESS), (4, RCPT_NOTIFY_FAILURE), (8, RCPT_NOTIFY_DELAY)] {
            prop_assert_eq!(to.flags & flag != 0, notify & bit != 0);
        }
        prop_assert_eq!(to.orcpt, orcpt);
    }

    #[test]
    fn commands_read_the_same(
        name in "[a-z]{1,9}(\\.[a-z]{1,5})?", octets in 0..u32::MAX, last in any::<bool>(),
        mechanism in prop_oneof![Just("PLAIN"), Just("LOGIN"), Just("XOAUTH2"), Just("OAUTHBEARER")],
        response in proptest::option::of("[A-Za-z0-9+/]{4,20}"),
    ) {
        let line = format!("EHLO {name}");
        let Request::Ehlo { host } = theirs(&format!("{line}\r\n")) else { panic!("{line}") };
        prop_assert_eq!(Command::parse(line.as_bytes()), Command::Ehlo(host.as_bytes()));

        let line = format!("BDAT {octets}{}", if last { " LAST" } else { "" });
        let Request::Bdat { chunk_size, is_last } = theirs(&format!("{line}\r\n")) else { panic!("{line}") };
        let size = smtp::BdatSize { octets: chunk_size as u64, last: is_last };
        prop_assert_eq!(Command::parse(line.as_bytes()), Command::Bdat(Some(size)));

        let line = format!("AUTH {mechanism}{}", response.as_ref().map(|text| format!(" {text}")).unwrap_or_default());
        let Request::Auth { initial_response, .. } = theirs(&format!("{line}\r\n")) else { panic!("{line}") };
        let Command::Auth(arguments) = Command::parse(line.as_bytes()) else { panic!("{line}") };
        let arguments = std::str::from_utf8(arguments).unwrap();
        prop_assert_eq!(arguments.split_once(' ').map_or("", |(_, text)| text), &*initial_response);
        prop_assert!(arguments.starts_with(mechanism));
    }
}

#[test]
fn plain_verbs_read_the_same() {
    for (line, ours, theirs_is) in [
        ("DATA", Command::Data, Request::Data),
        ("RSET", Command::Rset, Request::Rset),
        ("QUIT", Command::Quit, Request::Quit),
        ("STARTTLS", Command::StartTls, Request::StartTls),
    ] {
        assert_eq!(Command::parse(line.as_bytes()), ours);
        assert_eq!(theirs(&format!("{line}\r\n")), theirs_is);
    }
}

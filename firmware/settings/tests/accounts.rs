//! What a login name stands for, where it goes, and what it may send from (clientid.md Q19; design §2).

#![allow(clippy::unwrap_used, clippy::panic)] // tests fail so, in their helpers too

use std::path::Path;

use policy::{Mode, Rules};
use settings::{NotAnAccount, Settings};

const BASE: &str = r#"
[box]
hostname = "mail.example.net"
data = "/var/lib/postern"
default-domain = "example.net"
[tls]
certificates = [{ chain = "chain.pem", key = "key.pem" }]
[backends.main]
imap.address = "127.0.0.1:993"
pop3.address = "127.0.0.1:995"
submission.address = "127.0.0.1:465"
[backends.old]
imap.address = "127.0.0.2:993"
[routes]
default = "main"
domains."old.example" = "old"
[domains."example.net"]
aliases = ["example.com"]
sub-address = "+"
senders = ["office@example.net"]
policy.mode = "lock"
[domains."exact.example"]
case-sensitive = true
[accounts."Alice@example.com"]
senders = ["Sales@Example.ORG"]
policy.max-devices = 3
[accounts."bob@example.net"]
backend = "old"
"#;

fn settings(text: &str) -> Settings {
    Settings::parse(text, Path::new("x.toml")).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

#[test]
fn one_mailbox_has_one_name() {
    let settings = settings(BASE);
    let canonical = |raw: &str| settings.canonical(raw.as_bytes()).map(|account| account.as_str().to_owned());
    for name in ["alice", "Alice", "ALICE@EXAMPLE.NET", "alice@example.com", "alice@example.net."] {
        assert_eq!(canonical(name).as_deref(), Ok("alice@example.net"), "{name:?}");
    }
    assert_eq!(canonical("Alice@Exact.example").as_deref(), Ok("Alice@exact.example"));
    let traps = [
        "alice*master",
        "alice%example.net",
        "alice@example.net@x",
        " alice",
        "alice\0",
        "\"alice\"",
        "",
        "@x",
    ];
    for name in traps {
        assert_eq!(canonical(name), Err(NotAnAccount), "{name:?}");
    }
    assert_eq!(settings.canonical(b"al\xc3\xaece"), Err(NotAnAccount));
}

#[test]
fn rules_are_found_under_any_spelling_of_the_account() {
    let settings = settings(BASE);
    let alice = settings.canonical(b"ALICE").unwrap();
    let (of_box, domain, account) = settings.layers(&alice);
    assert_eq!((of_box.mode, account.unwrap().max_devices), (None, Some(3)));
    let rules = Rules::merge(of_box, domain, account);
    assert_eq!((rules.mode, rules.max_devices), (Mode::Lock, 3));
    let (_, domain, account) = settings.layers(&settings.canonical(b"x@exact.example").unwrap());
    assert!(domain.is_some() && account.is_none());
}

#[test]
fn the_most_particular_route_wins_and_unknown_domains_have_none() {
    let settings = settings(BASE);
    let cases = [
        ("alice", Some("main")),
        ("carol@exact.example", Some("main")),
        ("bob@example.com", Some("old")),
        ("dave@old.example", Some("old")),
        ("alice@elsewhere.example", None),
    ];
    for (name, backend) in cases {
        let account = settings.canonical(name.as_bytes()).unwrap();
        assert_eq!(settings.route(&account), backend, "{name}");
    }
}

#[test]
fn a_single_backend_takes_all_where_no_domain_is_named() {
    let start = BASE.find("[backends.old]").unwrap();
    let mut text = BASE.replace("default-domain = \"example.net\"\n", "");
    text.truncate(start - "default-domain = \"example.net\"\n".len());
    let settings = settings(&text);
    for name in ["alice", "alice@anything.example"] {
        assert_eq!(settings.route(&settings.canonical(name.as_bytes()).unwrap()), Some("main"));
    }
    assert_eq!(settings.canonical(b"Alice").unwrap().as_str(), "alice");
}

#[test]
fn senders_are_the_account_its_details_and_what_is_listed() {
    let settings_ = settings(BASE);
    let may = |settings: &Settings, who: &str, path: &str| {
        settings.may_send(&settings.canonical(who.as_bytes()).unwrap(), path.as_bytes())
    };
    for path in [
        "alice@example.net",
        "Alice@Example.com",
        "alice+shop@example.net",
        "alice+a+b@example.com",
        "sales@example.org",
        "office@example.net",
        "",
    ] {
        assert!(may(&settings_, "alice", path), "{path:?}");
    }
    for path in [
        "bob@example.net",
        "bob+alice@example.net",
        "alice@elsewhere.example",
        "+alice@example.net",
        "@",
        "+",
    ] {
        assert!(!may(&settings_, "alice", path), "{path:?}");
    }
    assert!(!may(&settings_, "bob", "sales@example.org"));
    // exact.example has no sub-addresses, and tells letters apart.
    assert!(!may(&settings_, "Carol@exact.example", "Carol+x@exact.example"));
    assert!(!may(&settings_, "Carol@exact.example", "carol@exact.example"));
    let open = settings(&format!("{BASE}\n[submission]\nsender-check = false\nallow-null-sender = false\n"));
    assert!(may(&open, "bob", "anybody@elsewhere.example") && !may(&open, "bob", ""));
}

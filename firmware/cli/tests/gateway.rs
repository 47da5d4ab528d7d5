//! The command against a scripted gateway: real frames on a real socket, the real executable.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests fail so, in their helpers too

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread::{self, JoinHandle};

use control::frame::encode;
use control::{
    AccountRow, Chunk, ControlError, DeviceRow, ErrorCode, EventRow, Finding, Frames, Health, Imported, Page,
    Part, Request, Response, SessionRow, Severity, Simulation, SimulationRow, State,
};
use policy::{Alias, Mode, Standing, Strength};

/// Takes one connection; for each exchange reads a request, compares it, sends the answers.
struct Gateway {
    folder: tempfile::TempDir,
    thread: JoinHandle<()>,
}

impl Gateway {
    fn start(script: Vec<(Request, Vec<Response>)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("control")).unwrap();
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut frames = Frames::new();
            for (expected, answers) in script {
                assert_eq!(request(&mut stream, &mut frames), expected);
                for answer in answers {
                    stream.write_all(&encode(&answer).unwrap()).unwrap();
                }
            }
        });
        Self { folder, thread }
    }

    fn one(request: Request, answer: Response) -> Self {
        Self::start(vec![(request, vec![answer])])
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the command to its end, and the script to its own.
    fn run(self, arguments: &[&str]) -> (Output, tempfile::TempDir) {
        let output = postern().arg("--control").arg(self.path("control")).args(arguments).output().unwrap();
        self.thread.join().expect("the command asked what the script says");
        (output, self.folder)
    }
}

fn request(stream: &mut UnixStream, frames: &mut Frames) -> Request {
    loop {
        if let Some(request) = frames.take().unwrap() {
            return request;
        }
        let mut buffer = [0; 4_096];
        let read = stream.read(&mut buffer).unwrap();
        assert_ne!(read, 0, "the command hung up early");
        frames.push(&buffer[..read]);
    }
}

fn postern() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
    command.env_remove("POSTERN_CONTROL");
    command
}

fn out(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

const ALICE: &str = "alice@example.net";

fn phone(standing: Standing) -> DeviceRow {
    DeviceRow {
        account: ALICE.into(),
        alias: Alias("7f3k9q".into()),
        name: "Alice's phone".into(),
        standing,
        strength: Strength::Strong,
        kinds: vec!["UUID".into()],
        client: "IMAP client, Android, K-9 Mail 6.8\x1b[2J".into(),
        first_seen: 1_790_000_000,
        last_seen: Some(1_790_086_400),
        protocol: Some("imap".into()),
        address: Some("192.0.2.7".parse().unwrap()),
        country: Some("AT".into()),
        logins: 12,
    }
}

fn account(mode: Mode) -> AccountRow {
    AccountRow {
        account: ALICE.into(),
        mode,
        mode_from: "account".into(),
        backend: Some("main".into()),
        approved: 2,
        pending: 1,
        revoked: 0,
        sessions: 3,
        last_seen: None,
    }
}

fn event(at: u64) -> EventRow {
    EventRow {
        at,
        kind: "login-refused".into(),
        account: Some(ALICE.into()),
        device: None,
        protocol: Some("imap".into()),
        address: Some("2001:db8::7".parse().unwrap()),
        country: None,
        session: Some("c0ffee".into()),
        text: "the device was revoked".into(),
    }
}

#[test]
fn devices_are_listed_in_columns_and_cannot_steer_the_terminal() {
    let other = DeviceRow { alias: Alias("aaaaaa".into()), name: String::new(), ..phone(Standing::Pending) };
    let pages = vec![
        Response::Devices(Page { rows: vec![phone(Standing::Approved { until: None })], more: true }),
        Response::Devices(Page { rows: vec![other], more: false }),
    ];
    let gateway = Gateway::start(vec![(Request::DevicesList { account: ALICE.into() }, pages)]);
    let (output, _folder) = gateway.run(&["devices", "list", ALICE]);
    let expected = "\
DEVICE  NAME           STANDING  IDENTITY       LAST SEEN (UTC)      PROTOCOL  FROM            LOGINS  CLIENT
7f3k9q  Alice's phone  approved  strong (UUID)  2026-09-22 14:13:20  imap      192.0.2.7 (AT)  12      IMAP client, Android, K-9 Mail 6.8?[2J
aaaaaa  -              pending   strong (UUID)  2026-09-22 14:13:20  imap      192.0.2.7 (AT)  12      IMAP client, Android, K-9 Mail 6.8?[2J
";
    assert_eq!((out(&output), err(&output), output.status.code()), (expected, "", Some(0)));
}

#[test]
fn json_is_the_answer_itself_with_its_pages_joined() {
    let answer = |rows, more| Response::Devices(Page { rows, more });
    let row = || phone(Standing::Pending);
    let request = Request::DevicesList { account: ALICE.into() };
    let gateway =
        Gateway::start(vec![(request, vec![answer(vec![row()], true), answer(vec![row()], false)])]);
    let (output, _folder) = gateway.run(&["devices", "list", ALICE, "--json"]);
    let parsed: Response = serde_json::from_str(out(&output)).unwrap();
    assert_eq!(parsed, answer(vec![row(), row()], false));
    assert_eq!(out(&output).matches('\n').count(), 1);
}

#[test]
fn a_device_is_approved_until_a_day() {
    let until = Some(4_102_444_800);
    let request = Request::DevicesApprove { account: ALICE.into(), device: "7f3k9q".into(), until };
    let gateway = Gateway::one(request, Response::Device(phone(Standing::Approved { until })));
    let (output, _folder) = gateway.run(&["devices", "approve", ALICE, "7f3k9q", "--until", "2100-01-01"]);
    assert!(out(&output).contains("standing    approved until 2100-01-01 00:00:00\n"), "{}", out(&output));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn renaming_revoking_and_forgetting_ask_for_just_that() {
    let (account, device) = (ALICE.to_owned(), "7f3k9q".to_owned());
    let cases = [
        (
            vec!["devices", "rename", ALICE, "7f3k9q", "Alice's phone"],
            Request::DevicesRename {
                account: account.clone(),
                device: device.clone(),
                name: "Alice's phone".into(),
            },
            Response::Device(phone(Standing::Pending)),
            "Alice's phone",
        ),
        (
            vec!["devices", "revoke", ALICE, "7f3k9q"],
            Request::DevicesRevoke { account: account.clone(), device: device.clone() },
            Response::Revoked { device: phone(Standing::Revoked), sessions_ended: 1 },
            "1 live session ends",
        ),
        (
            vec!["devices", "forget", ALICE, "7f3k9q"],
            Request::DevicesForget { account, device },
            Response::Done { text: "device 7f3k9q is forgotten".into() },
            "device 7f3k9q is forgotten",
        ),
        (
            vec!["sessions", "kill", "c0ffee"],
            Request::SessionsKill { session: "c0ffee".into() },
            Response::Done { text: "session c0ffee ends".into() },
            "session c0ffee ends",
        ),
        (
            vec!["accounts", "lock", ALICE],
            Request::AccountsLock { account: ALICE.into() },
            Response::Account(account_locked()),
            "lock (set by account)",
        ),
        (
            vec!["accounts", "observe", ALICE],
            Request::AccountsObserve { account: ALICE.into() },
            Response::Account(self::account(Mode::Observe)),
            "observe (set by account)",
        ),
        (
            vec!["accounts", "learn", ALICE, "--until", "2100-01-01"],
            Request::AccountsLearn { account: ALICE.into(), until: 4_102_444_800 },
            Response::Account(self::account(Mode::Learn { until: 4_102_444_800 })),
            "learn until 2100-01-01 00:00:00",
        ),
        (
            vec!["reload"],
            Request::Reload,
            Response::Done { text: "settings are in force".into() },
            "in force",
        ),
    ];
    for (arguments, request, answer, says) in cases {
        let (output, _folder) = Gateway::one(request, answer).run(&arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", err(&output));
        assert!(out(&output).contains(says), "{arguments:?}: {}", out(&output));
    }
}

fn account_locked() -> AccountRow {
    account(Mode::Lock)
}

#[test]
fn accounts_and_sessions_are_listed() {
    let answer = Response::Accounts(Page { rows: vec![account_locked()], more: false });
    let (output, _folder) = Gateway::one(Request::AccountsList, answer).run(&["accounts", "list"]);
    let expected = "\
ACCOUNT            MODE  SET BY   APPROVED  PENDING  REVOKED  SESSIONS  LAST SEEN (UTC)  BACKEND
alice@example.net  lock  account  2         1        0        3         -                main
";
    assert_eq!(out(&output), expected);

    let session = SessionRow {
        session: "c0ffee".into(),
        account: ALICE.into(),
        device: Some(Alias("7f3k9q".into())),
        protocol: "imap".into(),
        address: "[2001:db8::7]:50123".parse().unwrap(),
        backend: "main".into(),
        since: 1_790_000_000,
        octets_in: 1_000,
        octets_out: 3 << 20,
    };
    let answer = Response::Sessions(Page { rows: vec![session], more: false });
    let gateway = Gateway::one(Request::SessionsList { account: Some(ALICE.into()) }, answer);
    let (output, _folder) = gateway.run(&["sessions", "--account", ALICE]);
    let expected = "\
SESSION  ACCOUNT            DEVICE  PROTOCOL  FROM                 SINCE (UTC)          IN      OUT      BACKEND
c0ffee   alice@example.net  7f3k9q  imap      [2001:db8::7]:50123  2026-09-21 14:13:20  1000 B  3.0 MiB  main
";
    assert_eq!(out(&output), expected);
}

#[test]
fn a_simulation_says_how_many_and_who() {
    let row = SimulationRow {
        account: ALICE.into(),
        device: None,
        client: "sending client, unknown system, unknown mail software".into(),
        protocol: "submission".into(),
        address: None,
        reason: "no identity".into(),
        logins: 3,
        last: 1_790_000_000,
    };
    let report = |refused: Vec<SimulationRow>| Simulation {
        account: Some(ALICE.into()),
        since: None,
        logins: 412,
        would_refuse: refused.iter().map(|row| row.logins).sum(),
        refused: Page { rows: refused, more: false },
    };
    let request = || Request::Simulate { account: Some(ALICE.into()) };
    let (output, _folder) =
        Gateway::one(request(), Response::Simulation(report(vec![row]))).run(&["simulate", ALICE]);
    let start = "locking alice@example.net now would have refused 3 of 412 logins, these:\n\nACCOUNT";
    assert!(out(&output).starts_with(start), "{}", out(&output));
    let (output, _folder) =
        Gateway::one(request(), Response::Simulation(report(vec![]))).run(&["simulate", ALICE]);
    assert_eq!(out(&output), "locking alice@example.net now would have refused none of 412 logins\n");
}

#[test]
fn events_are_followed_page_by_page() {
    let page = |rows, more| Response::Events(Page { rows, more });
    let request =
        Request::Events { account: Some(ALICE.into()), since: Some(1_767_225_600), limit: 5, follow: true };
    let arguments = ["events", "--account", ALICE, "--since", "2026-01-01", "--limit", "5", "--follow"];
    let pages = || vec![page(vec![event(1_790_000_000)], true), page(vec![event(1_790_000_060)], false)];
    let (output, _folder) = Gateway::start(vec![(request.clone(), pages())]).run(&arguments);
    let expected = "\
2026-09-21 14:13:20  login-refused      alice@example.net imap from 2001:db8::7 [c0ffee]: the device was revoked
2026-09-21 14:14:20  login-refused      alice@example.net imap from 2001:db8::7 [c0ffee]: the device was revoked
";
    assert_eq!(out(&output), expected);
    let json = [&arguments[..], &["--json"]].concat();
    let (output, _folder) = Gateway::start(vec![(request, pages())]).run(&json);
    let rows =
        out(&output).lines().map(|line| serde_json::from_str::<EventRow>(line).unwrap()).collect::<Vec<_>>();
    assert_eq!(rows, [event(1_790_000_000), event(1_790_000_060)]);
}

#[test]
fn a_refusal_is_exit_code_1_with_its_mend() {
    let error =
        || ControlError::new(ErrorCode::NoSuchDevice, "no device zzzzzz", "list them with devices list");
    let request = || Request::DevicesRevoke { account: ALICE.into(), device: "zzzzzz".into() };
    let gateway = Gateway::one(request(), Response::Error(error()));
    let (output, _folder) = gateway.run(&["devices", "revoke", ALICE, "zzzzzz"]);
    assert_eq!((out(&output), output.status.code()), ("", Some(1)));
    assert_eq!(err(&output), "postern: no device zzzzzz\n  mend: list them with devices list\n");
    let gateway = Gateway::one(request(), Response::Error(error()));
    let (output, _folder) = gateway.run(&["--json", "devices", "revoke", ALICE, "zzzzzz"]);
    assert_eq!(serde_json::from_str::<Response>(out(&output)).unwrap(), Response::Error(error()));
    assert_eq!((err(&output), output.status.code()), ("", Some(1)));
}

#[test]
fn what_is_broken_is_exit_code_1() {
    let finding = |severity| Finding {
        severity,
        backend: "main".into(),
        protocol: "submission".into(),
        check: "open-relay".into(),
        text: "mail for elsewhere was taken without a login".into(),
        mend: "take the box out of mynetworks".into(),
    };
    for (severity, code) in [(Severity::Error, 1), (Severity::Warning, 0), (Severity::Fine, 0)] {
        let answer = Response::SelfTest(Page { rows: vec![finding(severity)], more: false });
        let (output, _folder) = Gateway::one(Request::SelfTest, answer).run(&["self-test"]);
        assert_eq!(output.status.code(), Some(code));
        assert!(out(&output).contains("mend: take the box out of mynetworks"));
    }
    for (state, code) in [(State::Well, 0), (State::Ready, 0), (State::Failing, 1)] {
        let part = Part { name: "database".into(), state, text: "sentence".into() };
        let answer = Response::Health(Health::of(vec![part]));
        let (output, _folder) = Gateway::one(Request::Health, answer).run(&["health"]);
        assert_eq!(output.status.code(), Some(code));
    }
}

#[test]
fn an_export_is_put_in_place_whole_or_not_at_all() {
    use std::os::unix::fs::PermissionsExt as _;
    let part = |text: &str, last| Response::Export(Chunk { text: text.into(), last });
    let gateway = Gateway::start(vec![(Request::Export, vec![part("one\n", false), part("two\n", true)])]);
    let file = gateway.path("export");
    let (output, folder) = gateway.run(&["export", file.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "one\ntwo\n");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(out(&output).starts_with("8 octets written to "));
    drop(folder);

    // The gateway dies half-way: an older export stays, and nothing half lies about.
    let gateway = Gateway::start(vec![(Request::Export, vec![part("one\n", false)])]);
    let file = gateway.path("export");
    std::fs::write(&file, "older").unwrap();
    let (output, folder) = gateway.run(&["export", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "older");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "the socket and the older export");

    let gateway = Gateway::start(vec![(Request::Export, vec![part("one\n", false), part("two\n", true)])]);
    let (output, _folder) = gateway.run(&["export"]);
    assert_eq!(out(&output), "one\ntwo\n");
}

#[test]
fn an_import_goes_in_parts_and_ends_with_what_it_brought() {
    let text = "x".repeat(Chunk::OCTETS + 1);
    let chunk = |text: &str, last| Request::Import(Chunk { text: text.into(), last });
    let imported = Response::Imported(Imported { accounts: 2, devices: 5, kept: 1 });
    let script = vec![
        (chunk(&text[..Chunk::OCTETS], false), vec![Response::Done { text: "go on".into() }]),
        (chunk("x", true), vec![imported]),
    ];
    let gateway = Gateway::start(script);
    let file = gateway.path("export");
    std::fs::write(&file, &text).unwrap();
    let (output, _folder) = gateway.run(&["import", file.to_str().unwrap()]);
    assert_eq!(out(&output), "accounts read     2\ndevices written   5\nkept, newer here  1\n");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn no_gateway_is_exit_code_3_and_says_how_to_mend() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control");
    let output = postern().arg("health").env("POSTERN_CONTROL", &socket).output().unwrap();
    assert_eq!((out(&output), output.status.code()), ("", Some(3)));
    assert!(err(&output).starts_with(&format!("postern: no gateway answers at {}", socket.display())));
    assert!(err(&output).contains("mend: start the gateway"));
    // One that takes the connection and says nothing.
    let listener = UnixListener::bind(&socket).unwrap();
    let thread = thread::spawn(move || drop(listener.accept().unwrap()));
    let output = postern().args(["health", "--control"]).arg(&socket).output().unwrap();
    thread.join().unwrap();
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn another_contract_is_not_misread() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control");
    let listener = UnixListener::bind(&socket).unwrap();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let json = br#"{"version":2,"body":{}}"#;
        stream.write_all(&u32::try_from(json.len()).unwrap().to_be_bytes()).unwrap();
        stream.write_all(json).unwrap();
        let _ = stream.read(&mut [0; 512]);
    });
    let output = postern().args(["health", "--control"]).arg(&socket).output().unwrap();
    thread.join().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("version 2"), "{}", err(&output));
}

#[test]
fn a_command_line_that_makes_no_sense_is_exit_code_2() {
    for arguments in [
        &["devices"][..],
        &["devices", "list"],
        &["reboot"],
        &["accounts", "learn", ALICE, "--until", "2001-01-01"],
        &["devices", "approve", ALICE, "7f3k9q", "--until", "soon"],
        &[],
    ] {
        let output = postern().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
    let help = postern().arg("--help").output().unwrap();
    assert_eq!(help.status.code(), Some(0));
    for word in
        ["Exit codes:", "devices", "accounts", "simulate", "sessions", "events", "export", "import", "check"]
    {
        assert!(out(&help).contains(word), "{word}");
    }
}

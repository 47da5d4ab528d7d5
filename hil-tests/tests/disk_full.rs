//! Promise: on a full disk locked mailboxes stay locked, the box says so within ten seconds, nothing is acknowledged that was
//! not kept, and it recovers by itself.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hil_tests::backends::Backends;
use hil_tests::gateway::Gateway;
use hil_tests::random;
use hil_tests::session::{Protocol, Session};

#[test]
fn a_full_disk_locks_nobody_in_and_nobody_out() -> Result<()> {
    let backends = Backends::start()?;
    let mut gateway = Gateway::under_test(
        &backends,
        "[abuse]\nfailure-deadline = \"300ms\"\nfailure-deadline-max = \"300ms\"",
    )?;
    // The data lies on a small file system that only this process sees, and that is gone with it.
    let mount =
        format!("mount -t tmpfs -o size=64m,mode=700 tmpfs {} && exec \"$@\"", gateway.data().display());
    gateway.wrapper = ["unshare", "--mount", "/bin/sh", "-c", &mount, "sh"].map(String::from).into();
    gateway.resume().context("this test mounts a file system of its own, as root")?;
    let ada = backends.ada();
    let token = random::uuid();
    gateway.enrol(ada, &token)?;
    gateway.lock(ada)?;
    let stranger = random::uuid();

    // Its data as it sees it, through its own root.
    let data: PathBuf = format!("/proc/{}/root{}", gateway.process()?.id(), gateway.data().display()).into();
    let filler = data.join("filler");
    let mut file = fs::File::create(&filler)?;
    // Bounded: should the small file system not be there, this machine's own disk must not be what fills up.
    let mut room: usize = 128 << 20;
    for size in [1 << 16, 1 << 8, 1] {
        while file.write_all(&vec![0; size]).is_ok() {
            room = room.checked_sub(size).context("the data does not lie on the small file system")?;
        }
    }
    let log = gateway.log().from_now();
    let start = Instant::now();

    // A stranger with the right password, and an operator who wants to let him in.
    for _ in 0..5 {
        let mut session = Session::open(&gateway, Protocol::Imap)?;
        session.identify(&stranger)?;
        let reply = session.login(&ada.user, &ada.password)?;
        ensure!(reply.starts_with("a NO"), "a locked mailbox opened: {reply}");
    }
    if let Some(pending) = gateway.devices(ada)?.iter().find(|device| device.standing == "pending") {
        let output = gateway.postern_raw(&["devices", "approve", &ada.user, &pending.alias])?;
        ensure!(!output.status.success(), "an approval was acknowledged that nobody can have kept");
    }
    // The owner's device: in, or a temporary error; never "wrong password".
    let mut session = Session::open(&gateway, Protocol::Imap)?;
    session.identify(&token)?;
    let reply = session.login(&ada.user, &ada.password)?;
    ensure!(reply.starts_with("a OK") || reply.starts_with(Protocol::Imap.unavailable()), "{reply}");
    let said = |text: &str| {
        text.lines().any(|line| line.contains("disk") || line.contains("space") || line.contains("full"))
    };
    while !said(&log.text()) {
        ensure!(start.elapsed() < Duration::from_secs(10), "no word of the disk in the log:\n{}", log.text());
        sleep(Duration::from_millis(100));
    }
    ensure!(gateway.process()?.is_running());

    drop(file);
    fs::remove_file(&filler)?;
    let start = Instant::now();
    loop {
        let mut session = Session::open(&gateway, Protocol::Imap)?;
        session.identify(&token)?;
        if Protocol::Imap.is_success(&session.login(&ada.user, &ada.password)?) {
            break;
        }
        ensure!(start.elapsed() < Duration::from_secs(30), "there is room again, and the owner stays out");
        sleep(Duration::from_millis(500));
    }
    let mut session = Session::open(&gateway, Protocol::Imap)?;
    session.identify(&stranger)?;
    ensure!(session.login(&ada.user, &ada.password)? == Protocol::Imap.failure(), "the lock was lost");
    Ok(())
}

//! Promise: what a box knows of devices can be had from its data folder alone, when it serves nobody any more.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hil_tests::backends::Backends;
use hil_tests::gateway::Gateway;
use hil_tests::random;

/// How long it may take with a few devices: nothing is probed, nobody is waited for.
const QUICK: Duration = Duration::from_millis(100);

#[test]
fn the_database_is_exported_without_serving() -> Result<()> {
    let backends = Backends::start()?;
    let mut gateway = Gateway::under_test(&backends, "")?;
    gateway.resume()?;
    for _ in 0..3 {
        gateway.enrol(backends.ada(), &random::uuid())?;
    }
    let served = gateway.postern_raw(&["export"])?;
    ensure!(served.status.success() && served.stdout.starts_with(b"{\"postern\":"));

    // Two at once would each mend what the other one writes.
    let second = export(&gateway, &[])?;
    ensure!(second.status.code() == Some(1) && second.stdout.is_empty(), "it opened a database in use");
    ensure!(said(&second).contains("another process has it open"), "{}", said(&second));
    ensure!(gateway.devices(backends.ada())?.len() == 3, "the gateway that serves lost devices by that");

    gateway.stop(Duration::from_secs(10))?;
    let exported = export(&gateway, &[])?;
    ensure!(exported.status.success(), "{}", said(&exported));
    ensure!(exported.stdout == served.stdout, "it differs from what the box itself said");
    // The best of several: the machine may be busy.
    let took = (0..5).map(|_| timed(&gateway)).collect::<Result<Vec<_>>>()?.into_iter().min();
    ensure!(took.is_some_and(|took| took < QUICK), "it took {took:?}");

    let data = gateway.data();
    let wrong = export(&gateway, &["--data", "/nowhere"])?;
    ensure!(wrong.status.code() == Some(1) && said(&wrong).contains("no device database in /nowhere"));
    ensure!(!Path::new("/nowhere").exists(), "it made a database of its own");
    fs::rename(data.join("keys"), data.join("keys.away"))?;
    let keyless = export(&gateway, &[])?;
    ensure!(keyless.status.code() == Some(1) && said(&keyless).contains("key file: missing"));
    fs::rename(data.join("keys.away"), data.join("keys"))?;
    gateway.resume()?;
    ensure!(gateway.devices(backends.ada())?.len() == 3);
    Ok(())
}

fn export(gateway: &Gateway, more: &[&str]) -> Result<Output> {
    let program = &gateway.programs.gateway;
    Ok(Command::new(program).arg("--settings").arg(&gateway.settings).args(more).arg("--export").output()?)
}

fn timed(gateway: &Gateway) -> Result<Duration> {
    let start = Instant::now();
    ensure!(export(gateway, &[])?.status.success());
    Ok(start.elapsed())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

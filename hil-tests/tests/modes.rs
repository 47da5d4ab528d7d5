//! Promise: nobody is cut off by adopting it: observe, simulate, learn, lock, and back again.

use std::process::Output;

use anyhow::{Context, Result, ensure};
use hil_tests::backends::Backends;
use hil_tests::gateway::Gateway;
use hil_tests::random;
use hil_tests::session::{Protocol, Session};

fn words(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn login(gateway: &Gateway, backends: &Backends, token: &str) -> Result<bool> {
    gateway.keep_secret(token);
    let ada = backends.ada();
    let mut session = Session::open(gateway, Protocol::Imap)?;
    session.identify(token)?;
    Ok(Protocol::Imap.is_success(&session.login(&ada.user, &ada.password)?))
}

#[test]
fn observe_simulate_lock_and_back() -> Result<()> {
    let backends = Backends::start()?;
    let gateway = Gateway::start(&backends)?;
    let ada = backends.ada();
    let (known, unknown) = (random::uuid(), random::uuid());
    let alias = gateway.enrol(ada, &known)?;
    ensure!(login(&gateway, &backends, &unknown)?, "observing refuses nobody");
    let other = gateway.wait_for_device(ada, "pending")?;

    let simulation = gateway.postern(&["simulate", &ada.user])?.to_string();
    ensure!(simulation.contains(&other), "a lock would have refused {other}: {simulation}");
    let simulation = words(&gateway.postern_raw(&["simulate"])?);
    ensure!(simulation.contains(&ada.user) || simulation.contains(&other), "{simulation}");

    gateway.lock(ada)?;
    ensure!(login(&gateway, &backends, &known)? && !login(&gateway, &backends, &unknown)?);
    let shown = gateway.postern(&["accounts", "show", &ada.user])?.to_string();
    ensure!(shown.contains("lock"), "{shown}");
    gateway.postern(&["accounts", "observe", &ada.user])?;
    ensure!(login(&gateway, &backends, &unknown)?);

    gateway.postern(&["devices", "rename", &ada.user, &alias, "kitchen tablet"])?;
    let device = gateway.devices(ada)?.into_iter().find(|device| device.alias == alias).context("gone")?;
    ensure!(device.name == "kitchen tablet");
    let shown = gateway.postern(&["devices", "show", &ada.user, &alias])?.to_string();
    ensure!(shown.contains("kitchen tablet") && !shown.contains(&known), "{shown}");
    Ok(())
}

#[test]
fn learning_approves_what_logs_in() -> Result<()> {
    let backends = Backends::start()?;
    let gateway = Gateway::with(&backends, "[policy]\nmode = \"learn\"\nlearn-until = 2099-12-31")?;
    let ada = backends.ada();
    let token = random::uuid();
    ensure!(login(&gateway, &backends, &token)?);
    gateway.wait_for_device(ada, "approved")?;
    gateway.lock(ada)?;
    ensure!(login(&gateway, &backends, &token)? && !login(&gateway, &backends, &random::uuid())?);
    // A stranger with a wrong password taught it nothing.
    ensure!(gateway.devices(ada)?.iter().filter(|device| device.standing == "approved").count() == 1);
    Ok(())
}

/// A learning period that is over is a lock.
#[test]
fn learning_ends() -> Result<()> {
    let backends = Backends::start()?;
    let gateway = Gateway::with(&backends, "[policy]\nmode = \"learn\"\nlearn-until = 2020-01-01")?;
    ensure!(!login(&gateway, &backends, &random::uuid())?);
    Ok(())
}

/// Everything that was decided goes into one readable file, and comes back from it on another box.
#[test]
fn export_and_import() -> Result<()> {
    let backends = Backends::start()?;
    let gateway = Gateway::start(&backends)?;
    let ada = backends.ada();
    let alias = gateway.enrol(ada, &random::uuid())?;
    gateway.lock(ada)?;
    let export = gateway.postern_raw(&["export"])?;
    ensure!(export.status.success(), "{}", words(&export));
    let file = gateway.workshop().write("export.txt", 0o600, &export.stdout)?;
    ensure!(String::from_utf8(export.stdout.clone())?.contains(&alias));
    gateway.revoke(ada, &alias)?;
    gateway.postern(&["import", &file.to_string_lossy()])?;
    ensure!(
        gateway.devices(ada)?.iter().any(|device| device.alias == alias && device.standing == "approved")
    );
    Ok(())
}

/// Exit codes and help are for scripts and people.
#[test]
fn the_command_explains_itself() -> Result<()> {
    let backends = Backends::start()?;
    let gateway = Gateway::start(&backends)?;
    let help = gateway.postern_raw(&["--help"])?;
    ensure!(help.status.success());
    for verb in ["devices", "accounts", "simulate", "sessions", "events", "export", "import", "check"] {
        ensure!(words(&help).contains(verb), "{verb} is missing in:\n{}", words(&help));
    }
    for wrong in
        [&["devices", "approve", "ada@example.test", "nosuch"][..], &["frobnicate"], &["devices", "list"]]
    {
        let output = gateway.postern_raw(wrong)?;
        ensure!(!output.status.success() && !output.stderr.is_empty(), "{wrong:?}");
    }
    let ada = backends.ada();
    let mut session = Session::open(&gateway, Protocol::Imap)?;
    session.enter(&ada.user, &ada.password)?;
    let sessions = gateway.postern(&["sessions"])?.to_string();
    ensure!(sessions.contains(&ada.user), "{sessions}");
    Ok(())
}

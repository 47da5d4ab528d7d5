//! Promise: mistakes in the settings are told by file, line, column and mend, by `postern check` and by the gateway itself,
//! which does not start with them.

use std::ffi::OsStr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use hil_tests::backends::Backends;
use hil_tests::gateway::Gateway;
use hil_tests::programs::{Programs, workspace};

fn check(arguments: &[&OsStr]) -> Result<(bool, String)> {
    let output = Command::new(&Programs::find()?.postern).arg("check").args(arguments).output()?;
    let words =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok((output.status.success(), words))
}

#[test]
fn good_settings_are_good() -> Result<()> {
    let backends = Backends::start()?;
    let gateway = Gateway::prepare(&backends, "", &Programs::find()?)?;
    let (good, words) = check(&[gateway.settings.as_ref()])?;
    ensure!(good, "{words}");
    Ok(())
}

#[test]
fn mistakes_have_a_place() -> Result<()> {
    let backends = Backends::start()?;
    let gateway = Gateway::prepare(&backends, "", &Programs::find()?)?;
    let text = std::fs::read_to_string(&gateway.settings)?;
    let line = text.lines().position(|line| line.starts_with("[policy]")).map_or(0, |at| at + 2);
    let bad = text.replace("[policy]\n", "[policy]\nmodus = \"lock\"\n");
    let path = gateway.workshop().write("bad.toml", 0o600, bad)?;
    let (good, words) = check(&[path.as_ref()])?;
    ensure!(!good && words.contains(&format!("bad.toml:{line}:1")) && words.contains("modus"), "{words}");
    Ok(())
}

#[test]
fn the_gateway_does_not_start_with_mistakes() -> Result<()> {
    let backends = Backends::start()?;
    let gateway = Gateway::prepare(&backends, "[tls]\nmin-version = \"1.1\"", &Programs::find()?)?;
    let mut process = gateway.spawn()?;
    let status = process.wait(Duration::from_secs(10))?;
    ensure!(!status.success());
    let words = gateway.log().text();
    ensure!(words.contains("settings.toml:") && words.contains("1.1"), "{words}");
    Ok(())
}

/// The commented example is without a mistake, on a machine that has its files.
#[test]
fn the_example_is_good() -> Result<()> {
    let (good, words) =
        check(&["--no-files".as_ref(), workspace().join("firmware/settings/example.toml").as_ref()])?;
    ensure!(good, "{words}");
    Ok(())
}

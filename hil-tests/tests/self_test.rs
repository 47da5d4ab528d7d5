//! Promise: before it goes into service the box finds out what the ISP's servers believe of it, and whether they would make
//! it an open relay.

use anyhow::{Result, ensure};
use hil_tests::backends::{Backends, Options};
use hil_tests::gateway::Gateway;

fn self_test(options: &Options) -> Result<(bool, String)> {
    let backends = Backends::with(options)?;
    let gateway = Gateway::start(&backends)?;
    let output = gateway.postern_raw(&["self-test"])?;
    let words =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok((output.status.success(), words))
}

#[test]
fn servers_that_believe_the_box_are_good() -> Result<()> {
    let (good, words) = self_test(&Options::default())?;
    ensure!(good, "{words}");
    Ok(())
}

#[test]
fn servers_that_do_not_believe_it_are_told() -> Result<()> {
    let (good, words) = self_test(&Options { trusted: false, ..Options::default() })?;
    ensure!(!good && words.contains("smtpd_authorized_xclient_hosts"), "{words}");
    Ok(())
}

#[test]
fn the_open_relay_trap_is_told() -> Result<()> {
    let (good, words) = self_test(&Options { open_relay_trap: true, ..Options::default() })?;
    ensure!(!good && words.to_lowercase().contains("relay") && words.contains("mynetworks"), "{words}");
    Ok(())
}

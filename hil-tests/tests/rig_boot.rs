//! Promise: the box boots by itself to `serving`, and says truly what it booted.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use hil_tests::backends::Backends;
use hil_tests::promise::{Promise, Stand};
use hil_tests::rig::Capability::{Efi, SecureBoot};

fn main() -> ExitCode {
    Promise::new("boot")
        .test("reaches_serving", &[], reaches_serving)
        .test("boots_the_committed_slot", &[Efi], boots_the_committed_slot)
        .test("secure_boot_is_on", &[SecureBoot], secure_boot_is_on)
        .test("serves_again_after_a_power_cut", &[], serves_again_after_a_power_cut)
        .run()
}

fn reaches_serving(stand: &Stand) -> Result<()> {
    let backends = Backends::start()?;
    let machine = stand.boot(&backends)?;
    let ports = machine.up().serving.value("ports").context("no ports")?;
    for port in ["993", "995", "465", "143", "110", "587"] {
        ensure!(ports.split(',').any(|one| one == port), "{port} is not among {ports}");
    }
    let board = machine.console().stage("board").context("no stage `board`")?;
    ensure!(board.says("id", &stand.rig.board), "{board} on a rig with a {}", stand.rig.board);
    let stages: Vec<String> = machine.console().stages().into_iter().map(|stage| stage.name).collect();
    let mut order = stages.iter();
    for stage in ["start", "board", "watchdog", "storage", "data", "settings", "service", "serving"] {
        ensure!(order.any(|name| name == stage), "no {stage} in its place among {stages:?}");
    }
    Ok(())
}

fn boots_the_committed_slot(stand: &Stand) -> Result<()> {
    let backends = Backends::start()?;
    let machine = stand.boot(&backends)?;
    let storage = machine.console().stage("storage").context("no stage `storage`")?;
    ensure!(storage.says("slot", "a") && storage.says("boot", "committed"), "{storage}");
    Ok(())
}

fn secure_boot_is_on(stand: &Stand) -> Result<()> {
    let backends = Backends::start()?;
    let machine = stand.boot(&backends)?;
    let start = machine.console().stage("start").context("no stage `start`")?;
    ensure!(start.says("secureboot", "on"), "{start}");
    ensure!(start.says("kind", "release"), "{start}");
    Ok(())
}

fn serves_again_after_a_power_cut(stand: &Stand) -> Result<()> {
    let backends = Backends::start()?;
    let machine = stand.boot(&backends)?;
    let data = machine.console().stage("data").context("no stage `data`")?;
    ensure!(data.says("mode", "created"), "{data}");
    let machine = machine.power_cycle()?;
    let data = machine.console().stage("data").context("no stage `data`")?;
    ensure!(data.says("mode", "ok") || data.says("mode", "repaired"), "{data}");
    Ok(())
}

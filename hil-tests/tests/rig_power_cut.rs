//! Promise: whenever the power is cut while the box writes to its disk, nothing that it acknowledged is lost, its database
//! opens, and the same firmware boots.
//!
//! The box is recorded from its very first start: the partition being made, the settings being copied, the database being
//! made, clients enrolling devices, a reset under way, more clients. Then every instant of that is a power cut.

use std::fmt::Write as _;
use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hil_tests::backends::Backends;
use hil_tests::cuts::gpt;
use hil_tests::cuts::image::Image;
use hil_tests::cuts::judge::Judge;
use hil_tests::cuts::load::Load;
use hil_tests::cuts::log::Log;
use hil_tests::cuts::replay::{Cut, Disk, Plan};
use hil_tests::cuts::slots::{self, Choice};
use hil_tests::cuts::trial::{self, Expected, Promise as Told, Recording};
use hil_tests::machine::{Machine, Up};
use hil_tests::programs::Programs;
use hil_tests::promise::{Promise, Stand};
use hil_tests::rig::Capability::{Ethernet, WriteLog};

fn main() -> ExitCode {
    Promise::new("power_cut")
        .test("nothing_acknowledged_is_lost", &[WriteLog, Ethernet], nothing_acknowledged_is_lost)
        .run()
}

/// Logins of new devices before and after the reset.
const DEVICES: [(&str, usize); 2] = [("Phone", 70), ("Tablet", 50)];
/// Cuts before the first acknowledgement, and as many after it; every prefix of the writes where there are no more.
const PLAN: Plan = Plan { prefixes: 3_000, random: 1_000, seed: 20_261_122 };
/// Cuts that must have been judged.
const LEAST: usize = 1_000;
/// Of so many cuts one is tried on a disk that ignores flushes.
const LYING: usize = 10;
/// A reset is at once.
const RESET: Duration = Duration::from_secs(30);
/// Every login is a new device, and each is kept.
const SETTINGS: &str = "[policy]\nmode = \"learn\"\nlearn-until = 2099-01-01\nmax-devices = 250\n";

fn nothing_acknowledged_is_lost(stand: &Stand) -> Result<()> {
    let backends = Backends::start()?;
    let mut options = stand.options()?;
    options.write_log = true;
    options.settings = SETTINGS.into();
    let mut machine = stand.machine(Some(&backends), &options)?;
    let base = machine.workshop().file("before.img");
    machine.media().read(&base)?;

    let machine = machine.on()?.serving()?;
    let data = machine.console().stage("data").context("no stage `data`")?;
    ensure!(data.says("mode", "created"), "the first start must make the file system: {data}");
    let mut promises = enrol(&machine, &backends, DEVICES[0])?;
    let machine = machine.restarts(RESET, |machine| machine.power().reset())?.serving()?;
    promises.extend(enrol(&machine, &backends, DEVICES[1])?);
    let machine = machine.cut()?;

    let recording = Recording { base, log: machine.write_log()?.to_owned(), promises };
    let expected = Expected {
        judge: Judge::new(&Programs::find()?.gateway, Some(&machine.workshop().file("seed")))?,
        slot: Some(slot(&recording)?),
    };
    let log = Log::open(&recording.log)?;
    let first = recording.promises.iter().map(|promise| promise.after).min().context("nobody logged in")?;
    let cuts = PLAN.cuts(&log, &[first]);
    let honest = trial::run(&recording, &expected, Disk::Honest, &log, &cuts)?;
    let some: Vec<Cut> = cuts.into_iter().step_by(LYING).collect();
    let mut lying = trial::run(&recording, &expected, Disk::Lying, &log, &some)?;
    lying.failures.truncate(3); // of many: they are wanted

    let mut words = String::new();
    writeln!(words, "{}: {honest}\non a disk that ignores flushes: {lying}", stand.rig.name)?;
    println!("{words}");
    fs::write(stand.artifacts()?.join("tally.txt"), &words)?;
    ensure!(honest.is_clean(), "a power cut costs something:\n{words}");
    ensure!(honest.cuts >= LEAST && honest.promised >= LEAST, "too few power cuts:\n{words}");
    ensure!(honest.blank > 0, "no power was cut while the file system was made:\n{words}");
    ensure!(lying.losses > 0, "a disk that ignores flushes was found safe: the judge finds nothing\n{words}");
    Ok(())
}

fn enrol(machine: &Machine<Up>, backends: &Backends, (name, count): (&str, usize)) -> Result<Vec<Told>> {
    let load = Load {
        imaps: machine.listeners()?.imaps,
        trust: &machine.trust()?,
        accounts: &backends.accounts,
        log: machine.write_log()?,
        clients: 3,
    };
    load.run(name, count)
}

/// What boots before anything was written, and so must boot ever after: no update is under way.
fn slot(recording: &Recording) -> Result<Choice> {
    let image = Image::read(&recording.base)?;
    let choice = slots::choice(&image, gpt::partition(&image, "postern-state")?.start);
    ensure!(choice == Choice::Committed('A'), "a new disk would boot {choice:?}");
    Ok(choice)
}

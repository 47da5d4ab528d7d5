//! The demonstration as it ships: the image on a rig.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};

use super::{Options, Shown, serve, watch, welcome_all};
use crate::backends::Backends;
use crate::image::{Build, Image};
use crate::machine::{Machine, Options as BoxOptions, Up};
use crate::programs::Programs;
use crate::promise::Stand;
use crate::rig::Rig;
use crate::{emulator, install};

/// Everything that a serving demonstration holds on to.
struct Running {
    machine: Machine<Up>,
    backends: Backends,
    postern: PathBuf,
}

pub(super) fn run(options: &Options) -> Result<()> {
    let rig = Rig::named(&options.rig)?;
    // The emulator comes from a suite of its own, so root must still be real; afterwards a namespace will do.
    emulator::ensure()?;
    install::ensure_ready(&[install::BACKENDS])?;
    let ended = watch(options.json)?;
    // A signal must end us while the board boots too: then the guards put everything in order.
    let (sender, started) = channel();
    let on = options.clone();
    thread::spawn(move || {
        let _ = sender.send(start(&on, rig)); // nobody waits any more: the guards tidy up
    });
    let Some(mut running) = wait(&started, &ended)? else { return Ok(()) };

    let console = running.machine.workshop().file("console");
    running.machine.console().share(&console)?;
    let settings = running.machine.workshop().file("seed/settings.toml");
    let ca = running.machine.certificate().ca.clone();
    let shown = Shown {
        backends: &running.backends,
        listeners: running.machine.listeners()?,
        ca: &ca,
        cli: &running.postern,
        settings: &settings,
        control: None,
        console: Some(&console),
    };
    let machine = &mut running.machine;
    serve(options, &shown, &ended, || machine.power().check())
}

/// What was started, or nothing if it is time to end before.
fn wait(started: &Receiver<Result<Running>>, ended: &Receiver<()>) -> Result<Option<Running>> {
    loop {
        match started.recv_timeout(Duration::from_millis(100)) {
            Ok(running) => return running.map(Some),
            Err(RecvTimeoutError::Disconnected) => bail!("the start was given up"),
            Err(RecvTimeoutError::Timeout) if ended.try_recv().is_ok() => return Ok(None),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

fn start(options: &Options, rig: Rig) -> Result<Running> {
    let postern = Programs::postern(options.profile())?;
    eprintln!("building the image");
    let image = Image::find(Build::Release)?;
    let backends = Backends::start()?;
    welcome_all(&backends)?;
    eprintln!("booting it on {}: {}", rig.name, rig.about);
    let stand = Stand::of(rig, "run", "demonstration");
    let mut booting = stand.machine(Some(&backends), &BoxOptions::new(image))?.on()?;
    let machine = loop {
        let stage = booting.next_stage()?;
        eprintln!("  {:6.2} s  {stage}", stage.uptime.as_secs_f64());
        if stage.name == "serving" {
            break booting.served(stage);
        }
    };
    Ok(Running { machine, backends, postern })
}

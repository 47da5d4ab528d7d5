//! A promise of the booted image: tests that run on every rig that can show them.
//!
//! Which rigs there are is known at run time only, and what a rig cannot show must count as skipped. So these test files
//! bring their own `main` (`harness = false`), which test runners drive like any other.
//!
//! ```no_run
//! use hil_tests::promise::{Promise, Stand};
//! use hil_tests::rig::Capability;
//!
//! fn main() -> std::process::ExitCode {
//!     Promise::new("boot").test("reaches_serving", &[], reaches_serving).run()
//! }
//!
//! fn reaches_serving(stand: &Stand) -> anyhow::Result<()> {
//!     stand.machine(None, &stand.options()?)?.on()?.serving().map(drop)
//! }
//! ```

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use libtest_mimic::{Arguments, Failed, Trial};

use crate::backends::Backends;
use crate::image::{Build, Image};
use crate::machine::{Machine, Off, Options, Up};
use crate::results::{self, Outcome, Record};
use crate::rig::{Capability, Rig};

/// Rigs to test instead of all emulated ones: names or paths, with commas between them.
pub const RIGS: &str = "POSTERN_RIGS";

/// One test of a promise.
type Work = fn(&Stand) -> Result<()>;

/// A promise and its tests.
#[derive(Debug)]
pub struct Promise {
    name: &'static str,
    tests: Vec<(&'static str, &'static [Capability], Work)>,
}

impl Promise {
    /// A promise, named as its file without `rig_`.
    pub const fn new(name: &'static str) -> Self {
        Self { name, tests: Vec::new() }
    }

    /// Adds a test; it runs on the rigs that provide all of `needs`.
    #[must_use]
    pub fn test(mut self, name: &'static str, needs: &'static [Capability], work: Work) -> Self {
        self.tests.push((name, needs, work));
        self
    }

    /// Does what the test runner asks for.
    pub fn run(self) -> ExitCode {
        let rigs = match selected() {
            Ok(rigs) => rigs,
            Err(error) => {
                eprintln!("{error:#}");
                return ExitCode::FAILURE;
            }
        };
        let mut trials = Vec::new();
        for rig in rigs {
            for &(name, needs, work) in &self.tests {
                let stand = Stand { rig: rig.clone(), promise: self.name, test: name };
                let title = format!("{}::{name}", rig.name);
                if let Some(reason) = rig.misses(needs) {
                    stand.record(Outcome::Skipped(reason.clone()), 0);
                    // Ignored for whoever counts; asked for all the same, it says why it cannot pass.
                    let skip = Trial::test(title, move || Err(Failed::from(format!("skipped: {reason}"))));
                    trials.push(skip.with_ignored_flag(true));
                } else {
                    trials.push(Trial::test(title, move || stand.run(work)));
                }
            }
        }
        let mut arguments = Arguments::from_args();
        arguments.test_threads = Some(1); // an emulated board wants the machine for itself
        libtest_mimic::run(&arguments, trials).exit_code()
    }
}

/// The rigs to test: those named by the environment, else all emulated ones.
pub fn selected() -> Result<Vec<Rig>> {
    match std::env::var(RIGS) {
        Ok(names) => names
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(|name| Rig::named(name).with_context(|| RIGS))
            .collect(),
        Err(_) => Ok(Rig::all()?.into_iter().filter(Rig::is_emulated).collect()),
    }
}

/// Where one test of a promise stands: a rig, and a place for what it leaves behind.
#[derive(Clone, Debug)]
pub struct Stand {
    /// The rig.
    pub rig: Rig,
    promise: &'static str,
    test: &'static str,
}

impl Stand {
    /// A stand outside a promise, for a command.
    pub const fn of(rig: Rig, promise: &'static str, test: &'static str) -> Self {
        Self { rig, promise, test }
    }

    /// What a box needs to boot with the image that ships.
    pub fn options(&self) -> Result<Options> {
        Ok(Options::new(Image::find(Build::Release)?))
    }

    /// A box that is off, provisioned for `backends` if there are any.
    pub fn machine(&self, backends: Option<&Backends>, options: &Options) -> Result<Machine<Off>> {
        Machine::prepare(self, backends, options)
    }

    /// A box that serves in front of `backends`.
    pub fn boot(&self, backends: &Backends) -> Result<Machine<Up>> {
        self.machine(Some(backends), &self.options()?)?.on()?.serving()
    }

    /// The folder for what the test leaves behind, emptied.
    pub fn artifacts(&self) -> Result<PathBuf> {
        results::artifacts(&self.rig.name, self.promise, self.test)
    }

    fn run(&self, work: Work) -> Result<(), Failed> {
        let start = Instant::now();
        let outcome = std::panic::catch_unwind(|| work(self));
        let seconds = start.elapsed().as_secs();
        let failure = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{error:#}")),
            Err(panic) => Some(
                panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                    .unwrap_or_else(|| "it panicked".into()),
            ),
        };
        self.record(failure.clone().map_or(Outcome::Pass, Outcome::Fail), seconds);
        failure.map_or(Ok(()), |words| Err(Failed::from(words)))
    }

    fn record(&self, outcome: Outcome, seconds: u64) {
        let record = Record {
            rig: self.rig.name.clone(),
            promise: self.promise.into(),
            test: self.test.into(),
            outcome,
            seconds,
        };
        if let Err(error) = record.keep() {
            eprintln!("the result cannot be kept: {error:#}");
        }
    }
}

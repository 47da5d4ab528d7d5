//! `cargo box test`: everything there is to check, in the order in which mistakes are cheapest to find. The test
//! runner comes last, so that its own summary closes the output.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::image::{Build, Image};
use crate::programs::{Profile, Programs, cargo, run, workspace};
use crate::{arrows, emulator, install, results};

/// What to check.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Leaves the rigs out.
    pub quick: bool,
}

/// Seconds each fuzz target runs, on top of its corpus.
const FUZZ_SECONDS: u32 = 5;

/// Runs all checks; stops at the first that fails.
pub fn run_all(options: Options) -> Result<()> {
    if !options.quick {
        step("emulator", emulator::ensure)?;
    }
    let packages =
        [install::BACKENDS, install::CLIENTS, install::NETWORK, install::RECORDING, install::FUZZING];
    step("packages", || install::ensure_ready(&packages))?;
    step("format", || run("cargo fmt", cargo().args(["fmt", "--all", "--check"])))?;
    step("arrows, licences, banned crates", || {
        let breaches = arrows::check()?;
        ensure!(breaches.is_empty(), "{}", breaches.join("\n"));
        Ok(())
    })?;
    step("clippy", || {
        let mut clippy = cargo();
        clippy.args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"]);
        run("cargo clippy", &mut clippy)
    })?;
    step("fuzz smoke", fuzz)?;
    step("examples in documentation", || {
        run("cargo test --doc", cargo().args(["test", "--quiet", "--doc", "--workspace"]))
    })?;
    let mut programs = None;
    step("release build", || {
        programs = Some(Programs::build(Profile::Release)?);
        Ok(())
    })?;
    let programs = programs.context("no build")?;
    if options.quick {
        eprintln!("== rigs: left out by --quick");
    } else {
        step("image", || {
            for build in [Build::Release, Build::Bench] {
                eprintln!("   {}", Image::build(build)?.folder.display());
            }
            results::clear()
        })?;
    }
    tests(&programs, options)
}

fn step(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    eprintln!("== {name}");
    let start = Instant::now();
    work().with_context(|| format!("{name}: failed"))?;
    eprintln!("== {name}: good, {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Unit tests, real peers and rigs. With nextest one run holds all, real peers and boards one at a time, the rigs' table
/// last (`.config/nextest.toml`).
fn tests(programs: &Programs, options: Options) -> Result<()> {
    let (variable, folder) = programs.folder()?;
    let has_nextest = cargo()
        .args(["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if has_nextest {
        let mut all = cargo();
        all.args(["nextest", "run", "--workspace", "--no-fail-fast"]).env(variable, folder);
        if options.quick {
            all.args(["-E", "not (package(hil-tests) and binary(/^rig_/))"]);
        }
        return run("cargo nextest", &mut all);
    }
    let mut units = cargo();
    units.args(["test", "--workspace", "--exclude", "hil-tests", "--lib", "--bins", "--tests"]);
    run("cargo test", &mut units)?;
    let mut failed = Vec::new();
    for name in test_files()?.iter().filter(|name| !options.quick || !name.starts_with("rig_")) {
        let mut peers = cargo();
        peers.args(["test", "--package", "hil-tests", "--test", name, "--", "--test-threads=1"]);
        if name == TABLE {
            peers.arg("--nocapture");
        }
        if run("cargo test", peers.env(variable, folder)).is_err() {
            failed.push(name.clone());
        }
    }
    let mut own = cargo();
    own.args(["test", "--package", "hil-tests", "--lib", "--bins"]);
    run("cargo test", &mut own)?;
    ensure!(failed.is_empty(), "these test files failed: {}", failed.join(", "));
    Ok(())
}

/// The test that prints the table of the rigs.
const TABLE: &str = "rig_table";

/// The bench's test files: the table's last, before it the rigs'.
fn test_files() -> Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(workspace().join("hil-tests/tests"))?
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".rs")?.to_owned()))
        .collect();
    names.sort_by_key(|name| (name == TABLE, name.starts_with("rig_"), name.clone()));
    Ok(names)
}

/// Builds the fuzz targets with libFuzzer's instrumentation in a target folder of their own, lets each read its corpus
/// and then run for a few seconds.
fn fuzz() -> Result<()> {
    let folder = workspace().join("firmware/fuzz");
    let mut build = cargo();
    build.args(["build", "--package", "fuzz", "--bins", "--message-format", "json-render-diagnostics"]);
    build.args(["--config", "profile.dev.opt-level=1"]);
    // Naming the target keeps the instrumentation out of build scripts.
    build.args(["--target", &host()?]).env("CARGO_TARGET_DIR", fuzz_target()?).env(
        "RUSTFLAGS",
        "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
         -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table",
    );
    let output =
        build.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cargo does not run")?;
    ensure!(output.status.success(), "the fuzz targets do not build");
    let messages = String::from_utf8_lossy(&output.stdout);
    let targets: Vec<PathBuf> = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["kind"][0] == "bin")
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .collect();
    ensure!(!targets.is_empty(), "there is no fuzz target");
    for target in targets {
        let name = target.file_name().unwrap_or_default();
        let corpus = folder.join("corpus").join(name);
        let found = tempfile::tempdir()?; // new inputs go here, the kept corpus stays as it is
        let artifacts = folder.join("artifacts").join(name);
        fs::create_dir_all(&artifacts)?;
        let mut fuzzer = Command::new(&target);
        fuzzer.arg(format!("-max_total_time={FUZZ_SECONDS}")).arg("-print_final_stats=0").arg("-verbosity=0");
        fuzzer.arg(format!("-artifact_prefix={}/", artifacts.display())).arg(found.path());
        if corpus.is_dir() {
            fuzzer.arg(&corpus);
        }
        let output = fuzzer.stdin(Stdio::null()).output().context("a fuzz target does not run")?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            bail!("{} found something, see {}:\n{text}", name.display(), artifacts.display());
        }
        eprintln!("   {}: {FUZZ_SECONDS} s without a finding", name.display());
    }
    Ok(())
}

/// The triple of this machine, as rustc names it.
fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output().context("rustc does not run")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?.to_owned())
}

fn fuzz_target() -> Result<PathBuf> {
    let output = cargo().args(["metadata", "--format-version", "1", "--no-deps", "--offline"]).output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let target = metadata["target_directory"].as_str().context("no target directory")?;
    Ok(PathBuf::from(target).join("fuzz"))
}

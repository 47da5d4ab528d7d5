//! Runs other programs, and says which one failed and what it said.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// How much of a failed program's talk is shown: the end of it, where the reason stands.
const SHOWN: usize = 4000;

/// Runs `command` to its end and gives what it wrote to its standard output.
///
/// # Errors
/// If it does not start, or fails: with its name and the end of what it said.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>> {
    let Output { status, stdout, stderr } = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{} does not run", name(command.get_program())))?;
    if !status.success() {
        let said = [stdout, stderr].concat();
        let said = String::from_utf8_lossy(said.get(said.len().saturating_sub(SHOWN)..).unwrap_or(&said));
        bail!("{} failed ({status}):\n{}", describe(command), said.trim_end());
    }
    Ok(stdout)
}

/// As [`output`], as text without the last line end.
pub(crate) fn text(command: &mut Command) -> Result<String> {
    let text = String::from_utf8(output(command)?)
        .with_context(|| format!("{} did not write text", name(command.get_program())))?;
    Ok(text.trim_end().to_owned())
}

/// As [`output`], with what it says on standard error passed on while it runs.
pub(crate) fn piped(command: &mut Command) -> Result<Vec<u8>> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("{} does not run", name(command.get_program())))?;
    if !output.status.success() {
        bail!("{} failed: {}", describe(command), output.status);
    }
    Ok(output.stdout)
}

/// Runs `command` with its talk on our standard error, for what takes minutes.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("{} does not run", name(command.get_program())))?;
    if !status.success() {
        bail!("{} failed: {status}", describe(command));
    }
    Ok(())
}

/// Finds a program in `PATH` and in the folders of daemons, or checks an absolute path.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    if program.starts_with('/') {
        return Path::new(program).exists().then(|| program.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

fn name(program: &OsStr) -> String {
    program.to_string_lossy().into_owned()
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

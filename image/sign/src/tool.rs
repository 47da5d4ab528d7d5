//! Runs the programs that do the cryptography, or says how to get them.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A program and the Debian package it comes in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool {
    name: &'static str,
    package: &'static str,
}

/// Makes keys and certificates.
pub(crate) const OPENSSL: Tool = Tool { name: "openssl", package: "openssl" };
/// Signs EFI programs.
pub(crate) const SBSIGN: Tool = Tool { name: "sbsign", package: "sbsigntool" };
/// Verifies them.
pub(crate) const SBVERIFY: Tool = Tool { name: "sbverify", package: "sbsigntool" };

impl Tool {
    /// The program, ready for its arguments.
    pub(crate) fn command(self) -> Result<Command> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found: Option<PathBuf> =
            std::env::split_paths(&path).map(|folder| folder.join(self.name)).find(|file| file.is_file());
        let Some(program) = found else {
            bail!(
                "`{}` is missing. As root, run:\n  apt-get update && apt-get install --yes --no-install-recommends {}",
                self.name,
                self.package
            );
        };
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        Ok(command)
    }

    /// Runs it; what it says comes out only if it fails.
    pub(crate) fn run(self, command: &mut Command) -> Result<()> {
        let output = command.output().with_context(|| format!("{} does not run", self.name))?;
        if !output.status.success() {
            let [stdout, stderr] =
                [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
            bail!("{} failed ({}): {}{}", self.name, output.status, stdout, stderr.trim_end());
        }
        Ok(())
    }
}

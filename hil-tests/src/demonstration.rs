//! `cargo box run --json` as a program drives it.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::programs::Programs;

/// A running demonstration, ended when dropped.
#[derive(Debug)]
pub struct Demonstration {
    child: Child,
    /// The object that it printed.
    pub said: Value,
}

impl Demonstration {
    /// Starts `program` with executables that are there already, and waits until it prints its object.
    pub fn start(program: &Path, arguments: &[&str], programs: &Programs) -> Result<Self> {
        let (variable, folder) = programs.folder()?;
        let mut child = Command::new(program)
            .args(arguments)
            .env(variable, folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().context("no stdout")?).read_line(&mut line)?;
        let said = serde_json::from_str(&line).with_context(|| format!("not one JSON object: {line:?}"));
        match said {
            Ok(said) => Ok(Self { child, said }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }

    /// A text of the object.
    pub fn text(&self, key: &str) -> Result<&str> {
        self.said[key].as_str().with_context(|| format!("{key} is missing in {}", self.said))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The temporary folder that it works in.
    pub fn folder(&self) -> Result<&Path> {
        Path::new(self.text("backend_log")?).parent().context("no folder")
    }

    /// Closes its stdin, which is the end of all, and gives what it printed after the object.
    pub fn close_stdin(&mut self) -> Result<String> {
        drop(self.child.stdin.take());
        let mut more = String::new();
        self.child.stdout.take().context("no stdout")?.read_to_string(&mut more)?;
        Ok(more)
    }

    /// Waits until the process, its folder and everything that worked there are gone.
    pub fn ends_cleanly(mut self) -> Result<()> {
        let folder = self.folder()?.to_owned();
        let start = Instant::now();
        self.child.wait()?;
        while folder.exists() || works_in(&folder)? {
            if start.elapsed() > Duration::from_secs(10) {
                bail!("{} or its processes are still there", folder.display());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Demonstration {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a process names the folder on its command line.
pub fn works_in(folder: &Path) -> Result<bool> {
    let name = folder.to_string_lossy();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(&*name) {
            return Ok(true);
        }
    }
    Ok(false)
}

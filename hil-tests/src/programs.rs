//! Finds Postern's executables, or builds them once.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};

/// The executables under test.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The front end.
    pub gateway: PathBuf,
    /// The operator's command.
    pub postern: PathBuf,
}

/// The folder that holds both, if they are built already.
const FOLDER: &str = "POSTERN_BIN";

impl Programs {
    /// Those in the folder `POSTERN_BIN`, otherwise a release build of this workspace, made once per process.
    pub fn find() -> Result<Self> {
        static FOUND: OnceLock<Result<Programs, String>> = OnceLock::new();
        let found =
            FOUND.get_or_init(|| Self::find_or_build(Profile::Release).map_err(|error| format!("{error:#}")));
        found.clone().map_err(anyhow::Error::msg)
    }

    /// Those in the folder `POSTERN_BIN`, otherwise a build of this workspace.
    pub fn find_or_build(profile: Profile) -> Result<Self> {
        std::env::var_os(FOLDER)
            .map_or_else(|| Self::build(profile), |folder| Self::inside(Path::new(&folder)))
    }

    /// Those in a folder.
    pub fn inside(folder: &Path) -> Result<Self> {
        let programs = Self { gateway: folder.join("gateway"), postern: folder.join("postern") };
        for path in [&programs.gateway, &programs.postern] {
            ensure!(
                path.is_file(),
                "{} is not there ({FOLDER} must name the folder of both)",
                path.display()
            );
        }
        Ok(programs)
    }

    /// Builds both; cargo's talk goes to stderr.
    pub fn build(profile: Profile) -> Result<Self> {
        let built = executables(&["gateway", "cli"], &["gateway", "postern"], profile)?;
        match <[PathBuf; 2]>::try_from(built) {
            Ok([gateway, postern]) => Ok(Self { gateway, postern }),
            Err(_) => bail!("the build made too little"),
        }
    }

    /// The operator's command alone: the image brings its own gateway.
    pub fn postern(profile: Profile) -> Result<PathBuf> {
        if let Some(folder) = std::env::var_os(FOLDER) {
            return Ok(Self::inside(Path::new(&folder))?.postern);
        }
        executables(&["cli"], &["postern"], profile)?.pop().context("the build made too little")
    }

    /// The folder they are in, for `POSTERN_BIN` of the tests.
    pub fn folder(&self) -> Result<(&'static str, &Path)> {
        Ok((FOLDER, self.gateway.parent().context("no folder")?))
    }
}

/// Builds packages of this workspace for this machine and gives the named executables, in that order.
pub fn executables(packages: &[&str], names: &[&str], profile: Profile) -> Result<Vec<PathBuf>> {
    let mut cargo = cargo();
    cargo.args(["build", "--message-format", "json-render-diagnostics"]);
    for package in packages {
        cargo.args(["--package", package]);
    }
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    let output =
        cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cargo does not run")?;
    ensure!(output.status.success(), "the build failed");
    let messages = String::from_utf8_lossy(&output.stdout);
    names
        .iter()
        .map(|name| {
            messages
                .lines()
                .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
                .filter(|message| message["target"]["name"] == *name)
                .find_map(|message| message["executable"].as_str().map(PathBuf::from))
                .with_context(|| format!("cargo built no executable `{name}`"))
        })
        .collect()
}

/// How to build.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Profile {
    /// Quick to build, slow to run.
    Dev,
    /// What ships.
    Release,
}

/// The cargo that runs this, at work on this workspace.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

/// The workspace's folder.
pub fn workspace() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Runs a command to its end, with its output where ours goes.
///
/// # Errors
/// If it ends with another status than success; `what` says what was tried.
pub fn run(what: &str, command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{what} does not run"))?;
    if !status.success() {
        bail!("{what} failed: {status}");
    }
    Ok(())
}

//! What a build calls itself: `release.toml`, beside the firmware file and inside it as `/etc/postern/release.toml`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::command;

/// The file's name.
pub(crate) const FILE: &str = "release.toml";

/// Whether a build may be sold.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// For boxes.
    Release,
    /// For tests that must break things: PID 1 also takes commands from the console.
    Bench,
}

/// One build.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Release {
    /// The version of the workspace.
    pub version: String,
    /// The commit it was built from, `-changed` behind it if files differed from that; `unknown` without git.
    pub build: String,
    /// Release or bench.
    pub kind: Kind,
    /// When that commit was made, in seconds since 1970: no box's clock may stand before it.
    pub time: u64,
}

impl Release {
    /// What the sources in `root` would be built as. The time is the commit's, or `SOURCE_DATE_EPOCH` if that is set.
    pub(crate) fn of(root: &Path, version: &str, kind: Kind) -> Result<Self> {
        let git = |arguments: &[&str]| command::text(Command::new("git").arg("-C").arg(root).args(arguments));
        let build = match git(&["rev-parse", "--short=12", "HEAD"]) {
            Ok(commit) if git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty() => commit,
            Ok(commit) => format!("{commit}-changed"),
            Err(_) => "unknown".to_owned(),
        };
        let time = match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(time) => time,
            Err(_) => git(&["log", "-1", "--format=%ct"]).context(
                "without git, SOURCE_DATE_EPOCH must say when the sources were made (seconds since 1970)",
            )?,
        };
        let time =
            time.parse().with_context(|| format!("SOURCE_DATE_EPOCH={time} is no number of seconds"))?;
        Ok(Self { version: version.to_owned(), build, kind, time })
    }

    /// Reads the file beside a firmware file.
    pub(crate) fn beside(firmware: &Path) -> Result<Self> {
        let path = firmware.with_file_name(FILE);
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!("cannot read {}: keep it beside the firmware file it was made with", path.display())
        })?;
        toml::from_str(&text).with_context(|| format!("{} is no release", path.display()))
    }

    /// As the file's text.
    pub(crate) fn to_toml(&self) -> Result<String> {
        Ok(toml::to_string(self)?)
    }
}

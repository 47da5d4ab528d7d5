//! Postern's gateway, one worker, as an owner would run it: accounts in observe mode, its device database on disk.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::{Proxy, Site, Started, Tools};
use crate::bench::account::DOMAIN;
use crate::bench::client::Target;

/// The executable `gateway`.
pub struct Postern;

/// What it prints when it serves.
#[derive(Debug, Deserialize)]
struct Announcement {
    ready: bool,
    imaps: Option<SocketAddr>,
    submissions: Option<SocketAddr>,
}

impl Proxy for Postern {
    fn name(&self) -> &'static str {
        super::POSTERN
    }

    fn version(&self, tools: &Tools) -> Result<String> {
        let gateway = tools.gateway.as_ref().context("no gateway was built")?;
        Ok(format!("{}, one worker, its database in {}", gateway.display(), std::env::temp_dir().display()))
    }

    fn start(&self, site: &Site<'_>) -> Result<Started> {
        let (imap, submission) = super::two_ports()?;
        let settings = site.write("postern.toml", &settings(site, imap, submission))?;
        std::fs::create_dir_all(site.folder.join("data"))?;
        let mut command = Command::new(site.tools.gateway.as_ref().context("no gateway was built")?);
        command.arg("--settings").arg(settings).args(["--workers", "1"]);
        let (process, line) = site.spawn_ours("gateway", &mut command)?;
        let announced: Announcement =
            serde_json::from_str(&line).with_context(|| format!("the gateway said {line:?}"))?;
        anyhow::ensure!(announced.ready, "the gateway is not ready: {line}");
        let target = Target {
            imap: announced.imaps.unwrap_or(imap),
            submission: announced.submissions.unwrap_or(submission),
            clientid: true,
        };
        Ok(Started { process, target })
    }
}

/// Defaults wherever there are any. Nobody is mailed and no name is looked up, since nothing here leaves the machine;
/// the failure deadline stays as owners have it.
fn settings(site: &Site<'_>, imap: SocketAddr, submission: SocketAddr) -> String {
    let folder = site.folder.display();
    format!(
        "[box]
hostname = \"{host}\"
data = \"{folder}/data\"
[listen]
imaps = [\"{imap}\"]
pop3s = []
submissions = [\"{submission}\"]
[tls]
certificates = [{{ chain = \"{chain}\", key = \"{key}\" }}]
[backends.main.imap]
address = \"127.0.0.1:{imap_backend}\"
tls = \"none\"
[backends.main.submission]
address = \"127.0.0.1:{submission_backend}\"
tls = \"none\"
[domains.\"{DOMAIN}\"]
[policy]
mode = \"observe\"
[dns]
resolver = \"off\"
[log]
level = \"info\"
[control]
socket = \"{folder}/control\"
",
        host = format_args!("mail.{DOMAIN}"),
        chain = site.identity.chain.display(),
        key = site.identity.key.display(),
        imap_backend = site.backend.imap,
        submission_backend = site.backend.submission,
    )
}

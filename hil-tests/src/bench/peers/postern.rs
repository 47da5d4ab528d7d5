//! Postern's gateway, one worker, as an owner would run it: accounts in observe mode, its device database on disk.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::{Proxy, Site, Started, Tools};
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
        super::version_of(
            gateway.to_str().context("a strange path")?,
            "--version",
            "this workspace's gateway",
        )
    }

    fn start(&self, site: &Site<'_>) -> Result<Started> {
        let settings = site.write("postern.toml", &settings(site))?;
        let mut command = Command::new(site.tools.gateway.as_ref().context("no gateway was built")?);
        command.arg("--settings").arg(settings).env("TOKIO_WORKER_THREADS", "1");
        let (process, line) = site.spawn_ours("gateway", &mut command)?;
        let announced: Announcement =
            serde_json::from_str(&line).with_context(|| format!("the gateway said {line:?}"))?;
        anyhow::ensure!(announced.ready, "the gateway is not ready: {line}");
        let target = Target {
            imap: announced.imaps.context("no IMAP listener")?,
            submission: announced.submissions.context("no submission listener")?,
            clientid: true,
        };
        Ok(Started { process, target })
    }
}

fn settings(_: &Site<'_>) -> String {
    String::new()
}

//! The bare TLS pump of this very program.

use std::process::Command;

use anyhow::{Context, Result};

use super::{Proxy, Site, Started, Tools};
use crate::bench::client::Target;
use crate::bench::pump::Ready;

/// See [`crate::bench::pump`].
pub struct Pump;

impl Proxy for Pump {
    fn name(&self) -> &'static str {
        super::PUMP
    }

    fn version(&self, _: &Tools) -> Result<String> {
        Ok("rustls 0.23 with ring, tokio's copy_bidirectional with 16 KiB".into())
    }

    fn start(&self, site: &Site<'_>) -> Result<Started> {
        let mut command = Command::new(&site.tools.myself);
        command
            .arg("bench-pump")
            .arg("--chain")
            .arg(&site.identity.chain)
            .arg("--key")
            .arg(&site.identity.key)
            .args(["--imap", &format!("127.0.0.1:{}", site.backend.imap)])
            .args(["--submission", &format!("127.0.0.1:{}", site.backend.submission)]);
        let (process, line) = site.spawn_ours("pump", &mut command)?;
        let ready: Ready = serde_json::from_str(&line).with_context(|| format!("the pump said {line:?}"))?;
        let target = Target { imap: ready.imaps, submission: ready.submissions, clientid: false };
        Ok(Started { process, target })
    }
}

//! HAProxy as a blind TLS terminator, one thread.

use std::process::Command;

use anyhow::Result;

use super::{Proxy, Site, Started, Tools};
use crate::bench::client::Target;

/// HAProxy in `mode tcp`.
pub struct Haproxy;

impl Proxy for Haproxy {
    fn name(&self) -> &'static str {
        "haproxy"
    }

    fn version(&self, _: &Tools) -> Result<String> {
        super::version_of("haproxy", "-v", "haproxy")
    }

    fn start(&self, site: &Site<'_>) -> Result<Started> {
        let (imap, submission) = super::two_ports()?;
        let both = site.identity.both.display();
        let (imap_backend, submission_backend) = (site.backend.imap, site.backend.submission);
        let configuration = site.write(
            "haproxy.cfg",
            &format!(
                "global
    nbthread 1
    maxconn 8000
    ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
    mode tcp
    maxconn 8000
    backlog 4096
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen imaps
    bind {imap} ssl crt {both}
    server backend 127.0.0.1:{imap_backend}
listen submissions
    bind {submission} ssl crt {both}
    server backend 127.0.0.1:{submission_backend}
"
            ),
        )?;
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(configuration);
        let process = site.spawn("haproxy", &mut command)?;
        Ok(Started { process, target: Target { imap, submission, clientid: false } })
    }
}

//! What a box is provisioned with: a folder with its settings and the files they name.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use toml::Table;

use crate::backends::Backends;
use crate::certificate::Certificate;
use crate::guard::Workshop;
use crate::rig::Net;
use crate::settings::{self, Listeners};

/// Makes the folder; `changes` is TOML laid over the demonstration's settings. The servers stay on this machine's
/// loopback, so the network says how the board reaches them.
pub fn prepare(
    workshop: &Workshop,
    backends: &Backends,
    net: &mut dyn Net,
    certificate: &Certificate,
    changes: &str,
) -> Result<PathBuf> {
    let folder = workshop.folder("seed", 0o700)?;
    let anywhere = |port| SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), port);
    let listeners = Listeners {
        imaps: anywhere(993),
        pop3s: anywhere(995),
        submissions: anywhere(465),
        imap: anywhere(143),
        pop3: anywhere(110),
        submission: anywhere(587),
    };
    let mut document: Table = settings::demonstration(workshop, backends, &listeners, certificate)?;
    let mut reach = |server: SocketAddr| net.offer(server);
    let ways = format!(
        r#"
[box]
data = "/data/gateway"

[tls]
certificates = [{{ chain = "front.pem", key = "front.key" }}]

[backends.isp]
imap = {{ address = "{}" }}
pop3 = {{ address = "{}" }}
submission = {{ address = "{}" }}

[alerts]
via = "{}"

[control]
socket = "/run/gateway/control"
"#,
        reach(backends.dovecot.imap)?,
        reach(backends.dovecot.pop3)?,
        reach(backends.postfix.submission)?,
        reach(backends.postfix.alerts)?,
    );
    settings::change(&mut document, &ways)?;
    settings::change(&mut document, changes)?;
    for (from, name) in [(&certificate.chain, "front.pem"), (&certificate.key, "front.key")] {
        fs::copy(from, folder.join(name)).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    fs::write(folder.join("settings.toml"), toml::to_string(&document)?)?;
    Ok(folder)
}

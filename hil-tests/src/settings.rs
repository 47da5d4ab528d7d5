//! The settings document of a bench: what the demonstration needs, changed by what a test wants.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use toml::{Table, Value};

use crate::backends::{Backends, DOMAIN};
use crate::certificate::Certificate;
use crate::guard::Workshop;
use crate::port::{free, loopback};

/// The six mail listeners, all on.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Listeners {
    /// IMAP, TLS from the first octet.
    pub imaps: SocketAddr,
    /// POP3, TLS from the first octet.
    pub pop3s: SocketAddr,
    /// Submission, TLS from the first octet.
    pub submissions: SocketAddr,
    /// IMAP with STARTTLS.
    pub imap: SocketAddr,
    /// POP3 with STLS.
    pub pop3: SocketAddr,
    /// Submission with STARTTLS.
    pub submission: SocketAddr,
}

impl Listeners {
    /// Six free ports of 127.0.0.1.
    pub fn free() -> Result<Self> {
        let port = || free().map(loopback);
        Ok(Self {
            imaps: port()?,
            pop3s: port()?,
            submissions: port()?,
            imap: port()?,
            pop3: port()?,
            submission: port()?,
        })
    }
}

/// The demonstration's document: all listeners, the real backends, alerts by mail, everybody observed.
pub fn demonstration(
    workshop: &Workshop,
    backends: &Backends,
    listeners: &Listeners,
    certificate: &Certificate,
) -> Result<Table> {
    let Listeners { imaps, pop3s, submissions, imap, pop3, submission } = listeners;
    let folder = workshop.path().display();
    let (chain, key) = (certificate.chain.display(), certificate.key.display());
    let (dovecot, postfix) = (&backends.dovecot, &backends.postfix);
    let text = format!(
        r#"
schema = 1

[box]
hostname = "mail.{DOMAIN}"
data = "{folder}/data"

[listen]
imaps = ["{imaps}"]
pop3s = ["{pop3s}"]
submissions = ["{submissions}"]
imap = ["{imap}"]
pop3 = ["{pop3}"]
submission = ["{submission}"]

[tls]
certificates = [{{ chain = "{chain}", key = "{key}" }}]

[backends.isp]
imap = {{ address = "{imap_backend}", tls = "none", identity = "protocol", health-interval = "1s" }}
pop3 = {{ address = "{pop3_backend}", tls = "none", identity = "protocol", health-interval = "1s" }}
submission = {{ address = "{submission_backend}", tls = "none", identity = "protocol", health-interval = "1s" }}

[domains."{DOMAIN}"]

[policy]
mode = "observe"

[alerts]
from = "postern@{DOMAIN}"
via = "{alerts}"
portal = "https://mail.{DOMAIN}/devices"

[dns]
resolver = "off"

[control]
socket = "{folder}/control"
"#,
        imap_backend = dovecot.imap,
        pop3_backend = dovecot.pop3,
        submission_backend = postfix.submission,
        alerts = postfix.alerts,
    );
    toml::from_str(&text).context("the demonstration's settings are not TOML")
}

/// Lays `changes` over a document: tables are merged, all else is replaced.
pub fn change(document: &mut Table, changes: &str) -> Result<()> {
    merge(document, toml::from_str(changes).context("the test's settings are not TOML")?);
    Ok(())
}

fn merge(document: &mut Table, changes: Table) {
    for (key, value) in changes {
        match (document.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (_, value) => {
                document.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_merged_and_values_replaced() {
        let mut document: Table = toml::from_str("[a]\nx = 1\ny = [1, 2]\n[b]\nz = 3").unwrap();
        change(&mut document, "[a]\ny = [4]\n[c]\nw = 5").unwrap();
        assert_eq!(document, toml::from_str("[a]\nx = 1\ny = [4]\n[b]\nz = 3\n[c]\nw = 5").unwrap());
    }
}

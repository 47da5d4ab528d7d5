//! Dovecot's login proxy in its documented high-performance mode: one long-lived login process per protocol.

use std::process::Command;

use anyhow::{Context, Result};
use nix::unistd::{Group, Uid, User};

use super::{Proxy, Site, Started, Tools};
use crate::bench::client::Target;

/// `imap-login` and `submission-login` with `proxy=y`.
pub struct Dovecot;

impl Proxy for Dovecot {
    fn name(&self) -> &'static str {
        "dovecot"
    }

    fn version(&self, _: &Tools) -> Result<String> {
        for (login, package) in [("imap-login", "dovecot-imapd"), ("submission-login", "dovecot-submissiond")]
        {
            let path = format!("/usr/lib/dovecot/{login}");
            anyhow::ensure!(
                std::path::Path::new(&path).exists(),
                "{login} is not installed (package {package})"
            );
        }
        super::version_of("dovecot", "--version", "dovecot-core")
    }

    fn start(&self, site: &Site<'_>) -> Result<Started> {
        let (imap, submission) = super::two_ports()?;
        let folder = site.folder.display();
        let (chain, key) = (site.identity.chain.display(), site.identity.key.display());
        // As root, the package's own users; otherwise everything runs as whoever runs the bench.
        let (internal, group, login) = if Uid::current().is_root() {
            ("dovecot".to_owned(), "dovecot".to_owned(), "dovenull".to_owned())
        } else {
            let me = User::from_uid(Uid::current())?.context("this user has no name")?;
            let group = Group::from_gid(me.gid)?.context("this user's group has no name")?;
            (me.name.clone(), group.name, me.name)
        };
        let login_service = |name: &str, listener: &str, at: std::net::SocketAddr| {
            format!(
                "service {name}-login {{
  chroot =
  service_count = 0
  process_min_avail = 1
  process_limit = 1
  client_limit = 8000
  vsz_limit = 2G
  inet_listener {name} {{
    port = 0
  }}
  inet_listener {listener} {{
    address = {}
    port = {}
    ssl = yes
  }}
}}
",
                at.ip(),
                at.port()
            )
        };
        // One entry per service instead of per user (`username_format=%s`): any user, any password, on to the backend.
        let route = |service: &str, port: u16| {
            format!("{service}::::::: nopassword=y proxy=y host=127.0.0.1 port={port}\n")
        };
        let routes = site.write(
            "routes",
            &(route("imap", site.backend.imap) + &route("submission", site.backend.submission)),
        )?;
        let configuration = site.write(
            "dovecot.conf",
            &format!(
                "base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/error.log
protocols = imap submission
listen = 127.0.0.1
hostname = bench.test
ssl = required
ssl_cert = <{chain}
ssl_key = <{key}
ssl_min_protocol = TLSv1.2
disable_plaintext_auth = no
auth_mechanisms = plain
auth_failure_delay = 0
verbose_proctitle = no
default_internal_user = {internal}
default_internal_group = {group}
default_login_user = {login}
default_vsz_limit = 1G
{}{}service submission-login {{
  inet_listener submission {{
    port = 0
  }}
}}
service auth {{
  client_limit = 16000
  chroot =
}}
service anvil {{
  client_limit = 16000
  chroot =
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  chroot =
}}
passdb {{
  driver = passwd-file
  args = username_format=%s {}
}}
",
                login_service("imap", "imaps", imap),
                login_service("submission", "submissions", submission),
                routes.display(),
            ),
        )?;
        let mut command = Command::new("dovecot");
        command.arg("-F").arg("-c").arg(configuration);
        let process = site.spawn("dovecot", &mut command)?;
        Ok(Started { process, target: Target { imap, submission, clientid: false } })
    }
}

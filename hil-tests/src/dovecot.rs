//! A real Dovecot on loopback ports, in a folder of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use nix::unistd::geteuid;

use crate::backends::{Account, MAIL_ID, Options, wait_for_greeting};
use crate::certificate::Certificate;
use crate::guard::{Process, Workshop};
use crate::port::{free, loopback};

/// Dovecot serving IMAP and POP3, and authentication for Postfix.
#[derive(Debug)]
pub struct Dovecot {
    /// Where IMAP is served, in clear or with STARTTLS.
    pub imap: SocketAddr,
    /// Where POP3 is served.
    pub pop3: SocketAddr,
    workshop: Workshop,
    process: Option<Process>,
}

impl Dovecot {
    /// Writes the configuration and starts the server.
    pub(crate) fn start(
        workshop: &Workshop,
        accounts: &[Account],
        options: &Options,
        certificate: &Certificate,
    ) -> Result<Self> {
        let (imap, pop3) = (free()?, free()?);
        let users: String = accounts
            .iter()
            .map(|account| format!("{}:{{PLAIN}}{}\n", account.user, account.password))
            .collect();
        let users = workshop.write("users", 0o640, users)?;
        if geteuid().is_root() {
            let owner = nix::unistd::User::from_name("dovecot")?
                .context("no user dovecot: is dovecot-core installed?")?;
            nix::unistd::chown(&users, None, Some(owner.gid))?; // the auth process reads it, mail processes must not
        }
        workshop.write(
            "dovecot.conf",
            0o644,
            configuration(workshop.path(), imap, pop3, options, certificate),
        )?;
        let mut dovecot =
            Self { imap: loopback(imap), pop3: loopback(pop3), workshop: workshop.clone(), process: None };
        dovecot.resume()?;
        Ok(dovecot)
    }

    /// Starts it, or starts it again on the same ports.
    pub fn resume(&mut self) -> Result<()> {
        let output =
            fs::OpenOptions::new().create(true).append(true).open(self.workshop.file("dovecot.out"))?;
        let process = self.workshop.spawn(
            "dovecot",
            Command::new("/usr/sbin/dovecot")
                .arg("-F")
                .arg("-c")
                .arg(self.workshop.file("dovecot.conf"))
                .current_dir("/")
                .stdin(Stdio::null())
                .stdout(output.try_clone()?)
                .stderr(output),
        )?;
        let process = self.process.insert(process);
        wait_for_greeting(self.imap, "* OK", process)?;
        wait_for_greeting(self.pop3, "+OK", process)
    }

    /// Stops it: the backend is away. Sessions end with it.
    pub fn pause(&mut self) {
        self.process = None;
    }
}

fn configuration(
    folder: &Path,
    imap: u16,
    pop3: u16,
    options: &Options,
    certificate: &Certificate,
) -> String {
    let folder = folder.display();
    let tls = if options.starttls {
        format!(
            "ssl = yes\nssl_cert = <{}\nssl_key = <{}",
            certificate.chain.display(),
            certificate.key.display()
        )
    } else {
        "ssl = no".into()
    };
    // An unprivileged Dovecot runs everything as the one user it has.
    let identity = if geteuid().is_root() {
        format!("mail_uid = {MAIL_ID}\nmail_gid = {MAIL_ID}")
    } else {
        let user = nix::unistd::User::from_uid(geteuid())
            .ok()
            .flatten()
            .map_or_else(|| "nobody".into(), |user| user.name);
        format!(
            "default_internal_user = {user}\ndefault_login_user = {user}\ndefault_internal_group =\nmail_uid = {user}"
        )
    };
    let trusted = if options.trusted { "login_trusted_networks = 127.0.0.0/8 ::1" } else { "" };
    let delay = options.failure_delay.as_secs();
    format!(
        r#"# A bench's Dovecot: loopback only, nothing outside {folder}.
protocols = imap pop3
listen = 127.0.0.1
base_dir = {folder}/dovecot
state_dir = {folder}/dovecot-state
log_path = {folder}/backend.log
log_timestamp = "%Y-%m-%d %H:%M:%S.%{{usecs}} "
auth_verbose = yes
mail_location = maildir:~/Maildir
{identity}
first_valid_uid = 1
{tls}
# The front end speaks to us in clear on loopback; it guards the outside.
disable_plaintext_auth = no
{trusted}
auth_mechanisms = plain login
auth_failure_delay = {delay} secs
mail_max_userip_connections = 50
mail_fsync = optimized
shutdown_clients = yes
passdb {{
  driver = passwd-file
  args = username_format=%u {folder}/users
}}
userdb {{
  driver = static
  args = home={folder}/mail/%n
}}
namespace inbox {{
  inbox = yes
}}
service imap-login {{
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = 0
  }}
  service_count = 0
  process_min_avail = 1
  client_limit = 4000
}}
service pop3-login {{
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = 0
  }}
  service_count = 0
  process_min_avail = 1
  client_limit = 4000
}}
service anvil {{
  client_limit = 12000
}}
service auth {{
  client_limit = 12000
  unix_listener {folder}/auth {{
    mode = 0666
  }}
}}
service stats {{
  client_limit = 12000
}}
"#
    )
}

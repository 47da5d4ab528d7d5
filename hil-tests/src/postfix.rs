//! A real Postfix on loopback ports, with its own configuration and queue. Nothing it takes can leave the machine: it
//! has no SMTP client, mail for example.test goes to Dovecot's Maildirs and all other mail is dropped with a log line.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use nix::unistd::{Gid, Group, User, chown, geteuid};

use crate::backends::{Account, MAIL_ID, Options, wait_for_greeting};
use crate::certificate::Certificate;
use crate::guard::{Process, Workshop};
use crate::port::{free, loopback};

/// Postfix serving submission, and taking alerts.
#[derive(Debug)]
pub struct Postfix {
    /// Submission: authentication by Dovecot, XCLIENT from loopback.
    pub submission: SocketAddr,
    /// The server's own mail, for alerts: no authentication, recipients of example.test only.
    pub alerts: SocketAddr,
    workshop: Workshop,
    process: Option<Process>,
}

impl Postfix {
    /// Writes the configuration and starts the server.
    pub(crate) fn start(
        workshop: &Workshop,
        accounts: &[Account],
        options: &Options,
        certificate: &Certificate,
    ) -> Result<Self> {
        ensure!(geteuid().is_root(), "Postfix runs as root only (its master gives each daemon another user)");
        let (submission, alerts) = (free()?, free()?);
        let configuration = workshop.folder("postfix", 0o755)?;
        let owner = User::from_name("postfix")?.context("no user postfix: is postfix installed?")?;
        let drop_group = Group::from_name("postdrop")?.context("no group postdrop: is postfix installed?")?;
        make_queue(workshop, owner.uid, drop_group.gid)?;
        let mailboxes: String = accounts
            .iter()
            .map(|account| format!("{} {}/Maildir/\n", account.user, account.name()))
            .collect();
        write_settled(&configuration.join("mailboxes"), &mailboxes)?;
        write_settled(&configuration.join("main.cf"), &main(workshop.path(), options, certificate))?;
        write_settled(&configuration.join("master.cf"), &master(submission, alerts, options))?;
        let mut postfix = Self {
            submission: loopback(submission),
            alerts: loopback(alerts),
            workshop: workshop.clone(),
            process: None,
        };
        postfix.resume()?;
        Ok(postfix)
    }

    /// Starts it, or starts it again on the same ports.
    pub fn resume(&mut self) -> Result<()> {
        let output =
            fs::OpenOptions::new().create(true).append(true).open(self.workshop.file("postfix.out"))?;
        let process = self.workshop.spawn(
            "postfix",
            Command::new("/usr/lib/postfix/sbin/master")
                .arg("-d") // stay in our process group, so that it ends with us
                .arg("-c")
                .arg(self.workshop.file("postfix"))
                .env_clear()
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .current_dir("/")
                .stdin(Stdio::null())
                .stdout(output.try_clone()?)
                .stderr(output),
        )?;
        let process = self.process.insert(process);
        wait_for_greeting(self.submission, "220", process)?;
        wait_for_greeting(self.alerts, "220", process)
    }

    /// Stops it: the backend is away.
    pub fn pause(&mut self) {
        self.process = None;
    }

    /// Every message the queue still holds, whole, as stored.
    pub fn queued(&self) -> Result<Vec<Vec<u8>>> {
        let mut messages = Vec::new();
        let mut folders: Vec<_> = ["maildrop", "incoming", "active", "deferred"]
            .map(|name| self.workshop.file("queue").join(name))
            .into();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if let Ok(message) = fs::read(&path) {
                    messages.push(message); // a file that went meanwhile was delivered
                }
            }
        }
        Ok(messages)
    }
}

/// Writes a file as if long ago: Postfix waits until a configuration file is over a second old, lest it read half of it.
fn write_settled(path: &Path, content: &str) -> Result<()> {
    fs::write(path, content)?;
    let long_ago = SystemTime::now() - Duration::from_mins(1);
    Ok(fs::File::options().write(true).open(path)?.set_modified(long_ago)?)
}

/// The folders that Postfix's own installer makes, with the owners it insists on.
fn make_queue(workshop: &Workshop, owner: nix::unistd::Uid, drop_group: Gid) -> Result<()> {
    workshop.folder("queue", 0o755)?;
    for name in [
        "active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved",
        "trace",
    ] {
        let path = workshop.folder(&format!("queue/{name}"), 0o700)?;
        chown(&path, Some(owner), None)?;
    }
    for (name, mode) in [("public", 0o710), ("maildrop", 0o730)] {
        let path = workshop.folder(&format!("queue/{name}"), mode)?;
        chown(&path, Some(owner), Some(drop_group))?;
    }
    workshop.folder("queue/pid", 0o755)?;
    let data = workshop.folder("postfix-data", 0o700)?;
    Ok(chown(&data, Some(owner), None)?)
}

fn main(folder: &Path, options: &Options, certificate: &Certificate) -> String {
    let folder = folder.display();
    let tls = if options.starttls {
        format!(
            "smtpd_tls_security_level = may\nsmtpd_tls_chain_files = {}, {}",
            certificate.key.display(),
            certificate.chain.display()
        )
    } else {
        "smtpd_tls_security_level = none".into()
    };
    // The trap of clientid.md §5.4: whoever the server trusts by address may relay, so a front end becomes an open relay.
    let (networks, relay) = if options.open_relay_trap {
        ("127.0.0.0/8 [::1]/128", "permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination")
    } else {
        ("", "permit_sasl_authenticated, reject_unauth_destination")
    };
    let xclient = if options.trusted { "127.0.0.0/8 [::1]" } else { "" };
    let size = options.message_size;
    format!(
        r"# A bench's Postfix: loopback only, nothing outside {folder}.
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/postfix-data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {folder}/backend.log
maillog_file_prefixes = {folder}
maillog_file_permissions = 0644
myhostname = backend.example.test
mydomain = example.test
myorigin = example.test
mydestination =
mynetworks = {networks}
inet_protocols = ipv4
alias_maps =
alias_database =
biff = no
notify_classes =
# No name server is asked: a bench works without one.
smtpd_peername_lookup = no
disable_dns_lookups = yes
smtpd_authorized_xclient_hosts = {xclient}
smtpd_relay_restrictions = {relay}
smtpd_recipient_restrictions =
smtpd_sasl_type = dovecot
smtpd_sasl_path = {folder}/auth
smtpd_sasl_auth_enable = no
{tls}
virtual_mailbox_domains = example.test
virtual_mailbox_maps = texthash:{folder}/postfix/mailboxes
virtual_mailbox_base = {folder}/mail
virtual_mailbox_limit = 0
virtual_uid_maps = static:{MAIL_ID}
virtual_gid_maps = static:{MAIL_ID}
virtual_transport = virtual
default_transport = discard:the bench sends nothing out
relay_transport = $default_transport
local_transport = $default_transport
message_size_limit = {size}
default_process_limit = 400
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_client_auth_rate_limit = 0
in_flow_delay = 0
"
    )
}

fn master(submission: u16, alerts: u16, options: &Options) -> String {
    // The trap is about clients that Postfix trusts without a password; only then may they skip it.
    let client = if options.open_relay_trap {
        "permit_mynetworks,permit_sasl_authenticated,reject"
    } else {
        "permit_sasl_authenticated,reject"
    };
    format!(
        "# service type private unpriv chroot wakeup maxproc command
127.0.0.1:{submission} inet n - n - - smtpd
  -o syslog_name=postfix/submission
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_recipient_restrictions={client}
127.0.0.1:{alerts} inet n - n - - smtpd
  -o syslog_name=postfix/alerts
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
tlsmgr unix - - n 1000? 1 tlsmgr
showq unix n - n - - showq
postlog unix-dgram n - n - 1 postlogd
"
    )
}

//! The ISP's own servers, as Postern meets them: a real Dovecot and a real Postfix with two customers.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::unistd::{Gid, Uid, chown, geteuid};

use crate::certificate::Certificate;
use crate::dovecot::Dovecot;
use crate::guard::{Process, Workshop};
use crate::log::Log;
use crate::postfix::Postfix;
use crate::{install, random};

/// The user and group that own the Maildirs: a number that no system user has.
pub const MAIL_ID: u32 = 64_320;

/// The domain of all accounts.
pub const DOMAIN: &str = "example.test";

/// One mailbox.
#[derive(Clone, Debug)]
pub struct Account {
    /// The address, which is also the name to log in with.
    pub user: String,
    /// Its password.
    pub password: String,
}

impl Account {
    /// A new account with a random password.
    pub fn new(name: &str) -> Self {
        Self { user: format!("{name}@{DOMAIN}"), password: random::password() }
    }

    /// The part before the `@`.
    pub fn name(&self) -> &str {
        self.user.split('@').next().unwrap_or_default()
    }
}

/// How the servers differ from the demonstration's.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names of further accounts, besides ada and ben.
    pub more_accounts: Vec<String>,
    /// Both offer STARTTLS, with the certificate of [`Backends::certificate`].
    pub starttls: bool,
    /// Both believe what loopback says of the client (`login_trusted_networks`, `smtpd_authorized_xclient_hosts`).
    pub trusted: bool,
    /// Postfix lets loopback relay without a password.
    pub open_relay_trap: bool,
    /// How long Dovecot waits before it says no, in whole seconds.
    pub failure_delay: Duration,
    /// Postfix's largest message, in octets.
    pub message_size: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            more_accounts: Vec::new(),
            starttls: false,
            trusted: true,
            open_relay_trap: false,
            failure_delay: Duration::from_secs(2), // Dovecot's own default
            message_size: 20 * 1024 * 1024,
        }
    }
}

/// Dovecot and Postfix in one workshop, stopped and removed when dropped.
#[derive(Debug)]
pub struct Backends {
    /// IMAP, POP3 and authentication.
    pub dovecot: Dovecot,
    /// Submission and alerts.
    pub postfix: Postfix,
    /// Everybody who has a mailbox; ada and ben come first.
    pub accounts: Vec<Account>,
    /// What the servers show where STARTTLS is on.
    pub certificate: Certificate,
    workshop: Workshop,
}

impl Backends {
    /// Starts both with two accounts, ada@example.test and ben@example.test.
    ///
    /// # Errors
    /// Names the package that is missing, or shows what the server said.
    pub fn start() -> Result<Self> {
        Self::with(&Options::default())
    }

    /// Starts both, changed by `options`.
    pub fn with(options: &Options) -> Result<Self> {
        Self::inside(&Workshop::new()?, options)
    }

    /// Starts both in a workshop that others share.
    pub fn inside(workshop: &Workshop, options: &Options) -> Result<Self> {
        if let Some(missing) = install::BACKENDS.iter().find(|package| !install::is_installed(package)) {
            bail!("{} is not installed; `cargo box test` installs it", missing.name);
        }
        let names = ["ada", "ben"].into_iter().chain(options.more_accounts.iter().map(String::as_str));
        let accounts: Vec<Account> = names.map(Account::new).collect();
        workshop.folder("mail", 0o755)?;
        for account in &accounts {
            let home = workshop.folder(&format!("mail/{}", account.name()), 0o700)?;
            if geteuid().is_root() {
                chown(&home, Some(Uid::from_raw(MAIL_ID)), Some(Gid::from_raw(MAIL_ID)))?;
            }
        }
        workshop.write("backend.log", 0o666, "")?; // both servers write to it, under several users
        let certificate = Certificate::new(workshop, "backend")?;
        let dovecot = retry(|| Dovecot::start(workshop, &accounts, options, &certificate))?;
        let postfix = retry(|| Postfix::start(workshop, &accounts, options, &certificate))?;
        Ok(Self { dovecot, postfix, accounts, certificate, workshop: workshop.clone() })
    }

    /// ada@example.test
    pub fn ada(&self) -> &Account {
        &self.accounts[0]
    }

    /// ben@example.test
    pub fn ben(&self) -> &Account {
        &self.accounts[1]
    }

    /// What both servers wrote.
    pub fn log(&self) -> Log {
        Log::new(self.log_path())
    }

    /// Where both servers write.
    pub fn log_path(&self) -> PathBuf {
        self.workshop.file("backend.log")
    }

    /// The folder everything lives in.
    pub fn workshop(&self) -> &Workshop {
        &self.workshop
    }

    /// Puts a message into an account's inbox, as if it had come in.
    pub fn deliver(&self, account: &Account, message: &str) -> Result<()> {
        let id = format!("{}.{}", random::below(u64::MAX), "bench");
        let mailbox = self.workshop.file("mail").join(account.name()).join("Maildir");
        for name in ["", "tmp", "new", "cur"] {
            let folder = mailbox.join(name);
            if !folder.exists() {
                fs::create_dir(&folder)?;
                own(&folder)?;
            }
        }
        let draft = mailbox.join("tmp").join(&id);
        fs::write(&draft, message.replace("\r\n", "\n"))?;
        own(&draft)?;
        Ok(fs::rename(&draft, mailbox.join("new").join(&id))?)
    }

    /// Every message in an account's inbox, as stored (LF line ends).
    pub fn inbox(&self, account: &Account) -> Result<Vec<String>> {
        let mailbox = self.workshop.file("mail").join(account.name()).join("Maildir");
        let mut messages = Vec::new();
        for name in ["new", "cur"] {
            let Ok(folder) = fs::read_dir(mailbox.join(name)) else { continue };
            for entry in folder {
                if let Ok(message) = fs::read(entry?.path()) {
                    messages.push(String::from_utf8_lossy(&message).into_owned());
                }
            }
        }
        Ok(messages)
    }

    /// Waits for a message that holds `text` in an account's inbox, and gives it.
    pub fn wait_for_mail(&self, account: &Account, text: &str, limit: Duration) -> Result<String> {
        let start = Instant::now();
        loop {
            if let Some(message) = self.inbox(account)?.into_iter().find(|message| message.contains(text)) {
                return Ok(message);
            }
            if start.elapsed() > limit {
                bail!(
                    "no mail with {text:?} reached {} within {limit:?}; the servers said:\n{}",
                    account.user,
                    self.log().end()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn own(path: &Path) -> Result<()> {
    if geteuid().is_root() {
        chown(path, Some(Uid::from_raw(MAIL_ID)), Some(Gid::from_raw(MAIL_ID)))?;
    }
    Ok(())
}

/// Another process may take a port between our choice and the daemon's bind.
fn retry<T>(start: impl Fn() -> Result<T>) -> Result<T> {
    start().or_else(|_| start())
}

/// Waits until a server answers a connection with `greeting`.
pub(crate) fn wait_for_greeting(address: SocketAddr, greeting: &str, process: &mut Process) -> Result<()> {
    let start = Instant::now();
    loop {
        if let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            let mut line = String::new();
            let _ = BufReader::new(stream).read_line(&mut line);
            if line.starts_with(greeting) {
                return Ok(());
            }
        }
        if !process.is_running() || start.elapsed() > Duration::from_secs(20) {
            bail!("{} does not serve {address}; {}", process.name(), process.testament());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

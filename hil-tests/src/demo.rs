//! `cargo box run`: Postern in front of a real Dovecot and a real Postfix, to try by hand or from a program.

mod host;
mod image;

use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::backends::Backends;
use crate::programs::Profile;
use crate::settings::Listeners;

/// What to run, and how to speak of it.
#[derive(Clone, Debug)]
pub struct Options {
    /// On this machine instead of in the image.
    pub host: bool,
    /// One JSON object instead of text.
    pub json: bool,
    /// Unoptimised, which builds faster; the image is always what ships.
    pub dev: bool,
    /// The rig that the image boots on.
    pub rig: String,
}

impl Options {
    const fn profile(&self) -> Profile {
        if self.dev { Profile::Dev } else { Profile::Release }
    }
}

/// Builds, starts, says what to try, and serves until Ctrl-C, a signal, or the end of stdin.
pub fn run(options: &Options) -> Result<()> {
    if options.host { host::run(options) } else { image::run(options) }
}

/// Prints what there is, as an object or as advice, and serves until it is time to end; `check` fails when something
/// that must live does not.
fn serve(
    options: &Options,
    shown: &Shown,
    ended: &Receiver<()>,
    mut check: impl FnMut() -> Result<()>,
) -> Result<()> {
    println!("{}", if options.json { shown.description().to_string() } else { shown.advice() });
    std::io::stdout().flush()?;
    loop {
        match ended.recv_timeout(Duration::from_millis(200)) {
            Err(RecvTimeoutError::Timeout) => check()?,
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// Gives both accounts something to read.
fn welcome_all(backends: &Backends) -> Result<()> {
    for account in &backends.accounts {
        backends.deliver(account, &welcome(&account.user))?;
    }
    Ok(())
}

/// Says when it is time to end: a signal came, or nobody is at the other end of stdin any more.
fn watch(json: bool) -> Result<Receiver<()>> {
    let (sender, receiver) = channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let inside = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    drop(inside);
    let for_signals = sender.clone();
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
            }
        });
        let _ = for_signals.send(());
    });
    // A program holds stdin open as long as it wants us; a person's terminal may be closed by Ctrl-D. Other inputs, such
    // as /dev/null under a job runner, say nothing.
    if json || std::io::stdin().is_terminal() {
        thread::spawn(move || {
            let mut buffer = [0; 256];
            while matches!(std::io::stdin().read(&mut buffer), Ok(1..)) {}
            let _ = sender.send(());
        });
    }
    Ok(receiver)
}

/// A demonstration that serves, as its user sees it.
struct Shown<'a> {
    backends: &'a Backends,
    listeners: Listeners,
    ca: &'a Path,
    cli: &'a Path,
    settings: &'a Path,
    /// The socket of `postern`.
    control: Option<&'a Path>,
    /// The socket of the serial console.
    console: Option<&'a Path>,
}

impl Shown<'_> {
    /// The one object of `--json`.
    fn description(&self) -> serde_json::Value {
        let accounts: Vec<_> = self
            .backends
            .accounts
            .iter()
            .map(|account| json!({ "user": account.user, "password": account.password }))
            .collect();
        let mut description = json!({
            "web": null,
            "ca": self.ca,
            "cli": self.cli,
            "accounts": accounts,
            "control": self.control,
            "console": self.console,
            "backend_log": self.backends.log_path(),
            "settings": self.settings,
        });
        if let (Some(all), Ok(serde_json::Value::Object(listeners))) =
            (description.as_object_mut(), serde_json::to_value(self.listeners))
        {
            all.extend(listeners);
        }
        description
    }

    fn advice(&self) -> String {
        let (ada, ben) = (self.backends.ada(), self.backends.ben());
        let listeners = &self.listeners;
        let ca = self.ca.display();
        format!(
            "Postern serves, in front of a real Dovecot and a real Postfix.

  IMAP        {imaps} (TLS)   {imap} (STARTTLS)
  POP3        {pop3s} (TLS)   {pop3} (STARTTLS)
  submission  {submissions} (TLS)   {submission} (STARTTLS)
  accounts    {ada_user}  password {ada_password}
              {ben_user}  password {ben_password}
  CA          {ca}
  settings    {settings}
  their log   {log}

Try, in another terminal:

  read mail
    curl --cacert {ca} --user {ada_user}:{ada_password} 'imaps://{imaps}/INBOX;MAILINDEX=1'
  send mail
    printf 'Subject: hello\\r\\n\\r\\nhello ben\\r\\n' | curl --cacert {ca} --user {ada_user}:{ada_password} \\
      --mail-from {ada_user} --mail-rcpt {ben_user} --upload-file - smtps://{submissions}
{more}  a mail program
    neomutt -n -F /dev/null -e 'set certificate_file={ca}' -e 'set imap_pass={ada_password}' \\
      -f 'imaps://{ada_at}@{imaps}/INBOX'

Ctrl-C ends all of it and removes every file.",
            imaps = listeners.imaps,
            imap = listeners.imap,
            pop3s = listeners.pop3s,
            pop3 = listeners.pop3,
            submissions = listeners.submissions,
            submission = listeners.submission,
            ada_user = ada.user,
            ada_at = ada.user.replace('@', "%40"),
            ada_password = ada.password,
            ben_user = ben.user,
            ben_password = ben.password,
            settings = self.settings.display(),
            log = self.backends.log_path().display(),
            more = self.more(&ada.user),
        )
    }

    /// What one way of running has and the other has not.
    fn more(&self, user: &str) -> String {
        let devices = self.control.map(|control| {
            let postern = format!("{} --control {}", self.cli.display(), control.display());
            format!(
                "  see the devices, then lock the mailbox: the same curl is refused until you approve it
    {postern} devices list {user}
    {postern} accounts lock {user}
    {postern} devices approve {user} DEVICE
"
            )
        });
        let console = self.console.map(|console| {
            format!("  the box's serial console\n    socat - UNIX-CONNECT:{}\n", console.display())
        });
        [devices, console].into_iter().flatten().collect()
    }
}

fn welcome(user: &str) -> String {
    format!(
        "From: The bench <bench@example.test>\nTo: {user}\nSubject: Welcome\nDate: Sun, 22 Nov 2026 12:00:00 +0000\n\
         Message-ID: <welcome@bench.example.test>\n\nThis message came through Postern.\n"
    )
}

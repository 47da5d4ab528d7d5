//! `cargo box run`: Postern in front of a real Dovecot and a real Postfix, to try by hand or from a program.

use std::io::{IsTerminal, Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::backends::{Backends, Options as BackendOptions};
use crate::gateway::Gateway;
use crate::install;
use crate::programs::{Profile, Programs};

/// What to run, and how to speak of it.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// On this machine instead of in the image.
    pub host: bool,
    /// One JSON object instead of text.
    pub json: bool,
    /// Unoptimised, which builds faster.
    pub dev: bool,
}

/// Builds, starts, says what to try, and serves until Ctrl-C, a signal, or the end of stdin.
pub fn run(options: Options) -> Result<()> {
    if !options.host {
        bail!("the image is not built yet; `cargo box run --host` runs the same gateway on this machine");
    }
    install::ensure_ready(&[install::BACKENDS])?;
    // From here on a signal ends us in good order; before the servers run there is nothing to put in order.
    let ended = watch(options.json)?;
    let programs = Programs::find_or_build(if options.dev { Profile::Dev } else { Profile::Release })?;
    let backends = Backends::with(&BackendOptions::default())?;
    for account in &backends.accounts {
        backends.deliver(account, &welcome(&account.user))?;
    }
    let mut gateway = Gateway::prepare(&backends, "", &programs)?;
    gateway.resume()?;
    if options.json {
        println!("{}", description(&gateway, &backends));
    } else {
        println!("{}", advice(&gateway, &backends));
    }
    std::io::stdout().flush()?;
    loop {
        match ended.recv_timeout(Duration::from_millis(200)) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        let process = gateway.process()?;
        if !process.is_running() {
            bail!("the gateway ended; {}", process.testament());
        }
    }
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

/// The one object of `--json`.
fn description(gateway: &Gateway, backends: &Backends) -> serde_json::Value {
    let accounts: Vec<_> = backends
        .accounts
        .iter()
        .map(|account| json!({ "user": account.user, "password": account.password }))
        .collect();
    let mut description = json!({
        "web": null,
        "ca": gateway.certificate.ca,
        "cli": gateway.programs.postern,
        "accounts": accounts,
        "control": gateway.control,
        "console": null,
        "backend_log": backends.log_path(),
        "settings": gateway.settings,
    });
    if let (Some(all), Ok(serde_json::Value::Object(listeners))) =
        (description.as_object_mut(), serde_json::to_value(gateway.listeners))
    {
        all.extend(listeners);
    }
    description
}

fn advice(gateway: &Gateway, backends: &Backends) -> String {
    let (ada, ben) = (backends.ada(), backends.ben());
    let listeners = &gateway.listeners;
    let ca = gateway.certificate.ca.display();
    let postern = format!("{} --control {}", gateway.programs.postern.display(), gateway.control.display());
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
  see the devices, then lock the mailbox: the same curl is refused until you approve it
    {postern} devices list {ada_user}
    {postern} accounts lock {ada_user}
    {postern} devices approve {ada_user} DEVICE
  a mail program
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
        settings = gateway.settings.display(),
        log = backends.log_path().display(),
    )
}

fn welcome(user: &str) -> String {
    format!(
        "From: The bench <bench@example.test>\nTo: {user}\nSubject: Welcome\nDate: Sun, 22 Nov 2026 12:00:00 +0000\n\
         Message-ID: <welcome@bench.example.test>\n\nThis message came through Postern.\n"
    )
}

//! Clients that log in with new devices while a disk is being recorded.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, ensure};

use super::log::flushed;
use super::trial::Promise;
use crate::backends::Account;
use crate::client::{Client, Trust};
use crate::random;

/// Logins of new devices, over IMAP with TLS.
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    /// Where the box listens.
    pub imaps: SocketAddr,
    /// What its certificate is believed by.
    pub trust: &'a Trust,
    /// Whose mailboxes; taken in turn.
    pub accounts: &'a [Account],
    /// The log that QEMU is writing.
    pub log: &'a Path,
    /// Clients at once.
    pub clients: usize,
}

impl Load<'_> {
    /// Logs in with `count` new devices named `<name> <number>`, and now and then with an old one once more, so that there
    /// are writes which nobody waits for, too. Gives what was acknowledged.
    ///
    /// # Errors
    /// A login that fails: the accounts must admit new devices and keep all of them (`learn`, `max-devices`).
    pub fn run(&self, name: &str, count: usize) -> Result<Vec<Promise>> {
        let next = AtomicUsize::new(0);
        let promises = Mutex::new(Vec::with_capacity(count));
        thread::scope(|scope| {
            let clients: Vec<_> = (0..self.clients.max(1))
                .map(|_| scope.spawn(|| self.client(name, count, &next, &promises)))
                .collect();
            clients
                .into_iter()
                .try_for_each(|client| client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
        })?;
        Ok(promises.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn client(
        &self,
        name: &str,
        count: usize,
        next: &AtomicUsize,
        promises: &Mutex<Vec<Promise>>,
    ) -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            let account = self.accounts.get(number % self.accounts.len().max(1)).context("no account")?;
            let (client, token) = (format!("{name} {number}"), random::uuid());
            self.log_in(account, &client, &token)?;
            // Only now: whatever the log has by now was written before the client knew.
            let after = flushed(self.log)?;
            let promise = Promise { account: account.user.clone(), client: client.clone(), after };
            promises.lock().unwrap_or_else(PoisonError::into_inner).push(promise);
            if number.is_multiple_of(3) {
                self.log_in(account, &client, &token)?;
            }
        }
    }

    fn log_in(&self, account: &Account, client: &str, token: &str) -> Result<()> {
        let mut wire = Client::tls(self.imaps, self.trust)?;
        ensure!(wire.line()?.starts_with("* OK"), "no greeting");
        let mut ask = |line: &str, wanted: &str| -> Result<()> {
            wire.send(line)?;
            let reply = wire.until(&wanted[..2])?.pop().unwrap_or_default();
            ensure!(reply.starts_with(wanted), "{client} of {}: answered {reply:?}", account.user);
            Ok(())
        };
        ask(&format!("i ID (\"name\" \"{client}\" \"version\" \"1\")"), "i OK")?;
        ask(&format!("c CLIENTID UUID {token}"), "c OK")?;
        ask(&format!("a LOGIN {} {}", account.user, account.password), "a OK")?;
        ask("z LOGOUT", "z OK")
    }
}

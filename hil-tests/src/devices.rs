//! What the operator sees and does through `postern`, for tests that need more than its exit code.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::backends::Account;
use crate::gateway::Gateway;
use crate::session::{Protocol, Session};

/// A device as `postern --json devices list` shows it.
#[derive(Clone, Debug)]
pub struct Device {
    /// What to call it in commands.
    pub alias: String,
    /// `pending`, `approved` or `revoked`.
    pub standing: String,
    /// The name that its owner gave it.
    pub name: String,
}

impl Gateway {
    /// All devices of an account.
    pub fn devices(&self, account: &Account) -> Result<Vec<Device>> {
        let text = |value: &Value| value.as_str().map(String::from).unwrap_or_default();
        let list = self.postern(&["devices", "list", &account.user])?;
        let list = items(&list).context("postern devices list shows no list")?;
        Ok(list
            .iter()
            .map(|device| Device {
                alias: text(&device["alias"]),
                standing: device["standing"]
                    .as_str()
                    .map_or_else(|| text(&device["standing"]["state"]), String::from),
                name: text(&device["name"]),
            })
            .collect())
    }

    /// Waits until a device of the account has this standing, and gives its alias.
    pub fn wait_for_device(&self, account: &Account, standing: &str) -> Result<String> {
        let start = Instant::now();
        loop {
            let devices = self.devices(account)?;
            if let Some(device) = devices.iter().find(|device| device.standing == standing) {
                return Ok(device.alias.clone());
            }
            if start.elapsed() > Duration::from_secs(5) {
                bail!("{} has no {standing} device, only {devices:?}", account.user);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Approves a device.
    pub fn approve(&self, account: &Account, alias: &str) -> Result<()> {
        self.postern(&["devices", "approve", &account.user, alias]).map(drop)
    }

    /// Revokes a device.
    pub fn revoke(&self, account: &Account, alias: &str) -> Result<()> {
        self.postern(&["devices", "revoke", &account.user, alias]).map(drop)
    }

    /// Locks an account to its approved devices.
    pub fn lock(&self, account: &Account) -> Result<()> {
        self.postern(&["accounts", "lock", &account.user]).map(drop)
    }

    /// Lets a device with this token log in once while the account is observed, and approves it; gives its alias.
    pub fn enrol(&self, account: &Account, token: &str) -> Result<String> {
        self.keep_secret(token);
        let mut session = Session::open(self, Protocol::Imap)?;
        session.identify(token)?;
        session.enter(&account.user, &account.password)?;
        let alias = self.wait_for_device(account, "pending")?;
        self.approve(account, &alias)?;
        Ok(alias)
    }
}

/// The rows of an answer that is a list.
pub fn items(answer: &Value) -> Option<&Vec<Value>> {
    answer["rows"].as_array()
}

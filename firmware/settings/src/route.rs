//! `[routes]`: which backend holds a mailbox.

use std::collections::BTreeMap;
use std::time::Duration;

use mail::{Account, Domain};

use crate::address::HttpUrl;
use crate::reader::{Entry, Read, Table};

/// `[routes]`. The most particular wins: account, then domain, then the default.
#[derive(Clone, Debug)]
pub struct Routes {
    /// For mailboxes that nothing below names; with a single backend, that one.
    pub default: Option<String>,
    /// By domain (aliases follow their domain).
    pub domains: BTreeMap<Domain, String>,
    /// By account, those of `[accounts]` with a `backend` included.
    pub accounts: BTreeMap<Account, String>,
    /// Whether the default also holds for domains that the settings do not name anywhere, and for names without a
    /// domain. By default only when they name no domain at all: a backend that drops the domain would otherwise let
    /// `alice@elsewhere.example` in as alice, past the lock of `alice@example.net`.
    pub other_domains: bool,
    /// A look-up for accounts that have no route of their own.
    pub http: Option<HttpRoute>,
}

/// `[routes.http]`: asks a server that speaks nginx's `auth_http` (clientid.md §5.8). Its `Auth-Server` and
/// `Auth-Port` replace the address of the backend that would serve otherwise; the rest of that backend stays.
#[derive(Clone, Debug)]
pub struct HttpRoute {
    /// Where to ask.
    pub url: HttpUrl,
    /// Longest wait for an answer; then the login gets a temporary error.
    pub timeout: Duration,
}

/// Routes whose account names are not canonical yet.
pub(crate) struct RawRoutes<'a> {
    pub(crate) default: Option<String>,
    pub(crate) domains: BTreeMap<Domain, String>,
    pub(crate) accounts: Vec<(Entry<'a>, String)>,
    pub(crate) http: Option<HttpRoute>,
    pub(crate) other_domains: Option<bool>,
}

impl<'a> RawRoutes<'a> {
    pub(crate) fn read(mut table: Table<'a>) -> Self {
        let default = table.optional("default");
        let domains = table.entries("domains");
        let domains = domains.iter().filter_map(|entry| Some((entry.domain()?, String::read(&entry.value)?)));
        let domains = domains.collect();
        let accounts = table.entries("accounts").into_iter();
        let accounts =
            accounts.filter_map(|entry| String::read(&entry.value).map(|name| (entry, name))).collect();
        let http = table.optional("http");
        let other_domains = table.optional("other-domains");
        table.finish();
        Self { default, domains, accounts, http, other_domains }
    }
}

impl Read for HttpRoute {
    fn read(value: &crate::reader::Value<'_>) -> Option<Self> {
        let mut table = value.table()?;
        let url = table.required("url", "add url = \"http://127.0.0.1:8080/auth\"");
        let timeout = table.or("timeout", Duration::from_secs(2));
        table.finish();
        Some(Self { url: url?, timeout })
    }
}

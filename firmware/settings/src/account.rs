//! `[accounts."alice@example.net"]`, and what a login name stands for (design §2, step 1; clientid.md Q19, Q20).

use mail::account::LocalCase;
use mail::{Account, Domain};
use policy::Layer;

use crate::address::MailAddress;
use crate::reader::Entry;
use crate::rules;
use crate::settings::Settings;

/// Rules of one account.
#[derive(Clone, Debug, Default)]
pub struct AccountSettings {
    /// Further addresses it may send from.
    pub senders: Vec<MailAddress>,
    /// The backend that holds it, if not that of its domain.
    pub backend: Option<String>,
    /// A second address for alerts, for an owner who is locked out of the first.
    pub alert_to: Option<MailAddress>,
    /// The account's layer of rules.
    pub policy: Layer,
}

impl AccountSettings {
    pub(crate) fn read(entry: &Entry<'_>) -> Option<Self> {
        let mut table = entry.value.table()?;
        let settings = Self {
            senders: table.or("senders", Vec::new()),
            backend: table.optional("backend"),
            alert_to: table.optional("alert-to"),
            policy: table.section("policy", rules::layer),
        };
        table.finish();
        Some(settings)
    }
}

/// Why octets are no account's name; the peer hears nothing of it but a failed login.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not the name of an account")]
pub struct NotAnAccount;

/// A domain from text, if it is one.
pub(crate) fn domain(text: &str) -> Option<Domain> {
    Domain::parse(text.as_bytes()).ok()
}

impl Settings {
    /// The one name of the account that a login means: default domain added, domain aliases followed, letters in
    /// lower case unless the domain tells them apart. Only this form is looked up, and only this form is sent to the
    /// backend.
    ///
    /// # Errors
    /// What is not a name, or holds separators and control characters that a backend may read its own way.
    pub fn canonical(&self, raw: &[u8]) -> Result<Account, NotAnAccount> {
        let default = self.host.default_domain.as_ref();
        let account = Account::parse_with(raw, default, LocalCase::Keep).map_err(|_| NotAnAccount)?;
        let Some(given) = account.domain().map(domain) else {
            return Account::new(account.local().as_bytes(), None, LocalCase::Fold).map_err(|_| NotAnAccount);
        };
        let given = given.ok_or(NotAnAccount)?;
        let domain = self.aliases.get(&given).unwrap_or(&given);
        let exact = self.domains.get(domain).is_some_and(|settings| settings.case_sensitive);
        let case = if exact { LocalCase::Keep } else { LocalCase::Fold };
        Account::new(account.local().as_bytes(), Some(domain), case).map_err(|_| NotAnAccount)
    }

    /// The rules of the domain of a canonical account.
    pub fn domain_of(&self, account: &Account) -> Option<&crate::DomainSettings> {
        self.domains.get(&domain(account.domain()?)?)
    }

    /// The three layers of rules for a canonical account: box, domain, account.
    pub fn layers(&self, account: &Account) -> (&Layer, Option<&Layer>, Option<&Layer>) {
        let domain = self.domain_of(account).map(|domain| &domain.policy);
        (&self.policy, domain, self.accounts.get(account).map(|account| &account.policy))
    }

    /// The name of the backend that holds a canonical account; `None`: no backend, so every login fails.
    ///
    /// Domains that the settings do not know are not routed unless `routes.other-domains` says so: to a backend that
    /// drops the domain, `alice@elsewhere.example` would be alice, past the lock of `alice@example.net`.
    pub fn route(&self, account: &Account) -> Option<&str> {
        if let Some(backend) = self.routes.accounts.get(account) {
            return Some(backend);
        }
        let domain = account.domain().and_then(domain);
        let routed = domain.as_ref().and_then(|domain| self.routes.domains.get(domain));
        let known = || self.routes.other_domains || domain.as_ref().is_some_and(|domain| self.knows(domain));
        let backend = routed.or_else(|| self.routes.default.as_ref().filter(|_| known()))?;
        Some(backend)
    }

    /// Whether the settings name this domain.
    pub fn knows(&self, domain: &Domain) -> bool {
        self.domains.contains_key(domain)
            || self.routes.domains.contains_key(domain)
            || self.host.default_domain.as_ref() == Some(domain)
    }

    /// Whether a canonical account may send with this envelope path (RFC 5321 §4.1.2 Mailbox, without its angle
    /// brackets; empty for `<>`).
    pub fn may_send(&self, account: &Account, path: &[u8]) -> bool {
        if path.is_empty() {
            return self.submission.allow_null_sender;
        }
        if !self.submission.sender_check || self.canonical(path).as_ref() == Ok(account) {
            return true;
        }
        let domain = self.domain_of(account);
        let own = self.accounts.get(account).map(|account| account.senders.as_slice());
        let shared = domain.map(|domain| domain.senders.as_slice());
        if own.into_iter().chain(shared).flatten().any(|sender| sender.is(path)) {
            return true;
        }
        let Some(separator) = domain.and_then(|domain| domain.sub_address) else { return false };
        let at = path.iter().rposition(|byte| *byte == b'@');
        let Some((local, host)) = at.and_then(|at| path.split_at_checked(at)) else { return false };
        let Some(end) = local.iter().position(|byte| char::from(*byte) == separator) else { return false };
        let bare = local.iter().take(end).chain(host).copied().collect::<Vec<_>>();
        self.canonical(&bare).as_ref() == Ok(account)
    }
}

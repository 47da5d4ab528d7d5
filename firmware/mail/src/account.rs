//! Mailbox names as devices and rules are filed under.

use core::fmt;

use crate::domain::{Domain, DomainError};

/// A mailbox's canonical name: `local@domain`, or `local` alone where the box has no domain for it.
///
/// Two spellings of one mailbox must never give two accounts, or a lock would have a second door (clientid.md
/// Q19). So the alphabet is small: RFC 5322 `atext` and dots, without the characters that servers take for
/// separators (`*` master user, `%` and `/` in rewritten names). What a domain does beyond that (aliases,
/// sub-addresses) is applied by `settings` on top.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Account(heapless::String<320>);

/// Whether `Alice` and `alice` are one mailbox.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LocalCase {
    /// They are: the local part is lower-cased. Nearly every server works so.
    #[default]
    Fold,
    /// They are not: the local part is kept as sent (RFC 5321 §2.4).
    Keep,
}

impl Account {
    /// Reads a login name. The local part is lower-cased; a name without a domain gets `default_domain`.
    pub fn parse(raw: &[u8], default_domain: Option<&Domain>) -> Result<Self, AccountError> {
        Self::parse_with(raw, default_domain, LocalCase::Fold)
    }

    /// Reads a login name. Nothing is trimmed: a name with a blank at its end is not a name. One trailing dot of
    /// the domain (the DNS root) is removed.
    pub fn parse_with(
        raw: &[u8],
        default_domain: Option<&Domain>,
        case: LocalCase,
    ) -> Result<Self, AccountError> {
        let mut parts = raw.split(|&byte| byte == b'@');
        let local = parts.next().unwrap_or_default();
        let domain = parts.next();
        if parts.next().is_some() {
            return Err(AccountError::Separator);
        }
        match domain {
            None => Self::new(local, default_domain, case),
            Some(domain) => {
                let domain = domain.strip_suffix(b".").unwrap_or(domain);
                Self::new(local, Some(&Domain::parse(domain).map_err(AccountError::Domain)?), case)
            }
        }
    }

    /// An account from its two parts; `local` is checked as in [`Account::parse`].
    pub fn new(local: &[u8], domain: Option<&Domain>, case: LocalCase) -> Result<Self, AccountError> {
        if local.is_empty() {
            return Err(AccountError::Empty);
        }
        if local.len() > 64 {
            return Err(AccountError::TooLong);
        }
        let mut text = heapless::String::new();
        for &byte in local {
            match byte {
                b'*' | b'%' | b'/' | b'\\' | b'"' | b'@' => return Err(AccountError::Separator),
                b'.' => {}
                _ if is_atext(byte) => {}
                _ => return Err(AccountError::Character),
            }
            let byte = if case == LocalCase::Fold { byte.to_ascii_lowercase() } else { byte };
            text.push(char::from(byte)).map_err(|_| AccountError::TooLong)?;
        }
        if let Some(domain) = domain {
            text.push('@').map_err(|_| AccountError::TooLong)?;
            text.push_str(domain.as_str()).map_err(|_| AccountError::TooLong)?;
        }
        Ok(Self(text))
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands before the `@`, or the whole name if there is none.
    pub fn local(&self) -> &str {
        self.0.split_once('@').map_or(&*self.0, |(local, _)| local)
    }

    /// What stands behind the `@`: lower-case A-labels.
    pub fn domain(&self) -> Option<&str> {
        self.0.split_once('@').map(|(_, domain)| domain)
    }
}

/// RFC 5322 §3.2.3.
pub(crate) const fn is_atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'/'
                | b'='
                | b'?'
                | b'^'
                | b'_'
                | b'`'
                | b'{'
                | b'|'
                | b'}'
                | b'~'
        )
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Account {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl core::str::FromStr for Account {
    type Err = AccountError;

    fn from_str(raw: &str) -> Result<Self, AccountError> {
        Self::parse(raw.as_bytes(), None)
    }
}

/// Why something is not an [`Account`]. On the wire all of them are a failed login like any other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AccountError {
    /// No local part.
    Empty,
    /// A local part of more than 64 octets (RFC 5321 §4.5.3.1.1).
    TooLong,
    /// A second `@`, or one of `*` `%` `/` `\` `"`: some server takes it for a separator.
    Separator,
    /// A control character, a blank, a bracket, or anything outside ASCII.
    Character,
    /// What stands behind the `@` is not a domain.
    Domain(DomainError),
}

impl fmt::Display for AccountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the name of the mailbox is missing"),
            Self::TooLong => f.write_str("the part before the @ has at most 64 characters"),
            Self::Separator => f.write_str("a mailbox name has one @ and none of * % / \\ \""),
            Self::Character => f.write_str("a mailbox name has no blanks, brackets or non-ASCII characters"),
            Self::Domain(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for AccountError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(raw: &[u8]) -> Result<heapless::String<320>, AccountError> {
        Account::parse(raw, None).map(|account| account.0)
    }

    #[test]
    fn one_mailbox_has_one_name() {
        for raw in ["alice@example.net", "Alice@Example.NET", "ALICE@example.net."] {
            assert_eq!(parse(raw.as_bytes()).unwrap().as_str(), "alice@example.net", "{raw}");
        }
        let domain = Domain::parse(b"example.net").unwrap();
        let short = Account::parse(b"Alice", Some(&domain)).unwrap();
        assert_eq!(short, Account::parse(b"alice@example.net", None).unwrap());
        assert_eq!((short.local(), short.domain()), ("alice", Some("example.net")));
        let bare = Account::parse(b"alice", None).unwrap();
        assert_eq!((bare.local(), bare.domain(), bare.as_str()), ("alice", None, "alice"));
        // The default domain is for names that have none.
        assert_eq!(Account::parse(b"a@b.org", Some(&domain)).unwrap().as_str(), "a@b.org");
    }

    #[test]
    fn case_can_be_kept() {
        let account = Account::parse_with(b"Alice@Example.net", None, LocalCase::Keep).unwrap();
        assert_eq!(account.as_str(), "Alice@example.net");
    }

    #[test]
    fn refuses_second_doors() {
        use AccountError::{Character, Empty, Separator};
        for (raw, error) in [
            (&b""[..], Empty),
            (b"@example.net", Empty),
            (b"alice*master", Separator),
            (b"alice%example.net", Separator),
            (b"alice/shared", Separator),
            (b"alice\\x", Separator),
            (b"\"alice\"@example.net", Separator),
            (b"alice@example.net@evil.example", Separator),
            (b" alice@example.net", Character),
            (b"alice @example.net", Character),
            (b"alice\0@example.net", Character),
            (b"alice\r\n@example.net", Character),
            (b"alice\t", Character),
            (b"alice\x7f", Character),
            ("älice".as_bytes(), Character),
            (b"<alice>", Character),
            (b"alice@", AccountError::Domain(DomainError::Empty)),
            (b"alice@.", AccountError::Domain(DomainError::Empty)),
            (b"alice@example.net..", AccountError::Domain(DomainError::Label)),
            (b"alice@example.net ", AccountError::Domain(DomainError::Character)),
            (&[b'a'; 65], AccountError::TooLong),
        ] {
            assert_eq!(parse(raw), Err(error), "{raw:?}");
        }
    }

    proptest::proptest! {
        /// The canonical form is its own canonical form: no second spelling survives.
        #[test]
        fn canonical_is_a_fixed_point(raw in proptest::collection::vec(proptest::num::u8::ANY, 0..100)) {
            if let Ok(once) = Account::parse(&raw, None) {
                proptest::prop_assert_eq!(Account::parse(once.as_str().as_bytes(), None), Ok(once));
            }
        }

        #[test]
        fn canonical_is_a_fixed_point_of_names(raw in "[A-Za-z.@_+*% -]{0,40}") {
            if let Ok(once) = Account::parse(raw.as_bytes(), None) {
                proptest::prop_assert_eq!(Account::parse(once.as_str().as_bytes(), None), Ok(once));
            }
        }
    }
}

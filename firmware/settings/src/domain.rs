//! `[domains."example.net"]`: rules of one mail domain.

use mail::Domain;
use policy::Layer;

use crate::address::MailAddress;
use crate::reader::{Entry, Read, Value};
use crate::rules;

/// One domain's rules.
#[derive(Clone, Debug, Default)]
pub struct DomainSettings {
    /// Other names of the same domain; their mailboxes are this domain's.
    pub aliases: Vec<Domain>,
    /// Whether `Alice` and `alice` are two mailboxes; default no, as with nearly every server.
    pub case_sensitive: bool,
    /// Whether refused credentials are tried against the backend after the reply, off the wire, only to tell the
    /// owner "somebody knows your password" (design §2, step 7); default no.
    pub probe_refused_passwords: bool,
    /// The character that begins a detail in addresses (`alice+shop@…`), as the backend has it; `None`: no details.
    pub sub_address: Option<char>,
    /// Addresses that every account of the domain may send from.
    pub senders: Vec<MailAddress>,
    /// The domain's layer of rules.
    pub policy: Layer,
}

impl DomainSettings {
    pub(crate) fn read(entry: &Entry<'_>) -> Option<(Domain, Self)> {
        let name = entry.domain();
        let mut table = entry.value.table()?;
        let settings = Self {
            aliases: table.or("aliases", Vec::new()),
            case_sensitive: table.or("case-sensitive", false),
            probe_refused_passwords: table.or("probe-refused-passwords", false),
            sub_address: table.optional("sub-address").map(|Separator(c)| c),
            senders: table.or("senders", Vec::new()),
            policy: table.section("policy", rules::layer),
        };
        table.finish();
        Some((name?, settings))
    }
}

struct Separator(char);

impl Read for Separator {
    fn read(value: &Value<'_>) -> Option<Self> {
        let mend = "write one character, mostly \"+\"";
        match *value.text("one character", mend)?.as_bytes() {
            [byte @ (b'+' | b'-' | b'_' | b'=' | b'#' | b'.')] => Some(Self(byte.into())),
            _ => value.wrong("this is no separator", format!("{mend}; also - _ = # .")),
        }
    }
}

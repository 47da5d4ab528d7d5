//! What we advertise: the backend's capabilities minus what a proxy cannot carry, plus CLIENTID. Nothing is invented.
use mail::sasl::{Mechanism, Mechanisms};
use mail::session::Transport;

/// Octets of one capability list; a backend's own is a third of it.
const LIST: usize = 1024;

/// What an IMAP listener offers, made once from the backend's capabilities and shared by its sessions.
#[derive(Clone, Debug)]
pub struct Offer {
    hostname: heapless::String<253>,
    clear: heapless::String<LIST>,
    tls: heapless::String<LIST>,
    mechanisms: Mechanisms,
    clientid: bool,
    unauthenticate: bool,
}

impl Offer {
    /// - `capabilities`: the backend's, before login, as [`mail::session::Outcome::Capabilities`] has them: atoms with
    ///   spaces between. Empty (never probed): `IMAP4rev1` with passwords.
    /// - `hostname`: our name in the greeting; what is longer than 253 octets or not a host name becomes `mail`.
    /// - `clientid`: whether CLIENTID is offered (under TLS only, draft-yu-imap-client-id-07 §3).
    pub fn from_backend(capabilities: &[u8], hostname: &str, clientid: bool) -> Self {
        let atoms = || capabilities.split(u8::is_ascii_whitespace).filter_map(atom);
        let has = |name: &str| atoms().any(|atom| atom.eq_ignore_ascii_case(name));
        let mut mechanisms = Mechanisms::default();
        atoms()
            .filter_map(|atom| strip(atom, "AUTH="))
            .filter_map(|name| Mechanism::parse(name.as_bytes()))
            .for_each(|mechanism| mechanisms.add(mechanism));
        if !has("LOGINDISABLED") {
            mechanisms.add(Mechanism::Plain); // the LOGIN command carries what PLAIN does
        }

        let mut tls = heapless::String::new();
        let rev2 = has("IMAP4rev2");
        if has("IMAP4rev1") || !rev2 {
            add(&mut tls, "IMAP4rev1");
        }
        if rev2 {
            add(&mut tls, "IMAP4rev2");
        }
        for atom in atoms().filter(|atom| carries(atom)) {
            // Room is kept for what we add ourselves; a list that long is nobody's, and loses its tail only.
            if tls.len() + atom.len() < LIST - 128 && !holds(&tls, atom) {
                add(&mut tls, atom);
            }
        }
        let mut clear = tls.clone();
        add(&mut clear, "STARTTLS");
        add(&mut clear, "LOGINDISABLED");
        mechanisms.offered().for_each(|mechanism| add_joined(&mut tls, "AUTH=", mechanism.name()));
        if !mechanisms.takes(Mechanism::Plain) {
            add(&mut tls, "LOGINDISABLED");
        }
        if clientid {
            add(&mut tls, "CLIENTID");
        }
        let unauthenticate = has("UNAUTHENTICATE");
        Self { hostname: host(hostname), clear, tls, mechanisms, clientid, unauthenticate }
    }

    /// The capability list for this state of the connection, without `CAPABILITY` before it.
    pub fn capabilities(&self, transport: Transport) -> &str {
        match transport {
            Transport::Clear => &self.clear,
            Transport::Tls => &self.tls,
        }
    }

    /// Our own name.
    pub fn hostname(&self) -> &str {
        &self.hostname
    }

    /// What clients may log in with, under TLS.
    pub const fn mechanisms(&self) -> Mechanisms {
        self.mechanisms
    }

    /// Whether CLIENTID is a command here, under TLS.
    pub const fn clientid(&self) -> bool {
        self.clientid
    }

    /// Whether the backend has UNAUTHENTICATE (RFC 8437). It is not advertised, but after login the connection is
    /// bytes: a client could log out of one account and into another behind the device policy's back. Onboarding
    /// must say so.
    pub const fn backend_unauthenticates(&self) -> bool {
        self.unauthenticate
    }
}

/// Whether a capability of the backend still holds through us, before login and as advertised after it.
fn carries(atom: &str) -> bool {
    const OURS: [&str; 8] = [
        "IMAP4rev1",       // said first
        "IMAP4rev2",       // said first
        "STARTTLS",        // ours, towards the client
        "LOGINDISABLED",   // ours, in clear
        "CLIENTID",        // ours, under TLS
        "XCLIENT",         // a client must not say who it is
        "LOGIN-REFERRALS", // RFC 2221 would send clients around us
        "UNAUTHENTICATE",  // RFC 8437 would log in behind our back
    ];
    // Compression before login would hide the login from us; AUTH= is told anew.
    !OURS.iter().any(|ours| atom.eq_ignore_ascii_case(ours))
        && strip(atom, "AUTH=").is_none()
        && strip(atom, "COMPRESS=").is_none()
}

/// Whether a capability may stand in what the backend says after login: there the relay is transparent, so only
/// what would bring CLIENTID back (it must not be told after login) or lead around policy goes.
pub(crate) fn carries_after_login(atom: &[u8]) -> bool {
    !["CLIENTID", "UNAUTHENTICATE", "STARTTLS"].iter().any(|gone| atom.eq_ignore_ascii_case(gone.as_bytes()))
}

/// A capability atom: ATOM-CHARs, at most 64 octets.
fn atom(octets: &[u8]) -> Option<&str> {
    let valid = (1..=64).contains(&octets.len())
        && octets.iter().all(|octet| {
            octet.is_ascii_graphic()
                && !matches!(octet, b'(' | b')' | b'{' | b'%' | b'*' | b'"' | b'\\' | b']' | b'[')
        });
    core::str::from_utf8(octets).ok().filter(|_| valid)
}

fn strip<'a>(atom: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = atom.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn holds(list: &str, atom: &str) -> bool {
    list.split(' ').any(|held| held.eq_ignore_ascii_case(atom))
}

/// Adds one atom.
fn add(list: &mut heapless::String<LIST>, atom: &str) {
    add_joined(list, "", atom);
}

/// Adds the atom that `prefix` and `atom` make together.
fn add_joined(list: &mut heapless::String<LIST>, prefix: &str, atom: &str) {
    let gap = usize::from(!list.is_empty());
    if list.capacity() - list.len() >= gap + prefix.len() + atom.len() {
        // All three fit.
        let _ = list.push_str(if gap == 1 { " " } else { "" });
        let _ = list.push_str(prefix);
        let _ = list.push_str(atom);
    }
}

fn host(name: &str) -> heapless::String<253> {
    let valid = !name.is_empty()
        && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.'));
    let mut host = heapless::String::new();
    if !valid || host.push_str(name).is_err() {
        host.clear();
        let _ = host.push_str("mail");
    }
    host
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    /// Dovecot's list before login in clear, and what becomes of it.
    #[test]
    fn of_dovecot() {
        let dovecot = b"IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE LITERAL+ STARTTLS LOGINDISABLED AUTH=PLAIN AUTH=LOGIN AUTH=SCRAM-SHA-256 AUTH=SCRAM-SHA-256-PLUS";
        let offer = Offer::from_backend(dovecot, "imap.example.net", true);
        assert_eq!(
            offer.capabilities(Transport::Tls),
            "IMAP4rev1 SASL-IR ID ENABLE IDLE LITERAL+ AUTH=PLAIN AUTH=LOGIN CLIENTID"
        );
        assert_eq!(
            offer.capabilities(Transport::Clear),
            "IMAP4rev1 SASL-IR ID ENABLE IDLE LITERAL+ STARTTLS LOGINDISABLED"
        );
        assert_eq!(offer.hostname(), "imap.example.net");
        assert!(offer.mechanisms().takes(Mechanism::Login) && !offer.mechanisms().takes(Mechanism::XOAuth2));
        assert!(!offer.backend_unauthenticates());
    }

    #[test]
    fn of_others() {
        let tls = |list: &str, clientid| {
            std::string::String::from(
                Offer::from_backend(list.as_bytes(), "h", clientid).capabilities(Transport::Tls),
            )
        };
        assert_eq!(tls("", false), "IMAP4rev1 AUTH=PLAIN");
        assert_eq!(tls("IMAP4rev2 imap4REV1 AUTH=plain", false), "IMAP4rev1 IMAP4rev2 AUTH=PLAIN");
        assert_eq!(
            tls("IMAP4rev2 AUTH=LOGIN LOGINDISABLED", true),
            "IMAP4rev2 AUTH=PLAIN AUTH=LOGIN CLIENTID"
        );
        assert_eq!(
            tls(
                "IMAP4rev1 LOGINDISABLED AUTH=XOAUTH2 AUTH=OAUTHBEARER COMPRESS=DEFLATE UNAUTHENTICATE XCLIENT clientid",
                false
            ),
            "IMAP4rev1 AUTH=XOAUTH2 AUTH=OAUTHBEARER LOGINDISABLED"
        );
        assert_eq!(
            tls("  IMAP4rev1  IDLE\r\nidle a]b {3} \"x\" caf\u{e9} QUOTA=RES-STORAGE ", false),
            "IMAP4rev1 IDLE QUOTA=RES-STORAGE AUTH=PLAIN"
        );
        assert!(Offer::from_backend(b"unauthenticate", "h", false).backend_unauthenticates());
        assert_eq!(Offer::from_backend(b"", "evil\r\n", false).hostname(), "mail");
        assert_eq!(Offer::from_backend(b"", &"a".repeat(254), false).hostname(), "mail");
    }

    #[test]
    fn a_huge_list_keeps_what_is_ours() {
        let list: std::string::String = (0..500)
            .flat_map(|number| [std::string::String::from("X-CAPABILITY-"), std::format!("{number} ")])
            .collect();
        let offer = Offer::from_backend(list.as_bytes(), "h", true);
        assert!(offer.capabilities(Transport::Tls).ends_with(" AUTH=PLAIN CLIENTID"));
        assert!(offer.capabilities(Transport::Clear).ends_with(" STARTTLS LOGINDISABLED"));
    }
}

//! SASL framing for the mechanisms a proxy can relay: PLAIN, LOGIN, XOAUTH2 and OAUTHBEARER.

/// How a client authenticates.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Mechanism {
    /// RFC 4616; also IMAP LOGIN and POP3 USER/PASS, which carry the same two words.
    Plain,
    /// The two-prompt mechanism of draft-murchison-sasl-login.
    Login,
    /// Google's bearer framing.
    XOAuth2,
    /// RFC 7628.
    OAuthBearer,
}

//! CLIENTID's two arguments (draft-storey-smtp-client-id-12 §3, draft-yu-imap-client-id-07 §3).
use crate::secret::Secret;

/// A device's name for itself: a type and a bearer token, normalised so that equal devices compare equal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientId {
    /// Upper case, letters, digits and `-`, 1 to 16 octets.
    pub kind: heapless::String<16>,
    /// 1 to 128 VCHAR, UUIDs in lower case without braces.
    pub token: Secret<128>,
}

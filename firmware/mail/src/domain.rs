//! Mail domains.

/// A mail domain: lower-case A-labels, no trailing dot. Valid by construction, so nothing checks it again.
///
/// At most 253 octets (RFC 1035 §2.3.4) in labels of 1 to 63 letters, digits and inner hyphens (RFC 5321 §2.3.5).
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Domain(heapless::String<253>);

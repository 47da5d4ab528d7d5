//! Addresses of servers, pages and mailboxes, as settings hold them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use mail::Domain;

use crate::reader::{Entry, Read, Value};

/// A server: a host name or an IP address, and a port.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Endpoint {
    /// A host name in lower case, or an IP address without brackets.
    pub host: String,
    /// Never 0.
    pub port: u16,
}

impl Endpoint {
    /// Its IP address, if it is given as one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Whether it is surely this machine or a private network (RFC 1918, RFC 4193, RFC 3927, RFC 4291 §2.5.6).
    pub fn is_near(&self) -> bool {
        match self.ip() {
            Some(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
            Some(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
            None => self.host == "localhost",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse::<u16>().ok().filter(|port| *port != 0)?;
        let host = match host.strip_prefix('[') {
            Some(ip) => ip.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?.to_string(),
            None if host.contains(':') => return None,
            None => {
                host.parse::<IpAddr>().map(|ip| ip.to_string()).or_else(|_| host_name(host).ok_or(())).ok()?
            }
        };
        Some(Self { host, port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let brackets = self.host.contains(':');
        if brackets {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Read for Endpoint {
    fn read(value: &Value<'_>) -> Option<Self> {
        let mend =
            "write host and port: \"imap.internal.example:993\", \"192.0.2.1:993\" or \"[2001:db8::1]:993\"";
        let text = value.text("a server with its port", mend)?;
        match Self::parse(text) {
            Some(endpoint) => Some(endpoint),
            None => value.wrong(format!("{text:?} is not a server with its port"), mend),
        }
    }
}

/// A name of one label or more, none of them all digits at the end (that would be a broken IPv4 address).
pub(crate) fn host_name(text: &str) -> Option<String> {
    let last = text.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    crate::account::domain(text).map(|domain| domain.as_str().to_owned())
}

/// An `http://` or `https://` address without user, password and fragment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HttpUrl {
    /// Whether it is https.
    pub tls: bool,
    /// The server; port 80 or 443 if none was given.
    pub server: Endpoint,
    /// Path and query, beginning with `/`.
    pub path: String,
}

impl HttpUrl {
    fn parse(text: &str) -> Option<Self> {
        let (tls, rest) = match text.split_once("://")? {
            ("http", rest) => (false, rest),
            ("https", rest) => (true, rest),
            _ => return None,
        };
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        if authority.contains('@') || text.contains('#') || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        let port = if tls { 443 } else { 80 };
        let server =
            Endpoint::parse(authority).or_else(|| Endpoint::parse(&format!("{authority}:{port}")))?;
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Some(Self { tls, server, path })
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        let usual = if self.tls { 443 } else { 80 };
        let server = self.server.to_string();
        let server = if self.server.port == usual {
            server.rsplit_once(':').map_or("", |(host, _)| host)
        } else {
            &server
        };
        write!(f, "{scheme}://{server}{}", self.path)
    }
}

impl Read for HttpUrl {
    fn read(value: &Value<'_>) -> Option<Self> {
        let mend = "write \"https://host/path\" without user, password or #";
        let text = value.text("an address of a page", mend)?;
        match Self::parse(text) {
            Some(url) => Some(url),
            None => value.wrong(format!("{text:?} is not an http or https address"), mend),
        }
    }
}

/// A mail address in its plain form (RFC 5321 §4.1.2 Dot-string): no quotes, no comments.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct MailAddress {
    /// As written.
    pub local: String,
    /// The domain.
    pub domain: Domain,
}

impl MailAddress {
    fn parse(text: &str) -> Option<Self> {
        let (local, domain) = text.rsplit_once('@')?;
        // atext of RFC 5322 §3.2.3 and its extension by RFC 6531 §3.3, in dot-separated atoms; 64 octets at most.
        let atext = |c: char| {
            c.is_ascii_alphanumeric()
                || "!#$%&'*+-/=?^_`{|}~".contains(c)
                || !(c.is_ascii() || c.is_control())
        };
        let atoms = local.split('.').all(|atom| !atom.is_empty() && atom.chars().all(atext));
        let domain = crate::account::domain(domain)?;
        (local.len() <= 64 && atoms).then(|| Self { local: local.to_owned(), domain })
    }

    /// Whether an envelope path (without its angle brackets) is this address; ASCII case does not count.
    pub fn is(&self, path: &[u8]) -> bool {
        self.to_string().as_bytes().eq_ignore_ascii_case(path)
    }
}

impl fmt::Display for MailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local, self.domain.as_str())
    }
}

impl Read for MailAddress {
    fn read(value: &Value<'_>) -> Option<Self> {
        let mend = "write it plainly, such as \"alice@example.net\"";
        let text = value.text("a mail address", mend)?;
        match Self::parse(text) {
            Some(address) => Some(address),
            None => value.wrong(format!("{text:?} is not a mail address"), mend),
        }
    }
}

impl Read for Domain {
    fn read(value: &Value<'_>) -> Option<Self> {
        let mend = "write a name such as \"example.net\"; other scripts in their xn-- form";
        let text = value.text("a domain name", mend)?;
        match crate::account::domain(text) {
            Some(domain) => Some(domain),
            None => value.wrong(format!("{text:?} is not a domain name"), mend),
        }
    }
}

impl Entry<'_> {
    /// The entry's name as a domain.
    pub(crate) fn domain(&self) -> Option<Domain> {
        let mend = "write a name such as \"example.net\" in quotes; other scripts in their xn-- form";
        match crate::account::domain(self.name) {
            Some(domain) => Some(domain),
            None => self.wrong_name(format!("{:?} is not a domain name", self.name), mend),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers() {
        let shown = |text| Endpoint::parse(text).map(|endpoint| endpoint.to_string());
        for text in ["imap.example:993", "192.0.2.1:25", "[2001:db8::1]:993", "localhost:1"] {
            assert_eq!(shown(text).as_deref(), Some(text));
        }
        assert_eq!(shown("IMAP.Example:993").as_deref(), Some("imap.example:993"));
        for text in [
            "imap.example",
            "2001:db8::1:993",
            "a:0",
            "a:65536",
            ":25",
            "192.0.2:25",
            "a b:1",
            "[a]:1",
            "a:b:1",
        ] {
            assert_eq!(shown(text), None, "{text:?}");
        }
    }

    #[test]
    fn near_is_only_what_is_surely_near() {
        let near = |text| Endpoint::parse(text).unwrap().is_near();
        for text in ["127.0.0.1:1", "10.1.2.3:1", "[::1]:1", "[fd00::1]:1", "localhost:1"] {
            assert!(near(text), "{text}");
        }
        for text in ["192.0.2.1:1", "[2001:db8::1]:1", "imap.example:1", "127.0.0.1.example:1"] {
            assert!(!near(text), "{text}");
        }
    }

    #[test]
    fn pages() {
        let shown = |text| HttpUrl::parse(text).map(|url| url.to_string());
        let cases = [
            ("https://mail.example/devices?a=b", Some("https://mail.example/devices?a=b")),
            ("http://127.0.0.1:8080/auth", Some("http://127.0.0.1:8080/auth")),
            ("https://mail.example", Some("https://mail.example/")),
            ("https://[2001:db8::1]", Some("https://[2001:db8::1]/")),
            ("https://mail.example?x", Some("https://mail.example/?x")),
            ("ftp://mail.example/", None),
            ("https://user@mail.example/", None),
            ("https://mail.example/#top", None),
            ("https:///x", None),
            ("https://a b/", None),
        ];
        for (text, url) in cases {
            assert_eq!(shown(text).as_deref(), url, "{text:?}");
        }
    }

    #[test]
    fn mail_addresses() {
        for text in ["alice@example.net", "o'brien+x@example.net", "jörg@example.net"] {
            let address = MailAddress::parse(text).unwrap();
            assert!(address.is(text.as_bytes()) && !address.is(b"bob@example.net"));
        }
        assert!(MailAddress::parse("Alice@Example.NET").unwrap().is(b"alice@example.net"));
        for text in
            ["alice", "@example.net", "a..b@example.net", "\"a b\"@example.net", "a b@example.net", "a@b@"]
        {
            assert_eq!(MailAddress::parse(text), None, "{text:?}");
        }
    }
}

//! `[listen]`: where mail clients connect.

use std::net::{Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use mail::session::{Protocol, Transport};

use crate::reader::Table;

/// `[listen]`. An empty list switches a listener off.
#[derive(Clone, Debug)]
pub struct Listen {
    /// IMAP under TLS from the first octet (RFC 8314); default `[::]:993`.
    pub imaps: Vec<SocketAddr>,
    /// POP3 under TLS from the first octet; default `[::]:995`.
    pub pop3s: Vec<SocketAddr>,
    /// Submission under TLS from the first octet; default `[::]:465`.
    pub submissions: Vec<SocketAddr>,
    /// IMAP with STARTTLS; off by default.
    pub imap: Vec<SocketAddr>,
    /// POP3 with STLS; off by default.
    pub pop3: Vec<SocketAddr>,
    /// Submission with STARTTLS; off by default.
    pub submission: Vec<SocketAddr>,
    /// Load balancers: from these networks a PROXY v1 or v2 header is required, from others it is refused.
    pub proxy_protocol: Vec<IpNet>,
}

/// One address to listen on.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Listener {
    /// What is spoken there.
    pub protocol: Protocol,
    /// `Tls`: from the first octet. `Clear`: STARTTLS is offered, and no login before it.
    pub transport: Transport,
    /// Where; an address of `[::]` takes IPv4 too.
    pub address: SocketAddr,
}

impl Listen {
    pub(crate) fn read(table: &mut Table<'_>) -> Self {
        let everywhere = |port| vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))];
        Self {
            imaps: table.or("imaps", everywhere(993)),
            pop3s: table.or("pop3s", everywhere(995)),
            submissions: table.or("submissions", everywhere(465)),
            imap: table.or("imap", Vec::new()),
            pop3: table.or("pop3", Vec::new()),
            submission: table.or("submission", Vec::new()),
            proxy_protocol: table.section("proxy-protocol", |table| table.or("from", Vec::new())),
        }
    }

    /// The six lists with their keys.
    pub(crate) fn lists(&self) -> [(&'static str, Protocol, Transport, &[SocketAddr]); 6] {
        use Protocol::{Imap, Pop3, Submission};
        use Transport::{Clear, Tls};
        [
            ("imaps", Imap, Tls, &self.imaps),
            ("pop3s", Pop3, Tls, &self.pop3s),
            ("submissions", Submission, Tls, &self.submissions),
            ("imap", Imap, Clear, &self.imap),
            ("pop3", Pop3, Clear, &self.pop3),
            ("submission", Submission, Clear, &self.submission),
        ]
    }

    /// Every address to listen on.
    pub fn all(&self) -> impl Iterator<Item = Listener> + '_ {
        self.lists().into_iter().flat_map(|(_, protocol, transport, addresses)| {
            addresses.iter().map(move |address| Listener { protocol, transport, address: *address })
        })
    }
}

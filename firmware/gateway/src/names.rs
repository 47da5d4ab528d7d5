//! Names of other machines: the only way the gateway turns a name into addresses.
//!
//! Never through std or tokio: `getaddrinfo` in a static executable wants shared libraries that the box does not have.
//! A [`Names`] belongs to the runtime it is first used on; its queries run there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;

/// How names are looked up.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum NameServers {
    /// Not at all: only addresses and `localhost` are known.
    Off,
    /// As `/etc/resolv.conf` says.
    #[default]
    System,
    /// These servers, asked over UDP and then TCP.
    Listed(Vec<SocketAddr>),
}

/// Why a name gave no address.
#[derive(Debug, thiserror::Error)]
pub enum NamesError {
    /// Name servers are switched off in the settings.
    #[error("cannot look up {0}: name servers are switched off")]
    Off(String),
    /// The name server said no, or nothing.
    #[error("cannot look up {host}: {why}")]
    Failed {
        /// The name asked for.
        host: String,
        /// What the resolver says.
        why: String,
    },
    /// The system's own settings cannot be read.
    #[error("name servers cannot be set up: {0}")]
    SetUp(String),
}

/// A resolver with a bounded cache. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Names {
    resolver: Option<TokioResolver>,
}

impl Names {
    /// Sets up the resolver; asks nothing yet.
    pub fn new(servers: &NameServers) -> Result<Self, NamesError> {
        let fail = |error: hickory_resolver::net::NetError| NamesError::SetUp(error.to_string());
        let mut builder = match servers {
            NameServers::Off => return Ok(Self { resolver: None }),
            NameServers::System => TokioResolver::builder_tokio().map_err(fail)?,
            NameServers::Listed(addresses) => {
                let servers = addresses.iter().map(|address| {
                    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
                    for connection in &mut connections {
                        connection.port = address.port();
                    }
                    NameServerConfig::new(address.ip(), true, connections)
                });
                let config = ResolverConfig::from_name_servers(servers.collect());
                let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
                builder.options_mut().use_hosts_file = ResolveHosts::Never;
                builder
            }
        };
        let options = builder.options_mut();
        options.timeout = Duration::from_secs(2);
        options.attempts = 2;
        options.cache_size = 1_024; // answers, about 0.5 MiB
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        Ok(Self { resolver: Some(builder.build().map_err(fail)?) })
    }

    /// The addresses of a host, at least one. An address stands for itself.
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, NamesError> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse() {
            return Ok(vec![address]);
        }
        // RFC 6761 §6.3: never asked of a server.
        if host.eq_ignore_ascii_case("localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let resolver = self.resolver.as_ref().ok_or_else(|| NamesError::Off(host.into()))?;
        let fail = |why: String| NamesError::Failed { host: host.into(), why };
        let found = resolver.lookup_ip(host).await.map_err(|error| fail(error.to_string()))?;
        let addresses = found.iter().collect::<Vec<_>>();
        if addresses.is_empty() { Err(fail("no address".into())) } else { Ok(addresses) }
    }

    /// The names that the reverse zone gives an address, as the zone writes them, at most `limit`.
    pub(crate) async fn pointers(&self, address: IpAddr, limit: usize) -> Option<Vec<String>> {
        let found = self.resolver.as_ref()?.reverse_lookup(address).await.ok()?;
        let name = |data: &RData| match data {
            RData::PTR(name) => Some(name.0.to_ascii()),
            _ => None,
        };
        Some(found.answers().iter().filter_map(|record| name(&record.data)).take(limit).collect())
    }
}

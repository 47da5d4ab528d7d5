//! `[network]`: how the box itself reaches the network. A gateway on a machine of somebody else's ignores it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ipnet::{Ipv4Net, Ipv6Net};
use toml::de::{DeTable, DeValue};

use crate::address::host_name;
use crate::error::SettingsError;
use crate::reader::{Read, Report, Table, Value, choice};
use crate::settings::syntax;

/// `[network]`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Network {
    /// The Ethernet interface; `None`: the board's uplink, else the first one with a carrier.
    pub interface: Option<String>,
    /// How the box gets its IPv4 address.
    pub ipv4: Ipv4,
    /// How the box gets its IPv6 addresses.
    pub ipv6: Ipv6,
    /// Name servers; empty: those that DHCP and router advertisements name.
    pub dns: Vec<IpAddr>,
    /// Time servers; empty: those that DHCP names.
    pub ntp: Vec<TimeServer>,
}

/// How the box gets its IPv4 address.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Ipv4 {
    /// From a DHCP server (RFC 2131).
    #[default]
    Dhcp,
    /// Not at all.
    Off,
    /// As written here.
    Static {
        /// The box's address with the length of its network's prefix.
        address: Ipv4Net,
        /// The router; `None`: the box reaches its own network alone.
        gateway: Option<Ipv4Addr>,
    },
}

/// How the box gets its IPv6 addresses.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Ipv6 {
    /// From router advertisements (RFC 4862).
    #[default]
    Auto,
    /// Not at all: IPv6 is switched off on the interface.
    Off,
    /// As written here; router advertisements are ignored.
    Static {
        /// The box's address with the length of its network's prefix.
        address: Ipv6Net,
        /// The router, often a link-local address; `None`: the box reaches its own network alone.
        gateway: Option<Ipv6Addr>,
    },
}

/// A time server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TimeServer {
    /// By its address.
    Address(IpAddr),
    /// By its host name, in lower case.
    Name(String),
}

/// More than this many servers of a kind are a slip of the pen, and nobody would ask them all.
const SERVERS: usize = 4;

impl Network {
    /// Reads this section of a document and nothing else of it: the box is on the network, where it can be mended from,
    /// even while other sections are wrong.
    ///
    /// # Errors
    /// All mistakes of the TOML as such, or all of this section.
    pub fn alone(text: &str, name: &Path) -> Result<Self, Vec<SettingsError>> {
        let place = |mistake| SettingsError::at(name.to_path_buf(), text, mistake);
        let (document, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            return Err(errors.iter().map(|error| place(syntax(text, error))).collect());
        }
        let report = Report::new(name.parent().unwrap_or(Path::new("")));
        let network = Table::document(&document, &report).section("network", Self::read);
        let mistakes = report.into_mistakes();
        if mistakes.is_empty() { Ok(network) } else { Err(mistakes.into_iter().map(place).collect()) }
    }

    pub(crate) fn read(table: &mut Table<'_>) -> Self {
        let interface = table.optional("interface").map(|Interface(name)| name);
        let ipv4 = table.or("ipv4", Ipv4::default());
        let six = table.value("ipv6");
        let ipv6 = six.as_ref().and_then(Ipv6::read).unwrap_or_default();
        if let Some(value) = six.filter(|_| (ipv4, ipv6) == (Ipv4::Off, Ipv6::Off)) {
            let _: Option<()> =
                value.contradiction("without IPv4 and IPv6 nobody reaches the box", "switch one of them on");
        }
        let dns = table.value("dns").and_then(|value| servers(&value)).unwrap_or_default();
        let written = table.value("ntp");
        let ntp = written.as_ref().and_then(servers).unwrap_or_default();
        let told = ipv4 == Ipv4::Dhcp || ipv6 == Ipv6::Auto || !dns.is_empty();
        let named = ntp.iter().any(|server| matches!(server, TimeServer::Name(_)));
        if let Some(value) = written.filter(|_| named && !told) {
            let mend = "add dns = [\"192.0.2.53\"], or write addresses here";
            let _: Option<()> =
                value.contradiction("no name server is known that could find these names", mend);
        }
        Self { interface, ipv4, ipv6, dns: dns.into_iter().map(|Server(address)| address).collect(), ntp }
    }
}

/// A list of at most [`SERVERS`].
fn servers<T: Read>(value: &Value<'_>) -> Option<Vec<T>> {
    let list = Vec::<T>::read(value)?;
    if list.len() > SERVERS {
        return value.wrong(format!("{} are too many", list.len()), format!("keep {SERVERS} of them"));
    }
    Some(list)
}

struct Interface(String);

impl Read for Interface {
    fn read(value: &Value<'_>) -> Option<Self> {
        let mend = "write its name as the kernel has it, such as \"eth0\"";
        let text = value.text("the name of an interface", mend)?;
        // IFNAMSIZ is 16 with the closing NUL; the kernel also refuses ".", "..", '/' and ':'.
        let fine = (1..=15).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
            && !text.bytes().all(|b| b == b'.');
        if fine {
            return Some(Self(text.to_owned()));
        }
        value.wrong(format!("{text:?} is not the name of an interface"), mend)
    }
}

struct Server(IpAddr);

impl Read for Server {
    fn read(value: &Value<'_>) -> Option<Self> {
        let mend = "write the address alone: \"192.0.2.53\" or \"2001:db8::53\"";
        let text = value.text("an address", mend)?;
        match text.parse::<IpAddr>() {
            Ok(address) if is_host(address) => Some(Self(address)),
            _ => value.wrong(format!("{text:?} is not the address of a server"), mend),
        }
    }
}

impl Read for TimeServer {
    fn read(value: &Value<'_>) -> Option<Self> {
        let mend = "write a name or an address: \"ntp.example.net\" or \"192.0.2.123\"";
        let text = value.text("a time server", mend)?;
        let server = match text.parse::<IpAddr>() {
            Ok(address) => is_host(address).then_some(Self::Address(address)),
            Err(_) => host_name(text).map(Self::Name),
        };
        match server {
            Some(server) => Some(server),
            None => value.wrong(format!("{text:?} is not a time server"), mend),
        }
    }
}

impl Read for Ipv4 {
    fn read(value: &Value<'_>) -> Option<Self> {
        let mend = "write \"dhcp\", \"off\" or { address = \"192.0.2.5/24\", gateway = \"192.0.2.1\" }";
        match value.get() {
            DeValue::String(_) => choice(value, &[("dhcp", Self::Dhcp), ("off", Self::Off)]),
            DeValue::Table(_) => {
                let (address, gateway) = fixed(value, mend)?;
                let (IpAddr::V4(own), length) = address else {
                    return value.wrong("an IPv4 address is wanted here", mend);
                };
                let address = Ipv4Net::new(own, length).ok()?;
                // RFC 3021: a network of two has neither a network's address nor a broadcast address.
                let reserved = length < 31 && (own == address.network() || own == address.broadcast());
                if reserved {
                    let what = format!("{own} is not a host of {}", address.trunc());
                    return value.contradiction(what, "write the box's own address with its prefix length");
                }
                let gateway = match gateway {
                    None => None,
                    Some(IpAddr::V4(gateway)) if address.contains(&gateway) && gateway != own => {
                        Some(gateway)
                    }
                    Some(gateway) => return stray(value, gateway, &address.trunc()),
                };
                Some(Self::Static { address, gateway })
            }
            _ => value.wrong_type("a word or a table", mend),
        }
    }
}

impl Read for Ipv6 {
    fn read(value: &Value<'_>) -> Option<Self> {
        let mend = "write \"auto\", \"off\" or { address = \"2001:db8::5/64\", gateway = \"fe80::1\" }";
        match value.get() {
            DeValue::String(_) => choice(value, &[("auto", Self::Auto), ("off", Self::Off)]),
            DeValue::Table(_) => {
                let (address, gateway) = fixed(value, mend)?;
                let (IpAddr::V6(own), length) = address else {
                    return value.wrong("an IPv6 address is wanted here", mend);
                };
                let address = Ipv6Net::new(own, length).ok()?;
                let gateway = match gateway {
                    None => None,
                    Some(IpAddr::V6(gateway))
                        if gateway != own
                            && (address.contains(&gateway) || gateway.is_unicast_link_local()) =>
                    {
                        Some(gateway)
                    }
                    Some(gateway) => return stray(value, gateway, &address.trunc()),
                };
                Some(Self::Static { address, gateway })
            }
            _ => value.wrong_type("a word or a table", mend),
        }
    }
}

/// `{ address = "…/…", gateway = "…" }`, of either family.
fn fixed(value: &Value<'_>, mend: &str) -> Option<((IpAddr, u8), Option<IpAddr>)> {
    let mut table = value.table()?;
    let address = table.required("address", mend);
    let gateway = table.value("gateway");
    table.finish();
    let gateway = match gateway {
        None => None,
        Some(value) => Some(Server::read(&value)?.0),
    };
    address.map(|Own(address, length)| ((address, length), gateway))
}

fn stray<T>(value: &Value<'_>, gateway: IpAddr, network: &dyn std::fmt::Display) -> Option<T> {
    let what = format!("the gateway {gateway} is not another host of {network}");
    value.contradiction(what, "correct the gateway, or the prefix length behind the address")
}

/// An address with the length of its network's prefix.
struct Own(IpAddr, u8);

impl Read for Own {
    fn read(value: &Value<'_>) -> Option<Self> {
        let mend =
            "write the box's own address with its prefix length: \"192.0.2.5/24\" or \"2001:db8::5/64\"";
        let text = value.text("an address", mend)?;
        let parts = text.split_once('/').and_then(|(address, length)| {
            let address = address.parse::<IpAddr>().ok().filter(|address| is_host(*address))?;
            let longest = if address.is_ipv4() { 32 } else { 128 };
            Some(Self(address, length.parse().ok().filter(|length| (1..=longest).contains(length))?))
        });
        match parts {
            Some(own) => Some(own),
            None => value.wrong(format!("{text:?} is not an address with its prefix length"), mend),
        }
    }
}

/// Whether one host of some network may have this address.
fn is_host(address: IpAddr) -> bool {
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || broadcast)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Network, String> {
        Network::alone(text, Path::new("x.toml"))
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn absent_it_is_dhcp_and_router_advertisements() {
        let network = read("").unwrap();
        assert_eq!(network, Network::default());
        assert_eq!((network.ipv4, network.ipv6), (Ipv4::Dhcp, Ipv6::Auto));
    }

    #[test]
    fn fixed_addresses() {
        let text = r#"[network]
            interface = "end0"
            ipv4 = { address = "192.0.2.5/24", gateway = "192.0.2.1" }
            ipv6 = { address = "2001:db8::5/64", gateway = "fe80::1" }
            dns = ["192.0.2.53", "2001:db8::53"]
            ntp = ["NTP.example.net", "192.0.2.123"]"#;
        let network = read(text).unwrap();
        assert_eq!(network.interface.as_deref(), Some("end0"));
        let address = "192.0.2.5/24".parse().unwrap();
        assert_eq!(network.ipv4, Ipv4::Static { address, gateway: Some(Ipv4Addr::new(192, 0, 2, 1)) });
        assert!(matches!(network.ipv6, Ipv6::Static { address, .. } if address.prefix_len() == 64));
        assert_eq!(network.dns.len(), 2);
        assert_eq!(network.ntp[0], TimeServer::Name("ntp.example.net".into()));
    }

    /// A mistake elsewhere must not take the box off the network.
    #[test]
    fn other_sections_do_not_matter() {
        let network = read("[box]\nhostname = 7\n[colour]\n[network]\nipv6 = \"off\"\n").unwrap();
        assert_eq!(network.ipv6, Ipv6::Off);
        assert!(read("[network]\nipv7 = \"off\"\n").unwrap_err().contains("ipv7"));
        assert!(read("[network\n").is_err());
    }

    #[test]
    fn a_gateway_may_be_left_out_and_a_link_of_two_has_no_broadcast() {
        let network = read("[network]\nipv4 = { address = \"192.0.2.0/31\" }").unwrap();
        assert!(matches!(network.ipv4, Ipv4::Static { gateway: None, .. }));
    }
}

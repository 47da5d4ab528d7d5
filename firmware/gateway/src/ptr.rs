//! The name of a client's address, for alerts: looked up backwards, believed only if it leads forward again.
//!
//! Whoever owns an address block can give it any name, also the ISP's own; without the forward check that name would
//! stand in a mail that people trust.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::names::Names;

/// Answers kept; about 200 octets each.
const CACHE: usize = 1_024;
/// How long an answer is believed, and how long a failure.
const KEEP: Duration = Duration::from_hours(1);
const KEEP_FAILURE: Duration = Duration::from_mins(5);
/// Look-ups under way at once; more wait, within their own limit.
const AT_ONCE: usize = 16;
/// Names of one address that are checked: some have hundreds.
const NAMES: usize = 3;

/// PTR look-ups with a bounded cache. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pointers {
    names: Names,
    limit: Duration,
    cache: Arc<Mutex<HashMap<IpAddr, Answer>>>,
    permits: Arc<Semaphore>,
}

#[derive(Clone, Debug)]
struct Answer {
    name: Option<String>,
    until: Instant,
}

impl Pointers {
    /// Look-ups through `names`, each within `limit` for both directions (two seconds are plenty); with name servers off
    /// every answer is `None`.
    pub fn new(names: Names, limit: Duration) -> Self {
        Self { names, limit, cache: Arc::default(), permits: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// The forward-confirmed name of an address within the limit: letters, digits, hyphens, underscores and dots, no
    /// final dot. `None` when there is none, it does not lead back, or nobody answers.
    pub async fn name(&self, address: IpAddr) -> Option<String> {
        let address = address.to_canonical();
        if let Some(answer) = self.cached(address) {
            return answer.name;
        }
        let name = timeout(self.limit, self.look_up(address)).await.ok().flatten();
        let keep = if name.is_some() { KEEP } else { KEEP_FAILURE };
        self.keep(address, Answer { name: name.clone(), until: Instant::now() + keep });
        name
    }

    async fn look_up(&self, address: IpAddr) -> Option<String> {
        let _permit = self.permits.acquire().await.ok()?;
        for name in self.names.pointers(address, NAMES).await? {
            let Some(name) = clean(&name) else { continue };
            // The final dot keeps search domains out.
            let forward = self.names.addresses(&format!("{name}.")).await.unwrap_or_default();
            if forward.into_iter().any(|back| back.to_canonical() == address) {
                return Some(name);
            }
        }
        None
    }

    fn cached(&self, address: IpAddr) -> Option<Answer> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.get(&address).filter(|answer| answer.until > Instant::now()).cloned()
    }

    fn keep(&self, address: IpAddr, answer: Answer) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHE {
            let now = Instant::now();
            cache.retain(|_, answer| answer.until > now);
            if cache.len() >= CACHE {
                cache.clear(); // a flood of addresses: forgetting costs a look-up, not memory
            }
        }
        cache.insert(address, answer);
    }
}

/// A host name that can stand in mail and on a page.
fn clean(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let good = (1..=253).contains(&name.len())
        && name.split('.').all(|label| (1..=63).contains(&label.len()))
        && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.'));
    good.then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::net::UdpSocket;

    use super::*;
    use crate::names::NameServers;

    /// A DNS server (RFC 1035 §4) that knows what `answer` tells it: question name and type to record data.
    async fn dns(answer: impl Fn(&str, u16) -> Option<Vec<u8>> + Send + 'static) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let here = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut packet = [0; 1_500];
            loop {
                let (length, peer) = socket.recv_from(&mut packet).await.unwrap();
                let query = &packet[..length];
                let (name, end) = question(query);
                let kind = u16::from_be_bytes([query[end], query[end + 1]]);
                let data = answer(&name, kind);
                let mut reply = query[..2].to_vec();
                // QR, RD, RA; no error but NXDOMAIN when nothing is known of that name.
                let code = if data.is_some() { 0x80 } else { 0x83 };
                reply.extend_from_slice(&[0x81, code, 0, 1, 0, u8::from(data.is_some()), 0, 0, 0, 0]);
                reply.extend_from_slice(&query[12..end + 4]);
                if let Some(data) = data {
                    reply.extend_from_slice(&[0xc0, 12]);
                    reply.extend_from_slice(&kind.to_be_bytes());
                    reply.extend_from_slice(&[0, 1, 0, 0, 1, 0]);
                    reply.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
                    reply.extend_from_slice(&data);
                }
                socket.send_to(&reply, peer).await.unwrap();
            }
        });
        here
    }

    fn question(query: &[u8]) -> (String, usize) {
        let (mut at, mut name) = (12, String::new());
        while query[at] != 0 {
            let label = &query[at + 1..at + 1 + usize::from(query[at])];
            name.push_str(&String::from_utf8_lossy(label).to_ascii_lowercase());
            name.push('.');
            at += 1 + label.len();
        }
        (name, at + 1)
    }

    fn wire_name(name: &str) -> Vec<u8> {
        let mut wire = Vec::new();
        for label in name.split('.') {
            wire.push(u8::try_from(label.len()).unwrap());
            wire.extend_from_slice(label.as_bytes());
        }
        wire.push(0);
        wire
    }

    const A: u16 = 1;
    const PTR: u16 = 12;

    fn pointers(server: SocketAddr) -> Pointers {
        Pointers::new(Names::new(&NameServers::Listed(vec![server])).unwrap(), Duration::from_secs(2))
    }

    #[tokio::test]
    async fn confirmed_names_only() {
        let server = dns(|name, kind| match (name, kind) {
            ("7.113.0.203.in-addr.arpa.", PTR) => Some(wire_name("Dial-7.Example.net")),
            ("dial-7.example.net.", A) => Some(vec![203, 0, 113, 7]),
            // A stranger who calls himself the ISP's own mail server.
            ("8.113.0.203.in-addr.arpa.", PTR) => Some(wire_name("mail.isp.example")),
            ("mail.isp.example.", A) => Some(vec![192, 0, 2, 1]),
            // Markup in a name that even leads back.
            ("9.113.0.203.in-addr.arpa.", PTR) => Some(wire_name("<b>.example")),
            ("<b>.example.", A) => Some(vec![203, 0, 113, 9]),
            _ => None,
        })
        .await;
        let pointers = pointers(server);
        let name = async |address: &str| pointers.name(address.parse().unwrap()).await;
        assert_eq!(name("203.0.113.7").await.as_deref(), Some("dial-7.example.net"));
        assert_eq!(name("::ffff:203.0.113.7").await.as_deref(), Some("dial-7.example.net"));
        for stranger in ["203.0.113.8", "203.0.113.9", "203.0.113.10"] {
            assert_eq!(name(stranger).await, None, "{stranger}");
        }
        assert_eq!(pointers.cache.lock().unwrap().len(), 4);
    }

    #[tokio::test]
    async fn a_silent_server_costs_two_seconds_once() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let pointers = pointers(socket.local_addr().unwrap());
        let start = Instant::now();
        assert_eq!(pointers.name("203.0.113.7".parse().unwrap()).await, None);
        let first = start.elapsed();
        assert!(first < Duration::from_millis(2_900), "{first:?}");
        assert_eq!(pointers.name("203.0.113.7".parse().unwrap()).await, None);
        assert!(start.elapsed() < first + Duration::from_millis(500));
    }

    #[tokio::test]
    async fn switched_off() {
        let pointers = Pointers::new(Names::new(&NameServers::Off).unwrap(), Duration::from_secs(2));
        assert_eq!(pointers.name("203.0.113.7".parse().unwrap()).await, None);
        assert_eq!(pointers.names.addresses("192.0.2.1").await.unwrap().len(), 1);
        assert_eq!(pointers.names.addresses("[2001:db8::1]").await.unwrap().len(), 1);
        assert!(pointers.names.addresses("mail.example.net").await.is_err());
    }

    #[test]
    fn the_cache_is_bounded() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let pointers = Pointers::new(Names::new(&NameServers::Off).unwrap(), Duration::from_secs(2));
            for number in 0..5_000_u32 {
                pointers.name(IpAddr::from(number.to_be_bytes())).await;
            }
            assert!(pointers.cache.lock().unwrap().len() <= CACHE);
        });
    }
}

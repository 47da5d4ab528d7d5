//! Events as RFC 5424 syslog, over UDP (RFC 5426) or the local datagram socket.

use std::fmt::Write as _;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use jiff::Timestamp;

use crate::event::{Event, Severity};

/// Octets of one datagram: RFC 5424 §6.1 asks receivers for 2,048 and lets them take more.
const MAX: usize = 8 * 1024;

/// Where syslog goes and under which names.
#[derive(Clone, Debug)]
pub struct SyslogSettings {
    /// The receiver.
    pub to: Receiver,
    /// RFC 5424 table 1; 2 is the mail system, 10 security.
    pub facility: u8,
    /// HOSTNAME of every message.
    pub hostname: String,
    /// The least severe events that are sent.
    pub from: Severity,
}

/// A syslog receiver.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Receiver {
    /// Another machine.
    Udp(SocketAddr),
    /// This one, such as `/dev/log`.
    Unix(PathBuf),
}

/// Sends events. Datagrams are never waited for: what the socket does not take at once is lost, as syslog is.
#[derive(Debug)]
pub struct Syslog {
    settings: SyslogSettings,
    socket: Option<Socket>,
}

#[derive(Debug)]
enum Socket {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl Syslog {
    /// Opens nothing yet: a receiver that starts later than the box is no error.
    pub const fn new(settings: SyslogSettings) -> Self {
        Self { settings, socket: None }
    }

    /// Sends one event, if it is severe enough. After an error the next call opens the socket again.
    pub fn send(&mut self, event: &Event) -> io::Result<()> {
        if event.kind.severity() < self.settings.from {
            return Ok(());
        }
        let message = format(&self.settings, event);
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => open(&self.settings.to)?,
        };
        match &socket {
            Socket::Udp(socket) => socket.send(message.as_bytes())?,
            Socket::Unix(socket) => socket.send(message.as_bytes())?,
        };
        self.socket = Some(socket);
        Ok(())
    }
}

fn open(to: &Receiver) -> io::Result<Socket> {
    match to {
        Receiver::Udp(address) => {
            let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
            let socket = UdpSocket::bind(any)?;
            socket.set_nonblocking(true)?;
            socket.connect(address)?;
            Ok(Socket::Udp(socket))
        }
        Receiver::Unix(path) => {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            socket.connect(path)?;
            Ok(Socket::Unix(socket))
        }
    }
}

/// `<PRI>1 TIME HOST postern PID MSGID [origin …] @cee: {json}`: the text is one flat JSON object, which rsyslog and
/// syslog-ng parse by that cookie.
fn format(settings: &SyslogSettings, event: &Event) -> String {
    let priority = u16::from(settings.facility.min(23)) * 8 + u16::from(event.kind.severity().code());
    let time =
        i64::try_from(event.at).ok().and_then(|at| Timestamp::from_second(at).ok()).unwrap_or_default();
    // §6.2.4: printable ASCII, at most 255.
    let host: String = settings.hostname.chars().filter(char::is_ascii_graphic).take(255).collect();
    let host = if host.is_empty() { "-" } else { &host };
    let mut message = format!(
        "<{priority}>1 {time} {host} postern {} {} [origin software=\"postern\" swVersion=\"{}\"] @cee: ",
        std::process::id(),
        event.kind.name(),
        env!("CARGO_PKG_VERSION"),
    );
    // An event is always JSON; its texts have no line ends.
    let json = serde_json::to_string(event).unwrap_or_default();
    if message.len() + json.len() <= MAX {
        message.push_str(&json);
    } else {
        let _ = write!(message, "{{\"at\":{},\"event\":\"{}\"}}", event.at, event.kind.name());
    }
    message
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::event::{Kind, Subject};

    fn event(what: &str) -> Event {
        let kind = Kind::StoreTrouble { what: what.into() };
        Event { at: 1_584_985_234, kind, subject: Subject::account("ann@example.net") }
    }

    fn settings(to: Receiver) -> SyslogSettings {
        SyslogSettings { to, facility: 2, hostname: "postern.isp.example".into(), from: Severity::Notice }
    }

    fn wanted() -> String {
        let version = env!("CARGO_PKG_VERSION");
        format!(
            "<19>1 2020-03-23T17:40:34Z postern.isp.example postern {} store-trouble [origin software=\"postern\" swVersion=\"{version}\"] @cee: {{\"at\":1584985234,\"event\":\"store-trouble\",\"what\":\"disk ? full\",\"account\":\"ann@example.net\"}}",
            std::process::id()
        )
    }

    #[test]
    fn over_udp_from_a_severity_on() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut syslog = Syslog::new(settings(Receiver::Udp(receiver.local_addr().unwrap())));
        syslog.send(&Event::new(Kind::DeviceNew, Subject::default())).unwrap(); // not severe enough
        syslog.send(&event("disk \n full")).unwrap();
        let mut packet = [0; MAX];
        let length = receiver.recv(&mut packet).unwrap();
        assert_eq!(str::from_utf8(&packet[..length]).unwrap(), wanted());
    }

    #[test]
    fn over_a_local_socket_that_comes_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut syslog = Syslog::new(settings(Receiver::Unix(path.clone())));
        assert!(syslog.send(&event("x")).is_err(), "nobody listens yet");
        for _ in 0..2 {
            let receiver = UnixDatagram::bind(&path).unwrap();
            receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            if syslog.send(&event("disk \n full")).is_err() {
                // The first send after a restart of the receiver meets the old socket.
                syslog.send(&event("disk \n full")).unwrap();
            }
            let mut packet = [0; MAX];
            let length = receiver.recv(&mut packet).unwrap();
            assert_eq!(str::from_utf8(&packet[..length]).unwrap(), wanted());
            std::fs::remove_file(&path).unwrap();
        }
    }
}

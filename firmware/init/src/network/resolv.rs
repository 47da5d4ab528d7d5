//! `resolv.conf`: the name servers that are asked now, for every process of the box.

use std::fs;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The file, and what is in it.
#[derive(Debug)]
pub(super) struct Resolv {
    path: PathBuf,
    written: Option<String>,
}

/// resolv.conf(5) reads three and passes over the rest.
pub(super) const MOST: usize = 3;

impl Resolv {
    /// The file in this folder.
    pub(super) fn new(folder: &Path) -> Self {
        Self { path: folder.join("resolv.conf"), written: None }
    }

    /// Writes it whole or not at all, if it would change. `interface` is where link-local servers are.
    pub(super) fn write(&mut self, servers: &[IpAddr], interface: &str) -> io::Result<()> {
        let text = text(servers, interface);
        if self.written.as_ref() == Some(&text) {
            return Ok(());
        }
        replace(&self.path, text.as_bytes(), 0o644)?;
        self.written = Some(text);
        Ok(())
    }
}

fn text(servers: &[IpAddr], interface: &str) -> String {
    let line = |server: &IpAddr| match server {
        IpAddr::V6(address) if address.is_unicast_link_local() => {
            format!("nameserver {address}%{interface}\n")
        }
        _ => format!("nameserver {server}\n"),
    };
    let lines = servers.iter().take(MOST).map(line).collect::<String>();
    format!("# By Postern; [network] dns in the settings replaces what the network names.\n{lines}")
}

/// Where a name server is asked.
pub(super) fn endpoint(server: IpAddr, index: u32) -> SocketAddr {
    match server {
        IpAddr::V6(address) if address.is_unicast_link_local() => {
            SocketAddrV6::new(address, 53, 0, index).into()
        }
        _ => SocketAddr::new(server, 53),
    }
}

/// Replaces a file's content: a reader sees the old or the new one, and so does who looks after a power cut.
pub(super) fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    fs::File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_servers_and_the_link_of_those_that_need_it() {
        let servers =
            ["192.0.2.53", "fe80::1", "2001:db8::53", "192.0.2.54"].map(|text| text.parse().unwrap());
        let said = text(&servers, "eth0");
        let lines = said.lines().skip(1).collect::<Vec<_>>();
        assert_eq!(lines, ["nameserver 192.0.2.53", "nameserver fe80::1%eth0", "nameserver 2001:db8::53"]);
        assert_eq!(endpoint(servers[1], 7).to_string(), "[fe80::1%7]:53");
    }

    #[test]
    fn it_is_replaced_whole_and_only_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let mut resolv = Resolv::new(folder.path());
        let path = folder.path().join("resolv.conf");
        resolv.write(&[], "eth0").unwrap();
        assert!(fs::read_to_string(&path).unwrap().starts_with('#'));
        fs::remove_file(&path).unwrap();
        resolv.write(&[], "eth0").unwrap();
        assert!(!path.exists(), "nothing changed");
        resolv.write(&["192.0.2.53".parse().unwrap()], "eth0").unwrap();
        assert!(fs::read_to_string(&path).unwrap().ends_with("nameserver 192.0.2.53\n"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

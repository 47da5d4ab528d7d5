//! The attack surface of the running box, read back from the kernel and said on the console, so that a test can compare
//! it with a file and a review sees it change.

use std::fs;

use nix::unistd::Pid;

use crate::console;

/// Tables of sockets in `/proc/net`, with the column of the local address and that of the state.
const TABLES: [(&str, &str); 6] =
    [("tcp", "tcp"), ("tcp6", "tcp"), ("udp", "udp"), ("udp6", "udp"), ("raw", "raw"), ("raw6", "raw")];

/// `TCP_LISTEN`.
const LISTENING: &str = "0A";

/// Says everything. `services` are the running ones.
pub(crate) fn say<'s>(services: impl Iterator<Item = (&'s str, Pid)>) {
    sockets();
    mounts("init", "self");
    for (name, pid) in services {
        rights(name, pid);
        mounts(name, &pid.to_string());
    }
}

/// Every socket that takes what it did not ask for.
fn sockets() {
    for (table, protocol) in TABLES {
        let text = fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
        for place in text.lines().skip(1).filter_map(|line| open_port(line, protocol == "tcp")) {
            console::stage("surface", &[("listen", &format_args!("{protocol}:{place}"))]);
        }
    }
    let packet = fs::read_to_string("/proc/net/packet").unwrap_or_default();
    for line in packet.lines().skip(1) {
        // sk RefCnt Type Proto Iface R Rmem User Inode
        let columns = line.split_whitespace().collect::<Vec<_>>();
        if let [_, _, _, protocol, ..] = columns.as_slice() {
            console::stage("surface", &[("listen", &format_args!("packet:{protocol}"))]);
        }
    }
}

/// The local address of a line of `/proc/net/tcp` and its kin, if it is open to the world: `address:port`.
fn open_port(line: &str, tcp: bool) -> Option<String> {
    let mut columns = line.split_whitespace().skip(1);
    let (local, _remote, state) = (columns.next()?, columns.next()?, columns.next()?);
    if tcp && state != LISTENING {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(format!("{}:{port}", readable(address)?))
}

/// An address as the kernel prints it: words of 32 bits in the machine's order.
fn readable(hexadecimal: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(16);
    for at in (0..hexadecimal.len()).step_by(8) {
        octets.extend(u32::from_str_radix(hexadecimal.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    if let Ok(four) = <[u8; 4]>::try_from(octets.as_slice()) {
        return Some(std::net::Ipv4Addr::from(four).to_string());
    }
    <[u8; 16]>::try_from(octets.as_slice()).ok().map(|six| format!("[{}]", std::net::Ipv6Addr::from(six)))
}

/// Mounts that can be written to and run from: there should be none.
fn mounts(who: &str, pid: &str) {
    let text = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    for place in text.lines().filter_map(writable_and_executable) {
        console::stage("surface", &[("mount", &place), ("of", &who)]);
    }
}

/// The mount point of a line of `mountinfo`, if it is neither read-only nor without execution.
fn writable_and_executable(line: &str) -> Option<&str> {
    let mut columns = line.split(' ').skip(4);
    let (place, options) = (columns.next()?, columns.next()?);
    let has = |wanted: &str| options.split(',').any(|option| option == wanted);
    (!has("ro") && !has("noexec")).then_some(place)
}

/// Who a service is and what it may do, as the kernel sees it.
fn rights(name: &str, pid: Pid) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |wanted: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(wanted)?.strip_prefix(':'));
        line.and_then(|value| value.split_whitespace().next()).unwrap_or("?")
    };
    console::stage(
        "surface",
        &[
            ("service", &name),
            ("uid", &field("Uid")),
            ("caps", &field("CapEff")),
            ("seccomp", &field("Seccomp")),
            ("nnp", &field("NoNewPrivs")),
        ],
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets_are_read_as_the_kernel_prints_them() {
        let line =
            "   0: 00000000000000000000000000000000:03E1 00000000000000000000000000000000:0000 0A 00000000:0";
        assert_eq!(open_port(line, true).unwrap(), "[::]:993");
        let loopback = "   1: 0100007F:2382 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0";
        assert_eq!(open_port(loopback, true).unwrap(), "127.0.0.1:9090");
        let connected = "   2: 0100007F:2382 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0";
        assert_eq!(open_port(connected, true), None);
        let udp = "   3: 00000000:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000     0";
        assert_eq!(open_port(udp, false).unwrap(), "0.0.0.0:68");
    }

    #[test]
    fn only_mounts_that_can_be_written_and_run_are_told() {
        let line = |options: &str| {
            format!("36 35 98:0 / /data {options} shared:1 - ext4 /dev/vda5 rw,errors=remount-ro")
        };
        assert_eq!(writable_and_executable(&line("rw,nosuid")), Some("/data"));
        assert_eq!(writable_and_executable(&line("rw,nosuid,noexec")), None);
        assert_eq!(writable_and_executable(&line("ro,nosuid")), None);
    }
}

//! The kernel's switches of an interface, under `/proc/sys/net`.

use std::fs;
use std::io;
use std::path::Path;

use settings::Ipv6;

/// How an interface takes part in IPv6.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Part {
    /// Not the box's interface, or IPv6 is off: no address, not even a link-local one.
    None,
    /// Addresses and routes from router advertisements.
    Auto,
    /// Addresses as set; routers are not listened to.
    Fixed,
}

impl From<Ipv6> for Part {
    fn from(ipv6: Ipv6) -> Self {
        match ipv6 {
            Ipv6::Auto => Self::Auto,
            Ipv6::Off => Self::None,
            Ipv6::Static { .. } => Self::Fixed,
        }
    }
}

/// Sets the switches of the interface `name`. One that already stands right is not written, so that a root without a
/// writable `/proc/sys` is no error while the kernel's defaults are what is wanted.
///
/// # Errors
/// The first switch that could not be set, with its path; the others are set all the same.
pub(super) fn set(name: &str, part: Part) -> io::Result<()> {
    let listens = if part == Part::Auto { "1" } else { "0" };
    let off = if part == Part::None { "1" } else { "0" };
    let switches = [
        // Nobody but the settings and the routers' advertisements tells the box ways.
        ("ipv4", "accept_redirects", "0"),
        ("ipv4", "accept_source_route", "0"),
        ("ipv4", "send_redirects", "0"),
        ("ipv6", "accept_redirects", "0"),
        ("ipv6", "accept_ra", listens),
        ("ipv6", "autoconf", listens),
        // A server keeps its address, so that names can point to it: made of the hardware address, and no other.
        ("ipv6", "addr_gen_mode", "0"),
        ("ipv6", "use_tempaddr", "0"),
        // An address that somebody else has is not used.
        ("ipv6", "accept_dad", "1"),
        ("ipv6", "dad_transmits", "1"),
        // Last: it begins everything above.
        ("ipv6", "disable_ipv6", off),
    ];
    let mut result = Ok(());
    for (family, switch, value) in switches {
        let folder = Path::new("/proc/sys/net").join(family).join("conf").join(name);
        if !folder.is_dir() && part == Part::None {
            continue; // a kernel without IPv6
        }
        result = result.and(write(&folder.join(switch), value));
    }
    result
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    let stands = fs::read_to_string(path).is_ok_and(|stands| stands.trim() == value);
    if stands {
        return Ok(());
    }
    fs::write(path, value)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

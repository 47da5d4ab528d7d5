//! The table of services: what each is, and all that each may have.

use std::time::Duration;

use crate::supervise::Patience;

/// How many there are. Fixed tables of this size hold them.
pub(crate) const SERVICES: usize = 2;

/// A service, as it is written here; nothing of it comes from settings.
#[derive(Debug)]
pub(crate) struct Service {
    /// Its name in stage lines, folders and tests.
    pub(crate) name: &'static str,
    /// The executable, the only one it can see.
    pub(crate) program: &'static str,
    /// What it is called with, before the settings.
    pub(crate) arguments: &'static [&'static str],
    /// Its own user and group.
    pub(crate) uid: u32,
    /// Capabilities it keeps.
    pub(crate) capabilities: &'static [Capability],
    /// What it sees of the file system, besides its executable, `/proc`, `/dev/null` and `/dev/urandom`.
    pub(crate) places: &'static [Place],
    /// Whether the listening sockets are passed to it.
    pub(crate) listens: bool,
    /// Whether it opens TCP connections. Other sockets (netlink, packet, UDP) are not Landlock's business.
    pub(crate) connects: bool,
    /// How much of the settings it sees.
    pub(crate) settings: View,
    /// What it may use up.
    pub(crate) limits: Limits,
    /// The list of its system calls.
    pub(crate) profile: &'static str,
    /// Stages it may report in its own name.
    pub(crate) stages: &'static [&'static str],
    /// How long to bear with it.
    pub(crate) patience: Patience,
}

/// The capabilities that PID 1 or any service keeps (`capabilities(7)`), by the kernel's numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Capability {
    /// Give files to their owners.
    Chown = 0,
    /// Read and write what is others'.
    DacOverride = 1,
    /// Set modes of what is others'.
    Fowner = 3,
    /// Send signals to others.
    Kill = 5,
    /// Become another group.
    SetGid = 6,
    /// Become another user.
    SetUid = 7,
    /// Bound what children can have.
    SetPcap = 8,
    /// Ports below 1024.
    NetBindService = 10,
    /// Addresses, routes and links.
    NetAdmin = 12,
    /// Packet sockets: DHCP speaks before there is an address.
    NetRaw = 13,
    /// Enter a root.
    SysChroot = 18,
    /// See what others are, in `/proc`.
    SysPtrace = 19,
    /// Mounts and namespaces.
    SysAdmin = 21,
    /// Reboot.
    SysBoot = 22,
    /// Limits above the usual.
    SysResource = 24,
    /// The clock.
    SysTime = 25,
}

/// What PID 1 keeps: its own work, and what it hands to services. Gone are raw devices, modules, the audit system,
/// and whatever a later kernel invents.
pub(crate) const OWN: [Capability; 16] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Kill,
    Capability::SetGid,
    Capability::SetUid,
    Capability::SetPcap,
    Capability::NetBindService,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysResource,
    Capability::SysTime,
];

/// A folder or file of the box that a service sees under the same name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) path: &'static str,
    pub(crate) access: Access,
}

/// What a service may do in a place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Access {
    /// Read.
    Read,
    /// Read, write, make and remove files, folders and sockets.
    Write,
}

/// How much of the settings a service sees.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum View {
    /// None of it: it is handed the document in force as its standard input.
    Document,
    /// The folder.
    Folder,
}

/// What a service may use up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of memory, as a share of the board's in percent, but not less than `memory_least`.
    pub(crate) memory_percent: u64,
    /// Bytes of memory that it gets on any board.
    pub(crate) memory_least: u64,
    /// Processes and threads.
    pub(crate) tasks: u32,
    /// Share of the CPU when it is short; 100 is ordinary.
    pub(crate) cpu_weight: u32,
    /// Open files.
    pub(crate) files: u64,
    /// Who is killed first when memory runs out; PID 1 never is.
    pub(crate) oom_score: i32,
}

/// All services, in the order in which they start; they stop in reverse.
pub(crate) static TABLE: [Service; SERVICES] = [
    Service {
        name: "network",
        program: "/init",
        arguments: &["network", "--settings", "-"],
        uid: 100,
        capabilities: &[Capability::NetAdmin, Capability::NetRaw, Capability::SysTime],
        places: &[
            Place { path: "/etc/postern", access: Access::Read },
            Place { path: "/data/network", access: Access::Write },
            Place { path: "/run/network", access: Access::Write },
            // The switches of IPv6; the kernel lets whoever has CAP_NET_ADMIN turn them.
            Place { path: "/proc/sys/net", access: Access::Write },
        ],
        listens: false,
        connects: true, // DNS answers that are too long for UDP
        settings: View::Document,
        limits: Limits {
            memory_percent: 3,
            memory_least: 16 << 20,
            tasks: 8,
            cpu_weight: 200,
            files: 64,
            oom_score: -500,
        },
        profile: include_str!("../profiles/network.toml"),
        stages: &["network", "time"],
        patience: Patience { drain: Duration::from_secs(5), ..PATIENCE },
    },
    Service {
        name: "gateway",
        program: "/bin/gateway",
        arguments: &["--data", "/data/gateway", "--control", "/run/gateway/control"],
        uid: 101,
        capabilities: &[],
        places: &[
            Place { path: "/etc/hosts", access: Access::Read },
            Place { path: "/data/gateway", access: Access::Write },
            Place { path: "/run/gateway", access: Access::Write },
            Place { path: "/run/network", access: Access::Read },
        ],
        listens: true,
        connects: true,
        settings: View::Folder,
        limits: Limits {
            memory_percent: 70,
            memory_least: 64 << 20,
            tasks: 64,
            cpu_weight: 100,
            // 10,000 sessions of two sockets each, the database, and room.
            files: 32_768,
            oom_score: 0,
        },
        profile: include_str!("../profiles/gateway.toml"),
        stages: &[],
        patience: PATIENCE,
    },
];

const PATIENCE: Patience = Patience::USUAL;

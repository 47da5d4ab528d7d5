//! What is mounted where, with the least rights that each place can do with.

use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::sync;

use crate::console::say;

/// Nothing on it is a device, a program, or lends its owner's rights.
pub(crate) const INERT: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// Where the data partition is.
pub(crate) const DATA: &str = "/data";
/// Where the boot partition is while something is read from it.
pub(crate) const BOOT: &str = "/boot";

struct Mount {
    source: &'static str,
    target: &'static str,
    kind: &'static str,
    flags: MsFlags,
    options: &'static str,
    /// What is missing without it.
    purpose: Purpose,
}

enum Purpose {
    /// The box cannot start.
    Needed,
    /// A kernel without it is a kernel with less, which is said where it matters.
    Wished,
}

/// What the rest needs to find the board and speak: before anything else.
const FIRST: [Mount; 4] = [
    Mount {
        source: "proc",
        target: "/proc",
        kind: "proc",
        flags: INERT,
        options: "hidepid=2",
        purpose: Purpose::Needed,
    },
    Mount {
        source: "sysfs",
        target: "/sys",
        kind: "sysfs",
        flags: INERT,
        options: "",
        purpose: Purpose::Needed,
    },
    Mount {
        source: "devtmpfs",
        target: "/dev",
        kind: "devtmpfs",
        flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC),
        options: "mode=0755,size=64k",
        purpose: Purpose::Needed,
    },
    Mount {
        source: "efivarfs",
        target: "/sys/firmware/efi/efivars",
        kind: "efivarfs",
        flags: INERT.union(MsFlags::MS_RDONLY),
        options: "",
        purpose: Purpose::Wished,
    },
];

/// The rest, once the watchdog is armed.
const LATER: [Mount; 4] = [
    Mount {
        source: "tmpfs",
        target: "/run",
        kind: "tmpfs",
        flags: INERT,
        options: "mode=0755,size=4m,nr_inodes=1k",
        purpose: Purpose::Needed,
    },
    Mount {
        source: "tmpfs",
        target: "/tmp",
        kind: "tmpfs",
        flags: INERT,
        options: "mode=1777,size=4m,nr_inodes=1k",
        purpose: Purpose::Needed,
    },
    Mount {
        source: "cgroup2",
        target: "/sys/fs/cgroup",
        kind: "cgroup2",
        flags: INERT,
        options: "",
        purpose: Purpose::Wished,
    },
    Mount {
        source: "pstore",
        target: "/sys/fs/pstore",
        kind: "pstore",
        flags: INERT,
        options: "",
        purpose: Purpose::Wished,
    },
];

/// `/proc`, `/sys`, `/dev` and the firmware's variables: the first act of all.
pub(crate) fn first() -> io::Result<()> {
    all(&FIRST)
}

/// `/run`, `/tmp`, control groups and the kernel's last words.
pub(crate) fn later() -> io::Result<()> {
    all(&LATER)
}

fn all(mounts: &[Mount]) -> io::Result<()> {
    for entry in mounts {
        let options = Some(entry.options).filter(|options| !options.is_empty());
        let done = mount(Some(entry.source), entry.target, Some(entry.kind), entry.flags, options);
        match (done, &entry.purpose) {
            (Ok(()), _) | (Err(Errno::ENOENT | Errno::ENODEV), Purpose::Wished) => {}
            (Err(errno), _) => {
                let what = format!("cannot mount {} on {}: {}", entry.kind, entry.target, errno.desc());
                return Err(io::Error::new(io::Error::from(errno).kind(), what));
            }
        }
    }
    Ok(())
}

/// Nothing writes to the root from here on: it is the firmware itself, unpacked into memory.
pub(crate) fn seal_root() -> io::Result<()> {
    let flags =
        MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)?;
    Ok(())
}

/// Opens the data partition.
pub(crate) fn data(device: &Path) -> nix::Result<()> {
    let flags = INERT | MsFlags::MS_NOATIME;
    mount(Some(device), DATA, Some("ext4"), flags, Some("errors=remount-ro"))
}

/// Puts memory in the place of a data partition that cannot be used.
pub(crate) fn volatile_data() -> nix::Result<()> {
    mount(Some("tmpfs"), DATA, Some("tmpfs"), INERT, Some("mode=0755,size=64m,nr_inodes=4k"))
}

/// Opens the boot partition to read it.
pub(crate) fn boot(device: &Path) -> nix::Result<()> {
    mount(Some(device), BOOT, Some("vfat"), INERT | MsFlags::MS_RDONLY, Some("fmask=0177,dmask=0077"))
}

/// Closes what is mounted at `target`.
pub(crate) fn close(target: &str) -> nix::Result<()> {
    umount2(target, MntFlags::empty())
}

/// Leaves the data partition clean: unmounted, or at least read-only.
pub(crate) fn close_data() {
    sync();
    if close(DATA).is_err() {
        // Somebody still holds a file. The journal would mend it, but a clean file system is better.
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | INERT;
        // EINVAL: nothing is mounted there.
        match mount(None::<&str>, DATA, None::<&str>, flags, None::<&str>) {
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(error) => say!("{DATA} stays writable: {}", error.desc()),
        }
        sync();
    }
}

/// Values of `/proc/sys`; those that this kernel does not have are passed over.
const SYSCTLS: [(&str, &str); 27] = [
    // What the kernel shows of itself.
    ("kernel/kptr_restrict", "2"),
    ("kernel/dmesg_restrict", "1"),
    ("kernel/perf_event_paranoid", "3"),
    ("kernel/yama/ptrace_scope", "3"),
    // What it takes no more of.
    ("kernel/sysrq", "0"),
    ("kernel/kexec_load_disabled", "1"),
    ("kernel/modules_disabled", "1"),
    ("kernel/unprivileged_bpf_disabled", "1"),
    ("kernel/io_uring_disabled", "2"),
    ("user/max_user_namespaces", "0"),
    ("dev/tty/ldisc_autoload", "0"),
    // No memory of a process ever becomes a file.
    ("fs/suid_dumpable", "0"),
    // An error inside the kernel is a reset, which is counted, and not a box that limps.
    ("kernel/panic", "5"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/hung_task_timeout_secs", "60"),
    ("vm/panic_on_oom", "0"),
    // Links and files in shared folders.
    ("fs/protected_fifos", "2"),
    ("fs/protected_hardlinks", "1"),
    ("fs/protected_regular", "2"),
    ("fs/protected_symlinks", "1"),
    // Written back soon: the power may go at any time.
    ("vm/dirty_expire_centisecs", "500"),
    ("vm/dirty_writeback_centisecs", "200"),
    // The box is a host: no routing, no answers on behalf of others, nothing redirected.
    ("net/ipv4/ip_forward", "0"),
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv6/conf/all/accept_redirects", "0"),
    ("net/ipv4/tcp_syncookies", "1"),
    // Storms of connections wait in the queue that the listeners ask for.
    ("net/core/somaxconn", "4096"),
];

/// Address space randomisation as wide as this CPU allows; the number depends on the kernel's page size.
const RANDOM_BITS: [&str; 4] = ["33", "24", "18", "16"];

/// Sets what the kernel lets be set at run time.
pub(crate) fn sysctls() {
    for (name, value) in SYSCTLS {
        match fs::write(Path::new("/proc/sys").join(name), value) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                say!("/proc/sys/{name} does not take {value}: {error}");
            }
            _ => {}
        }
    }
    let _ = RANDOM_BITS.iter().any(|bits| fs::write("/proc/sys/vm/mmap_rnd_bits", bits).is_ok());
}

//! A service's own file system: an empty folder in memory with only its needs in it, and no way out.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{self as unix, DirBuilderExt as _};
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, chroot};

use super::{Failure, step};
use crate::mount::INERT;
use crate::service::{Access, Place, Service};

/// Where the root is built: in this process's own mount namespace nobody else sees it.
const SITE: &str = "/tmp";

/// The notification socket's name inside.
const NOTIFY: &str = "/run/notify";

/// The devices of every service.
pub(super) const DEVICES: [&str; 3] = ["/dev/null", "/dev/random", "/dev/urandom"];

/// What of the box's own tree is mounted below `/`; all of it goes.
const OLD: [&str; 5] = ["/dev", "/proc", "/sys", "/data", "/run"];

const NONE: Option<&str> = None;

/// Builds the root and goes there.
pub(super) fn build(service: &Service, places: &[Place]) -> Result<(), Failure> {
    // What is mounted from here on stays in this namespace.
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .map_err(step("make mounts private"))?;
    detach(SITE).map_err(step("take /tmp away"))?;
    mount(Some("tmpfs"), SITE, Some("tmpfs"), INERT, Some("mode=0755,size=64k,nr_inodes=64"))
        .map_err(step("mount the root"))?;
    let program = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    show(service.program, service.program, program).map_err(step("show the executable"))?;
    let node = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    for device in DEVICES {
        show(device, device, node).map_err(step("show a device"))?;
    }
    // Shows this namespace's processes, so itself alone; settings of the kernel only to those who have a place there.
    fs::DirBuilder::new().mode(0o555).create(inside("/proc")).map_err(step("make /proc"))?;
    let switches = places.iter().any(|place| place.path.starts_with("/proc/"));
    let options = if switches { "hidepid=2" } else { "hidepid=2,subset=pid" };
    mount(Some("proc"), inside("/proc").as_str(), Some("proc"), INERT | MsFlags::MS_RDONLY, Some(options))
        .map_err(step("mount /proc"))?;
    for place in places {
        let flags = match place.access {
            Access::Read => INERT | MsFlags::MS_RDONLY,
            Access::Write => INERT,
        };
        show(place.path, place.path, flags).map_err(|error| Failure {
            step: "show a place",
            error: io::Error::new(error.kind(), format!("{}: {error}", place.path)),
        })?;
    }
    let notify = format!("/run/notify-{}", service.name);
    show(&notify, NOTIFY, INERT).map_err(step("show the notification socket"))?;
    resolver().map_err(step("link resolv.conf"))?;
    for old in OLD {
        detach(old).map_err(step("take the box's own mounts away"))?;
    }
    enter().map_err(step("enter the root"))
}

fn inside(path: &str) -> String {
    format!("{SITE}{path}")
}

/// Shows `source` of the box as `target` of the new root.
fn show(source: &str, target: &str, flags: MsFlags) -> io::Result<()> {
    let target = inside(target);
    let target = Path::new(&target);
    if let Some(folder) = target.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    }
    if fs::metadata(source)?.is_dir() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(target)?;
    } else {
        File::create(target)?;
    }
    mount(Some(source), target, NONE, MsFlags::MS_BIND, NONE)?;
    mount(NONE, target, NONE, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags, NONE)?;
    Ok(())
}

/// `/etc/resolv.conf` is what the network role last wrote.
fn resolver() -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(inside("/etc"))?;
    unix::symlink("/run/network/resolv.conf", inside("/etc/resolv.conf"))
}

fn detach(path: &str) -> nix::Result<()> {
    match umount2(path, MntFlags::MNT_DETACH) {
        // Not mounted: a box without that part.
        Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        done => done,
    }
}

/// The kernel's first root cannot be left by `pivot_root`; moving over it and chroot is what remains (`switch_root`).
/// The way back needs `CAP_SYS_CHROOT`, which no service has.
fn enter() -> nix::Result<()> {
    chdir(SITE)?;
    mount(NONE, ".", NONE, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | INERT, NONE)?;
    mount(Some("."), "/", NONE, MsFlags::MS_MOVE, NONE)?;
    chroot(".")?;
    chdir("/")
}

//! Calls to the kernel that nix has no safe functions for: the only unsafe code of this crate, besides the counting
//! allocator of test builds.
//!
//! Each hands the kernel values that live through the call and are laid out as its headers say; the kernel checks the
//! rest itself and answers with an error.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc::{self, c_int, c_ulong};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use seccompiler::BpfProgramRef;

use crate::service::Capability;

/// What a fork gives to each side.
#[derive(Debug)]
pub(crate) enum Fork {
    /// The new process.
    Child,
    /// The old one, with the new one's number and a descriptor that means it and no later one of the same number.
    Parent {
        /// Its number here.
        pid: Pid,
        /// Its descriptor, closed on exec.
        descriptor: OwnedFd,
    },
}

/// The namespaces of a service: all but the network, whose listening sockets it serves, and the users, which this
/// kernel does not have.
const OWN_WORLD: c_int = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

/// `CLONE_CLEAR_SIGHAND` and `CLONE_INTO_CGROUP` of linux/sched.h, beyond 32 bits.
const CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks into a world of its own, and into a control group if there is one.
pub(crate) fn fork_apart(cgroup: Option<BorrowedFd<'_>>) -> nix::Result<Fork> {
    clone(OWN_WORLD as u64 | CLEAR_SIGHAND, cgroup)
}

/// Forks, into a control group if there is one.
pub(crate) fn fork(cgroup: Option<BorrowedFd<'_>>) -> nix::Result<Fork> {
    clone(0, cgroup)
}

fn clone(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> nix::Result<Fork> {
    let mut descriptor: c_int = -1;
    // SAFETY: all zero is a valid value of this plain structure.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags | libc::CLONE_PIDFD as u64;
    arguments.pidfd = (&raw mut descriptor) as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    if let Some(group) = cgroup {
        arguments.flags |= INTO_CGROUP;
        arguments.cgroup = u64::from(group.as_raw_fd().unsigned_abs());
    }
    // SAFETY: no memory is shared (no CLONE_VM), so the child goes on with a copy of this stack, as after fork(2). This
    // program has one thread, so no lock is held by a thread that the child lacks.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) };
    match Errno::result(pid)? {
        0 => Ok(Fork::Child),
        pid => {
            // SAFETY: in the parent of a successful clone with CLONE_PIDFD this is a new descriptor that nobody owns.
            let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
            let pid = libc::pid_t::try_from(pid).map_err(|_| Errno::EOVERFLOW)?;
            Ok(Fork::Parent { pid: Pid::from_raw(pid), descriptor })
        }
    }
}

/// Sends a signal to the process that `descriptor` means.
pub(crate) fn send(descriptor: BorrowedFd<'_>, signal: Signal) -> nix::Result<()> {
    let nothing = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: without information (null) the kernel fills in the sender's.
    let sent = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, descriptor.as_raw_fd(), signal as c_int, nothing, 0)
    };
    Errno::result(sent).map(drop)
}

/// Makes `to` mean what `from` means, open across exec.
pub(crate) fn place(from: BorrowedFd<'_>, to: RawFd) -> nix::Result<()> {
    // SAFETY: replaces a number in this process's table. It is called in a child on its way to exec, which touches no
    // descriptor by its number any more.
    Errno::result(unsafe { libc::dup2(from.as_raw_fd(), to) }).map(drop)
}

/// Another descriptor for the same, of a number not below `least`, closed on exec.
pub(crate) fn duplicate_above(from: BorrowedFd<'_>, least: RawFd) -> nix::Result<OwnedFd> {
    // SAFETY: asks for a new number.
    let number = unsafe { libc::fcntl(from.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) };
    // SAFETY: a new descriptor that nobody owns yet.
    Errno::result(number).map(|number| unsafe { OwnedFd::from_raw_fd(number) })
}

/// Ends this process at once, without the parent's clean-up.
pub(crate) fn exit_now(code: c_int) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

/// Highest capability that any kernel has had so far, and room; the kernel answers EINVAL beyond its own.
const CAPABILITIES: c_ulong = 63;

/// Takes every capability but `kept` out of the bounding set: nothing this process starts can ever have them.
pub(crate) fn bound_capabilities(kept: &[Capability]) -> nix::Result<()> {
    for number in 0..=CAPABILITIES {
        if kept.iter().any(|capability| *capability as c_ulong == number) {
            continue;
        }
        match prctl(libc::PR_CAPBSET_DROP, number, 0) {
            Ok(()) => {}
            Err(Errno::EINVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Whether capabilities stay when the user changes from root.
pub(crate) fn keep_capabilities(keep: bool) -> nix::Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, c_ulong::from(keep), 0)
}

/// Root is a user like others from here on: neither user 0 nor a file's set-user-id bit gives a capability. Locked.
pub(crate) fn root_is_nobody() -> nix::Result<()> {
    const NO_ROOT: c_ulong = 0b11;
    const NO_SETUID_FIXUP: c_ulong = 0b11 << 2;
    const KEEP_CAPS_LOCKED: c_ulong = 1 << 5;
    prctl(libc::PR_SET_SECUREBITS, NO_ROOT | NO_SETUID_FIXUP | KEEP_CAPS_LOCKED, 0)
}

/// Has exactly these capabilities, and hands them on over exec.
pub(crate) fn set_capabilities(kept: &[Capability]) -> nix::Result<()> {
    write_capabilities(kept, kept)?;
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as c_ulong, 0)?;
    kept.iter().try_for_each(|capability| {
        prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as c_ulong, *capability as c_ulong)
    })
}

/// Has at most these capabilities from here on, and hands none on over exec by itself.
pub(crate) fn keep_only(kept: &[Capability]) -> nix::Result<()> {
    bound_capabilities(kept)?;
    write_capabilities(kept, &[])
}

fn write_capabilities(kept: &[Capability], inheritable: &[Capability]) -> nix::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: c_int,
    }
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    // _LINUX_CAPABILITY_VERSION_3: two words of each set. All of ours are in the first.
    let header = Header { version: 0x2008_0522, pid: 0 };
    let mask = |set: &[Capability]| set.iter().fold(0u32, |mask, capability| mask | 1 << (*capability as u8));
    let low = Data { effective: mask(kept), permitted: mask(kept), inheritable: mask(inheritable) };
    let data = [low, Data { effective: 0, permitted: 0, inheritable: 0 }];
    // SAFETY: the kernel reads the header and as many data words as its version says, two.
    let set = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    Errno::result(set).map(drop)
}

/// The version of Landlock that this kernel has.
pub(crate) fn landlock_version() -> nix::Result<i64> {
    const ASK_VERSION: u32 = 1;
    let nothing = std::ptr::null::<u8>();
    // SAFETY: asked for its version, the kernel reads no attributes (null, of length 0).
    Errno::result(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0usize, ASK_VERSION) })
}

/// Puts this process under a filter of system calls. It has given new privileges up before.
pub(crate) fn add_filter(program: BpfProgramRef<'_>) -> nix::Result<()> {
    #[repr(C)]
    struct Program {
        length: u16,
        instructions: *const seccompiler::sock_filter,
    }
    let length = u16::try_from(program.len()).map_err(|_| Errno::E2BIG)?;
    let program = Program { length, instructions: program.as_ptr() };
    // SAFETY: the kernel copies as many instructions as `length` says, and checks them.
    let added =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    Errno::result(added).map(drop)
}

/// Neither exec nor anything else gives this process more rights than it has.
pub(crate) fn no_new_privileges() -> nix::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)
}

fn prctl(operation: c_int, second: c_ulong, third: c_ulong) -> nix::Result<()> {
    const UNUSED: c_ulong = 0;
    // SAFETY: all operations used here take numbers only.
    Errno::result(unsafe { libc::prctl(operation, second, third, UNUSED, UNUSED) }).map(drop)
}

/// Makes a system call that no service may make. It is told how that ends by the one who waits for this process.
#[cfg(feature = "bench")]
pub(crate) fn forbidden() -> nix::Result<()> {
    // SAFETY: takes no argument and changes nothing.
    Errno::result(unsafe { libc::syscall(libc::SYS_vhangup) }).map(drop)
}

mod raw {
    // Of linux/fs.h, declared there without a size.
    nix::ioctl_write_ptr_bad!(zero_out, nix::request_code_none!(0x12, 127), [u64; 2]);
    nix::ioctl_read!(size, 0x12, 114, usize);
    // Of fs/ext4/ext4.h.
    nix::ioctl_write_ptr!(resize_ext4, b'f', 16, u64);
}

/// `BLKZEROOUT`: zeroes from `start` on, whatever the medium does to get there.
pub(crate) fn zero_out(device: &File, start: u64, length: u64) -> nix::Result<()> {
    let range = [start, length];
    // SAFETY: the kernel reads two numbers.
    unsafe { raw::zero_out(device.as_raw_fd(), &raw const range) }.map(drop)
}

/// `BLKGETSIZE64`: bytes of a block device.
pub(crate) fn device_size(device: &File) -> nix::Result<u64> {
    let mut size = 0;
    // SAFETY: the kernel fills one number of 64 bits, whatever the header declares.
    unsafe { raw::size(device.as_raw_fd(), &raw mut size) }?;
    Ok(size as u64)
}

/// `EXT4_IOC_RESIZE_FS`: grows the mounted file system that `folder` is on to so many blocks.
pub(crate) fn resize_ext4(folder: &File, blocks: u64) -> nix::Result<()> {
    // SAFETY: the kernel reads one number.
    unsafe { raw::resize_ext4(folder.as_raw_fd(), &raw const blocks) }.map(drop)
}

const _: () = {
    assert!(size_of::<libc::clone_args>() == 88);
    assert!(size_of::<usize>() == 8, "BLKGETSIZE64 is declared by size_t and fills 64 bits");
};

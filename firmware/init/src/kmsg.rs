//! The kernel's log, for one thing: which system call ended a service.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;

use nix::errno::Errno;
use nix::libc::O_NONBLOCK;

/// A record and its dictionary are no longer than this; the kernel refuses a smaller buffer.
const RECORD: usize = 8192;

/// The audit record of a filter that ended a process (linux/audit.h, `AUDIT_SECCOMP`).
const SECCOMP: &str = "type=1326";

/// The log, read from where it ended when this was opened.
#[derive(Debug)]
pub(crate) struct KernelLog(Option<File>);

impl KernelLog {
    /// Opens it. A kernel without one tells nothing, which is no reason not to start.
    pub(crate) fn open() -> Self {
        let log = File::options().read(true).custom_flags(O_NONBLOCK).open("/dev/kmsg");
        Self(log.ok().and_then(|mut log| log.seek(SeekFrom::End(0)).is_ok().then_some(log)))
    }

    /// The last system call that a filter refused since the last look, by its number. Allocates nothing.
    pub(crate) fn refused_system_call(&mut self) -> Option<u32> {
        let log = self.0.as_mut()?;
        let (mut buffer, mut found) = ([0; RECORD], None);
        loop {
            match log.read(&mut buffer) {
                Ok(length) if length > 0 => {
                    let record = core::str::from_utf8(buffer.get(..length).unwrap_or_default());
                    found = record.ok().and_then(refused).or(found);
                }
                // Overwritten before it was read: what is left is newer.
                Err(error) if error.raw_os_error() == Some(Errno::EPIPE as i32) => {}
                _ => return found,
            }
        }
    }
}

/// The system call of an audit record.
fn refused(record: &str) -> Option<u32> {
    let words = record.contains(SECCOMP).then(|| record.split_whitespace())?;
    words.filter_map(|word| word.strip_prefix("syscall=")).find_map(|number| number.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_number_in_an_audit_record() {
        let record = "5,413,9876543,-;audit: type=1326 audit(1793000009.900:2): auid=4294967295 uid=101 gid=101 \
                      ses=4294967295 pid=64 comm=\"gateway\" exe=\"/bin/gateway\" sig=31 arch=c00000b7 syscall=278 \
                      compat=0 ip=0x61d8f4 code=0x80000000\n";
        assert_eq!(refused(record), Some(278));
        assert_eq!(refused("6,1,0,-;something syscall=3"), None);
    }
}

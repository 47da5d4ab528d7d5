//! The settings document, read by a child of PID 1: a parser has no business in a process that must not fail, and what
//! it allocates goes with it.

use core::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crc::{CRC_32_ISCSI, Crc};
use heapless::{String as Text, Vec as Table};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, pipe2, setgroups, setresgid, setresuid};
use settings::{Settings, SettingsError};

use crate::console::{say, say_as};
use crate::kernel::{self, Fork};
use crate::reboot::this_is_a_child;
use crate::socket::{self, Wanted};

/// The document.
pub(crate) const FILE: &str = "/data/settings/settings.toml";
/// The one with which the box served last.
pub(crate) const LAST_GOOD: &str = "/data/settings/last-good.toml";

/// The reader has the rights of a stranger in the group that may read the document.
const READER: u32 = 65_534;
const GROUP: u32 = 101;

/// Room for all that the reader answers.
const ANSWER: usize = 16 << 10;
/// Mistakes that are shown; the first ones are what mends the rest.
const SHOWN: usize = 8;

/// Keys of `[listen]`.
const KEYS: [&str; 6] = ["imaps", "pop3s", "submissions", "imap", "pop3", "submission"];

/// What of a document is PID 1's business.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Extract {
    /// The box's name.
    pub(crate) hostname: Text<256>,
    /// Listening sockets to open.
    pub(crate) listen: Table<Wanted, { socket::MOST }>,
    /// TCP addresses that the gateway opens itself.
    pub(crate) own: Table<SocketAddr, 4>,
    /// A checksum of `[network]`: another one means other settings.
    pub(crate) network: u32,
}

/// A document that cannot be used: its first mistake in one line. All are on the console already.
pub(crate) type Refused = Text<512>;

/// A reader at work.
#[derive(Debug)]
pub(crate) struct Reader {
    process: OwnedFd,
    pipe: File,
    answer: Table<u8, ANSWER>,
}

impl AsFd for Reader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

impl Reader {
    /// Starts to read `path`, within the memory of `cgroup`.
    pub(crate) fn start(path: &Path, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Self> {
        let (answers, answer) = pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&answers, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        match kernel::fork(cgroup)? {
            Fork::Child => {
                this_is_a_child();
                // Nobody can be told if the parent is gone.
                let _ = File::from(answer).write_all(read(path).as_bytes());
                kernel::exit_now(0)
            }
            Fork::Parent { descriptor, .. } => {
                Ok(Self { process: descriptor, pipe: answers.into(), answer: Table::new() })
            }
        }
    }

    /// Takes what has come. True: that was all.
    pub(crate) fn pump(&mut self) -> bool {
        let mut part = [0; 1024];
        loop {
            match self.pipe.read(&mut part) {
                Ok(0) => return true,
                // What is too much is cut, and then not understood.
                Ok(length) => drop(self.answer.extend_from_slice(part.get(..length).unwrap_or_default())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return true,
            }
        }
    }

    /// Gives up on it.
    pub(crate) fn kill(&self) {
        let _ = kernel::send(self.process.as_fd(), Signal::SIGKILL);
    }

    /// What it found.
    #[allow(clippy::result_large_err, reason = "what PID 1 keeps is in fixed memory")]
    pub(crate) fn finish(&self) -> Result<Extract, Refused> {
        understand(core::str::from_utf8(&self.answer).unwrap_or_default())
    }
}

/// The child's part: reads the document and gives the answer as lines.
fn read(path: &Path) -> String {
    let loaded = leave_root().map_err(io::Error::from).map(|()| Settings::load_with(path, false));
    match loaded {
        Ok(Ok(settings)) => extract(&settings),
        Ok(Err(mistakes)) => {
            explain(path, &mistakes);
            let first = mistakes.first().map_or_else(String::new, ToString::to_string);
            format!("error {}\n", first.replace('\n', " "))
        }
        Err(error) => format!("error {}: {error}\n", path.display()),
    }
}

/// A parser's mistake must not be root's.
fn leave_root() -> nix::Result<()> {
    let (user, group) = (Uid::from_raw(READER), Gid::from_raw(GROUP));
    setgroups(&[])?;
    setresgid(group, group, group)?;
    setresuid(user, user, user)
}

fn explain(path: &Path, mistakes: &[SettingsError]) {
    for mistake in mistakes.iter().take(SHOWN) {
        for line in mistake.explain().lines() {
            say_as("settings", format_args!("{line}"));
        }
    }
    if let Some(more) = mistakes.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        say!("{}: and {more} more mistakes", path.display());
    }
}

fn extract(settings: &Settings) -> String {
    let mut text = format!("hostname {}\n", settings.host.hostname.as_str());
    let listen = &settings.listen;
    let lists =
        [&listen.imaps, &listen.pop3s, &listen.submissions, &listen.imap, &listen.pop3, &listen.submission];
    // Writing to a String cannot fail.
    for (key, addresses) in KEYS.into_iter().zip(lists) {
        for address in addresses {
            let _ = writeln!(text, "listen {key} {address}");
        }
    }
    if let Some(address) = settings.metrics.listen {
        let _ = writeln!(text, "own {address}");
    }
    let network = format!("{:?}", settings.network);
    let _ = writeln!(text, "network {}", Crc::<u32>::new(&CRC_32_ISCSI).checksum(network.as_bytes()));
    text + "end\n"
}

/// The parent's part: the answer back from its lines. Allocates nothing.
#[allow(clippy::result_large_err, reason = "what PID 1 keeps is in fixed memory")]
fn understand(answer: &str) -> Result<Extract, Refused> {
    let refuse = |what: &str| {
        let mut refused = Refused::new();
        // What is too long is cut.
        let _ = what.chars().try_for_each(|character| refused.push(character));
        refused
    };
    let mut extract = Extract::default();
    for line in answer.lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let understood = match word {
            "end" => return Ok(extract),
            "error" => return Err(refuse(rest)),
            "hostname" => extract.hostname.push_str(rest).is_ok(),
            "listen" => rest.split_once(' ').and_then(wanted).is_some_and(|wanted| {
                let fits = extract.listen.push(wanted).is_ok();
                if !fits {
                    say!("[listen] {rest} is one too many; {} are opened", socket::MOST);
                }
                true
            }),
            "own" => rest.parse().is_ok_and(|address| extract.own.push(address).is_ok()),
            "network" => rest.parse().is_ok_and(|checksum| {
                extract.network = checksum;
                true
            }),
            _ => false,
        };
        if !understood {
            return Err(refuse("the reader of the settings gave an answer that is not understood"));
        }
    }
    Err(refuse("the reader of the settings ended without an answer; is the document very large?"))
}

fn wanted((key, address): (&str, &str)) -> Option<Wanted> {
    let key = KEYS.into_iter().find(|known| *known == key)?;
    Some(Wanted { key, address: address.parse().ok()? })
}

/// Keeps the document as the one with which the box served. In steps of a fixed buffer, and only if it differs.
pub(crate) fn keep_as_last_good(document: &Path) -> io::Result<()> {
    if document == Path::new(LAST_GOOD) || same(document, Path::new(LAST_GOOD))? {
        return Ok(());
    }
    let new = PathBuf::from(format!("{LAST_GOOD}.new"));
    std::fs::copy(document, &new)?;
    std::os::unix::fs::chown(&new, Some(0), Some(GROUP))?;
    File::open(&new)?.sync_all()?;
    std::fs::rename(&new, LAST_GOOD)?;
    File::open("/data/settings")?.sync_all()
}

fn same(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = match (File::open(one), File::open(other)) {
        (one, Ok(other)) => (one?, other),
        (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        (_, Err(error)) => return Err(error),
    };
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = ([0; 4096], [0; 4096]);
    loop {
        let length = one.read(&mut left)?;
        if length == 0 {
            return Ok(true);
        }
        let part = right.get_mut(..length).ok_or(Errno::EIO)?;
        other.read_exact(part)?;
        if left.get(..length) != Some(&*part) {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../settings/example.toml");

    #[test]
    fn the_example_comes_through() {
        let settings = Settings::parse(EXAMPLE, Path::new("example.toml")).unwrap();
        let extract = understand(&extract(&settings)).unwrap();
        assert_eq!(extract.hostname, "mail.example.net");
        let ports = extract.listen.iter().map(|wanted| (wanted.key, wanted.address.port()));
        assert_eq!(ports.collect::<Vec<_>>(), [("imaps", 993), ("pop3s", 995), ("submissions", 465)]);
    }

    #[test]
    fn another_network_section_is_told_from_this_one() {
        let of = |text: &str| {
            let settings = Settings::parse(text, Path::new("example.toml")).unwrap();
            understand(&extract(&settings)).unwrap().network
        };
        assert_eq!(of(EXAMPLE), of(&format!("{EXAMPLE}\n# a comment\n")));
        assert_ne!(of(EXAMPLE), of(&EXAMPLE.replace("[network]\n", "[network]\nipv6 = \"off\"\n")));
    }

    #[test]
    fn an_answer_that_stops_short_is_a_refusal() {
        assert!(understand("").is_err());
        assert!(understand("hostname a\nlisten imaps [::]:993\n").is_err());
        assert!(understand("listen imaps nowhere\nend\n").is_err());
        assert_eq!(understand("error x.toml:1:2: wrong; mend\n").unwrap_err(), "x.toml:1:2: wrong; mend");
    }

    #[test]
    fn a_comparison_sees_every_octet() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        std::fs::write(&one, vec![b'a'; 10_000]).unwrap();
        assert!(!same(&one, &other).unwrap());
        std::fs::write(&other, vec![b'a'; 10_000]).unwrap();
        assert!(same(&one, &other).unwrap());
        let mut changed = vec![b'a'; 10_000];
        changed[9_999] = b'b';
        std::fs::write(&other, changed).unwrap();
        assert!(!same(&one, &other).unwrap());
    }
}

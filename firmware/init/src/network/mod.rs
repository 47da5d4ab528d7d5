//! The box's way to the network, and its time: `init network`, a child of PID 1.
//!
//! One thread, one `poll` loop, no waiting anywhere else. It needs `CAP_NET_ADMIN` (addresses, routes, IPv6 switches),
//! `CAP_NET_RAW` (DHCP and router solicitations) and `CAP_SYS_TIME` (the clock), and reads nothing but its section of the
//! settings. It is ready when the interface is switched on; a box without a network serves those that reach it later.
//!
//! ```text
//! settings ─→ daemon ⇄ link, watch     interfaces, addresses, routes: netlink
//!               ├ dhcp ⇄ packet        a lease: smoltcp's client over a packet socket
//!               ├ ndisc                name servers of router advertisements
//!               ├ resolv               /run/network/resolv.conf
//!               ├ time ⇄ names, sntp   whom to ask, what to believe (judge), the clock
//!               └ report               to PID 1
//! ```

mod clock;
mod daemon;
mod dhcp;
mod judge;
mod link;
mod names;
mod ndisc;
mod packet;
mod report;
mod resolv;
mod sntp;
mod switches;
mod time;
mod watch;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use settings::{Network, SettingsError};

use daemon::Daemon;
use report::Report;

/// Where things are, and what PID 1 knows.
#[derive(Debug)]
struct Options {
    /// The settings document; `-`: standard input, so that this process needs no right to the file.
    settings: PathBuf,
    /// What the build calls itself.
    release: PathBuf,
    /// The folder of `resolv.conf`.
    run: PathBuf,
    /// Where the time is kept for the next start.
    clock: PathBuf,
    /// The board's interfaces, as its descriptor has them: names, or their beginnings with a `*` behind.
    uplinks: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            settings: "/data/settings/settings.toml".into(),
            release: "/etc/postern/release.toml".into(),
            run: "/run/network".into(),
            clock: "/data/network/clock".into(),
            uplinks: Vec::new(),
        }
    }
}

/// `init network [--settings FILE|-] [--release FILE] [--run FOLDER] [--clock FILE] [--uplink NAME]…`. Ends on SIGTERM,
/// or when the kernel no longer talks to it.
pub(crate) fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let options = match Options::read(arguments) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("network: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut report = Report::open(Instant::now());
    let settings = options.network(&mut report);
    let release = options.released(&mut report);
    // A box that keeps nothing (no data partition) starts from the release's time.
    let clock = options.clock.parent().is_some_and(Path::is_dir).then_some(options.clock);
    let keeper = time::Keeper::start(clock::SystemClock, release, clock, &mut report);
    let daemon = Daemon::open(settings, options.uplinks, &options.run, keeper, report);
    match daemon.and_then(Daemon::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("network: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Options {
    fn read(mut arguments: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut options = Self::default();
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{} wants a value", name.display()))?;
            match name.to_str() {
                Some("--settings") => options.settings = value.into(),
                Some("--release") => options.release = value.into(),
                Some("--run") => options.run = value.into(),
                Some("--clock") => options.clock = value.into(),
                Some("--uplink") => options.uplinks.push(value.to_string_lossy().into_owned()),
                _ => return Err(format!("there is no {} here", name.display())),
            }
        }
        Ok(options)
    }

    /// The `[network]` section. What cannot be read counts as empty: DHCP is the best way to a box that must be mended.
    fn network(&self, report: &mut Report) -> Network {
        let text = if self.settings == Path::new("-") {
            let mut text = String::new();
            io::stdin().lock().take(DOCUMENT).read_to_string(&mut text).map(|_| text)
        } else {
            fs::read_to_string(&self.settings)
        };
        let text = text.unwrap_or_else(|error| {
            let file = self.settings.display();
            report.status(format!("{file} cannot be read ({error}): DHCP and router advertisements, then"));
            String::new()
        });
        Network::alone(&text, &self.settings).unwrap_or_else(|errors| {
            let first = errors.first().map(SettingsError::to_string).unwrap_or_default();
            report.status(format!("{first}: DHCP and router advertisements, then"));
            Network::default()
        })
    }

    /// When the release was made, in seconds since 1970.
    fn released(&self, report: &mut Report) -> u64 {
        let read = fs::read_to_string(&self.release).map_err(|error| error.to_string());
        let time = read.and_then(|text| {
            let document = text.parse::<toml::Table>().map_err(|error| error.message().to_owned())?;
            let time = document.get("time").and_then(toml::Value::as_integer);
            time.and_then(|time| u64::try_from(time).ok()).ok_or_else(|| "no `time` in it".into())
        });
        time.unwrap_or_else(|error| {
            report.status(format!("{}: {error}: the clock starts where it is", self.release.display()));
            0
        })
    }
}

/// Far more than any settings document has.
const DOCUMENT: u64 = 64 << 20;

/// A number that nobody can guess.
fn random() -> u64 {
    // The kernel has answered PID 1 before, and never takes that back; the addresses of the stack differ, too.
    getrandom::u64().unwrap_or_else(|_| {
        let here = 0_u8;
        (&raw const here).addr() as u64
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &[&str]) -> Result<Options, String> {
        Options::read(arguments.iter().map(OsString::from))
    }

    #[test]
    fn arguments_name_files() {
        let options = options(&["--settings", "-", "--uplink", "eth*", "--uplink", "usb0"]).unwrap();
        assert_eq!((options.settings.as_path(), options.uplinks.len()), (Path::new("-"), 2));
        assert!(self::options(&["--settings"]).unwrap_err().contains("wants a value"));
        assert!(self::options(&["--colour", "blue"]).unwrap_err().contains("--colour"));
    }

    #[test]
    fn settings_and_release_that_cannot_be_used_leave_the_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let options =
            Options { settings: at("settings.toml"), release: at("release.toml"), ..Options::default() };
        let mut report = Report::open(Instant::now());
        assert_eq!((options.network(&mut report), options.released(&mut report)), (Network::default(), 0));
        fs::write(&options.settings, "[network]\nipv6 = \"off\"\ncolour = 7\n").unwrap();
        fs::write(&options.release, "version = \"1\"\ntime = \"soon\"\n").unwrap();
        assert_eq!((options.network(&mut report), options.released(&mut report)), (Network::default(), 0));
        fs::write(&options.settings, "[network]\nipv6 = \"off\"\n").unwrap();
        fs::write(&options.release, "version = \"1\"\ntime = 1793000000\n").unwrap();
        assert_eq!(options.network(&mut report).ipv6, settings::Ipv6::Off);
        assert_eq!(options.released(&mut report), 1_793_000_000);
    }
}

//! Rig files: how this machine reaches a board. What the board *is* stands in `board/boards`; keep the two apart.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::programs::workspace;
use crate::rig::capability::Capability;

/// One rig: a board, and the way to it.
#[derive(Clone, Debug)]
pub struct Rig {
    /// The file's name without `.toml`.
    pub name: String,
    /// The board's file in `board/boards`, without `.toml`.
    pub board: String,
    /// What a reader of the table should know about this rig.
    pub about: String,
    /// What the rig can do.
    pub provides: BTreeSet<Capability>,
    /// Why it cannot do the rest.
    pub lacks: BTreeMap<Capability, String>,
    /// How patient to be with it.
    pub limits: Limits,
    /// The way to the board.
    pub kind: Kind,
}

/// An emulator or a bench.
#[derive(Clone, Debug)]
pub enum Kind {
    /// QEMU on this machine.
    Qemu(Qemu),
    /// A board on a bench, wired to this machine.
    Bench(Bench),
}

/// How patient to be.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Limits {
    /// Seconds from power-on to `serving`.
    boot: u64,
    /// Seconds without an octet on the console, before `serving`, after which the board counts as hung.
    #[serde(default = "default_silence")]
    silence: u64,
}

const fn default_silence() -> u64 {
    30
}

impl Limits {
    /// From power-on to `serving`.
    pub const fn boot(&self) -> Duration {
        Duration::from_secs(self.boot)
    }

    /// The longest silence of a board that boots.
    pub const fn silence(&self) -> Duration {
        Duration::from_secs(self.silence)
    }
}

/// An emulated board.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Qemu {
    /// QEMU's name of the machine, with its options.
    pub machine: String,
    /// QEMU's name of the processor; boards with a processor of their own need none.
    pub cpu: Option<String>,
    /// Memory, as QEMU spells it.
    pub memory: String,
    /// What starts the operating system.
    pub firmware: Firmware,
    /// The device tree that the firmware of the real board would pass on.
    pub device_tree: Option<DeviceTree>,
    /// Which of the machine's serial ports is the console, from 0.
    #[serde(default)]
    pub console: u8,
    /// Where the disk sits.
    pub disk: Disk,
    /// The network interface.
    pub network: Network,
    /// Further arguments.
    #[serde(default)]
    pub args: Vec<String>,
}

/// What starts the operating system of an emulated board.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// EDK II with our keys.
    Edk2,
    /// U-Boot with our keys.
    Uboot,
    /// None: the emulator starts the kernel.
    Direct,
}

/// A device tree of Debian's kernel package.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DeviceTree {
    /// Its path below the package's folder of device trees.
    pub file: String,
    /// Nodes that the emulator does not have, or that disturb it.
    #[serde(default)]
    pub disable: Vec<String>,
    /// Properties that name what the emulator does not have: node and property.
    #[serde(default)]
    pub delete: Vec<(String, String)>,
    /// The console that the board's own firmware would name (`stdout-path`), where the tree names another.
    pub stdout: Option<String>,
}

/// Where an emulated disk sits.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Disk {
    /// Virtio on PCI.
    Virtio,
    /// The SD card slot with this number.
    #[serde(untagged)]
    Sd {
        /// From 0.
        sd: u8,
    },
}

/// An emulated network interface.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// Virtio on PCI.
    Virtio,
    /// The one that the board has.
    Onboard,
    /// A USB adapter.
    Usb,
}

/// A real board and the devices around it.
#[derive(Clone, Debug)]
pub struct Bench {
    /// Its serial console.
    pub console: SerialPort,
    /// What switches its power.
    pub power: PowerSwitch,
    /// How long the board lives on after its power is cut.
    pub settle: Duration,
    /// What writes its disk.
    pub media: DiskWriter,
    /// Its network.
    pub net: Option<Wire>,
    /// The command that sets the board's clock; `{time}` becomes seconds since 1970.
    pub clock: Option<Vec<String>>,
}

/// A serial port of this machine.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SerialPort {
    /// Its path: below /dev/serial/by-id, never /dev/ttyUSB*, whose numbers change.
    pub device: PathBuf,
    /// Bits per second.
    #[serde(default = "default_baud")]
    pub baud: u32,
}

const fn default_baud() -> u32 {
    115_200
}

/// What switches a board's power.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "driver", deny_unknown_fields, rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum PowerSwitch {
    /// A relay board of the LCUS kind on a USB serial port.
    UsbRelay {
        /// Its path below /dev/serial/by-id.
        device: PathBuf,
        /// Which relay, from 1.
        channel: u8,
        /// Whether the board has power while the relay is released.
        #[serde(default)]
        normally_closed: bool,
        /// See [`Bench::settle`].
        #[serde(default = "default_settle")]
        settle_ms: u64,
    },
    /// A socket that runs Tasmota, by HTTP.
    Tasmota {
        /// Its address and port.
        address: SocketAddr,
        /// Which relay, from 1.
        #[serde(default = "default_channel")]
        channel: u8,
        /// See [`Bench::settle`].
        #[serde(default = "default_settle")]
        settle_ms: u64,
    },
    /// Programs of the lab's own.
    Command {
        /// Program and arguments that switch the power on.
        on: Vec<String>,
        /// Program and arguments that switch it off.
        off: Vec<String>,
        /// See [`Bench::settle`].
        #[serde(default = "default_settle")]
        settle_ms: u64,
    },
}

const fn default_settle() -> u64 {
    1_500
}

const fn default_channel() -> u8 {
    1
}

/// What writes a board's disk.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "driver", deny_unknown_fields, rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum DiskWriter {
    /// A USB-SD-Mux and its command `usbsdmux`.
    Usbsdmux {
        /// The mux' control device, below /dev/usb-sd-mux.
        device: PathBuf,
        /// The card reader, below /dev/disk/by-id.
        disk: PathBuf,
    },
    /// Programs of the lab's own.
    Command {
        /// Program and arguments that give the disk to this machine.
        to_host: Vec<String>,
        /// Program and arguments that give the disk to the board.
        to_board: Vec<String>,
        /// The disk while this machine has it.
        disk: PathBuf,
    },
}

/// The way from this machine to a board by Ethernet.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Wire {
    /// This machine's interface on the bench's network, which is never the office network.
    pub interface: String,
    /// This machine's address there.
    pub host: IpAddr,
    /// The address under which the board sees this machine, where that is another one.
    pub host_seen_as: Option<IpAddr>,
    /// The board's address there: the bench's DHCP server gives it by the board's MAC address.
    pub board: IpAddr,
    /// Ports of the board that are reached under another address, such as behind a gateway of the lab.
    #[serde(default)]
    pub forward: BTreeMap<String, SocketAddr>,
}

/// The file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    schema: u32,
    board: String,
    kind: KindName,
    about: String,
    provides: BTreeSet<Capability>,
    #[serde(default)]
    lacks: BTreeMap<Capability, String>,
    limits: Limits,
    qemu: Option<Qemu>,
    console: Option<SerialPort>,
    power: Option<PowerSwitch>,
    media: Option<DiskWriter>,
    net: Option<Wire>,
    clock: Option<ClockFile>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum KindName {
    Qemu,
    Bench,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockFile {
    command: Vec<String>,
}

/// The version of the files' layout.
const SCHEMA: u32 = 1;

/// What every test relies on.
const NEEDED: [Capability; 3] = [Capability::Serial, Capability::Power, Capability::Media];

impl Rig {
    /// The folder of rig files.
    pub fn folder() -> PathBuf {
        workspace().join("hil-tests/rigs")
    }

    /// All rigs of the folder, by name.
    pub fn all() -> Result<Vec<Self>> {
        let folder = Self::folder();
        let mut paths: Vec<PathBuf> = fs::read_dir(&folder)
            .with_context(|| format!("cannot read {}", folder.display()))?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
            .collect();
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    /// A rig by its name in the folder, or by the path of its file.
    pub fn named(name: &str) -> Result<Self> {
        if Path::new(name).extension().is_some_and(|extension| extension == "toml") {
            return Self::read(Path::new(name));
        }
        let path = Self::folder().join(format!("{name}.toml"));
        if !path.is_file() {
            let known: Vec<String> = Self::all()?.into_iter().map(|rig| rig.name).collect();
            bail!("there is no rig {name}; there are {}, or give the path of a rig file", known.join(", "));
        }
        Self::read(&path)
    }

    /// Reads a rig file.
    ///
    /// # Errors
    /// Name file, line, and what to write there.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        Self::parse(&name, &text)
            .map_err(|mistake| anyhow::anyhow!("{}:{}: {}", path.display(), mistake.line, mistake.text))
    }

    /// Reads a rig file's text.
    pub fn parse(name: &str, text: &str) -> std::result::Result<Self, Mistake> {
        let file: File = toml::from_str(text).map_err(|error| Mistake {
            line: error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1),
            text: error.message().to_owned(),
        })?;
        let fail = |key: &str, message: String| Err(Mistake { line: line_of(text, key), text: message });
        if file.schema != SCHEMA {
            return fail("schema", format!("schema {} is not known; write schema = {SCHEMA}", file.schema));
        }
        for capability in NEEDED {
            if !file.provides.contains(&capability) {
                return fail(
                    "provides",
                    format!(
                        "every rig needs {}; add \"{capability}\" to provides",
                        NEEDED.map(|c| format!("\"{c}\"")).join(", ")
                    ),
                );
            }
        }
        if let Some(capability) = file.lacks.keys().find(|capability| file.provides.contains(capability)) {
            return fail(
                "[lacks]",
                format!("\"{capability}\" is provided and lacking; remove it from one of the two"),
            );
        }
        if file.provides.contains(&Capability::SecureBoot) && !file.provides.contains(&Capability::Efi) {
            return fail(
                "provides",
                "\"secureboot\" is EFI's; add \"efi\" to provides, or remove \"secureboot\"".into(),
            );
        }
        let kind = file.kind(text)?;
        let File { board, about, provides, lacks, limits, .. } = file;
        Ok(Self { name: name.into(), board, about, provides, lacks, limits, kind })
    }

    /// Why this rig cannot run a test that needs all of `needs`; `None` if it can.
    pub fn misses(&self, needs: &[Capability]) -> Option<String> {
        let missing = needs.iter().find(|capability| !self.provides.contains(capability))?;
        Some(match self.lacks.get(missing) {
            Some(reason) => format!("lacks {missing}: {reason}"),
            None => format!("lacks {missing}"),
        })
    }

    /// Whether it is emulated, and so needs nothing but this machine.
    pub const fn is_emulated(&self) -> bool {
        matches!(self.kind, Kind::Qemu(_))
    }
}

impl File {
    fn kind(&self, text: &str) -> std::result::Result<Kind, Mistake> {
        let fail = |key: &str, message: &str| Err(Mistake { line: line_of(text, key), text: message.into() });
        if self.kind == KindName::Qemu {
            let others = [
                ("[console]", self.console.is_some()),
                ("[power]", self.power.is_some()),
                ("[media]", self.media.is_some()),
                ("[net]", self.net.is_some()),
                ("[clock]", self.clock.is_some()),
            ];
            if let Some((table, _)) = others.iter().find(|(_, is_there)| *is_there) {
                return fail(table, "this table is for kind = \"bench\"; QEMU's ways are in [qemu]");
            }
            let Some(qemu) = self.qemu.clone() else {
                return fail("kind", "kind = \"qemu\" needs a table [qemu]");
            };
            let is_efi = qemu.firmware != Firmware::Direct;
            if is_efi != self.provides.contains(&Capability::Efi) {
                return fail(
                    "firmware",
                    "\"efi\" is provided by firmware = \"edk2\" and \"uboot\", not by \"direct\"; change the one or the other",
                );
            }
            return Ok(Kind::Qemu(qemu));
        }
        if self.qemu.is_some() {
            return fail("[qemu]", "this table is for kind = \"qemu\"; remove it");
        }
        let (Some(console), Some(power), Some(media)) =
            (self.console.clone(), self.power.clone(), self.media.clone())
        else {
            return fail("kind", "kind = \"bench\" needs the tables [console], [power] and [media]");
        };
        if self.net.is_some() != self.provides.contains(&Capability::Ethernet) {
            return fail("provides", "\"net.eth\" and the table [net] belong together; add or remove one");
        }
        if self.clock.is_some() != self.provides.contains(&Capability::Clock) {
            return fail("provides", "\"clock\" and the table [clock] belong together; add or remove one");
        }
        let settle = Duration::from_millis(match &power {
            PowerSwitch::UsbRelay { settle_ms, .. }
            | PowerSwitch::Tasmota { settle_ms, .. }
            | PowerSwitch::Command { settle_ms, .. } => *settle_ms,
        });
        let commands = [
            match &power {
                PowerSwitch::Command { on, off, .. } => vec![on, off],
                _ => Vec::new(),
            },
            match &media {
                DiskWriter::Command { to_host, to_board, .. } => vec![to_host, to_board],
                DiskWriter::Usbsdmux { .. } => Vec::new(),
            },
            self.clock.iter().map(|clock| &clock.command).collect(),
        ];
        if commands.iter().flatten().any(|command| command.is_empty()) {
            return fail("= []", "an empty command; write [\"program\", \"argument\", …]");
        }
        let clock = self.clock.as_ref().map(|clock| clock.command.clone());
        Ok(Kind::Bench(Bench { console, power, settle, media, net: self.net.clone(), clock }))
    }
}

/// What is wrong with a rig file, where, and what to write instead.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mistake {
    /// From 1.
    pub line: usize,
    /// What to change.
    pub text: String,
}

/// The first line that holds `key`: what a check of the whole file is about.
fn line_of(text: &str, key: &str) -> usize {
    text.lines().position(|line| line.contains(key)).map_or(1, |index| index + 1)
}

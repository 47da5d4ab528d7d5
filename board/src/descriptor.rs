//! What a board is: one TOML file each, in `boards/`.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

use crate::reader::{Mistake, Read, Report, Table, Value};
use crate::serial::speed;

/// One board. Sections that are left out are parts the board does not have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Descriptor {
    /// The file's name without `.toml`, and what stage lines say.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Names out of the device tree's `compatible`, any of which means this board.
    pub compatible: Vec<String>,
    /// Names out of the firmware's DMI tables, any of which means this board.
    pub dmi: Vec<DmiMatch>,
    /// Whether it stands for every machine with UEFI and ACPI that no other descriptor knows.
    pub fallback: bool,
    /// Where its serial console is.
    pub console: ConsolePart,
    /// What its CPU is said to have.
    pub cpu: CpuPart,
    /// Where its disk is.
    pub storage: StoragePart,
    /// Its watchdog.
    pub watchdog: Option<WatchdogPart>,
    /// Its light.
    pub led: Option<LedPart>,
    /// Its reset button.
    pub button: Option<ButtonPart>,
    /// Its source of random numbers.
    pub hwrng: Option<HwrngPart>,
    /// Its way to the network.
    pub net: NetPart,
}

/// DMI fields as `/sys/class/dmi/id` shows them; all that are given must agree.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DmiMatch {
    /// `sys_vendor`.
    pub sys_vendor: Option<String>,
    /// `product_name`.
    pub product_name: Option<String>,
    /// `board_name`.
    pub board_name: Option<String>,
}

/// `[console]`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConsolePart {
    /// A name in `/dev`; left out, the console that the kernel found by device tree or SPCR.
    pub device: Option<String>,
    /// Bits a second.
    pub baud: u32,
}

/// `[cpu]`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CpuPart {
    /// Whether it has AES instructions.
    pub aes: AesClaim,
}

/// What a descriptor says of AES instructions. The CPU's own word (`AT_HWCAP`) decides; this is checked against it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AesClaim {
    /// This board's CPU has them.
    Present,
    /// This board's CPU lacks them.
    Absent,
    /// Machines of this kind differ.
    Probe,
}

/// `[storage]`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoragePart {
    /// Names of disks with `*` for any characters; earlier ones are preferred.
    pub disks: Vec<String>,
    /// How long a slow disk may take to appear.
    pub wait: Duration,
}

/// `[watchdog]`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WatchdogPart {
    /// A name in `/dev`.
    pub device: String,
    /// The wanted time from the last feeding to the reset.
    pub timeout: Duration,
}

/// `[led]`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LedPart {
    /// Names in `/sys/class/leds`; the first that is there is used (old and new kernels name them differently).
    pub status: Vec<String>,
}

/// `[button]`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ButtonPart {
    /// Labels of the GPIO chip; the first that is there is used (device tree and ACPI name it differently).
    pub chip: Vec<String>,
    /// The line of that chip.
    pub line: u32,
    /// Whether a press pulls the line low.
    pub active_low: bool,
    /// How long a press must last to mean a reset.
    pub hold: Duration,
}

/// `[hwrng]`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HwrngPart {
    /// A name in `/dev`.
    pub device: String,
}

/// `[net]`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NetPart {
    /// Names of interfaces with `*` for any characters; earlier ones are preferred.
    pub uplink: Vec<String>,
}

/// One mistake in a descriptor.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub struct DescriptorError {
    /// The descriptor, as it was named to us.
    pub file: PathBuf,
    /// From 1; 0 when the file as a whole is meant.
    pub line: usize,
    /// From 1, in characters; 0 when the file as a whole is meant.
    pub column: usize,
    /// The key in dotted form, such as `watchdog.timeout`; empty when there is none.
    pub key: String,
    /// What is wrong, without a full stop.
    pub what: String,
    /// How to mend it, without a full stop.
    pub mend: String,
}

impl fmt::Display for DescriptorError {
    /// `FILE:LINE:COLUMN: key: what; mend`, in one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}; {}", self.what, self.mend)
    }
}

/// The descriptor that every image has, whatever became of its files.
const GENERIC: &str = include_str!("../boards/systemready.toml");

/// How long a disk may take when the descriptor does not say.
const DISK_WAIT: Duration = Duration::from_secs(10);

/// How long the reset button is held when the descriptor does not say: longer than a press by mistake.
const HOLD: Duration = Duration::from_secs(10);

impl Descriptor {
    /// Reads one file.
    pub fn load(file: &Path) -> Result<Self, Vec<DescriptorError>> {
        let whole = |what: String, mend: &str| {
            let (file, key, mend) = (file.to_owned(), String::new(), mend.to_owned());
            vec![DescriptorError { file, line: 0, column: 0, key, what, mend }]
        };
        let text = fs::read_to_string(file).map_err(|error| {
            whole(format!("cannot be read: {error}"), "a descriptor is a file of UTF-8 text")
        })?;
        let descriptor = Self::parse(&text, file)?;
        let stem = file.file_stem().and_then(|stem| stem.to_str());
        if stem == Some(descriptor.id.as_str()) {
            return Ok(descriptor);
        }
        Err(whole(format!("its id is {:?}", descriptor.id), "name the file after its id"))
    }

    /// Reads the text of a file; gives every mistake in it.
    pub fn parse(text: &str, file: &Path) -> Result<Self, Vec<DescriptorError>> {
        let at = |mistake| DescriptorError::at(file, text, mistake);
        let document = DeTable::parse(text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            let what = error.message().replace('\n', ", ");
            let mend = "write `key = value` under `[section]` (https://toml.io)".into();
            vec![at(Mistake { span, key: String::new(), what, mend })]
        })?;
        let report = Report::default();
        let mut table = Table::document(&document, &report);
        let descriptor = read(&mut table);
        table.finish();
        let mut mistakes = report.into_mistakes();
        match descriptor {
            Some(descriptor) if mistakes.is_empty() => Ok(descriptor),
            _ => {
                mistakes.sort_by_key(|mistake| mistake.span.start);
                Err(mistakes.into_iter().map(at).collect())
            }
        }
    }

    /// The built-in descriptor of a machine nobody described.
    pub fn generic() -> Self {
        Self::parse(GENERIC, Path::new("systemready.toml")).unwrap_or_else(|_| Self::bare())
    }

    /// What is left when even the built-in text were wrong, which a test excludes: the kernel's console and any disk.
    fn bare() -> Self {
        Self {
            id: "generic".into(),
            name: "unknown machine".into(),
            compatible: Vec::new(),
            dmi: Vec::new(),
            fallback: true,
            console: ConsolePart { device: None, baud: 115_200 },
            cpu: CpuPart { aes: AesClaim::Probe },
            storage: StoragePart { disks: vec!["*".into()], wait: DISK_WAIT },
            watchdog: None,
            led: None,
            button: None,
            hwrng: None,
            net: NetPart { uplink: vec!["eth*".into()] },
        }
    }
}

impl DescriptorError {
    /// Turns octet offsets into line and column.
    fn at(file: &Path, text: &str, mistake: Mistake) -> Self {
        let Mistake { span, key, what, mend } = mistake;
        let before = text.get(..span.start).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before.get(start..).unwrap_or_default().chars().count() + 1;
        Self { file: file.to_owned(), line, column, key, what, mend }
    }
}

/// The whole document. Each part is read before any is missed, so that all mistakes are told.
fn read(table: &mut Table<'_>) -> Option<Descriptor> {
    let schema = table.required("schema", "write schema = 1, the form described in board/README.md");
    let id = table.required::<Id>("id", "write a short name such as id = \"raspi4b\"");
    let name = table.required("name", "write what people call the board");
    let compatible = table.optional::<Vec<String>>("compatible").unwrap_or_default();
    let dmi = table.value("dmi").and_then(|value| value.list(|one| one.table(dmi))).unwrap_or_default();
    let fallback = table.optional::<bool>("fallback").unwrap_or_default();
    let console = table.section("console", console);
    let cpu = table.section("cpu", cpu);
    let storage = table.section("storage", storage);
    let watchdog = table.section("watchdog", watchdog);
    let led = table.section("led", |led| {
        let status = led.required("status", "write a name of /sys/class/leds")?;
        Some(LedPart { status })
    });
    let button = table.section("button", button);
    let hwrng = table.section("hwrng", |hwrng| {
        let device = hwrng.optional::<Device>("device").map_or_else(|| "hwrng".into(), |Device(name)| name);
        Some(HwrngPart { device })
    });
    let net = table.section("net", |net| {
        let uplink = net.required("uplink", "write the names of its network interfaces")?;
        Some(NetPart { uplink })
    });
    if !["compatible", "dmi", "fallback"].iter().any(|key| table.has(key)) {
        let mend = "write how the board is known: compatible, dmi or fallback = true";
        table.missing::<()>("compatible", mend);
    }
    if !table.has("storage") {
        table.missing::<()>("storage", "write [storage] with disks = [\"mmcblk*\"]");
    }
    let Schema = schema?;
    Some(Descriptor {
        id: id?.0,
        name: name?,
        compatible,
        dmi,
        fallback,
        console: console.unwrap_or(ConsolePart { device: None, baud: 115_200 }),
        cpu: cpu.unwrap_or(CpuPart { aes: AesClaim::Probe }),
        storage: storage?,
        watchdog,
        led,
        button,
        hwrng,
        net: net.unwrap_or_else(|| NetPart { uplink: vec!["eth*".into()] }),
    })
}

fn dmi(table: &mut Table<'_>) -> Option<DmiMatch> {
    let sys_vendor = table.optional("sys-vendor");
    let product_name = table.optional("product-name");
    let board_name = table.optional("board-name");
    if sys_vendor.is_none() && product_name.is_none() && board_name.is_none() {
        return table.missing("sys-vendor", "write at least one of sys-vendor, product-name, board-name");
    }
    Some(DmiMatch { sys_vendor, product_name, board_name })
}

fn console(table: &mut Table<'_>) -> Option<ConsolePart> {
    let device = table.optional::<Device>("device").map(|Device(name)| name);
    let baud = table.value("baud").map_or(Some(115_200), |value| match u32::read(&value)? {
        baud if speed(baud).is_some() => Some(baud),
        baud => value.wrong(format!("no line runs at {baud}"), "write 115200, or another usual speed"),
    });
    Some(ConsolePart { device, baud: baud? })
}

fn cpu(table: &mut Table<'_>) -> Option<CpuPart> {
    const WORDS: [(&str, AesClaim); 3] =
        [("present", AesClaim::Present), ("absent", AesClaim::Absent), ("probe", AesClaim::Probe)];
    let aes = table.value("aes").map_or(Some(AesClaim::Probe), |value| value.choice(&WORDS))?;
    Some(CpuPart { aes })
}

fn storage(table: &mut Table<'_>) -> Option<StoragePart> {
    let disks = table.required::<Vec<Device>>("disks", "write names of disks, such as [\"mmcblk*\"]");
    let wait = table.optional("wait").unwrap_or(DISK_WAIT);
    Some(StoragePart { disks: disks?.into_iter().map(|Device(name)| name).collect(), wait })
}

fn watchdog(table: &mut Table<'_>) -> Option<WatchdogPart> {
    let device = table.required::<Device>("device", "write a name of /dev, such as \"watchdog0\"");
    let timeout = table.required("timeout", "write how long, such as \"30s\"");
    Some(WatchdogPart { device: device?.0, timeout: timeout? })
}

fn button(table: &mut Table<'_>) -> Option<ButtonPart> {
    let chip = table.required("chip", "write the GPIO chip's label, such as \"pinctrl-bcm2711\"");
    let line = table.required("line", "write the number of the line on that chip");
    let active = [("low", true), ("high", false)];
    let active_low = table.value("active").map_or(Some(true), |value| value.choice(&active));
    let hold = table.optional("hold").unwrap_or(HOLD);
    Some(ButtonPart { chip: chip?, line: line?, active_low: active_low?, hold })
}

/// The one form of descriptors there is.
struct Schema;

impl Read for Schema {
    fn read(value: &Value<'_>) -> Option<Self> {
        match u32::read(value)? {
            1 => Some(Self),
            other => value.wrong(format!("schema {other} is not known here"), "write schema = 1"),
        }
    }
}

/// A board's name, which becomes a file name and part of a stage line.
struct Id(String);

impl Read for Id {
    fn read(value: &Value<'_>) -> Option<Self> {
        let text = value.text()?;
        if text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
            return Some(Self(text.to_owned()));
        }
        value.wrong(format!("{text:?} is no id"), "use a-z, 0-9 and - only")
    }
}

/// A name in `/dev`, or a pattern of names.
struct Device(String);

impl Read for Device {
    fn read(value: &Value<'_>) -> Option<Self> {
        let text = value.text()?;
        if text.contains('/') || text.starts_with('.') {
            return value.wrong("this is a path", "write the name below /dev alone");
        }
        Some(Self(text.to_owned()))
    }
}

impl Read for Vec<Device> {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.list(Device::read)
    }
}

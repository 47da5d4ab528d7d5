//! Promise: the code that a lab's bench uses works: serial port, relay, SD mux and network, around an emulated board.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hil_tests::backends::Backends;
use hil_tests::client::Client;
use hil_tests::guard::Workshop;
use hil_tests::image::{Build, Image};
use hil_tests::port::{free, loopback};
use hil_tests::promise::Stand;
use hil_tests::rig::fake::Devices;
use hil_tests::rig::qemu::{self, Paths};
use hil_tests::rig::{Boot, Kind, Rig};

/// An i.MX 8M Plus EVK, as far as it is emulated, on a bench that is played by a process.
#[test]
fn a_bench_boots_a_board_and_cuts_its_power() -> Result<()> {
    let workshop = Workshop::new()?;
    let (reader, slot) = (workshop.file("in-reader.img"), workshop.file("in-board.img"));
    let devices = Devices::inside(workshop.path());
    let port = loopback(free()?);

    let Kind::Qemu(board) = Rig::named("imx8mp-evk")?.kind else { bail!("imx8mp-evk is emulated") };
    let paths = Paths {
        disk: slot.clone(),
        serial: devices.serial.clone(),
        qmp: workshop.file("qmp"),
        gdb: workshop.file("gdb"),
    };
    let boot = Boot { kernel: Some(Image::find(Build::Release)?.kernel), ..Boot::default() };
    let tree = board.device_tree.as_ref().context("no device tree")?;
    let tree = hil_tests::rig::device_tree::prepare(tree, &workshop)?;
    let emulator = qemu::arguments(&board, &paths, &boot, Some(&tree), &[(993, port)].into())?;
    let mut bench = Command::new(env!("CARGO_BIN_EXE_box"));
    bench
        .arg("fake-bench")
        .arg("--folder")
        .arg(workshop.path())
        .arg("--")
        .arg("qemu-system-aarch64")
        .args(emulator);
    let log = std::fs::File::create(workshop.file("bench.log"))?;
    let mut bench = workshop.spawn("the fake bench", bench.stdin(Stdio::null()).stderr(log))?;
    let start = Instant::now();
    while !devices.relay.exists() {
        ensure!(bench.is_running() && start.elapsed() < Duration::from_secs(20), "{}", bench.testament());
        std::thread::sleep(Duration::from_millis(20));
    }

    // The mux moves the card: what is in the board cannot be written.
    std::fs::File::create(&slot)?;
    let rig = Rig::parse("fake", &rig(&devices, &reader, &slot, port.to_string().as_str()))
        .map_err(|mistake| anyhow::anyhow!("line {}: {}", mistake.line, mistake.text))?;
    let backends = Backends::start()?;
    let machine = Stand::of(rig, "fake", "bench").boot(&backends)?;
    let greeting = |address| Client::tls(address, &machine.trust()?)?.line();
    ensure!(greeting(machine.port(993)?)?.starts_with("* OK"));

    let mut machine = machine.cut()?;
    let silent = machine.console().silent_for();
    std::thread::sleep(Duration::from_secs(1));
    ensure!(machine.console().silent_for() >= silent + Duration::from_millis(900), "it speaks without power");
    ensure!(Client::clear(port).is_err(), "it serves without power");
    let written = workshop.file("as-left.img");
    machine.media().read(&written)?;
    ensure!(std::fs::metadata(&written)?.len() > 0);

    let machine = machine.on()?.serving()?;
    let mut client = Client::tls(machine.port(993)?, &machine.trust()?)?;
    ensure!(client.line()?.starts_with("* OK"));
    ensure!(bench.is_running(), "{}", bench.testament());
    Ok(())
}

fn rig(devices: &Devices, reader: &Path, slot: &Path, port: &str) -> String {
    let (console, relay) = (devices.console.display(), devices.relay.display());
    let (reader, slot) = (reader.display(), slot.display());
    format!(
        r#"
schema = 1
board = "imx8mp-evk"
kind = "bench"
about = "an emulated board behind a fake relay and serial adapter"
provides = ["serial", "power", "media", "net.eth"]

[limits]
boot = 240

[console]
device = "{console}"

[power]
driver = "usb-relay"
device = "{relay}"
channel = 1
settle-ms = 300

[media]
driver = "command"
to-host = ["mv", "{slot}", "{reader}"]
to-board = ["mv", "{reader}", "{slot}"]
disk = "{reader}"

[net]
interface = "none"
host = "127.0.0.1"
host-seen-as = "10.0.2.2"
board = "127.0.0.1"
forward = {{ 993 = "{port}" }}
"#
    )
}

//! Promise: every rig file says what it means. What a file makes of a rig stands beside it in `tests/rigs`, and so does
//! what is said of each bad one. `POSTERN_BLESS=1` writes these files anew; read the difference before you commit it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use hil_tests::port::loopback;
use hil_tests::programs::workspace;
use hil_tests::rig::description::Firmware;
use hil_tests::rig::qemu::{PORTS, Paths, arguments};
use hil_tests::rig::{Boot, Kind, Rig};

fn folder() -> PathBuf {
    workspace().join("hil-tests/tests/rigs")
}

/// The names of the TOML files of a folder, without `.toml`.
fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .with_context(|| folder.display().to_string())?
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".toml")?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

#[test]
fn every_board_has_a_rig() -> Result<()> {
    let rigs = Rig::all()?;
    let boards = names(&workspace().join("board/boards"))?;
    ensure!(!boards.is_empty());
    for board in &boards {
        ensure!(
            rigs.iter().any(|rig| rig.board == *board),
            "no rig for board/boards/{board}.toml; add one to hil-tests/rigs"
        );
    }
    for rig in rigs {
        ensure!(boards.contains(&rig.board), "{}: there is no board/boards/{}.toml", rig.name, rig.board);
    }
    Ok(())
}

#[test]
fn every_file_becomes_the_rig_beside_it() -> Result<()> {
    for rig in Rig::all()? {
        let golden = folder().join(format!("{}.txt", rig.name));
        compare(&plan(&rig)?, &golden)?;
    }
    Ok(())
}

/// What a rig comes to: the emulator's command line, or the bench's devices.
fn plan(rig: &Rig) -> Result<String> {
    let lacks = rig
        .lacks
        .iter()
        .fold(String::new(), |all, (capability, why)| all + &format!("lacks {capability}: {why}\n"));
    let provides: Vec<&str> = rig.provides.iter().map(|capability| capability.name()).collect();
    let head = format!("{} on {}\nprovides {}\n{lacks}", rig.name, rig.board, provides.join(" "));
    let description = match &rig.kind {
        Kind::Bench(bench) => return Ok(format!("{head}{bench:#?}\n")),
        Kind::Qemu(description) => description,
    };
    let file = |name: &str| Path::new("/w").join(name);
    let paths = Paths { disk: file("disk.img"), serial: file("serial"), qmp: file("qmp"), gdb: file("gdb") };
    let boot = match description.firmware {
        Firmware::Edk2 => {
            Boot { firmware: Some((file("code.fd"), Some(file("vars.fd")))), ..Boot::default() }
        }
        Firmware::Uboot => Boot { firmware: Some((file("u-boot.bin"), None)), ..Boot::default() },
        Firmware::Direct => Boot { kernel: Some(file("Image")), ..Boot::default() },
    };
    let tree = description.device_tree.as_ref().map(|_| file("board.dtb"));
    let forwards: BTreeMap<_, _> = PORTS.into_iter().map(|port| (port, loopback(20_000 + port))).collect();
    let line = arguments(description, &paths, &boot, tree.as_deref(), &forwards)?;
    Ok(format!("{head}qemu-system-aarch64 {}\n", line.join(" ").replace(" -", " \\\n  -")))
}

#[test]
fn every_mistake_is_told_with_its_line_and_its_mend() -> Result<()> {
    let folder = folder().join("bad");
    let bad = names(&folder)?;
    ensure!(bad.len() > 5);
    for name in bad {
        let text = fs::read_to_string(folder.join(format!("{name}.toml")))?;
        let Err(mistake) = Rig::parse(&name, &text) else { anyhow::bail!("{name}.toml was taken") };
        compare(&format!("{}: {}\n", mistake.line, mistake.text), &folder.join(format!("{name}.txt")))?;
    }
    Ok(())
}

fn compare(is: &str, golden: &Path) -> Result<()> {
    if std::env::var_os("POSTERN_BLESS").is_some() {
        fs::write(golden, is)?;
    }
    let wanted = fs::read_to_string(golden).unwrap_or_default();
    ensure!(is == wanted, "{} says otherwise than this:\n{is}", golden.display());
    Ok(())
}

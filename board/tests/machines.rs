//! What is found on recorded machines: `machines/` holds what the kernel showed on each (see its README.md).
#![cfg(feature = "std")]
#![allow(clippy::unwrap_used, clippy::panic)] // tests fail so, in their helpers too

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use board::crypto::{self, Aes};
use board::descriptor::{HwrngPart, StoragePart};
use board::detect::{Detection, MatchedBy, detect};
use board::disk::{self, Role};
use board::led::{Light, Pattern};
use board::{Descriptor, Machine};
use tempfile::TempDir;

/// A copy of a recorded machine, to be changed.
struct Copy {
    root: TempDir,
    machine: Machine,
}

impl Copy {
    fn of(board: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        copy(&Path::new("tests/machines").join(board), root.path());
        let machine = Machine::at(root.path());
        fs::create_dir(&machine.dev).unwrap();
        Self { root, machine }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn detect(&self) -> Detection {
        detect(&self.machine, Path::new("boards"))
    }

    /// As the named board's descriptor says, but without waiting long.
    fn storage(&self) -> StoragePart {
        StoragePart { wait: Duration::from_millis(300), ..self.detect().descriptor.storage }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy(&entry.path(), &to);
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path()).unwrap(), to).unwrap();
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn every_machine_is_known() {
    let compatible = |name: &str| MatchedBy::Compatible(name.into());
    for (machine, id, by) in [
        ("virt", "virt", compatible("linux,dummy-virt")),
        ("virt-acpi", "virt", MatchedBy::Dmi),
        ("raspi4b", "raspi4b", compatible("raspberrypi,4-model-b")),
        ("imx8mp-evk", "imx8mp-evk", compatible("fsl,imx8mp-evk")),
        ("systemready", "systemready", MatchedBy::Fallback),
    ] {
        let found = Copy::of(machine).detect();
        assert_eq!((found.descriptor.id.as_str(), found.by), (id, by), "{machine}");
        assert_eq!(found.mistakes, []);
    }
}

#[test]
fn a_machine_nobody_described_is_run_as_a_generic_one() {
    let unknown = Copy::of("raspi4b");
    fs::write(unknown.path("proc/device-tree/compatible"), "maker,board\0maker,chip\0").unwrap();
    let found = unknown.detect();
    assert_eq!((found.descriptor.id.as_str(), found.by), ("systemready", MatchedBy::Nothing));
    fs::remove_dir_all(unknown.path("proc")).unwrap();
    assert_eq!(unknown.detect().by, MatchedBy::Nothing);
}

#[test]
fn a_board_is_preferred_to_its_chip() {
    let pi = Copy::of("raspi4b");
    let boards = tempfile::tempdir().unwrap();
    let text = fs::read_to_string("boards/raspi4b.toml").unwrap();
    fs::write(boards.path().join("raspi4b.toml"), &text).unwrap();
    let chip =
        text.replace("id = \"raspi4b\"", "id = \"a-chip\"").replace("raspberrypi,4-model-b", "brcm,bcm2711");
    fs::write(boards.path().join("a-chip.toml"), chip.replace("raspberrypi,4-compute-module", "x,y"))
        .unwrap();
    assert_eq!(detect(&pi.machine, boards.path()).descriptor.id, "raspi4b");
    fs::remove_file(boards.path().join("raspi4b.toml")).unwrap();
    assert_eq!(detect(&pi.machine, boards.path()).descriptor.id, "a-chip");
}

#[test]
fn a_descriptor_with_mistakes_is_told_and_skipped() {
    let pi = Copy::of("raspi4b");
    let boards = tempfile::tempdir().unwrap();
    for board in ["virt", "raspi4b", "systemready"] {
        let text = fs::read_to_string(format!("boards/{board}.toml")).unwrap();
        let text = text.replace("[watchdog]\n", "[watchdog]\ntimeouts = 1\n");
        fs::write(boards.path().join(format!("{board}.toml")), text).unwrap();
    }
    let found = detect(&pi.machine, boards.path());
    // The generic one is built in, so a box whose files are all wrong still has a console.
    assert_eq!((found.descriptor, found.by), (Descriptor::generic(), MatchedBy::Nothing));
    assert_eq!(found.mistakes.len(), 3);
    let told = found.mistakes[0].to_string();
    assert!(told.contains("raspi4b.toml:19:1: watchdog.timeouts: there is no key `timeouts`"), "{told}");

    let found = detect(&pi.machine, &boards.path().join("none"));
    assert_eq!(found.descriptor, Descriptor::generic());
    assert!(found.mistakes[0].to_string().ends_with("; put the files of board/boards there"));
}

#[test]
fn aes_is_what_the_cpu_says() {
    for machine in ["virt", "imx8mp-evk", "raspi4b"] {
        assert_eq!(Aes::from_hwcap(&Copy::of(machine).machine), Some(Aes::Hardware), "{machine}");
    }
    // The emulated Cortex-A72 has what the Raspberry Pi's lacks; that must be told, and believed.
    let pi = Copy::of("raspi4b");
    let claim = pi.detect().descriptor.cpu.aes;
    let told = crypto::check(claim, Aes::Hardware).unwrap_err().to_string();
    assert!(told.contains("this CPU has AES instructions (AT_HWCAP)"), "{told}");
    assert!(crypto::check(claim, Aes::Software).is_ok());

    // The real one's AT_HWCAP: fp asimd evtstrm crc32 cpuid.
    let mut vector = fs::read(pi.path("proc/self/auxv")).unwrap();
    let hwcap = vector.chunks_mut(16).find(|pair| pair[..8] == 16_u64.to_ne_bytes()).unwrap();
    hwcap[8..].copy_from_slice(&0x887_u64.to_ne_bytes());
    fs::write(pi.path("proc/self/auxv"), vector).unwrap();
    assert_eq!(Aes::from_hwcap(&pi.machine), Some(Aes::Software));
    let told = crypto::check(Copy::of("imx8mp-evk").detect().descriptor.cpu.aes, Aes::Software).unwrap_err();
    assert!(told.to_string().contains("this CPU lacks AES instructions"), "{told}");
    fs::write(pi.path("proc/self/auxv"), [0; 40]).unwrap();
    assert_eq!(Aes::from_hwcap(&pi.machine), None);
}

#[test]
fn disks_are_found_by_the_names_of_their_partitions() {
    for (machine, disk, data) in [
        ("virt", "vda", "vda5"),
        ("virt-acpi", "vda", "vda5"),
        ("raspi4b", "mmcblk0", "mmcblk0p5"),
        ("imx8mp-evk", "mmcblk2", "mmcblk2p5"),
        ("systemready", "nvme0n1", "nvme0n1p5"),
    ] {
        let copy = Copy::of(machine);
        let found = disk::wait(&copy.machine, &copy.storage()).unwrap();
        assert_eq!((found.name.as_str(), found.removable, found.sector_size), (disk, false, 512));
        let partition = found.partition(Role::Data);
        assert_eq!((partition.name.as_str(), partition.number, partition.start), (data, 5, 266_240));
        assert_eq!(partition.device, copy.machine.dev.join(data));
        assert_eq!(found.partition(Role::State).sectors, 2048);
        assert!(partition.start + partition.sectors < found.sectors);
    }
}

#[test]
fn roles_follow_names_and_not_numbers() {
    let copy = Copy::of("virt");
    let name = |partition: &str, role: &str| {
        let file = copy.path("sys/class/block").join(partition).join("uevent");
        let text = fs::read_to_string(&file).unwrap();
        let text = text.lines().filter(|line| !line.starts_with("PARTNAME=")).collect::<Vec<_>>().join("\n");
        fs::write(file, format!("{text}\nPARTNAME={role}\n")).unwrap();
    };
    name("vda2", "postern-b");
    name("vda3", "postern-a");
    let found = disk::find(&copy.machine, &copy.storage()).unwrap();
    assert_eq!((found.partition(Role::A).number, found.partition(Role::B).number), (3, 2));

    name("vda2", "postern-bb");
    name("vda5", "data");
    let told = disk::wait(&copy.machine, &copy.storage()).unwrap_err().to_string();
    assert_eq!(
        told,
        "disk: none of vd*, nvme*, mmcblk*, sd* holds Postern: vda lacks postern-b, postern-data; write an image to \
         one of them, or check [storage] disks in the board's descriptor"
    );
}

#[test]
fn a_disk_that_is_not_there_is_waited_for_and_then_told() {
    let copy = Copy::of("virt");
    let block = copy.path("sys/class/block");
    let away = copy.path("sys/class/away");
    fs::rename(&block, &away).unwrap();
    let start = Instant::now();
    let told = disk::wait(&copy.machine, &copy.storage()).unwrap_err().to_string();
    assert!(told.contains("holds Postern: no such disk is there; write an image"), "{told}");
    assert!((300..5000).contains(&start.elapsed().as_millis()));

    let part = StoragePart { wait: Duration::from_secs(20), ..copy.storage() };
    let late = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        fs::rename(away, block).unwrap();
    });
    assert_eq!(disk::wait(&copy.machine, &part).unwrap().name, "vda");
    assert!(start.elapsed() < Duration::from_secs(15));
    late.join().unwrap();
}

#[test]
fn a_stick_stands_behind_the_boards_own_disk() {
    let copy = Copy::of("systemready");
    let storage = copy.storage();
    let sd_first = StoragePart { disks: vec!["sd*".into(), "nvme*".into()], ..storage.clone() };
    assert_eq!(disk::wait(&copy.machine, &sd_first).unwrap().name, "nvme0n1");
    // A USB disk that is not marked removable is one all the same.
    fs::write(copy.path("sys/class/block/sda/removable"), "0\n").unwrap();
    assert_eq!(disk::find(&copy.machine, &sd_first).unwrap().name, "nvme0n1");

    // With no other disk it serves, after the others had their time.
    for name in ["nvme0n1", "nvme0n1p1"] {
        fs::remove_file(copy.path("sys/class/block").join(name)).unwrap();
    }
    let start = Instant::now();
    let found = disk::wait(&copy.machine, &storage).unwrap();
    assert_eq!((found.name.as_str(), found.removable), ("sda", true));
    assert!(start.elapsed() >= storage.wait);
}

#[test]
fn other_disks_do_not_disturb() {
    let copy = Copy::of("raspi4b");
    // A boot partition of an eMMC, and a drive without a medium.
    for name in ["mmcblk0boot0", "mmcblk0rpmb", "sda"] {
        fs::create_dir(copy.path("sys/class/block").join(name)).unwrap();
    }
    assert_eq!(disk::wait(&copy.machine, &copy.storage()).unwrap().name, "mmcblk0");
}

#[test]
fn patterns_match_whole_names() {
    for (pattern, name, matches) in [
        ("mmcblk*", "mmcblk0", true),
        ("mmcblk*", "xmmcblk0", false),
        ("nvme*n1", "nvme0n1", true),
        ("nvme*n1", "nvme0n2", false),
        ("sda", "sdaa", false),
        ("*", "", true),
        ("s*d*a", "sda", true),
        ("", "sda", false),
    ] {
        assert_eq!(disk::matches(pattern, name), matches, "{pattern} {name}");
    }
}

#[test]
fn lights_shine_where_boards_have_them() {
    for (machine, led) in [("imx8mp-evk", Some("yellow:status")), ("raspi4b", Some("ACT")), ("virt", None)] {
        let copy = Copy::of(machine);
        let part = copy.detect().descriptor.led;
        assert_eq!(part.is_some(), led.is_some());
        let mut light = Light::open(&copy.machine, part.as_ref()).unwrap();
        light.show(Pattern::Serving, Duration::ZERO).unwrap();
        if let Some(led) = led {
            let level = fs::read_to_string(copy.path("sys/class/leds").join(led).join("brightness")).unwrap();
            assert!(["001\n", "255\n"].contains(&level.as_str()), "{level}");
        }
    }
}

#[test]
fn parts_that_are_missing_are_told_at_once() {
    let copy = Copy::of("virt");
    let board = copy.detect().descriptor;
    let start = Instant::now();
    let part = HwrngPart { device: "hwrng".into() };
    let told = board::hwrng::seed(&copy.machine, &part, Duration::from_secs(5)).unwrap_err().to_string();
    assert!(told.contains("/dev/hwrng: cannot be opened: No such file"), "{told}");
    let told =
        board::watchdog::Watchdog::open(&copy.machine, &board.watchdog.unwrap()).unwrap_err().to_string();
    assert!(told.contains("/dev/watchdog0: cannot be opened: No such file"), "{told}");
    let told = board::button::Button::open(&copy.machine, &board.button.unwrap()).unwrap_err().to_string();
    assert!(told.contains("no GPIO chip has this label"), "{told}");
    assert!(start.elapsed() < Duration::from_secs(2));
}

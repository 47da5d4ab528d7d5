//! `cargo box flash`: writes an image to an SD card or eMMC, and to nothing else by mistake.

use std::fs::{self, File};
use std::io::{ErrorKind, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::image::{Build, Disk, Image};

/// What to write where.
#[derive(Debug)]
pub struct Options {
    /// The whole disk, such as /dev/sdX or /dev/mmcblkX.
    pub disk: PathBuf,
    /// Also a disk that cannot be taken out of this machine.
    pub fixed: bool,
    /// Without asking.
    pub yes: bool,
    /// The factory settings' folder of the disk that is built here.
    pub seed: Option<PathBuf>,
    /// A disk image to write instead.
    pub image: Option<PathBuf>,
}

/// How much is read and written at once.
const BLOCK: usize = 1024 * 1024;

/// Checks the disk, says what will happen, asks, writes and compares.
pub fn run(options: &Options) -> Result<()> {
    let target = Target::find(&options.disk, Path::new("/"))?;
    target.check(options.fixed)?;
    let Some(image) = &options.image else {
        let folder = tempfile::tempdir()?;
        let image = folder.path().join("disk.img");
        let disk = Disk { seed: options.seed.as_deref(), ..Disk::default() };
        Image::find(Build::Release)?.disk(&disk, &image)?;
        return ask_and_write(options, &target, &image);
    };
    ask_and_write(options, &target, image)
}

fn ask_and_write(options: &Options, target: &Target, image: &Path) -> Result<()> {
    let length = fs::metadata(image).with_context(|| format!("cannot read {}", image.display()))?.len();
    ensure!(
        length <= target.bytes,
        "{} holds {} MB, the image needs {} MB",
        options.disk.display(),
        target.bytes / 1_000_000,
        length / 1_000_000
    );
    eprintln!(
        "All on {} will be lost: {}, {} MB, {}.\nIt becomes a Postern disk from {}.",
        options.disk.display(),
        target.model,
        target.bytes / 1_000_000,
        if target.is_removable { "removable" } else { "NOT removable" },
        image.display(),
    );
    if !options.yes {
        ensure!(std::io::stdin().is_terminal(), "nobody is there to ask; add --yes if that is what you want");
        eprint!("Write \"{}\" to go on: ", target.name);
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        ensure!(answer.trim() == target.name, "nothing was written");
    }
    write(image, &options.disk)?;
    eprintln!("written, read back, and the same");
    Ok(())
}

/// Writes an image to a disk or a file, from its first octet on, and reads it back past the cache.
pub fn write(image: &Path, disk: &Path) -> Result<()> {
    let mut source = File::open(image).with_context(|| format!("cannot open {}", image.display()))?;
    let is_disk = fs::metadata(disk).is_ok_and(|metadata| metadata.file_type().is_block_device());
    let mut target = fs::OpenOptions::new()
        .write(true)
        .create(!is_disk)
        .truncate(!is_disk)
        .open(disk)
        .with_context(|| format!("cannot write to {}", disk.display()))?;
    let mut block = vec![0; BLOCK];
    loop {
        let read = fill(&mut source, &mut block)?;
        if read == 0 {
            break;
        }
        target.write_all(&block[..read]).with_context(|| format!("cannot write to {}", disk.display()))?;
    }
    target.sync_all().with_context(|| format!("{} did not take all of it", disk.display()))?;
    // What is compared must come from the disk, not from this machine's memory.
    posix_fadvise(target.as_fd(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    drop(target);
    compare(image, disk)
}

fn compare(image: &Path, disk: &Path) -> Result<()> {
    let (mut one, mut two) = (File::open(image)?, File::open(disk)?);
    let (mut wanted, mut got) = (vec![0; BLOCK], vec![0; BLOCK]);
    let mut place = 0_u64;
    loop {
        let read = fill(&mut one, &mut wanted)?;
        if read == 0 {
            return Ok(());
        }
        fill(&mut two, &mut got[..read])?;
        if let Some(offset) = wanted[..read].iter().zip(&got).position(|(one, two)| one != two) {
            bail!(
                "{} gives back other octets than were written, first at {}; the card is worn out or a fake",
                disk.display(),
                place + offset as u64
            );
        }
        place += read as u64;
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// A disk of this machine, as the kernel describes it.
#[derive(Debug)]
struct Target {
    /// Its kernel name, such as `sda`.
    name: String,
    model: String,
    bytes: u64,
    is_removable: bool,
    is_read_only: bool,
    is_whole: bool,
    /// Where it or one of its partitions is in use.
    uses: Vec<String>,
}

impl Target {
    /// Looks a disk up under `root`'s `/sys` and `/proc`.
    fn find(disk: &Path, root: &Path) -> Result<Self> {
        let real = disk.canonicalize().with_context(|| format!("{} is not there", disk.display()))?;
        let name = real.file_name().context("no disk")?.to_string_lossy().into_owned();
        let folder = root.join("sys/class/block").join(&name);
        ensure!(folder.exists(), "{} is not a disk of this machine", disk.display());
        let fact = |file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default().trim().to_owned();
        let sectors: u64 = fact("size").parse().unwrap_or(0);
        let device = folder.canonicalize().unwrap_or_else(|_| folder.clone());
        let is_usb = device.components().any(|part| part.as_os_str().to_string_lossy().starts_with("usb"));
        // The kernel calls an SD card in a built-in reader "not removable"; its name tells, and its type that it is no eMMC.
        let is_card = name.starts_with("mmcblk") && fact("device/type") == "SD";
        let mut names = vec![name.clone()];
        if let Ok(entries) = fs::read_dir(&folder) {
            names.extend(
                entries
                    .flatten()
                    .filter(|entry| entry.path().join("partition").exists())
                    .map(|entry| entry.file_name().to_string_lossy().into_owned()),
            );
        }
        let uses = uses(&names, root);
        Ok(Self {
            model: match [fact("device/vendor"), fact("device/model"), fact("device/name")].join(" ").trim() {
                "" => "without a name".into(),
                model => model.to_owned(),
            },
            bytes: sectors * 512, // the kernel counts in these, whatever the disk does
            is_removable: fact("removable") == "1" || is_usb || is_card,
            is_read_only: fact("ro") == "1",
            is_whole: !folder.join("partition").exists(),
            uses,
            name,
        })
    }

    fn check(&self, fixed: bool) -> Result<()> {
        let name = &self.name;
        ensure!(self.is_whole, "/dev/{name} is a partition; name the whole disk");
        ensure!(self.bytes > 0, "/dev/{name} is empty: is there a card in the reader?");
        ensure!(!self.is_read_only, "/dev/{name} is read-only; look at the card's switch");
        ensure!(self.uses.is_empty(), "/dev/{name} is in use: {}; unmount it first", self.uses.join(", "));
        ensure!(
            self.is_removable || fixed,
            "/dev/{name} ({}) cannot be taken out of this machine; if it is an eMMC that you mean, add --yes-really-fixed-disk",
            self.model
        );
        Ok(())
    }
}

/// Mounts, swaps, and disks made of these disks.
fn uses(names: &[String], root: &Path) -> Vec<String> {
    let mut uses = Vec::new();
    let is_one = |device: &str| {
        let device = Path::new(device);
        let real = device.canonicalize().unwrap_or_else(|_| device.into());
        names.iter().any(|name| real.file_name().is_some_and(|file| file.to_string_lossy() == **name))
    };
    let numbers: Vec<String> = names
        .iter()
        .filter_map(|name| fs::read_to_string(root.join("sys/class/block").join(name).join("dev")).ok())
        .map(|text| text.trim().to_owned())
        .collect();
    // By number too: the root file system's own device is often called /dev/root.
    for line in fs::read_to_string(root.join("proc/self/mountinfo")).unwrap_or_default().lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let source = words.iter().position(|word| *word == "-").and_then(|dash| words.get(dash + 2));
        if words.get(2).is_some_and(|number| numbers.iter().any(|one| one == number))
            || source.is_some_and(|source| is_one(source))
        {
            uses.push(format!("mounted on {}", words.get(4).unwrap_or(&"?")));
        }
    }
    for line in fs::read_to_string(root.join("proc/swaps")).unwrap_or_default().lines().skip(1) {
        if line.split_whitespace().next().is_some_and(is_one) {
            uses.push("swap space".into());
        }
    }
    for name in names {
        let holders = root.join("sys/class/block").join(name).join("holders");
        uses.extend(
            fs::read_dir(holders)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| format!("part of {}", entry.file_name().to_string_lossy())),
        );
    }
    uses
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine's /sys and /proc with one disk and its partition.
    fn machine(name: &str, files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let mut all = vec![
            (format!("sys/class/block/{name}/size"), "1000000\n"),
            (format!("sys/class/block/{name}/dev"), "8:0\n"),
            (format!("sys/class/block/{name}/{name}1/partition"), "1\n"),
            (format!("sys/class/block/{name}1/dev"), "8:1\n"),
            ("dev/null".into(), ""),
        ];
        all.extend(files.iter().map(|(file, text)| ((*file).to_owned(), *text)));
        for (file, text) in all {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let disk = root.path().join("dev").join(name);
        fs::write(&disk, "").unwrap();
        (root, disk)
    }

    fn refusal(name: &str, files: &[(&str, &str)]) -> Option<String> {
        let (root, disk) = machine(name, files);
        Target::find(&disk, root.path())
            .and_then(|target| target.check(false))
            .err()
            .map(|error| error.to_string())
    }

    type File = (&'static str, &'static str);

    const STICK: File = ("sys/class/block/sdq/removable", "1\n");

    #[test]
    fn a_card_in_a_reader_is_fine() {
        assert_eq!(refusal("sdq", &[STICK]), None);
        assert_eq!(refusal("mmcblk9", &[("sys/class/block/mmcblk9/device/type", "SD\n")]), None);
    }

    #[test]
    fn what_is_in_use_or_fixed_is_refused() {
        let cases: [(&str, &[File], &str); 7] = [
            ("sdq", &[], "cannot be taken out"),
            ("mmcblk9", &[("sys/class/block/mmcblk9/device/type", "MMC\n")], "cannot be taken out"),
            (
                "sdq",
                &[STICK, ("proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/root rw\n")],
                "mounted on /",
            ),
            (
                "sdq",
                &[STICK, ("proc/self/mountinfo", "22 1 0:9 / /mnt rw - btrfs /dev/sdq1 rw\n")],
                "mounted on /mnt",
            ),
            ("sdq", &[STICK, ("proc/swaps", "Filename Type\n/dev/sdq1 partition\n")], "swap space"),
            ("sdq", &[STICK, ("sys/class/block/sdq1/holders/dm-0/x", "")], "part of dm-0"),
            ("sdq", &[STICK, ("sys/class/block/sdq/ro", "1\n")], "read-only"),
        ];
        for (name, files, words) in cases {
            let refused = refusal(name, files);
            assert!(
                refused.as_deref().is_some_and(|refused| refused.contains(words)),
                "{words}: {refused:?}"
            );
        }
    }

    #[test]
    fn a_partition_is_refused() {
        let (root, disk) = machine("sdq", &[STICK, ("sys/class/block/sdq/partition", "1\n")]);
        let error = Target::find(&disk, root.path()).unwrap().check(true).unwrap_err().to_string();
        assert!(error.contains("whole disk"), "{error}");
    }

    #[test]
    fn what_is_written_is_compared() {
        let folder = tempfile::tempdir().unwrap();
        let (image, disk) = (folder.path().join("image"), folder.path().join("disk"));
        let octets: Vec<u8> = (0..251).cycle().take(3 * BLOCK + 17).collect();
        fs::write(&image, &octets).unwrap();
        write(&image, &disk).unwrap();
        assert_eq!(fs::read(&disk).unwrap(), octets);
        let mut worn = octets;
        worn[2 * BLOCK + 5] ^= 1;
        fs::write(&disk, &worn).unwrap();
        assert!(compare(&image, &disk).unwrap_err().to_string().contains(&(2 * BLOCK + 5).to_string()));
    }
}

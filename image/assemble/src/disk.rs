//! A whole disk as a file: what the factory writes to a card, an on-board flash or an SSD, and what an emulated box starts from.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use board::slots::{PAYLOAD, Records, Slot, SlotHeader, State, Version};
use ring::digest;

use crate::fat::{self, Files};
use crate::gpt::{self, Extent, Role};
use crate::release::Release;

/// What a disk is made of.
#[derive(Debug)]
pub(crate) struct Disk {
    /// The signed EFI program that picks the slot.
    pub selector: PathBuf,
    /// The signed firmware file of slot A, which is the committed one.
    pub firmware: PathBuf,
    /// The signed firmware file of slot B, if that is to hold one.
    pub slot_b: Option<PathBuf>,
    /// The signed rescue firmware.
    pub rescue: Option<PathBuf>,
    /// A folder with the factory's settings.
    pub seed: Option<PathBuf>,
    /// Size of the disk in bytes.
    pub size: u64,
}

impl Disk {
    /// Writes the disk to `out`, which appears when it is whole. Only what is not zero takes room in the file.
    pub(crate) fn write(&self, out: &Path) -> Result<()> {
        let extents = gpt::layout(self.size)?;
        let extent = |role| extents.get(&role).copied().with_context(|| format!("no partition for {role:?}"));
        let files = self.boot_files()?;
        let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let partial = tempfile::Builder::new()
            .prefix(".disk-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(folder)
            .with_context(|| format!("cannot write into {}", folder.display()))?;
        let mut disk = partial.reopen()?;
        disk.set_len(self.size)?;
        gpt::write(&mut disk, &extents)?;
        let boot = extent(Role::Boot)?;
        write_sparsely(&disk, boot.start, &fat::volume(boot.length, &files)?)?;
        write_slot(&disk, extent(Role::A)?, &self.firmware)?;
        if let Some(firmware) = &self.slot_b {
            write_slot(&disk, extent(Role::B)?, firmware)?;
        }
        let (offset, record) = Records::blank().put(State::new(Slot::A));
        disk.write_all_at(&record, extent(Role::State)?.start + offset)?;
        partial.persist(out).with_context(|| format!("cannot write {}", out.display()))?;
        Ok(())
    }

    fn boot_files(&self) -> Result<Files> {
        let mut files = Files::new();
        files.insert(fat::SELECTOR.into(), read_program(&self.selector)?);
        // Until there is a rescue firmware of its own, the factory's copy of the first firmware stands in for it.
        files.insert(fat::RESCUE.into(), read_program(self.rescue.as_ref().unwrap_or(&self.firmware))?);
        if let Some(seed) = &self.seed {
            fat::add_folder(&mut files, fat::SEED, seed)?;
            ensure!(
                files.contains_key(&format!("{}/settings.toml", fat::SEED)),
                "{} holds no settings.toml, so the box would not look at the rest",
                seed.display()
            );
        }
        Ok(files)
    }
}

fn write_slot(disk: &File, extent: Extent, firmware: &Path) -> Result<()> {
    let bytes = read_program(firmware)?;
    let room = extent.length - PAYLOAD;
    ensure!(
        bytes.len() as u64 <= room,
        "{} is {} bytes long, a slot takes {room}",
        firmware.display(),
        bytes.len()
    );
    let release = Release::beside(firmware)?;
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(digest::digest(&digest::SHA256, &bytes).as_ref());
    let version = Version::new(&release.version).with_context(|| {
        format!("the version {:?} has no room in a slot: 1 to 32 printable ASCII", release.version)
    })?;
    let header = SlotHeader { length: bytes.len() as u64, sha256, version };
    disk.write_all_at(&bytes, extent.start + PAYLOAD)?;
    disk.write_all_at(&header.encode(), extent.start)?;
    Ok(())
}

/// Reads an EFI program. Whether its signature is good is for the firmware of the board to say; that it has one at all
/// can be told here, and saves a board that does not boot.
fn read_program(path: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(bytes.starts_with(b"MZ"), "{} is no EFI program", path.display());
    Ok(bytes)
}

fn write_sparsely(disk: &File, start: u64, bytes: &[u8]) -> Result<()> {
    for (offset, chunk) in (start..).step_by(1 << 16).zip(bytes.chunks(1 << 16)) {
        if chunk.iter().any(|&byte| byte != 0) {
            disk.write_all_at(chunk, offset)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::process::Command;

    use super::*;
    use crate::command;

    /// A folder with a selector, a firmware file and its release.
    fn parts(folder: &Path) -> Disk {
        fs::write(folder.join("selector.efi"), [b"MZ".to_vec(), vec![1; 40_000]].concat()).unwrap();
        fs::write(folder.join("firmware.efi"), [b"MZ".to_vec(), vec![2; 9_000_000]].concat()).unwrap();
        let release = "version = \"1.2.3\"\nbuild = \"0123456789ab\"\nkind = \"bench\"\ntime = 1\n";
        fs::write(folder.join("release.toml"), release).unwrap();
        fs::create_dir(folder.join("seed")).unwrap();
        fs::write(folder.join("seed/settings.toml"), "mode = \"observe\"\n").unwrap();
        Disk {
            selector: folder.join("selector.efi"),
            firmware: folder.join("firmware.efi"),
            slot_b: None,
            rescue: None,
            seed: Some(folder.join("seed")),
            size: 512 << 20,
        }
    }

    #[test]
    fn a_disk_holds_its_parts_and_little_else() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("1.img"), folder.path().join("2.img"));
        let parts = parts(folder.path());
        parts.write(&first).unwrap();
        parts.write(&second).unwrap();
        assert!(fs::read(&first).unwrap() == fs::read(&second).unwrap());
        assert_eq!(first.metadata().unwrap().len(), 512 << 20);
        assert!(first.metadata().unwrap().blocks() * 512 < 24 << 20);

        let extents = gpt::layout(512 << 20).unwrap();
        let disk = File::open(&first).unwrap();
        let read = |role, offset, length| {
            let extent: &Extent = extents.get(&role).unwrap();
            let mut bytes = vec![0; length];
            disk.read_exact_at(&mut bytes, extent.start + offset).unwrap();
            bytes
        };
        let header = SlotHeader::decode(&read(Role::A, 0, 512), 32 << 20).unwrap();
        assert_eq!((header.length, header.version.as_str()), (9_000_002, "1.2.3"));
        assert_eq!(read(Role::A, PAYLOAD, 3), b"MZ\x02");
        assert!(SlotHeader::decode(&read(Role::B, 0, 512), 32 << 20).is_err());
        let (copy, other) = (read(Role::State, 0, 512), read(Role::State, 65536, 512));
        assert_eq!(Records::read([&copy, &other]).newest(), Some(State::new(Slot::A)));
        assert!(read(Role::Data, 0, 1 << 20).iter().all(|&byte| byte == 0));

        let boot = format!("{}@@{}", first.display(), extents.get(&Role::Boot).unwrap().start);
        let settings =
            command::text(Command::new("mtype").args(["-i", &boot, "::/postern/seed/settings.toml"]));
        assert_eq!(settings.unwrap(), "mode = \"observe\"");
    }

    #[test]
    fn what_cannot_boot_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("disk.img");
        let mut parts = parts(folder.path());
        fs::remove_file(folder.path().join("seed/settings.toml")).unwrap();
        assert!(parts.write(&out).unwrap_err().to_string().contains("holds no settings.toml"));
        parts.seed = None;
        fs::write(&parts.firmware, [b"MZ".to_vec(), vec![2; 33 << 20]].concat()).unwrap();
        parts.rescue = Some(parts.selector.clone());
        assert!(parts.write(&out).unwrap_err().to_string().contains("a slot takes 33550336"));
        fs::write(&parts.selector, "not a program").unwrap();
        assert!(parts.write(&out).unwrap_err().to_string().ends_with("selector.efi is no EFI program"));
        assert!(!out.exists());
    }
}

//! The image under test: built by `assemble`, signed by `sign` with the bench's own keys, kept by what it was made of.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use ring::digest;

use crate::programs::{Profile, executables, run, workspace};
use crate::{cache, uefi};

/// A folder with both builds, made before (`Image::build` says what is in it).
pub const FOLDER: &str = "POSTERN_IMAGE";

/// Which image.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Build {
    /// The one that ships.
    Release,
    /// The same with a console that takes commands, for tests that must break things from inside.
    Bench,
}

impl Build {
    const fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Bench => "bench",
        }
    }
}

/// The files of an image. A test may put others in their place.
#[derive(Clone, Debug)]
pub struct Image {
    /// The signed firmware file, with its `release.toml` beside it.
    pub firmware: PathBuf,
    /// The signed selector.
    pub selector: PathBuf,
    /// The same firmware file before it was signed.
    pub unsigned_firmware: PathBuf,
    /// The same selector before it was signed.
    pub unsigned_selector: PathBuf,
    /// The kernel with everything in it, for boards that are started without EFI.
    pub kernel: PathBuf,
    /// The rescue firmware, where it is not the firmware of slot A.
    pub rescue: Option<PathBuf>,
    /// The folder of the keys that signed it.
    pub keys: PathBuf,
    /// The folder of all of it.
    pub folder: PathBuf,
}

/// What a disk holds besides the image.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk<'a> {
    /// The factory settings' folder.
    pub seed: Option<&'a Path>,
    /// The signed firmware file of slot B.
    pub slot_b: Option<&'a Path>,
    /// Its size in bytes.
    pub size: Option<u64>,
}

impl Image {
    /// The image in the folder `POSTERN_IMAGE`, otherwise one built from this workspace.
    pub fn find(build: Build) -> Result<Self> {
        match std::env::var_os(FOLDER) {
            Some(folder) => Self::inside(&Path::new(&folder).join(build.name()))
                .with_context(|| format!("{FOLDER} names a folder without the image")),
            None => Self::build(build),
        }
    }

    /// Builds it, unless it was built from the same sources before.
    pub fn build(build: Build) -> Result<Self> {
        let sources = fingerprint()?;
        let folder = cache::folder("images")?.join(&sources).join(build.name());
        let _lock = cache::lock("images")?; // whoever comes second finds it done
        if let Ok(image) = Self::inside(&folder) {
            return Ok(image);
        }
        let draft = folder.with_extension("draft");
        if draft.exists() {
            fs::remove_dir_all(&draft)?;
        }
        fs::create_dir_all(&draft)?;
        fill(&draft, build)?;
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::rename(&draft, &folder)?;
        forget_old_ones(&sources)?;
        Self::inside(&folder)
    }

    /// The files of an image in a folder.
    pub fn inside(folder: &Path) -> Result<Self> {
        let image = Self {
            firmware: folder.join("firmware.efi"),
            selector: folder.join("selector.efi"),
            unsigned_firmware: folder.join("unsigned/firmware.efi"),
            unsigned_selector: folder.join("unsigned/selector.efi"),
            kernel: folder.join("Image"),
            rescue: None,
            keys: folder.join("keys"),
            folder: folder.into(),
        };
        for path in [&image.firmware, &image.selector, &image.kernel, &folder.join("release.toml")] {
            ensure!(path.is_file(), "{} is not there", path.display());
        }
        Ok(image)
    }

    /// Makes a disk with it.
    pub fn disk(&self, disk: &Disk, out: &Path) -> Result<()> {
        let mut command = Command::new(self.folder.join("assemble"));
        command.arg("disk").arg("--selector").arg(&self.selector).arg("--firmware").arg(&self.firmware);
        for (flag, path) in
            [("--slot-b", disk.slot_b), ("--seed", disk.seed), ("--rescue", self.rescue.as_deref())]
        {
            if let Some(path) = path {
                command.arg(flag).arg(path);
            }
        }
        if let Some(size) = disk.size {
            command.arg("--size").arg(size.to_string());
        }
        quietly("assemble disk", command.arg("--out").arg(out))
    }

    /// Signs an EFI file with the image's keys.
    pub fn sign(&self, unsigned: &Path, signed: &Path) -> Result<()> {
        sign(&self.signer(), &self.keys, unsigned, signed)
    }

    /// The program that signed it.
    pub fn signer(&self) -> PathBuf {
        self.folder.join("sign")
    }
}

/// Builds and signs everything into a folder.
fn fill(folder: &Path, build: Build) -> Result<()> {
    let unsigned = folder.join("unsigned");
    fs::create_dir_all(&unsigned)?;
    let tools = ["assemble", "sign"];
    for (tool, built) in tools.iter().zip(executables(&tools, &tools, Profile::Dev)?) {
        fs::copy(&built, folder.join(tool)).with_context(|| format!("cannot keep {}", built.display()))?;
    }
    // The keys are this machine's: they sign every image of it, so that firmware which knows them boots all.
    let keys = uefi::keys(&folder.join("sign"))?;
    std::os::unix::fs::symlink(&keys, folder.join("keys"))?;

    let mut assemble = Command::new(folder.join("assemble"));
    assemble.arg("firmware").arg("--out").arg(&unsigned).current_dir(workspace());
    if build == Build::Bench {
        assemble.arg("--bench");
    }
    run("assemble firmware", assemble.stdin(Stdio::null()).stdout(std::io::stderr()))?;
    for name in ["Image", "release.toml"] {
        fs::rename(unsigned.join(name), folder.join(name))
            .with_context(|| format!("assemble firmware made no {name}"))?;
    }
    for name in ["sbom.cdx.json", "rootfs.txt"] {
        fs::rename(unsigned.join(name), folder.join(name))
            .with_context(|| format!("assemble firmware made no {name}"))?;
    }
    let mut assemble = Command::new(folder.join("assemble"));
    assemble.arg("selector").arg("--out").arg(&unsigned).current_dir(workspace());
    run("assemble selector", assemble.stdin(Stdio::null()).stdout(std::io::stderr()))?;
    for name in ["firmware.efi", "selector.efi"] {
        sign(&folder.join("sign"), &keys, &unsigned.join(name), &folder.join(name))?;
    }
    Ok(())
}

fn sign(sign: &Path, keys: &Path, unsigned: &Path, signed: &Path) -> Result<()> {
    let mut command = Command::new(sign);
    command.arg("efi").arg("--key").arg(keys.join("db.key"));
    quietly("sign efi", command.arg("--in").arg(unsigned).arg("--out").arg(signed))
}

/// Runs a tool; what it said is shown only if it failed.
fn quietly(what: &str, command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{what} does not run"))?;
    if !output.status.success() {
        bail!(
            "{what} failed: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// A name for what an image is made of: sources, the compiler, and the kernel's source package.
fn fingerprint() -> Result<String> {
    let mut all = digest::Context::new(&digest::SHA256);
    let mut files = Vec::new();
    for name in ["Cargo.toml", "Cargo.lock", ".cargo/config.toml", "board", "firmware", "image"] {
        collect(&workspace().join(name), &mut files)?;
    }
    files.sort();
    for path in files {
        let name = path.strip_prefix(workspace()).unwrap_or(&path);
        all.update(name.to_string_lossy().as_bytes());
        let mut octets = Vec::new();
        File::open(&path)?.read_to_end(&mut octets)?;
        all.update(&(octets.len() as u64).to_le_bytes());
        all.update(&octets);
    }
    for (program, arguments) in [
        ("rustc", &["-vV"][..]),
        ("dpkg-query", &["--show", "linux-source-*", "e2fsck-static*", "rustc-web"]),
    ] {
        if let Ok(output) = Command::new(program).args(arguments).stdin(Stdio::null()).output() {
            all.update(&output.stdout);
        }
    }
    let hash = all.finish();
    Ok(hash.as_ref()[..8].iter().map(|octet| format!("{octet:02x}")).collect())
}

/// All files below a folder but tests, fuzzers and what begins with a dot.
fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_file() {
        files.push(path.into());
        return Ok(());
    }
    for entry in fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') || ["tests", "fuzz", "target"].contains(&&*name) {
            continue;
        }
        collect(&entry.path(), files)?;
    }
    Ok(())
}

/// How many images of other sources are kept.
const KEPT: usize = 3;

/// Removes the oldest images; each is some fifty megabytes.
fn forget_old_ones(current: &str) -> Result<()> {
    let mut others: Vec<_> = fs::read_dir(cache::folder("images")?)?
        .flatten()
        .filter(|entry| entry.file_name() != current)
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    others.sort();
    for (_, path) in others.iter().rev().skip(KEPT) {
        fs::remove_dir_all(path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

//! The kernel: Debian's source package in our own configuration, with the userland linked in.
//!
//! A tree is built once for every set of inputs and kept outside the clone; after that only the userland is linked in
//! anew. It is built in its own folder, so that no absolute path stands in a command line and the same inputs give the
//! same bytes wherever the cache lies.

mod config;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use config::Fragments;
use ring::digest;

use crate::release::Release;
use crate::{cache, command, install, rootfs};

/// The package and the folder inside its archive.
pub(crate) const PACKAGE: &str = "linux-source-6.12";
const ARCHIVE: &str = "/usr/src/linux-source-6.12.tar.xz";

/// Part of the key: raise it when the same inputs are to be built in another way.
const RECIPE: &str = "1";

/// The userland's place in the tree; the configuration names it, so it never changes.
const USERLAND: &str = "rootfs.cpio";

/// What a build of the kernel gives.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// One EFI program with everything inside, compressed.
    pub(crate) program: Vec<u8>,
    /// The same, not compressed, for boards that start a kernel directly.
    pub(crate) image: Vec<u8>,
    /// The version of the source package.
    pub(crate) version: String,
}

/// A tree in the cache.
#[derive(Debug)]
pub(crate) struct Tree {
    folder: PathBuf,
    fragments: Fragments,
    version: String,
}

impl Tree {
    /// Finds the tree for the fragments in `fragments`, below `cache`. Nothing is built yet.
    pub(crate) fn open(fragments: &Path, cache: &Path) -> Result<Self> {
        let fragments = Fragments::read(fragments)?;
        let version = install::version(PACKAGE)?;
        let tool = |program: &str| command::text(Command::new(program).arg("--version").env("LC_ALL", "C"));
        let mut key = digest::Context::new(&digest::SHA256);
        for part in [
            RECIPE,
            &version,
            &tool("aarch64-linux-gnu-gcc")?,
            &tool("aarch64-linux-gnu-ld")?,
            fragments.text(),
        ] {
            key.update(part.as_bytes());
            key.update(&[0]);
        }
        let key = rootfs::hex(key.finish().as_ref().split_at(8).0);
        Ok(Self { folder: cache::make(&cache.join(key))?, fragments, version })
    }

    /// Builds what is missing and links `userland` in. Two calls at once, in whatever processes, go one after the other;
    /// a build that was interrupted is taken up where it stopped.
    pub(crate) fn link(&self, userland: &[u8], release: &Release) -> Result<Kernel> {
        let _lock = cache::Lock::take(&self.folder.join("lock"))?;
        let started = Instant::now();
        let source = self.unpacked()?;
        cache::replace(&source.join(USERLAND), userland)?;
        let fresh = !source.join("vmlinux").exists();
        if fresh {
            eprintln!("building the kernel ({}), once for this configuration", self.version);
        }
        self.configure(&source)?;
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        let mut build = make(&source);
        build.args([&format!("-j{jobs}"), "-s", "Image", "vmlinuz.efi"]);
        for (name, value) in stamps(release)? {
            build.env(name, value);
        }
        command::run(&mut build)?;
        let read = |name: &str| {
            let path = source.join("arch/arm64/boot").join(name);
            fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let kernel =
            Kernel { program: read("vmlinuz.efi")?, image: read("Image")?, version: self.version.clone() };
        ensure!(
            memchr::memmem::find(&kernel.image, userland).is_some(),
            "the kernel was linked without this userland: remove {} and build again",
            self.folder.display()
        );
        eprintln!(
            "kernel {} in {:.1} s",
            if fresh { "built" } else { "linked" },
            started.elapsed().as_secs_f32()
        );
        Ok(kernel)
    }

    /// The source. Unpacked beside its place and then renamed, so that half a source is never taken for a whole one.
    fn unpacked(&self) -> Result<PathBuf> {
        let source = self.folder.join("linux");
        if source.exists() {
            return Ok(source);
        }
        let partial = self.folder.join("partial");
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        cache::make(&partial)?;
        eprintln!("unpacking {ARCHIVE}");
        let mut tar = Command::new("tar");
        tar.arg("--extract")
            .arg("--strip-components=1")
            .arg("--file")
            .arg(ARCHIVE)
            .arg("--directory")
            .arg(&partial);
        command::output(&mut tar)?;
        fs::rename(&partial, &source)?;
        Ok(source)
    }

    /// Writes the configuration and fails if it is not the one that was asked for.
    fn configure(&self, source: &Path) -> Result<()> {
        let wanted = source.join("postern.config");
        cache::replace(&wanted, self.fragments.with_userland(USERLAND).as_bytes())?;
        // Leaves .config as it is if nothing changed, and then nothing is compiled anew.
        command::output(make(source).args(["-s", "allnoconfig"]).env("KCONFIG_ALLCONFIG", &wanted))?;
        let got = source.join(".config");
        let got = fs::read_to_string(&got).with_context(|| format!("cannot read {}", got.display()))?;
        self.fragments.check(&got)
    }
}

/// `make` in the tree, with nothing of the caller's environment that a kernel build listens to.
fn make(source: &Path) -> Command {
    let mut make = Command::new("make");
    make.arg("-C").arg(source).args(["ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-"]).env("LC_ALL", "C");
    for (name, _) in std::env::vars_os() {
        let kept = name.to_str().is_some_and(|name| {
            !name.starts_with('K')
                && !name.starts_with("MAKE")
                && !name.ends_with("FLAGS")
                && !matches!(name, "LLVM" | "LOCALVERSION")
        });
        if !kept {
            make.env_remove(name);
        }
    }
    make
}

/// What a kernel says of its making, without this machine's name and this hour.
fn stamps(release: &Release) -> Result<[(&'static str, String); 4]> {
    let made = jiff::Timestamp::from_second(i64::try_from(release.time)?)
        .context("the release's time is out of range")?;
    Ok([
        ("KBUILD_BUILD_USER", "postern".to_owned()),
        ("KBUILD_BUILD_HOST", "postern".to_owned()),
        ("KBUILD_BUILD_VERSION", "1".to_owned()),
        ("KBUILD_BUILD_TIMESTAMP", made.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()),
    ])
}

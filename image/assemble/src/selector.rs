//! The selector: an EFI program of its own, built for `aarch64-unknown-uefi`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::firmware::Places;
use crate::toolchain::{DEBIAN, deaf_cargo};
use crate::{cache, command, install};

/// The EFI program, not signed yet.
const FILE: &str = "selector.efi";

const TARGET: &str = "aarch64-unknown-uefi";

/// The profile in the workspace's `Cargo.toml`.
const PROFILE: &str = "selector";

/// No time of linking and no name of a debug file: the same bytes from the same sources.
const FLAGS: [&str; 2] = ["-Clink-arg=/Brepro", "-Clink-arg=/DEBUG:NONE"];

/// More would not be small any more; it is a quarter of this.
const LARGEST: usize = 64 << 10;

/// Builds it into the folder `out`.
pub(crate) fn build(places: &Places, out: &Path) -> Result<()> {
    let target = cache::make(&places.target)?;
    let _lock = cache::Lock::take(&target.join("lock"))?;
    let mut cargo = deaf_cargo(&places.root, &target, "build");
    cargo.args(["--locked", "--package", "selector", "--profile", PROFILE, "--target", TARGET]);
    let mut flags = FLAGS.to_vec();
    if !has_target(&places.root) {
        install::ensure_installed(&[install::SELECTOR])?;
        // Debian has no library for EFI: it is built along, which its compiler allows only when told that it may.
        cargo.args(["-Zbuild-std=core,compiler_builtins", "-Zbuild-std-features=compiler-builtins-mem"]);
        cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", DEBIAN);
        flags.push("-Clinker=lld-link");
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    command::run(&mut cargo)?;

    let built = target.join(TARGET).join(PROFILE).join(FILE);
    let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    ensure!(bytes.len() <= LARGEST, "the selector has {} bytes, more than {LARGEST}", bytes.len());
    for folder in [&places.root, &target] {
        let name = folder.as_os_str().as_encoded_bytes();
        ensure!(
            memchr::memmem::find(&bytes, name).is_none(),
            "the selector names a folder of this machine, {}: it would be another one elsewhere",
            folder.display()
        );
    }
    cache::replace(&cache::make(out)?.join(FILE), &bytes)
}

/// Whether the clone's own compiler has the library.
fn has_target(root: &Path) -> bool {
    let print = ["--print", "target-libdir", "--target", TARGET];
    let folder = command::text(Command::new("rustc").args(print).current_dir(root)).unwrap_or_default();
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.into_iter().any(|file| file.file_name().to_string_lossy().starts_with("libcore-"))
}

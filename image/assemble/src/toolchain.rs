//! What compiles for the board: an installed rustup target, else Debian's Rust; and the flags that keep this machine out
//! of the result.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{command, install};

/// The board's architecture. glibc, linked in: no dynamic loader on the box.
pub(crate) const TARGET: &str = "aarch64-unknown-linux-gnu";

/// Debian's compiler.
pub(crate) const DEBIAN: &str = "/usr/bin/rustc";

/// A Rust compiler that has the board's standard library.
#[derive(Debug)]
pub(crate) struct Toolchain {
    /// Debian's, or none: then whatever cargo takes.
    rustc: Option<PathBuf>,
    /// As `rustc --version` has it.
    pub(crate) version: String,
    /// Where it lives.
    sysroot: PathBuf,
}

impl Toolchain {
    /// Finds it for the clone in `root`, installing Debian's if there is none.
    pub(crate) fn find(root: &Path) -> Result<Self> {
        install::ensure_installed(&[install::CROSS])?;
        let has_target = |rustc: &str| {
            let print = ["--print", "target-libdir", "--target", TARGET];
            command::text(Command::new(rustc).args(print).current_dir(root))
                .is_ok_and(|folder| has_standard_library(Path::new(&folder)))
        };
        let rustc = if has_target("rustc") {
            None
        } else {
            install::ensure_installed(&[install::RUST])?;
            ensure!(
                has_target(DEBIAN),
                "{DEBIAN} has no standard library for {TARGET}: install it and try again"
            );
            Some(PathBuf::from(DEBIAN))
        };
        let program = rustc.clone().unwrap_or_else(|| "rustc".into());
        let ask =
            |arguments: &[&str]| command::text(Command::new(&program).args(arguments).current_dir(root));
        Ok(Self { version: ask(&["--version"])?, sysroot: ask(&["--print", "sysroot"])?.into(), rustc })
    }

    /// Folders of this machine, and what stands for them in panics and debug information; the outer ones first.
    fn names(&self) -> Result<Vec<(PathBuf, &'static str)>> {
        let home = cargo_home()?;
        let mut names = vec![(home.clone(), "/cargo"), (self.sysroot.join("lib/rustlib/src/rust"), "/rust")];
        // Each registry has a folder of its own, named after a host: whence a crate came must not be seen. There is
        // none before the first `cargo fetch`.
        for registry in fs::read_dir(home.join("registry/src")).into_iter().flatten() {
            names.push((registry?.path(), "/crates"));
        }
        Ok(names)
    }

    /// `cargo` in the clone, with its target folder at `target`, hearing nothing of the caller's environment.
    pub(crate) fn cargo(&self, root: &Path, target: &Path, task: &str) -> Result<Command> {
        let mut cargo = deaf_cargo(root, target, task);
        let linker = "aarch64-linux-gnu-gcc";
        cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", linker);
        cargo.env("CC_aarch64_unknown_linux_gnu", linker);
        cargo.env("AR_aarch64_unknown_linux_gnu", "aarch64-linux-gnu-ar");
        if let Some(rustc) = &self.rustc {
            cargo.env("RUSTC", rustc);
        }
        let mut rust: Vec<OsString> =
            vec!["-Ctarget-feature=+crt-static".into(), "-Clink-arg=-Wl,--build-id=none".into()];
        let mut c = Vec::new();
        // Where several match, the last one counts, for rustc and gcc alike.
        for (folder, name) in self.names()?.into_iter().chain([(target.to_owned(), "/target")]) {
            rust.push(flag("--remap-path-prefix=", &folder, name));
            c.push(flag("-ffile-prefix-map=", &folder, name));
        }
        cargo.env("CARGO_ENCODED_RUSTFLAGS", rust.join("\u{1f}".as_ref()));
        cargo.env("CFLAGS_aarch64_unknown_linux_gnu", c.join(" ".as_ref()));
        Ok(cargo)
    }

    /// Fails if an executable names a folder of this machine: then it is another one elsewhere.
    pub(crate) fn ensure_anonymous(&self, name: &str, bytes: &[u8], folders: &[&Path]) -> Result<()> {
        let names = self.names()?;
        for folder in names.iter().map(|(folder, _)| folder.as_path()).chain(folders.iter().copied()) {
            let here = folder.as_os_str().as_encoded_bytes();
            let place = memchr::memmem::find(bytes, here);
            ensure!(
                place.is_none(),
                "{name} names a folder of this machine, {}, at byte {}: find what put it there, or map it in toolchain.rs",
                folder.display(),
                place.unwrap_or_default()
            );
        }
        Ok(())
    }
}

/// `cargo` in the clone, hearing nothing of the caller's environment.
pub(crate) fn deaf_cargo(root: &Path, target: &Path, task: &str) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.arg(task).current_dir(root);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(steers_a_build) {
            cargo.env_remove(name);
        }
    }
    cargo.env("CARGO_TARGET_DIR", target);
    cargo.env("SOURCE_DATE_EPOCH", "0");
    cargo
}

fn flag(prefix: &str, folder: &Path, name: &str) -> OsString {
    let mut flag = OsString::from(prefix);
    flag.push(folder);
    flag.push("=");
    flag.push(name);
    flag
}

fn has_standard_library(folder: &Path) -> bool {
    let mut files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.any(|file| file.file_name().to_string_lossy().starts_with("libstd-"))
}

fn cargo_home() -> Result<PathBuf> {
    std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")
}

/// Whether a variable changes what cargo, rustc or the `cc` crate make.
fn steers_a_build(name: &str) -> bool {
    let prefixes =
        ["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_", "RUSTC", "RUSTFLAGS", "RUSTDOC", "RING_"];
    let words = [
        "CC",
        "CXX",
        "AR",
        "CFLAGS",
        "CXXFLAGS",
        "ARFLAGS",
        "CRATE_CC_NO_DEFAULTS",
        "CARGO_ENCODED_RUSTFLAGS",
    ];
    prefixes.iter().any(|prefix| name.starts_with(prefix))
        || words.iter().any(|word| {
            let word_of = |part: &str| part == *word;
            word_of(name)
                || name.strip_prefix(word).is_some_and(|rest| rest.starts_with('_'))
                || ["TARGET_", "HOST_"].iter().any(|prefix| name.strip_prefix(prefix).is_some_and(word_of))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_flags_are_not_heard() {
        for name in
            ["RUSTFLAGS", "CC_aarch64_unknown_linux_gnu", "TARGET_CFLAGS", "CARGO_PROFILE_IMAGE_LTO", "RUSTC"]
        {
            assert!(steers_a_build(name), "{name}");
        }
        for name in
            ["PATH", "CARGO_HOME", "RUSTUP_TOOLCHAIN", "HOME", "CARGO_HTTP_PROXY", "CARGO_NET_OFFLINE"]
        {
            assert!(!steers_a_build(name), "{name}");
        }
    }
}

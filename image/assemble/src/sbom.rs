//! What a firmware file is made of, as a document of `CycloneDX` 1.6: crates, the kernel, packages whose code is inside.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::release::Release;
use crate::userland::{Crate, Userland};
use crate::{command, install, kernel, rootfs};

/// A Debian package whose code is in the firmware.
struct DebianPackage {
    name: String,
    version: String,
    license: &'static str,
    what: &'static str,
}

/// Checksums that cargo keeps.
#[derive(Deserialize)]
struct Lock {
    package: Vec<LockedPackage>,
}

#[derive(Deserialize)]
struct LockedPackage {
    name: String,
    version: String,
    checksum: Option<String>,
}

/// The document as text. `e2fsck` is that package's version.
pub(crate) fn make(
    root: &Path,
    release: &Release,
    userland: &Userland,
    kernel: &str,
    e2fsck: &str,
) -> Result<String> {
    let lock = fs::read_to_string(root.join("Cargo.lock")).context("cannot read Cargo.lock")?;
    let lock: Lock = toml::from_str(&lock).context("Cargo.lock is not as expected")?;
    let mut seen = BTreeSet::new();
    let mut components = Vec::new();
    for package in &userland.crates {
        if seen.insert((&package.name, &package.version)) {
            components.push(crate_component(package, &lock));
        }
    }
    let rustc = userland.toolchain.version.as_str();
    components.push(json!({
        "type": "library",
        "bom-ref": "rust-std",
        "name": "std",
        "version": rustc.split(' ').nth(1).unwrap_or(rustc),
        "description": "Rust's standard library, in every executable of ours",
        "licenses": licenses("MIT OR Apache-2.0"),
    }));
    for package in debian(kernel, e2fsck)? {
        components.push(debian_component(&package));
    }
    let made = jiff::Timestamp::from_second(i64::try_from(release.time)?)?;
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": made.to_string(),
            "component": {
                "type": "firmware",
                "bom-ref": "postern",
                "name": "postern",
                "version": release.version,
                "licenses": licenses("MIT OR Apache-2.0"),
                "properties": [{ "name": "postern:build", "value": release.build }],
            },
        },
        "components": components,
    });
    let mut text = serde_json::to_string_pretty(&document)?;
    text.push('\n');
    Ok(text)
}

/// Debian's part: programs as they are, and what its C compiler links into ours.
fn debian(kernel: &str, e2fsck: &str) -> Result<Vec<DebianPackage>> {
    let libgcc = command::text(Command::new("aarch64-linux-gnu-gcc").arg("-print-libgcc-file-name"))?;
    let libgcc = install::owner(&libgcc)?;
    let libc = "libc6-dev-arm64-cross";
    Ok(vec![
        DebianPackage {
            name: kernel::PACKAGE.to_owned(),
            version: kernel.to_owned(),
            license: "GPL-2.0-only WITH Linux-syscall-note",
            what: "the kernel",
        },
        DebianPackage {
            name: rootfs::E2FSCK.to_owned(),
            version: e2fsck.to_owned(),
            license: "GPL-2.0-only",
            what: "/bin/e2fsck, of e2fsprogs",
        },
        DebianPackage {
            version: install::version(libc)?,
            name: libc.to_owned(),
            license: "LGPL-2.1-or-later",
            what: "glibc, linked into every executable of ours",
        },
        DebianPackage {
            version: install::version(&libgcc)?,
            name: libgcc,
            license: "GPL-3.0-or-later WITH GCC-exception-3.1",
            what: "libgcc, linked into every executable of ours",
        },
    ])
}

fn crate_component(package: &Crate, lock: &Lock) -> Value {
    let (name, version) = (&package.name, &package.version);
    let mut component = json!({
        "type": "library",
        "bom-ref": format!("{name}@{version}"),
        "name": name,
        "version": version,
    });
    if let Some(license) = &package.license {
        // Old manifests write "MIT/Apache-2.0" where SPDX has OR.
        component["licenses"] = licenses(&license.replace('/', " OR "));
    }
    if package.source.is_some() {
        component["purl"] = json!(format!("pkg:cargo/{name}@{version}"));
    }
    let locked = lock.package.iter().find(|locked| locked.name == *name && locked.version == *version);
    if let Some(checksum) = locked.and_then(|locked| locked.checksum.as_deref()) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    component
}

fn debian_component(package: &DebianPackage) -> Value {
    let (name, architecture) = package.name.split_once(':').unwrap_or((&package.name, "all"));
    // The version's own marks would be read as parts of the URL.
    let version = package.version.replace('+', "%2B").replace(':', "%3A");
    json!({
        "type": "library",
        "bom-ref": format!("deb:{name}"),
        "name": name,
        "version": package.version,
        "description": package.what,
        "licenses": licenses(package.license),
        "purl": format!("pkg:deb/debian/{name}@{version}?arch={architecture}"),
    })
}

fn licenses(expression: &str) -> Value {
    json!([{ "expression": expression }])
}

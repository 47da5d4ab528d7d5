//! Keys in a folder: made once, readable by their owner alone, and never where git could pick them up.

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::tool::OPENSSL;

/// What a key is for (UEFI specification §32.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    /// The platform key: whoever holds it owns the machine, and decides over KEK.
    Platform,
    /// The key exchange key: decides over db.
    Exchange,
    /// What boots is signed with this one.
    Signature,
}

impl Role {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Platform, Self::Exchange, Self::Signature];

    /// The name of its variable and files.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Platform => "PK",
            Self::Exchange => "KEK",
            Self::Signature => "db",
        }
    }
}

/// A folder of keys and their certificates.
#[derive(Clone, Debug)]
pub(crate) struct Keys(PathBuf);

impl Keys {
    /// Those in a folder.
    pub(crate) fn at(folder: &Path) -> Self {
        Self(folder.into())
    }

    /// The certificate of a key.
    pub(crate) fn certificate(&self, role: Role) -> PathBuf {
        self.0.join(role.name()).with_extension("crt")
    }
}

/// Fails if others may read a private key.
pub(crate) fn ensure_private(key: &Path) -> Result<()> {
    let about = fs::metadata(key).with_context(|| format!("no private key at {}", key.display()))?;
    ensure!(
        about.mode().trailing_zeros() >= 6, // nothing for group and others
        "{} may be read by others: has somebody? If not, chmod 600 it and try again",
        key.display()
    );
    Ok(())
}

/// Makes the folder `out` with a key and a certificate for each role.
pub(crate) fn make(out: &Path, name: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c);
    ensure!(
        !name.is_empty() && name.len() <= 40 && name.chars().all(good),
        "--name {name:?}: letters, digits, `-`, `_` and `.`, at most 40"
    );
    let out = std::path::absolute(out)?;
    let parent = out.parent().context("--out must name a folder to be made")?;
    ensure!(!out.exists(), "{} is there already; keys are never overwritten", out.display());
    ensure!(parent.is_dir(), "{}: no such folder", parent.display());
    keep_from_git(&out)?;

    // Made beside its place and moved there whole, so that half a set of keys never looks like one.
    let draft = parent.join(format!(".{}.{}", name, std::process::id()));
    DirBuilder::new().mode(0o700).create(&draft).with_context(|| draft.display().to_string())?;
    let made = Role::ALL.iter().try_for_each(|&role| make_one(&Keys::at(&draft), role, name));
    let moved = made.and_then(|()| {
        // Renaming would replace an empty folder, should one have appeared meanwhile: it holds no key.
        fs::rename(&draft, &out).with_context(|| out.display().to_string())
    });
    if moved.is_err() {
        let _ = fs::remove_dir_all(&draft); // the first error says more
    }
    moved
}

fn make_one(keys: &Keys, role: Role, name: &str) -> Result<()> {
    let key = keys.0.join(role.name()).with_extension("key");
    OPENSSL.run(
        OPENSSL
            .command()?
            .args(["req", "-x509", "-newkey", "rsa:2048", "-noenc", "-sha256", "-days", "7300", "-batch"])
            .args(["-subj", &format!("/CN=Postern {name} {}", role.name())])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(keys.certificate(role)),
    )?;
    fs::set_permissions(&key, Permissions::from_mode(0o600)).with_context(|| key.display().to_string())
}

/// Refuses a folder from which `git add` would take the keys along.
fn keep_from_git(out: &Path) -> Result<()> {
    let Some(tree) = out.ancestors().skip(1).find(|folder| folder.join(".git").exists()) else {
        return Ok(());
    };
    let ignored = Command::new("git")
        .arg("-C")
        .arg(tree)
        .args(["check-ignore", "--quiet", "--"])
        .arg(out.join("db.key"))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if ignored.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    bail!(
        "{} lies in the git work tree {}, which does not ignore it: keys there would be committed one day. \
         Choose another folder, or add it to .gitignore",
        out.display(),
        tree.display()
    )
}

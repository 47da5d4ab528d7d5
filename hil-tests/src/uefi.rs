//! Firmware for the emulated boards that trusts the bench's keys, with Secure Boot on: EDK II as Debian built it, and a
//! U-Boot built from Debian's sources.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use ring::digest;

use crate::{cache, install};

/// Firmware for QEMU's `virt`.
#[derive(Clone, Debug)]
pub struct Firmware {
    /// Its code: the first flash with variables, otherwise what `-bios` takes.
    pub code: PathBuf,
    /// Its variables, where they are a flash of their own; a machine needs a copy, for it writes to it.
    pub variables: Option<PathBuf>,
}

/// The bench's own keys, made by `sign` once for all images of this machine.
pub fn keys(sign: &Path) -> Result<PathBuf> {
    let keys = cache::folder("keys")?.join("bench");
    let _lock = cache::lock("keys")?;
    if !keys.is_dir() {
        let mut command = Command::new(sign);
        run("sign keys", command.arg("keys").arg("--out").arg(&keys).args(["--name", "bench"]))?;
    }
    Ok(keys)
}

/// EDK II with the certificates in `keys` enrolled by `sign`.
pub fn edk2(sign: &Path, keys: &Path) -> Result<Firmware> {
    install::ensure_installed(&[install::EMULATION, install::SIGNING])?;
    let code = PathBuf::from(EDK2);
    Ok(Firmware { code, variables: Some(variables(sign, keys, "edk2")?) })
}

/// U-Boot with the certificates in `keys` built in; built once for each version, configuration and set of keys.
pub fn uboot(sign: &Path, keys: &Path) -> Result<Firmware> {
    install::ensure_installed(&[install::UBOOT, install::SIGNING])?;
    let source = Source::find()?;
    let seed = variables(sign, keys, "uboot")?;
    let compiler = text("the cross compiler", Command::new(format!("{CROSS}gcc")).arg("--version"))?;
    let inputs = [source.version.as_bytes(), BASE.as_bytes(), CONFIG.as_bytes(), compiler.as_bytes()];
    let name = fingerprint(inputs.into_iter().chain([fs::read(&seed)?.as_slice()]));
    let folder = cache::folder("uboot")?;
    let code = folder.join(format!("{name}.bin"));
    let _lock = cache::lock("uboot")?; // whoever comes second finds it done
    if !code.is_file() {
        eprintln!("building U-Boot {}, for a minute or two", source.version);
        let workshop = folder.join("build");
        let clear = || if workshop.exists() { fs::remove_dir_all(&workshop) } else { Ok(()) };
        clear()?; // one that was killed leaves it behind
        fs::create_dir(&workshop)?;
        let built = source.build(&workshop, &seed)?;
        fs::rename(&built, &code).with_context(|| format!("cannot keep {}", built.display()))?;
        clear()?;
    }
    Ok(Firmware { code, variables: None })
}

/// EDK II for ARM64, of Debian's package qemu-efi-aarch64. It has Secure Boot; whether it is on is in the variables.
const EDK2: &str = "/usr/share/AAVMF/AAVMF_CODE.fd";
const CROSS: &str = "aarch64-linux-gnu-";
/// The configuration of U-Boot's own that ours is added to.
const BASE: &str = "qemu_arm64_defconfig";
const CONFIG: &str = include_str!("uboot.config");

/// What `sign variables` writes for these keys, kept by their certificates and by the program that wrote it.
fn variables(sign: &Path, keys: &Path, format: &str) -> Result<PathBuf> {
    let read = |path: PathBuf| fs::read(&path).with_context(|| format!("cannot read {}", path.display()));
    let mut inputs = vec![read(sign.to_owned())?];
    for name in ["PK.crt", "KEK.crt", "db.crt"] {
        inputs.push(read(keys.join(name))?);
    }
    let folder = cache::folder("variables")?;
    let file = folder.join(format!("{}.{format}", fingerprint(inputs.iter().map(Vec::as_slice))));
    let _lock = cache::lock("variables")?;
    if !file.is_file() {
        let draft = folder.join(format!("draft.{format}"));
        let mut command = Command::new(sign);
        command.arg("variables").arg("--keys").arg(keys).args(["--format", format]);
        run("sign variables", command.arg("--out").arg(&draft))?;
        fs::rename(&draft, &file).with_context(|| format!("cannot keep {}", draft.display()))?;
    }
    Ok(file)
}

/// Debian's source package of U-Boot, from the mirror that this machine uses.
///
/// It is asked for with lists of our own, below the cache: the machine's apt need not know of sources, and we need not
/// be root.
struct Source {
    version: String,
    mirror: String,
    suite: String,
    component: String,
}

impl Source {
    /// The newest of this Debian, as apt knows it by one of the programs built from it. Backports do not count.
    fn find() -> Result<Self> {
        let madison = || text("apt-cache", Command::new("apt-cache").args(["madison", "u-boot-tools"]));
        let mut known = madison()?;
        if known.is_empty() {
            install::update()?;
            known = madison()?;
        }
        known.lines().find_map(Self::parse).context(
            "apt knows no u-boot-tools, so no mirror with U-Boot's sources: run apt-get update as root",
        )
    }

    /// A line like `u-boot-tools | 2023.01+dfsg-2 | http://mirror/debian bookworm/main amd64 Packages`.
    fn parse(line: &str) -> Option<Self> {
        let mut columns = line.split('|').map(str::trim);
        let (_, version, place) = (columns.next()?, columns.next()?, columns.next()?);
        let mut words = place.split(' ');
        let (mirror, (suite, component)) = (words.next()?, words.next()?.rsplit_once('/')?);
        let [version, mirror, suite, component] = [version, mirror, suite, component].map(str::to_owned);
        (!suite.ends_with("-backports")).then_some(Self { version, mirror, suite, component })
    }

    /// Builds `u-boot.bin` with the variables in `seed`, in a folder that may be thrown away.
    fn build(&self, workshop: &Path, seed: &Path) -> Result<PathBuf> {
        let package = self.download(workshop)?;
        let tree = workshop.join("tree");
        // apt has verified it by the signed list that names it.
        run(
            "dpkg-source",
            Command::new("dpkg-source").args(["--no-check", "--extract"]).arg(&package).arg(&tree),
        )?;
        fs::copy(seed, tree.join("postern-variables")).context("cannot copy the variables")?;
        let make = |target: &str| {
            let mut make = Command::new("make");
            make.arg("--silent").arg(format!("CROSS_COMPILE={CROSS}")).arg(target).current_dir(&tree);
            // The build says when it was made, unless it is told.
            make.env("SOURCE_DATE_EPOCH", "0").env_remove("MAKEFLAGS").env_remove("CARGO_MAKEFLAGS");
            make
        };
        run("make", &mut make(BASE))?;
        let config = tree.join(".config");
        let base = fs::read_to_string(&config).with_context(|| config.display().to_string())?;
        fs::write(&config, base + CONFIG).with_context(|| config.display().to_string())?;
        run("make", &mut make("olddefconfig"))?;
        let result = fs::read_to_string(&config).with_context(|| config.display().to_string())?;
        ensure_effective(CONFIG, &result)?;
        let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        run("make", make("u-boot.bin").arg(format!("-j{jobs}")))?;
        Ok(tree.join("u-boot.bin"))
    }

    /// Downloads the package and gives its `.dsc`.
    fn download(&self, workshop: &Path) -> Result<PathBuf> {
        let lists = workshop.join("lists");
        fs::create_dir_all(lists.join("partial"))?;
        let sources = workshop.join("sources.list");
        let Self { version, mirror, suite, component } = self;
        fs::write(&sources, format!("deb-src [signed-by={KEYRING}] {mirror} {suite} {component}\n"))?;
        let apt = |arguments: &[&str]| {
            let mut apt = Command::new("apt-get");
            for (option, value) in [
                ("Dir::Etc::SourceList", sources.display().to_string()),
                ("Dir::Etc::SourceParts", "-".into()),
                ("Dir::State::Lists", lists.display().to_string()),
                ("Dir::Cache", workshop.display().to_string()),
                ("APT::Sandbox::User", "root".into()), // another user could not write here
            ] {
                apt.arg("-o").arg(format!("{option}={value}"));
            }
            apt.arg("-qq").args(arguments).current_dir(workshop);
            apt
        };
        run("apt-get update", &mut apt(&["update"]))?;
        run("apt-get source", &mut apt(&["source", "--download-only", &format!("u-boot={version}")]))?;
        let files = fs::read_dir(workshop)?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        files
            .into_iter()
            .find(|path| path.extension().is_some_and(|extension| extension == "dsc"))
            .with_context(|| format!("{mirror} {suite} gave no source package of u-boot {version}"))
    }
}

/// Debian's keys, which sign its lists.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Fails if a wanted line did not make it into the configuration: an option may be gone, or want another one first.
fn ensure_effective(wanted: &str, result: &str) -> Result<()> {
    for line in wanted.lines() {
        let off = line.strip_prefix("# ").and_then(|rest| rest.strip_suffix(" is not set"));
        let kept = match off {
            Some(option) => !result.lines().any(|set| set.starts_with(&format!("{option}="))),
            None => !line.starts_with("CONFIG_") || result.lines().any(|set| set == line),
        };
        ensure!(
            kept,
            "U-Boot's configuration does not take `{line}`: look for it in hil-tests/src/uboot.config"
        );
    }
    Ok(())
}

/// A name made of all inputs.
fn fingerprint<'a>(inputs: impl Iterator<Item = &'a [u8]>) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for input in inputs {
        context.update(&(input.len() as u64).to_le_bytes()); // else ("ab", "c") were ("a", "bc")
        context.update(input);
    }
    context.finish().as_ref()[..12].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(what: &str, command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{what} does not run"))?;
    ensure!(output.status.success(), "{what} failed: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a tool; what it said is shown only if it failed, and then the end of it.
fn run(what: &str, command: &mut Command) -> Result<()> {
    let mut log = tempfile::tempfile()?;
    let (out, err): (File, File) = (log.try_clone()?, log.try_clone()?);
    let status = command.stdin(Stdio::null()).stdout(out).stderr(err).status();
    let status = status.with_context(|| format!("{what} does not run"))?;
    if status.success() {
        return Ok(());
    }
    std::io::Seek::rewind(&mut log)?;
    let mut said = Vec::new();
    log.read_to_end(&mut said)?;
    let end = &said[said.len().saturating_sub(2000)..];
    bail!("{what} failed ({status}):\n{}", String::from_utf8_lossy(end).trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_that_apt_uses() {
        let line =
            "u-boot-tools | 2023.01+dfsg-2+deb12u3 | http://mirror/debian bookworm/main amd64 Packages";
        let source = Source::parse(line).unwrap();
        assert_eq!(source.version, "2023.01+dfsg-2+deb12u3");
        assert_eq!((source.mirror.as_str(), source.suite.as_str()), ("http://mirror/debian", "bookworm"));
        assert_eq!(source.component, "main");
        let updates = line.replace("bookworm/main", "bookworm-security/updates/main");
        assert_eq!(Source::parse(&updates).unwrap().suite, "bookworm-security/updates");
        assert!(Source::parse(&line.replace("bookworm/", "bookworm-backports/")).is_none());
        assert!(Source::parse("").is_none() && Source::parse("a | b | c").is_none());
    }

    #[test]
    fn lines_that_do_not_take_effect() {
        let wanted = "# why\nCONFIG_A=y\n# CONFIG_B is not set\n";
        assert!(ensure_effective(wanted, "CONFIG_A=y\n").is_ok());
        assert!(ensure_effective(wanted, "CONFIG_A=y\n# CONFIG_B is not set\n").is_ok());
        assert!(ensure_effective(wanted, "CONFIG_A=m\n").is_err());
        assert!(ensure_effective(wanted, "CONFIG_A=y\nCONFIG_B=y\n").is_err());
    }

    #[test]
    fn all_inputs_count() {
        let name = |inputs: &[&[u8]]| fingerprint(inputs.iter().copied());
        assert_ne!(name(&[b"ab", b"c"]), name(&[b"a", b"bc"]));
        assert_eq!(name(&[b"ab"]).len(), 24);
    }
}

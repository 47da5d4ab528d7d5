//! The kernel's configuration: fragments that say what is wanted and why, and whether it came true.
//!
//! Kconfig drops an option without a word when something it depends on is off. Here that is an error.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// An option's value, and where it was asked for.
#[derive(Debug)]
struct Wanted {
    /// `y`, `n`, a number, or a text with its quotes.
    value: String,
    /// File and line.
    place: String,
}

/// All fragments of a folder.
#[derive(Debug)]
pub(crate) struct Fragments {
    text: String,
    options: BTreeMap<String, Wanted>,
}

impl Fragments {
    /// Reads every `*.config` in `folder`, in the order of their names.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "config"));
        paths.sort();
        ensure!(!paths.is_empty(), "{} holds no *.config", folder.display());
        let mut files = Vec::new();
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            files.push((name, text));
        }
        Self::parse(&files)
    }

    fn parse(files: &[(String, String)]) -> Result<Self> {
        let mut fragments = Self { text: String::new(), options: BTreeMap::new() };
        for (name, text) in files {
            fragments.text.extend(["# ", name, "\n", text, "\n"]);
            for (number, line) in (1..).zip(text.lines()) {
                let line = line.trim();
                if line.is_empty() || line.starts_with('#') {
                    continue;
                }
                let place = format!("{name}:{number}");
                let (option, value) = line
                    .split_once('=')
                    .filter(|(option, value)| option.starts_with("CONFIG_") && !value.is_empty())
                    .with_context(|| format!("{place}: {line:?} is not of the form CONFIG_NAME=value"))?;
                ensure!(value != "m", "{place}: {option}=m, yet this kernel has no modules: write y or n");
                let wanted = Wanted { value: value.to_owned(), place };
                match fragments.options.get(option) {
                    Some(other) if other.value != wanted.value => {
                        let (there, here) = (&other.place, &wanted.place);
                        bail!(
                            "{option} is {} at {there} and {} at {here}: drop one",
                            other.value,
                            wanted.value
                        )
                    }
                    Some(_) => {}
                    None => {
                        fragments.options.insert(option.to_owned(), wanted);
                    }
                }
            }
        }
        Ok(fragments)
    }

    /// All of it as one text.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The same with the archive that is linked in, as it is: `EFI_ZBOOT` compresses kernel and archive together.
    pub(crate) fn with_userland(&self, archive: &str) -> String {
        format!("{}CONFIG_INITRAMFS_SOURCE=\"{archive}\"\nCONFIG_INITRAMFS_COMPRESSION_NONE=y\n", self.text)
    }

    /// Whether a finished `.config` says what was asked for.
    ///
    /// # Errors
    /// Every option that does not, with its place, what was wanted and what came out.
    pub(crate) fn check(&self, config: &str) -> Result<()> {
        let got: BTreeMap<&str, &str> = config
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once('='))
            .collect();
        let mut wrong = Vec::new();
        for (option, wanted) in &self.options {
            let got = got.get(option.as_str()).copied().unwrap_or("n");
            if got != wanted.value {
                wrong.push(format!("  {}: {option}={} became {got}", wanted.place, wanted.value));
            }
        }
        let modules = got.iter().filter(|(_, value)| **value == "m");
        wrong.extend(modules.map(|(option, _)| format!("  {option} became a module")));
        ensure!(
            wrong.is_empty(),
            "the kernel's configuration is not what was asked for; something these depend on is off, or they have \
             another name by now:\n{}",
            wrong.join("\n")
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragments(text: &str) -> Result<Fragments> {
        Fragments::parse(&[("base.config".to_owned(), text.to_owned())])
    }

    const WANTED: &str = "# why\nCONFIG_A=y\nCONFIG_B=n\nCONFIG_C=16\n\nCONFIG_D=\"ascii\"\n";

    #[test]
    fn what_came_true_passes() {
        let wanted = fragments(WANTED).unwrap();
        wanted
            .check("CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=16\nCONFIG_D=\"ascii\"\nCONFIG_E=y\n")
            .unwrap();
        wanted.check("CONFIG_D=\"ascii\"\nCONFIG_C=16\nCONFIG_A=y\n").unwrap();
    }

    #[test]
    fn every_dropped_option_is_named() {
        let error =
            fragments(WANTED).unwrap().check("CONFIG_B=y\nCONFIG_C=8\nCONFIG_D=\"ascii\"\nCONFIG_F=m\n");
        let error = error.unwrap_err().to_string();
        let lines: Vec<&str> = error.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "  base.config:2: CONFIG_A=y became n",
                "  base.config:3: CONFIG_B=n became y",
                "  base.config:4: CONFIG_C=16 became 8",
                "  CONFIG_F became a module",
            ]
        );
    }

    #[test]
    fn fragments_that_disagree_or_make_no_sense_are_refused() {
        let error = |text| fragments(text).unwrap_err().to_string();
        assert_eq!(
            error("CONFIG_A=y\n\nCONFIG_A=n\n"),
            "CONFIG_A is y at base.config:1 and n at base.config:3: drop one"
        );
        assert_eq!(
            error("CONFIG_A=m\n"),
            "base.config:1: CONFIG_A=m, yet this kernel has no modules: write y or n"
        );
        assert_eq!(error("\nA=y\n"), "base.config:2: \"A=y\" is not of the form CONFIG_NAME=value");
        assert_eq!(error("CONFIG_A\n"), "base.config:1: \"CONFIG_A\" is not of the form CONFIG_NAME=value");
    }

    #[test]
    fn our_own_fragments_agree() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernel");
        assert!(Fragments::read(&folder).unwrap().options.len() > 200);
    }
}

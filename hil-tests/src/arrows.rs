//! Keeps the arrows between crates, the banned crates and the licences of `.cargo/deny.toml`, from what
//! `cargo metadata` says: the same file that cargo-deny reads, without its network.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::programs::{cargo, workspace};

/// Crates whose code is pure: bytes and facts in, actions and verdicts out. No clock, file, socket, task.
const PURE: [&str; 5] =
    ["firmware/mail", "firmware/smtp", "firmware/imap", "firmware/pop3", "firmware/policy"];

/// What such code does not say outside its tests.
const IMPURE: [&str; 8] = [
    "std::fs",
    "std::process",
    "std::thread",
    "Instant::now",
    "SystemTime::now",
    "net::Tcp",
    "net::Udp",
    "async fn",
];

/// Checks everything; gives one line for each breach.
pub fn check() -> Result<Vec<String>> {
    let path = workspace().join(".cargo/deny.toml");
    let rules: Rules = toml::from_str(&fs::read_to_string(&path)?).context(".cargo/deny.toml")?;
    let output =
        cargo().args(["metadata", "--format-version", "1", "--locked", "--all-features"]).output()?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Metadata = serde_json::from_slice(&output.stdout)?;
    let mut breaches = dependencies(&rules, &metadata);
    breaches.extend(licences(&rules, &metadata));
    breaches.extend(purity()?);
    Ok(breaches)
}

#[derive(Deserialize)]
struct Rules {
    bans: Bans,
    licenses: Licenses,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    name: String,
    #[serde(default)]
    wrappers: Option<BTreeSet<String>>,
}

#[derive(Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
    workspace_members: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    license: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    dependencies: Vec<String>,
}

fn dependencies(rules: &Rules, metadata: &Metadata) -> Vec<String> {
    let names: BTreeMap<&str, &str> =
        metadata.packages.iter().map(|p| (p.id.as_str(), p.name.as_str())).collect();
    let name = |id: &str| names.get(id).copied().unwrap_or_default().to_owned();
    let mut users: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for node in &metadata.resolve.nodes {
        for dependency in &node.dependencies {
            users.entry(name(dependency)).or_default().insert(name(&node.id));
        }
    }
    let present: BTreeSet<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    let mut breaches = Vec::new();
    for ban in &rules.bans.deny {
        match &ban.wrappers {
            None if present.contains(ban.name.as_str()) => {
                breaches.push(format!("{} is banned, and it is in the tree", ban.name));
            }
            None => {}
            Some(allowed) => {
                let by = users.get(&ban.name).into_iter().flatten().filter(|user| !allowed.contains(*user));
                breaches.extend(by.map(|user| format!("{user} may not depend on {}", ban.name)));
            }
        }
    }
    let guarded: BTreeSet<&str> = rules.bans.deny.iter().map(|ban| ban.name.as_str()).collect();
    let ours = metadata.workspace_members.iter().map(|id| name(id));
    // A new room must say who may enter; the bench and the fuzzers are roots that nothing depends on.
    let open = ours.filter(|name| !guarded.contains(name.as_str()) && users.contains_key(name));
    breaches.extend(
        open.map(|name| {
            format!("{name} is depended on, and .cargo/deny.toml does not say by whom it may be")
        }),
    );
    breaches
}

fn licences(rules: &Rules, metadata: &Metadata) -> Vec<String> {
    let bad = metadata.packages.iter().filter(|package| {
        !package.license.as_deref().is_some_and(|text| Expression::new(text).met(&rules.licenses.allow))
    });
    bad.map(|package| format!("{}: the licence {:?} is not on the list", package.name, package.license))
        .collect()
}

/// An SPDX licence expression: `AND` binds before `OR`, the old `/` means `OR`.
struct Expression<'a> {
    words: Vec<&'a str>,
    at: usize,
}

impl<'a> Expression<'a> {
    fn new(text: &'a str) -> Self {
        let mut words = Vec::new();
        for word in text.split([' ', '/']).filter(|word| !word.is_empty()) {
            let mut rest = word;
            while let Some(inner) = rest.strip_prefix('(') {
                words.push("(");
                rest = inner;
            }
            let name = rest.trim_end_matches(')');
            words.push(name);
            words.extend(rest[name.len()..].chars().map(|_| ")"));
        }
        Self { words, at: 0 }
    }

    fn met(mut self, allowed: &BTreeSet<String>) -> bool {
        !self.words.is_empty() && self.any(allowed) && self.at == self.words.len()
    }

    fn any(&mut self, allowed: &BTreeSet<String>) -> bool {
        let mut met = self.all(allowed);
        while self.words.get(self.at).is_some_and(|word| !["AND", ")"].contains(word)) {
            self.take("OR"); // absent where the text had `/`
            met |= self.all(allowed);
        }
        met
    }

    fn all(&mut self, allowed: &BTreeSet<String>) -> bool {
        let mut met = self.one(allowed);
        while self.take("AND") {
            met &= self.one(allowed);
        }
        met
    }

    fn one(&mut self, allowed: &BTreeSet<String>) -> bool {
        if self.take("(") {
            let met = self.any(allowed);
            return self.take(")") && met;
        }
        let Some(name) = self.words.get(self.at).copied() else { return false };
        self.at += 1;
        if self.take("WITH") {
            let exception = self.words.get(self.at).copied().unwrap_or_default();
            self.at += 1;
            return allowed.contains(&format!("{name} WITH {exception}"));
        }
        allowed.contains(name)
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.words.get(self.at) == Some(&word);
        self.at += usize::from(found);
        found
    }
}

/// Reads the sources of the pure crates; tests may do what they like.
fn purity() -> Result<Vec<String>> {
    let mut breaches = Vec::new();
    let mut folders: Vec<_> = PURE.iter().map(|crate_| workspace().join(crate_).join("src")).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path)?;
            let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
            for (line, number) in
                code.lines().zip(1..).filter(|(line, _)| !line.trim_start().starts_with("//"))
            {
                for word in IMPURE.iter().filter(|word| line.contains(**word)) {
                    let path = path.strip_prefix(workspace()).unwrap_or(&path).display();
                    breaches.push(format!("{path}:{number}: pure code does not say `{word}`"));
                }
            }
        }
    }
    Ok(breaches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licence_expressions() {
        let allowed = ["MIT", "Apache-2.0", "ISC", "Apache-2.0 WITH LLVM-exception"].map(String::from).into();
        for (text, met) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("MIT OR GPL-3.0", true),
            ("GPL-3.0 OR MIT", true),
            ("MIT AND GPL-3.0", false),
            ("GPL-3.0 AND MIT", false),
            ("MIT/Apache-2.0", true),
            ("(MIT OR GPL-3.0) AND ISC", true),
            ("(MIT OR Apache-2.0) AND NCSA", false),
            ("MIT OR GPL-3.0 AND NCSA", true),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("Apache-2.0 WITH Other-exception", false),
            ("Apache-2.0 WITH Other-exception OR MIT", true),
            ("", false),
            ("MIT )", false),
        ] {
            assert_eq!(Expression::new(text).met(&allowed), met, "{text}");
        }
    }

    fn tree(edges: &[(&str, &str)]) -> Metadata {
        let names: BTreeSet<&str> = edges.iter().flat_map(|(from, to)| [*from, *to]).collect();
        let package =
            |name: &&str| Package { id: (*name).into(), name: (*name).into(), license: Some("MIT".into()) };
        let node = |name: &&str| Node {
            id: (*name).into(),
            dependencies: edges.iter().filter(|(from, _)| from == name).map(|(_, to)| (*to).into()).collect(),
        };
        Metadata {
            packages: names.iter().map(package).collect(),
            resolve: Resolve { nodes: names.iter().map(node).collect() },
            workspace_members: ["gateway", "store", "room"].map(String::from).into(),
        }
    }

    #[test]
    fn arrows() {
        let rules: Rules = toml::from_str(
            "[bans]\ndeny = [{ name = \"sled\", wrappers = [\"store\"] }, { name = \"store\", wrappers = [\"gateway\"] }, { name = \"openssl\" }]\n\
             [licenses]\nallow = []",
        )
        .unwrap();
        assert!(dependencies(&rules, &tree(&[("gateway", "store"), ("store", "sled")])).is_empty());
        assert_eq!(dependencies(&rules, &tree(&[("gateway", "sled")])), ["gateway may not depend on sled"]);
        assert_eq!(
            dependencies(&rules, &tree(&[("anything", "openssl")])),
            ["openssl is banned, and it is in the tree"]
        );
        assert_eq!(dependencies(&rules, &tree(&[("gateway", "room")])).len(), 1);
    }
}

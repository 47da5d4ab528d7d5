//! What the rigs' tests found, kept in a folder as they end, and the table of rig and promise made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Names another folder for results and console logs.
const FOLDER: &str = "POSTERN_RIG_RESULTS";

/// One test on one rig.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Record {
    /// The rig's name.
    pub rig: String,
    /// The promise: the test file's name without `rig_`.
    pub promise: String,
    /// The test's name.
    pub test: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Seconds it took.
    pub seconds: u64,
}

/// How a test ended.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The promise was kept.
    Pass,
    /// It was not, or could not be shown.
    Fail(String),
    /// This rig cannot show it, for this reason.
    Skipped(String),
}

/// Where results and console logs are kept: beside the build, so that the next run finds the last one's.
pub fn folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return Ok(folder.into());
    }
    let program = std::env::current_exe()?;
    let target = program
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").exists())
        .context("this program is in no target folder of cargo's")?;
    Ok(target.join("rigs"))
}

/// The folder for what one test leaves behind, emptied.
pub fn artifacts(rig: &str, promise: &str, test: &str) -> Result<PathBuf> {
    let folder = folder()?.join(rig).join(format!("{promise}-{test}"));
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// Forgets what earlier runs found.
pub fn clear() -> Result<()> {
    let folder = folder()?.join("results");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    Ok(())
}

impl Record {
    /// Keeps it, in place of what an earlier run said of the same test.
    pub fn keep(&self) -> Result<()> {
        let folder = folder()?.join("results");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let name = format!("{}.{}.{}.json", self.rig, self.promise, self.test);
        let draft = folder.join(format!("{name}.{}", std::process::id()));
        fs::write(&draft, serde_json::to_vec_pretty(self)?)?;
        Ok(fs::rename(draft, folder.join(name))?)
    }
}

/// All that is kept.
pub fn kept() -> Result<Vec<Record>> {
    read(&folder()?.join("results"))
}

fn read(folder: &Path) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return Ok(records) };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "json")) {
        let text = fs::read(path)?;
        records
            .push(serde_json::from_slice(&text).with_context(|| format!("{} is no result", path.display()))?);
    }
    Ok(records)
}

/// The table: a line for each rig, a column for each promise; below it every failure and every skip with its reason.
pub fn table(records: &[Record]) -> String {
    if records.is_empty() {
        return "no rig was tested\n".into();
    }
    let promises: BTreeSet<&str> = records.iter().map(|record| &*record.promise).collect();
    let rigs: BTreeSet<&str> = records.iter().map(|record| &*record.rig).collect();
    let mut rows = vec![std::iter::once("rig").chain(promises.iter().copied()).map(String::from).collect()];
    for rig in &rigs {
        let mut row = vec![(*rig).to_owned()];
        for promise in &promises {
            let all: Vec<&Outcome> = records
                .iter()
                .filter(|record| record.rig == *rig && record.promise == *promise)
                .map(|record| &record.outcome)
                .collect();
            row.push(cell(&all));
        }
        rows.push(row);
    }
    let mut text = align(&rows);
    let mut reasons: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for record in records {
        let (word, reason) = match &record.outcome {
            Outcome::Pass => continue,
            Outcome::Fail(reason) => ("FAIL", reason.lines().next().unwrap_or_default()),
            Outcome::Skipped(reason) => ("skipped", reason.as_str()),
        };
        let tests = reasons.entry((&record.rig, word)).or_default();
        tests.push(format!("{}::{}: {reason}", record.promise, record.test));
    }
    for ((rig, word), tests) in reasons {
        for test in tests {
            let _ = writeln!(text, "{word}: {rig}: {test}");
        }
    }
    text
}

/// A skip is never a pass: it is counted beside it.
fn cell(outcomes: &[&Outcome]) -> String {
    let count = |is_it: fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| is_it(outcome)).count();
    let passed = count(|outcome| matches!(outcome, Outcome::Pass));
    let failed = count(|outcome| matches!(outcome, Outcome::Fail(_)));
    let skipped = count(|outcome| matches!(outcome, Outcome::Skipped(_)));
    let mut words = Vec::new();
    if failed > 0 {
        words.push(format!("{failed} FAILED"));
    }
    if passed > 0 {
        words.push(if failed + skipped == 0 { "pass".into() } else { format!("{passed} pass") });
    }
    if skipped > 0 {
        words.push(if passed + failed == 0 { "skipped".into() } else { format!("{skipped} skipped") });
    }
    if words.is_empty() { "not run".into() } else { words.join(", ") }
}

fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> =
        (0..columns).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let line: String = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect();
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(rig: &str, promise: &str, test: &str, outcome: Outcome) -> Record {
        Record { rig: rig.into(), promise: promise.into(), test: test.into(), outcome, seconds: 1 }
    }

    #[test]
    fn a_skip_is_never_shown_as_a_pass() {
        let records = [
            record("virt", "boot", "serves", Outcome::Pass),
            record("virt", "boot", "signed", Outcome::Pass),
            record("virt", "mail", "imap", Outcome::Fail("no greeting\nconsole".into())),
            record("raspi", "boot", "serves", Outcome::Pass),
            record("raspi", "boot", "signed", Outcome::Skipped("lacks efi: no firmware".into())),
            record("raspi", "clock", "wrong", Outcome::Skipped("lacks clock".into())),
        ];
        assert_eq!(
            table(&records),
            "rig    boot               clock    mail\n\
             raspi  1 pass, 1 skipped  skipped  not run\n\
             virt   pass               not run  1 FAILED\n\
             skipped: raspi: boot::signed: lacks efi: no firmware\n\
             skipped: raspi: clock::wrong: lacks clock\n\
             FAIL: virt: mail::imap: no greeting\n"
        );
        assert_eq!(table(&[]), "no rig was tested\n");
    }

    #[test]
    fn records_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let one = record("virt", "boot", "serves", Outcome::Fail("why".into()));
        fs::write(folder.path().join("a.json"), serde_json::to_vec(&one).unwrap()).unwrap();
        fs::write(folder.path().join("a.json.17"), "half").unwrap();
        assert_eq!(read(folder.path()).unwrap(), [one]);
        assert!(read(&folder.path().join("none")).unwrap().is_empty());
    }
}

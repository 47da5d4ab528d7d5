//! `postern check FILE`.

use std::path::Path;

use serde_json::json;
use settings::{Settings, SettingsError};

use crate::ask::print;
use crate::exit::{Exit, Failure};

/// Tells every mistake of a settings file; `files`: also of what it names.
pub(crate) fn check(path: &Path, files: bool, json: bool) -> Result<Exit, Failure> {
    let mistakes = Settings::load_with(path, files).err().unwrap_or_default();
    print(&if json { object(path, &mistakes) } else { text(path, &mistakes) })?;
    Ok(if mistakes.is_empty() { Exit::Done } else { Exit::No })
}

fn text(path: &Path, mistakes: &[SettingsError]) -> String {
    let count = match mistakes.len() {
        0 => return format!("{}: good\n", path.display()),
        1 => "1 mistake".to_owned(),
        number => format!("{number} mistakes"),
    };
    let told = mistakes.iter().map(|mistake| mistake.explain() + "\n").collect::<String>();
    format!("{told}{}: {count}\n", path.display())
}

fn object(path: &Path, mistakes: &[SettingsError]) -> String {
    let mistake = |mistake: &SettingsError| {
        json!({
            "file": mistake.file, "line": mistake.line, "column": mistake.column, "width": mistake.width,
            "key": mistake.key, "kind": mistake.kind.name(), "what": mistake.what, "mend": mistake.mend,
        })
    };
    let mistakes = mistakes.iter().map(mistake).collect::<Vec<_>>();
    json!({ "file": path, "good": mistakes.is_empty(), "mistakes": mistakes }).to_string() + "\n"
}

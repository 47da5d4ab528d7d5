//! Every bad document in `settings/` has what is said of it beside it, word for word.
//!
//! After a change of wording, `POSTERN_BLESS=1 cargo test -p settings` writes the texts anew, to be read in the diff.

#![allow(clippy::unwrap_used, clippy::panic)] // tests fail so, in their helpers too

use std::fs;
use std::path::Path;

use settings::{Kind, Settings, SettingsError};

#[test]
fn bad_documents_are_told_what_where_and_how_to_mend() {
    let bless = std::env::var_os("POSTERN_BLESS").is_some();
    let mut wrong = Vec::new();
    let mut kinds = Vec::new();
    // Relative, so that messages hold no path of the machine; tests run in the crate's folder.
    let mut files =
        fs::read_dir("tests/settings").unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    assert!(files.len() > 20, "where have the bad documents gone?");
    for path in files {
        let errors = Settings::load(&path).err();
        let errors = errors.unwrap_or_else(|| panic!("{} should be bad", path.display()));
        assert!(
            !errors.is_empty() && errors.iter().all(|error| !error.what.is_empty() && !error.mend.is_empty())
        );
        kinds.extend(errors.iter().map(|error| error.kind.name()));
        let said = errors.iter().map(SettingsError::explain).collect::<Vec<_>>().join("\n");
        let expected = path.with_extension("expected");
        if bless {
            fs::write(&expected, &said).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != said {
            wrong.push(format!("{}:\n{said}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "other words than expected:\n{}", wrong.join("\n"));
    for kind in ["syntax", "unknown-key", "missing", "value", "contradiction", "unreachable"] {
        assert!(kinds.contains(&kind), "no bad document shows {kind}");
    }
}

#[test]
fn a_file_that_is_not_there_is_unreachable() {
    let errors = Settings::load(Path::new("tests/settings/none.toml")).unwrap_err();
    assert_eq!((errors.len(), errors[0].kind, errors[0].line), (1, Kind::Unreachable, 0));
    assert!(errors[0].to_string().starts_with("tests/settings/none.toml: cannot be read: No such file"));
}

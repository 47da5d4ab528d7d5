//! The document as a file: read, and replaced whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use crate::check;
use crate::error::SettingsError;
use crate::host::Places;
use crate::settings::Settings;

/// No settings document is larger than this: 50,000 accounts at 300 octets each, and room.
const LARGEST: u64 = 32 << 20;

impl Settings {
    /// Reads and checks a file, and tries the files and folders that it names.
    ///
    /// # Errors
    /// As [`Settings::parse`], and what cannot be reached.
    pub fn load(path: &Path) -> Result<Self, Vec<SettingsError>> {
        Self::load_at(path, &Places::default())
    }

    /// [`Settings::load`] on a machine that has places of its own.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn load_at(path: &Path, places: &Places) -> Result<Self, Vec<SettingsError>> {
        Self::read(&text_of(path)?, path, places, check::unreachable)
    }

    /// [`Settings::load`], with or without trying the `files` that it names: they may be on another machine.
    ///
    /// # Errors
    /// As [`Settings::parse`], and what cannot be reached.
    pub fn load_with(path: &Path, files: bool) -> Result<Self, Vec<SettingsError>> {
        let text = text_of(path)?;
        if files { Self::check(&text, path) } else { Self::parse(&text, path) }
    }

    /// [`Settings::parse`], and tries the files and folders that the document names.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn check(text: &str, path: &Path) -> Result<Self, Vec<SettingsError>> {
        Self::read(text, path, &Places::default(), check::unreachable)
    }
}

/// The document's text, if it is of a size and an encoding that a document may have.
fn text_of(path: &Path) -> Result<String, Vec<SettingsError>> {
    let whole = |what: String, mend: &str| vec![SettingsError::whole(path.to_path_buf(), what, mend)];
    let bytes = match fs::metadata(path) {
        Ok(metadata) if metadata.len() > LARGEST => {
            return Err(whole(
                format!("the file is larger than {} MiB", LARGEST >> 20),
                "is it the right file?",
            ));
        }
        Ok(_) => fs::read(path),
        Err(error) => Err(error),
    };
    let bytes = bytes
        .map_err(|error| whole(format!("cannot be read: {error}"), "give the path of the settings file"))?;
    String::from_utf8(bytes).map_err(|error| {
        let line =
            error.as_bytes().iter().take(error.utf8_error().valid_up_to()).filter(|b| **b == b'\n').count();
        whole(format!("line {} is not UTF-8", line + 1), "save the file as UTF-8")
    })
}

/// Puts `text` in place of the file at `path`, after checking it as [`Settings::check`] does. Whatever happens, power
/// cut included, the file is then the old document or the new one, never a part. Owner and mode stay; a new file gets
/// mode 0600.
///
/// # Errors
/// What is wrong with `text`, or that the disk refused; the old file is then untouched.
pub fn replace(path: &Path, text: &str) -> Result<Settings, Vec<SettingsError>> {
    let settings = Settings::check(text, path)?;
    write_whole(path, text.as_bytes()).map_err(|error| {
        let mend = "free some space or mend the disk; the old document is still in place";
        vec![SettingsError::whole(path.to_path_buf(), format!("cannot be replaced: {error}"), mend)]
    })?;
    Ok(settings)
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let new = folder.join(format!(".{name}.{}.new", std::process::id()));
    let written = write_new(&new, path, bytes).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // Best effort: what matters is that the old document stands.
        let _ = fs::remove_file(&new);
    }
    written?;
    // The rename is only durable once the folder is.
    File::open(folder)?.sync_all()
}

fn write_new(new: &PathBuf, old: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(new)?;
    if let Ok(old) = fs::metadata(old) {
        let own = file.metadata()?;
        if (old.uid(), old.gid()) != (own.uid(), own.gid()) {
            fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
        file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o777))?;
    }
    file.write_all(bytes)?;
    file.sync_all()
}

//! Looks for secrets where none may be: as they are, in base64, and in hexadecimal.

use std::fs;
use std::path::{Path, PathBuf};

use base64ct::{Base64, Encoding};

/// The octets of SASL PLAIN (RFC 4616), as text.
pub fn plain(user: &str, password: &str) -> String {
    format!("\0{user}\0{password}")
}

/// What `AUTHENTICATE PLAIN` sends.
pub fn plain_base64(user: &str, password: &str) -> String {
    Base64::encode_string(plain(user, password).as_bytes())
}

/// The files of `places` (files, and folders with all below them) that hold one of `secrets`, letters of any case.
pub fn find(secrets: &[String], places: &[&Path]) -> Vec<String> {
    let needles: Vec<Vec<u8>> = secrets
        .iter()
        .flat_map(|secret| forms(secret))
        .map(|form| form.to_ascii_lowercase().into_bytes())
        .collect();
    let mut found = Vec::new();
    let mut left: Vec<PathBuf> = places.iter().map(|place| place.to_path_buf()).collect();
    while let Some(path) = left.pop() {
        if let Ok(entries) = fs::read_dir(&path) {
            left.extend(entries.flatten().map(|entry| entry.path()));
        } else if let Ok(mut octets) = fs::read(&path) {
            octets.make_ascii_lowercase();
            for (needle, form) in needles.iter().zip(1usize..) {
                if holds(&octets, needle) {
                    found.push(format!("{} (form {form})", path.display())); // the secret itself stays unsaid here too
                }
            }
        }
    }
    found
}

fn forms(secret: &str) -> [String; 3] {
    let hex = secret.bytes().map(|octet| format!("{octet:02x}")).collect();
    [secret.into(), Base64::encode_string(secret.as_bytes()).trim_end_matches('=').into(), hex]
}

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    needle.first().is_some_and(|first| {
        haystack.iter().enumerate().any(|(at, octet)| octet == first && haystack[at..].starts_with(needle))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_form_in_folders_and_files() {
        let folder = tempfile::tempdir().unwrap();
        let secret = vec![String::from("Passw0rd")];
        for (name, content) in
            [("plain", "xxPASSW0RDxx"), ("base64", "auth UGFzc3cwcmQ="), ("hex", "5061737377307264")]
        {
            let path = folder.path().join(name);
            fs::write(&path, content).unwrap();
            assert_eq!(find(&secret, &[&path]).len(), 1, "{name}");
        }
        assert_eq!(find(&secret, &[folder.path()]).len(), 3);
        fs::write(folder.path().join("plain"), "Passw0r").unwrap();
        assert_eq!(find(&secret, &[folder.path()]).len(), 2);
    }
}

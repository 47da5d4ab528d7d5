//! How large a firmware file is, piece by piece, and whether it keeps the limits. Measured in the files themselves.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::cpio::Archive;
use crate::firmware::{self, FIRMWARE, IMAGE, ROOTFS};
use crate::rootfs;

/// How large a firmware file may be: what a box downloads, without the signature's 2 KB.
const LARGEST_FIRMWARE: usize = 12_000_000;

/// One line of the table.
struct Figure {
    what: String,
    value: usize,
    limit: Option<usize>,
    how: &'static str,
}

/// The table of the firmware in `folder`, in Markdown.
///
/// # Errors
/// If a limit is broken, or a promise of the root file system; the table is printed before.
pub(crate) fn print(folder: &Path) -> Result<()> {
    let image = firmware::read(folder, IMAGE)?;
    let bytes = firmware::read(folder, ROOTFS)?;
    ensure!(
        memchr::memmem::find(&image, &bytes).is_some(),
        "{IMAGE} does not hold {ROOTFS}: they are of two builds; run assemble firmware --out anew"
    );
    let archive = Archive::from_bytes(&bytes)?;
    let mut figures = vec![
        Figure {
            what: format!("`{FIRMWARE}`"),
            value: firmware::read(folder, FIRMWARE)?.len(),
            limit: Some(LARGEST_FIRMWARE),
            how: "bytes of the file, not signed (a signature adds about 2 KB)",
        },
        Figure { what: format!("`{IMAGE}`"), value: image.len(), limit: None, how: "bytes of the file" },
        Figure {
            what: "root file system".into(),
            value: bytes.len(),
            limit: None,
            how: "bytes of the cpio archive, found whole inside `Image`",
        },
    ];
    let executables: Vec<_> = archive.entries().filter(|(_, entry)| rootfs::is_executable(entry)).collect();
    for (path, entry) in &executables {
        figures.push(Figure {
            what: format!("`/{path}`"),
            value: entry.data().len(),
            limit: None,
            how: "bytes of the file in the archive: ELF, no interpreter",
        });
    }
    figures.push(Figure {
        what: "executables".into(),
        value: executables.len(),
        limit: Some(rootfs::MOST_EXECUTABLES),
        how: "files with an execute bit in the archive; none is setuid, a script, or asks for a loader",
    });
    println!("| what | value | limit | how measured |\n| --- | ---: | ---: | --- |");
    for figure in &figures {
        let limit = figure.limit.map(grouped).unwrap_or_default();
        println!("| {} | {} | {limit} | {} |", figure.what, grouped(figure.value), figure.how);
    }
    rootfs::check(&archive)?;
    for figure in &figures {
        ensure!(
            figure.limit.is_none_or(|limit| figure.value <= limit),
            "{} is {}, over the limit of {}",
            figure.what,
            grouped(figure.value),
            grouped(figure.limit.unwrap_or_default())
        );
    }
    Ok(())
}

/// A number with its thousands apart.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(123), "123");
        assert_eq!(grouped(1234), "1,234");
        assert_eq!(grouped(12_000_000), "12,000,000");
    }
}

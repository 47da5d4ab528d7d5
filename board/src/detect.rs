//! Which board this is.

use std::fs;
use std::path::Path;

use crate::descriptor::{Descriptor, DescriptorError, DmiMatch};
use crate::machine::{Machine, read_at_most};

/// The board, how it was known, and what was wrong with the descriptors on the way.
///
/// There is always a board: a descriptor with a mistake is told and skipped, and a machine that nobody described is
/// run as a generic one, so that it reaches its console and can say so.
#[derive(Debug)]
pub struct Detection {
    /// What to open.
    pub descriptor: Descriptor,
    /// Why this one.
    pub by: MatchedBy,
    /// Every mistake in every descriptor.
    pub mistakes: Vec<DescriptorError>,
}

/// Why a descriptor was chosen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum MatchedBy {
    /// This name stands in the device tree.
    Compatible(String),
    /// The firmware's DMI tables.
    Dmi,
    /// UEFI and ACPI, and no descriptor that knows more.
    Fallback,
    /// Nothing: neither a known name nor UEFI with ACPI.
    Nothing,
}

impl MatchedBy {
    /// A word for logs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Compatible(_) => "compatible",
            Self::Dmi => "dmi",
            Self::Fallback => "fallback",
            Self::Nothing => "nothing",
        }
    }
}

/// Finds the board among the descriptors in `folder`, by the device tree first, then by DMI.
pub fn detect(machine: &Machine, folder: &Path) -> Detection {
    let (descriptors, mistakes) = load(folder);
    let (descriptor, by) = choose(machine, descriptors);
    Detection { descriptor, by, mistakes }
}

fn load(folder: &Path) -> (Vec<Descriptor>, Vec<DescriptorError>) {
    let mut mistakes = Vec::new();
    let entries = fs::read_dir(folder).map_err(|error| {
        mistakes.push(DescriptorError {
            file: folder.to_owned(),
            line: 0,
            column: 0,
            key: String::new(),
            what: format!("cannot be read: {error}"),
            mend: "put the files of board/boards there".into(),
        });
    });
    let mut files = entries.into_iter().flatten().flatten().map(|entry| entry.path()).collect::<Vec<_>>();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort(); // folders have no order of their own, and two boards may claim one name
    let mut descriptors = Vec::new();
    for file in files {
        match Descriptor::load(&file) {
            Ok(descriptor) => descriptors.push(descriptor),
            Err(wrong) => mistakes.extend(wrong),
        }
    }
    (descriptors, mistakes)
}

fn choose(machine: &Machine, descriptors: Vec<Descriptor>) -> (Descriptor, MatchedBy) {
    // Most special name first, so that a board is preferred to its chip.
    for name in compatible(machine) {
        let known = descriptors.iter().find(|descriptor| descriptor.compatible.contains(&name));
        if let Some(descriptor) = known {
            return (descriptor.clone(), MatchedBy::Compatible(name));
        }
    }
    let dmi = |field: &str| machine.attribute(Path::new("class/dmi/id").join(field));
    let fields = (dmi("sys_vendor"), dmi("product_name"), dmi("board_name"));
    let by_dmi = |descriptor: &&Descriptor| descriptor.dmi.iter().any(|wanted| agrees(wanted, &fields));
    if let Some(descriptor) = descriptors.iter().find(by_dmi) {
        return (descriptor.clone(), MatchedBy::Dmi);
    }
    let has = |path: &str| machine.sys.join(path).exists();
    let by = if has("firmware/efi") && has("firmware/acpi/tables") {
        MatchedBy::Fallback
    } else {
        MatchedBy::Nothing
    };
    let fallback = descriptors.into_iter().find(|descriptor| descriptor.fallback);
    (fallback.unwrap_or_else(Descriptor::generic), by)
}

/// The device tree's names for the machine, most special first; none on a machine with ACPI.
fn compatible(machine: &Machine) -> Vec<String> {
    let bytes = read_at_most(&machine.proc.join("device-tree/compatible"), 4096).unwrap_or_default();
    let names = bytes.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

fn agrees(wanted: &DmiMatch, fields: &(Option<String>, Option<String>, Option<String>)) -> bool {
    let agrees = |wanted: &Option<String>, field: &Option<String>| wanted.is_none() || wanted == field;
    agrees(&wanted.sys_vendor, &fields.0)
        && agrees(&wanted.product_name, &fields.1)
        && agrees(&wanted.board_name, &fields.2)
}

//! `gateway --export`: the device database of a box that does not serve, as the document that `postern export` writes.
//!
//! Nothing else of the gateway starts: no listener, no backend, no journal. Opening does what every start does, so what a
//! power cut left half done is brought to its end on the way.

use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use settings::{Places, Settings};
use store::Store;

use crate::gateway::NotInForce;
use crate::process;

/// Prints the database in the data folder of `places`, or in the one that the settings name, on standard output.
///
/// # Errors
/// There is no database, another process has it open, or it cannot be opened: why, and the mend.
pub fn run(settings: Option<&Path>, places: &Places) -> anyhow::Result<()> {
    let data = match (&places.data, settings) {
        (Some(data), _) => data.clone(),
        // Certificates and the like may be gone with the rest of the machine: they are not needed here.
        (None, Some(file)) => match Settings::load_with(file, false) {
            Ok(settings) => settings.host.data,
            Err(errors) => return Err(NotInForce::Settings(errors).into()),
        },
        (None, None) => bail!("where the data is, is said by neither --settings nor --data"),
    };
    let (folder, keys) = (data.join("devices"), data.join("keys"));
    // Opening would make a new one, and an operator who mistook the folder would take it for the old one.
    if !folder.exists() && !keys.exists() {
        bail!(
            "there is no device database in {}: give the folder that holds `devices` and `keys`",
            data.display()
        );
    }
    let opened = Store::open(&folder, &keys);
    let (store, report) =
        opened.with_context(|| format!("cannot open the device database in {}", data.display()))?;
    if report.is_alarming() {
        eprintln!("gateway: the device database was recovered: {}", process::alarm(&report));
    }
    let mut out = BufWriter::new(std::io::stdout().lock());
    store.export(&mut out).context("the device database cannot be read")?;
    out.flush().context("the export cannot be written to standard output")
}

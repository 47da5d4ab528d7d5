//! Where log lines go and which of them: one set-up, made once at the start.
//!
//! Text from peers is escaped by both formats. Credentials and tokens never come this far: the types that hold them show
//! nothing in `Debug`.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Format {
    /// One JSON object on a line, with its span's fields.
    Json,
    /// For people.
    #[default]
    Human,
}

/// Where log lines go.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Destination {
    /// Standard error, as init wants it.
    #[default]
    StandardError,
    /// A file, appended to.
    File(PathBuf),
}

/// The whole set-up.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// How.
    pub format: Format,
    /// From which level on, for our own crates.
    pub level: LevelFilter,
    /// Where to.
    pub destination: Destination,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file's fault.
    #[error("log file {path}: {source}", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A log was set up before.
    #[error("the log is set up already")]
    Twice,
}

/// Sets up the log of this process. Call it once, first of all.
pub fn start(settings: &LogSettings) -> Result<(), LogError> {
    tracing_subscriber::registry().with(layer(settings)?).try_init().map_err(|_| LogError::Twice)
}

/// The layer that [`start`] installs.
fn layer(settings: &LogSettings) -> Result<Box<dyn Layer<Registry> + Send + Sync>, LogError> {
    let level = settings.level;
    // Libraries only warn, and never trace: hyper and rustls would print what passes through them.
    let filter = EnvFilter::default().add_directive(LevelFilter::WARN.into());
    let filter = OURS
        .iter()
        .filter_map(|name| format!("{name}={level}").parse().ok())
        .fold(filter, EnvFilter::add_directive);
    Ok(match &settings.destination {
        Destination::StandardError => lines(settings.format, io::stderr, filter),
        Destination::File(path) => {
            let fail = |source| LogError::File { path: path.clone(), source };
            let file: File = OpenOptions::new().create(true).append(true).open(path).map_err(fail)?;
            lines(settings.format, Mutex::new(file), filter)
        }
    })
}

/// Our own crates that log.
const OURS: [&str; 3] = ["gateway", "store", "settings"];

fn lines<W>(format: Format, to: W, filter: EnvFilter) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'a> fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = fmt::layer().with_writer(to).with_target(false).with_ansi(false);
    match format {
        Format::Json => layer.json().flatten_event(true).with_span_list(false).with_filter(filter).boxed(),
        Format::Human => layer.with_filter(filter).boxed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a file holds after some lines.
    fn written(format: Format, level: LevelFilter) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let settings = LogSettings { format, level, destination: Destination::File(path.clone()) };
        let subscriber = tracing_subscriber::registry().with(layer(&settings).unwrap());
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("connection", id = "c1");
            let _in = span.enter();
            tracing::info!(account = "a\nb\u{1b}[31m", "login refused");
            tracing::debug!("detail");
            tracing::info!(target: "hyper", "noise");
            tracing::warn!(target: "hyper", "trouble");
        });
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn json_lines_with_the_connection() {
        let text = written(Format::Json, LevelFilter::INFO);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines[0]["message"], "login refused");
        assert_eq!(lines[0]["account"], "a\nb\u{1b}[31m");
        assert_eq!(lines[0]["span"]["id"], "c1");
        assert_eq!(lines[1]["level"], "WARN");
    }

    #[test]
    fn human_lines_cannot_be_forged() {
        let text = written(Format::Human, LevelFilter::DEBUG);
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.contains("connection{id=\"c1\"}") && !text.contains('\u{1b}'), "{text}");
        assert!(text.contains("detail") && text.contains("trouble") && !text.contains("noise"));
    }

    #[test]
    fn a_missing_folder_is_told() {
        let destination = Destination::File("/nowhere/at/all".into());
        let settings = LogSettings { format: Format::Human, level: LevelFilter::INFO, destination };
        assert!(layer(&settings).err().unwrap().to_string().contains("/nowhere/at/all"));
    }
}

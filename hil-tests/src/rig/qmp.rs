//! QEMU's control socket (QMP): one JSON object a line, each way.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// How long an answer may take; a loaded machine is slow.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to a running QEMU.
#[derive(Debug)]
pub(crate) struct Qmp {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Qmp {
    /// Connects, as soon as QEMU listens.
    pub(crate) fn connect(path: &Path) -> Result<Self> {
        let stream = patiently(|| Ok(UnixStream::connect(path)?))
            .with_context(|| format!("QEMU does not listen on {}", path.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut qmp = Self { writer: stream.try_clone()?, reader: BufReader::new(stream) };
        qmp.message()?; // the greeting
        qmp.ask("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Sends a command and gives its answer; events that come first are passed over.
    pub(crate) fn ask(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
        line.push('\n');
        self.writer.write_all(line.as_bytes()).context("QEMU's control socket is closed")?;
        loop {
            let message = self.message().with_context(|| format!("no answer to {command}"))?;
            if let Some(answer) = message.get("return") {
                return Ok(answer.clone());
            }
            if let Some(error) = message.get("error") {
                bail!("QEMU refuses {command}: {}", error["desc"].as_str().unwrap_or_default());
            }
        }
    }

    fn message(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            bail!("QEMU closed its control socket");
        }
        serde_json::from_str(&line).with_context(|| format!("QEMU said {line:?}"))
    }
}

/// Tries until it works, for as long as an emulator may take to start.
pub(crate) fn patiently<T>(attempt: impl Fn() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(done) => return Ok(done),
            Err(error) if start.elapsed() > PATIENCE => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn events_are_passed_over_and_errors_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("qmp");
        let listener = UnixListener::bind(&path).unwrap();
        let qemu = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut writer = stream;
            writer.write_all(b"{\"QMP\": {}}\n").unwrap();
            for answer in [
                "{\"return\": {}}\n",
                "{\"event\": \"RESET\"}\n{\"return\": {\"a\": 1}}\n",
                "{\"error\": {\"desc\": \"no\"}}\n",
            ] {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                writer.write_all(answer.as_bytes()).unwrap();
            }
        });
        let mut qmp = Qmp::connect(&path).unwrap();
        assert_eq!(qmp.ask("query", &json!({})).unwrap()["a"], 1);
        assert_eq!(qmp.ask("quit", &json!({})).unwrap_err().to_string(), "QEMU refuses quit: no");
        qemu.join().unwrap();
    }
}

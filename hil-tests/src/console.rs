//! The console of a box: every line with the time it arrived, kept in a file, and the stages among them.
//!
//! Whoever waits for a stage hears of a failure at once: a kernel panic, a stage `fatal`, a start that nobody asked
//! for, silence, or a console whose other end is gone.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::stage::{Line, Stage};

/// Where a console's octets come from and go to: the thing at the other end of the cable.
pub trait Source: Send {
    /// The way to the console as a file; `None` while there is nobody at the other end. Called again after each end.
    fn connect(&mut self) -> Result<Option<File>>;
}

/// A line longer than this is cut: a mad console must not fill our memory.
const LONGEST_LINE: usize = 16 * 1024;

/// How long a console may be without another end while the box should be on.
const GONE: Duration = Duration::from_secs(5);

/// The console, read by a thread of its own for as long as this lives.
#[derive(Debug)]
pub struct Console {
    shared: Arc<Shared>,
    artifact: PathBuf,
    silence: Duration,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    ends: AtomicBool,
}

#[derive(Debug)]
struct State {
    /// All whole lines since the console was opened.
    lines: Vec<String>,
    stages: Vec<Stage>,
    /// How many stages `wait_for` has passed.
    seen: usize,
    /// Starts that are in order and did not come yet.
    starts_expected: usize,
    trouble: Option<String>,
    /// The last octet, or the last time somebody had a reason to expect one.
    last: Instant,
    is_serving: bool,
    /// Since when nobody is at the other end.
    gone: Option<Instant>,
    torn: usize,
    writer: Option<File>,
    listeners: Vec<File>,
}

impl Console {
    /// Starts to listen. Everything heard is written to `artifact`, each line behind the seconds since now.
    pub fn open(mut source: Box<dyn Source>, artifact: &Path, silence: Duration) -> Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                lines: Vec::new(),
                stages: Vec::new(),
                seen: 0,
                starts_expected: 0,
                trouble: None,
                last: Instant::now(),
                is_serving: false,
                gone: None,
                torn: 0,
                writer: None,
                listeners: Vec::new(),
            }),
            changed: Condvar::new(),
            ends: AtomicBool::new(false),
        });
        let mut file =
            File::create(artifact).with_context(|| format!("cannot create {}", artifact.display()))?;
        // A serial port must be open before the board has power, or its first words are lost.
        let mut first = source.connect()?;
        let inside = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let start = Instant::now();
            while !inside.ends.load(Ordering::Relaxed) {
                let wire = match first.take().map_or_else(|| source.connect(), |wire| Ok(Some(wire))) {
                    Ok(Some(wire)) => wire,
                    Ok(None) => {
                        thread::sleep(Duration::from_millis(10));
                        continue;
                    }
                    Err(error) => {
                        inside.lock().note(&format!("the console cannot be read: {error:#}"));
                        inside.changed.notify_all();
                        thread::sleep(Duration::from_millis(500));
                        continue;
                    }
                };
                inside.listen(wire, &mut file, start);
            }
        });
        Ok(Self { shared, artifact: artifact.into(), silence, thread: Some(thread) })
    }

    /// From now on one more `start` is in order; what was heard before is history.
    pub fn expect_start(&self) {
        let mut state = self.shared.lock();
        state.starts_expected += 1;
        state.trouble = None;
        state.is_serving = false;
        state.last = Instant::now();
        state.gone = None;
        state.seen = state.stages.len();
    }

    /// Takes back what [`Console::expect_start`] said: the power is off again.
    pub fn expect_nothing(&self) {
        let mut state = self.shared.lock();
        state.starts_expected = 0;
        state.is_serving = false;
    }

    /// Waits for the next stage of that name after those already waited for.
    pub fn wait_for(&self, name: &str, limit: Duration) -> Result<Stage> {
        self.wait_where(name, limit, |stage| stage.name == name)
    }

    /// Waits for the next stage that `is_it`; `what` names it in the failure's message.
    ///
    /// # Errors
    /// At once if the box failed meanwhile; the message ends with the last lines of the console.
    pub fn wait_where(&self, what: &str, limit: Duration, is_it: impl Fn(&Stage) -> bool) -> Result<Stage> {
        self.wait(what, limit, true, is_it)
    }

    /// Waits for the `start` that was announced by [`Console::expect_start`], of a box that is expected to die first: a
    /// panic, `fatal` or silence is no failure here.
    pub fn wait_for_restart(&self, limit: Duration) -> Result<Stage> {
        let stage = self.wait("a new start", limit, false, |stage| stage.name == "start")?;
        self.shared.lock().trouble = None;
        Ok(stage)
    }

    fn wait(
        &self,
        what: &str,
        limit: Duration,
        must_live: bool,
        is_it: impl Fn(&Stage) -> bool,
    ) -> Result<Stage> {
        let start = Instant::now();
        let mut state = self.shared.lock();
        loop {
            if let Some(offset) = state.stages[state.seen..].iter().position(&is_it) {
                let place = state.seen + offset;
                state.seen = place + 1;
                return Ok(state.stages[place].clone());
            }
            if must_live && let Some(trouble) = state.trouble(self.silence) {
                bail!("{trouble}, while {what} was awaited; {}", self.testament(&state));
            }
            if start.elapsed() >= limit {
                bail!("no {what} within {limit:?}; {}", self.testament(&state));
            }
            let nap = Duration::from_millis(200).min(limit.saturating_sub(start.elapsed()));
            state = self
                .shared
                .changed
                .wait_timeout(state, nap.max(Duration::from_millis(1)))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits for a line that holds `text`, such as the firmware's refusal of an image.
    pub fn wait_for_text(&self, text: &str, limit: Duration) -> Result<String> {
        let start = Instant::now();
        loop {
            let state = self.shared.lock();
            if let Some(line) = state.lines.iter().find(|line| line.contains(text)) {
                return Ok(line.clone());
            }
            if start.elapsed() >= limit {
                bail!("the console did not say {text:?} within {limit:?}; {}", self.testament(&state));
            }
            drop(state);
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// All stages since the last `start`, that one included.
    pub fn stages(&self) -> Vec<Stage> {
        let state = self.shared.lock();
        let start = state.stages.iter().rposition(|stage| stage.name == "start").unwrap_or(0);
        state.stages[start..].to_vec()
    }

    /// The last stage of that name since the last `start`.
    pub fn stage(&self, name: &str) -> Option<Stage> {
        self.stages().into_iter().rev().find(|stage| stage.name == name)
    }

    /// Everything heard so far.
    pub fn text(&self) -> String {
        self.shared.lock().lines.join("\n")
    }

    /// How many stage lines came damaged.
    pub fn torn(&self) -> usize {
        self.shared.lock().torn
    }

    /// For how long nothing came.
    pub fn silent_for(&self) -> Duration {
        self.shared.lock().last.elapsed()
    }

    /// The file that keeps it all.
    pub fn artifact(&self) -> &Path {
        &self.artifact
    }

    /// Types a line; its end is added.
    pub fn type_line(&self, line: &str) -> Result<()> {
        let state = self.shared.lock();
        let mut writer = state.writer.as_ref().context("nobody is at the other end of the console")?;
        writer.write_all(format!("{line}\r").as_bytes()).context("cannot write to the console")
    }

    /// Lets others use the console too, through a Unix socket at `path`, for as long as this process lives.
    pub fn share(&self, path: &Path) -> Result<()> {
        let listener = std::os::unix::net::UnixListener::bind(path)
            .with_context(|| format!("cannot listen on {}", path.display()))?;
        let shared = Arc::clone(&self.shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Ok(listening) = stream.try_clone() else { continue };
                // A listener that does not read must not hold up the console.
                let _ = listening.set_write_timeout(Some(Duration::from_millis(100)));
                shared.lock().listeners.push(File::from(std::os::fd::OwnedFd::from(listening)));
                let shared = Arc::clone(&shared);
                thread::spawn(move || type_from(stream, &shared));
            }
        });
        Ok(())
    }

    fn testament(&self, state: &State) -> String {
        let from = state.lines.len().saturating_sub(25);
        let lines: String =
            state.lines[from..].iter().map(|line| format!("  {}\n", printable(line))).collect();
        format!("the console ({}) ends with:\n{lines}", self.artifact.display())
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        // A read may last for ever; the thread ends with its file, or with this process.
        if self.shared.lock().writer.is_none()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads until the other end is gone.
    fn listen(&self, mut wire: File, artifact: &mut File, start: Instant) {
        {
            let mut state = self.lock();
            state.writer = wire.try_clone().ok();
            state.gone = None;
        }
        let mut pending = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = wire.read(&mut buffer) {
            let octets = &buffer[..read];
            let mut state = self.lock();
            state.last = Instant::now();
            state.listeners.retain_mut(|listener| listener.write_all(octets).is_ok());
            pending.extend_from_slice(octets);
            while let Some(end) = pending.iter().position(|octet| *octet == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                state.take(&line, artifact, start);
            }
            if pending.len() > LONGEST_LINE {
                state.take(&std::mem::take(&mut pending), artifact, start);
            }
            drop(state);
            self.changed.notify_all();
            if self.ends.load(Ordering::Relaxed) {
                return;
            }
        }
        let mut state = self.lock();
        if !pending.is_empty() {
            state.take(&pending, artifact, start);
        }
        state.writer = None;
        state.gone = Some(Instant::now());
        drop(state);
        self.changed.notify_all();
    }
}

impl State {
    fn take(&mut self, octets: &[u8], artifact: &mut File, start: Instant) {
        let text = String::from_utf8_lossy(octets);
        let line = text.trim_end_matches(['\r', '\n']);
        // A full disk must not end the test that could tell of it.
        let _ = writeln!(artifact, "{:10.3} {line}", start.elapsed().as_secs_f64());
        match Line::parse(line) {
            Line::Stage(stage) => self.stage(stage),
            Line::Torn => self.torn += 1,
            Line::Other if line.contains("Kernel panic - not syncing") => {
                self.note(&format!("kernel panic: {}", printable(line)));
            }
            Line::Other => {}
        }
        self.lines.push(line.to_owned());
    }

    fn stage(&mut self, stage: Stage) {
        match &*stage.name {
            "start" => {
                self.is_serving = false;
                if self.starts_expected == 0 {
                    self.note("the box started again, which nobody asked for");
                } else {
                    self.starts_expected -= 1;
                }
            }
            "serving" => self.is_serving = true,
            "fatal" => self.note(&format!("the box says {stage}")),
            _ => {}
        }
        self.stages.push(stage);
    }

    /// Keeps the first trouble: the rest is its consequence.
    fn note(&mut self, trouble: &str) {
        self.trouble.get_or_insert_with(|| trouble.to_owned());
    }

    fn trouble(&self, silence: Duration) -> Option<String> {
        if let Some(trouble) = &self.trouble {
            return Some(trouble.clone());
        }
        if self.gone.is_some_and(|since| since.elapsed() > GONE) {
            return Some("nobody is at the other end of the console any more".into());
        }
        let quiet = self.last.elapsed();
        (!self.is_serving && quiet > silence)
            .then(|| format!("the box said nothing for {} s", quiet.as_secs()))
    }
}

fn type_from(mut stream: std::os::unix::net::UnixStream, shared: &Shared) {
    let mut buffer = [0; 256];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        let writer = shared.lock().writer.as_ref().and_then(|writer| writer.try_clone().ok());
        if let Some(mut writer) = writer
            && writer.write_all(&buffer[..read]).is_err()
        {
            return;
        }
    }
}

/// Firmware paints its menus; a failure's message must not paint the terminal.
fn printable(line: &str) -> String {
    line.chars().map(|c| if c.is_control() && c != '\t' { '.' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::stage::print;

    struct Once(Option<File>);

    impl Source for Once {
        fn connect(&mut self) -> Result<Option<File>> {
            Ok(self.0.take())
        }
    }

    fn console(silence: Duration) -> (Console, UnixStream, tempfile::TempDir) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let source = Once(Some(File::from(std::os::fd::OwnedFd::from(ours))));
        let console = Console::open(Box::new(source), &folder.path().join("console.log"), silence).unwrap();
        console.expect_start();
        (console, theirs, folder)
    }

    fn say(stream: &mut UnixStream, words: &str) {
        stream.write_all(format!("{}\r\n", print(1, Duration::ZERO, words)).as_bytes()).unwrap();
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn stages_are_found_among_other_words_and_kept() {
        let (console, mut box_, _folder) = console(LONG);
        box_.write_all(b"UEFI firmware\r\n\x1b[2J[ 0.0] Booting Linux\r\n[ 0.1] x").unwrap();
        say(&mut box_, "start ver=1 kind=bench");
        box_.write_all(b"@hil 2 1 board id=vi\r\n").unwrap();
        say(&mut box_, "serving ports=993");
        assert_eq!(console.wait_for("serving", LONG).unwrap().value("ports"), Some("993"));
        assert_eq!(console.stage("start").unwrap().value("kind"), Some("bench"));
        assert_eq!(console.torn(), 1);
        let kept = std::fs::read_to_string(console.artifact()).unwrap();
        assert!(kept.contains("Booting Linux") && kept.contains("serving"), "{kept}");
    }

    #[test]
    fn failures_are_told_at_once() {
        for (words, told) in [
            ("[ 1.0] Kernel panic - not syncing: Attempted to kill init!".into(), "kernel panic"),
            (print(2, Duration::ZERO, "fatal why=disk"), "fatal"),
            (print(2, Duration::ZERO, "start ver=1"), "nobody asked for"),
        ] {
            let (console, mut box_, _folder) = console(LONG);
            say(&mut box_, "start ver=1");
            box_.write_all(format!("{words}\r\n").as_bytes()).unwrap();
            let start = Instant::now();
            let error = console.wait_for("serving", LONG).unwrap_err().to_string();
            assert!(error.contains(told) && error.contains("ends with"), "{error}");
            assert!(start.elapsed() < Duration::from_secs(5));
        }
    }

    #[test]
    fn silence_is_a_failure_until_it_serves() {
        let (console, mut box_, _folder) = console(Duration::from_millis(300));
        say(&mut box_, "start ver=1");
        console.wait_for("start", LONG).unwrap();
        assert!(console.wait_for("serving", LONG).unwrap_err().to_string().contains("said nothing"));
        say(&mut box_, "serving ports=993");
        console.wait_for_text("serving", LONG).unwrap(); // silence counts until it comes
        console.wait_for("serving", LONG).unwrap();
        let error = console.wait_for("service", Duration::from_millis(700)).unwrap_err().to_string();
        assert!(error.contains("no service within"), "{error}");
    }

    #[test]
    fn a_restart_that_was_asked_for_is_none_of_the_failures() {
        let (console, mut box_, _folder) = console(LONG);
        say(&mut box_, "start ver=1");
        console.wait_for("start", LONG).unwrap();
        console.expect_start();
        let talk = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            box_.write_all(b"Kernel panic - not syncing: x\r\n").unwrap();
            say(&mut box_, "start ver=2");
            say(&mut box_, "serving ports=993");
            box_
        });
        assert_eq!(console.wait_for_restart(LONG).unwrap().value("ver"), Some("2"));
        console.wait_for("serving", LONG).unwrap();
        drop(talk.join());
    }

    #[test]
    fn others_may_listen_and_type() {
        let (console, mut box_, folder) = console(LONG);
        // What is typed while nobody is at the other end is lost, as on a cable.
        say(&mut box_, "start");
        console.wait_for("start", LONG).unwrap();
        let path = folder.path().join("shared");
        console.share(&path).unwrap();
        let mut other = UnixStream::connect(&path).unwrap();
        other.write_all(b"hello\r").unwrap();
        let mut heard = [0; 6];
        box_.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hello\r");
        box_.write_all(b"you\r\n").unwrap();
        let mut heard = [0; 5];
        other.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"you\r\n");
    }

    #[test]
    fn a_console_that_went_away_is_told() {
        let (console, box_, _folder) = console(LONG);
        drop(box_);
        let error = console.wait_for("serving", LONG).unwrap_err().to_string();
        assert!(error.contains("other end"), "{error}");
    }
}

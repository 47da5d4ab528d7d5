//! A workshop: a temporary folder and the processes that work in it, all gone when it is dropped, whatever happens.
//!
//! A guard process watches over each workshop through a pipe. When the pipe closes, because the workshop was dropped or
//! because this process died in any way, `kill -9` included, the guard ends the processes that are left and removes
//! the folder. It stands in a process group of its own, so Ctrl-C at the terminal does not reach it.

use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Reads `watch GROUP` and `forget GROUP` lines; at their end it ends the groups still watched and removes the folder.
const GUARD: &str = r#"
trap '' INT TERM HUP PIPE
groups=
while read -r verb group; do
    case $verb in
    watch) groups="$groups $group" ;;
    forget)
        left=
        for one in $groups; do [ "$one" = "$group" ] || left="$left $one"; done
        groups=$left ;;
    esac
done
for group in $groups; do kill -s TERM -- "-$group" 2>/dev/null; done
tries=0
while [ $tries -lt 50 ]; do
    alive=
    for group in $groups; do kill -s 0 -- "-$group" 2>/dev/null && alive=yes; done
    [ -z "$alive" ] && break
    sleep 0.1
    tries=$((tries + 1))
done
for group in $groups; do kill -s KILL -- "-$group" 2>/dev/null; done
[ -n "$POSTERN_KEEP" ] || rm -rf -- "$1"
"#;

/// A folder with its processes. Cheap to clone; everything ends with the last clone.
#[derive(Clone, Debug)]
pub struct Workshop(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    guard: Mutex<Guard>,
}

#[derive(Debug)]
struct Guard {
    process: Child,
    pipe: Option<ChildStdin>,
}

impl Workshop {
    /// An empty folder that other users may pass through (the mail servers change their uid), and its guard.
    pub fn new() -> Result<Self> {
        // Orphans of the daemons become our children, to be reaped at once: not every machine's init is quick at it.
        nix::sys::prctl::set_child_subreaper(true)?;
        let folder = tempfile::Builder::new().prefix("postern-").tempdir().context("no temporary folder")?;
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        let mut process = Command::new("/bin/sh")
            .arg("-c")
            .arg(GUARD)
            .arg("postern-guard")
            .arg(folder.path())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("no guard process")?;
        let pipe = process.stdin.take();
        let folder = folder.keep();
        Ok(Self(Arc::new(Inner { folder, guard: Mutex::new(Guard { process, pipe }) })))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0.folder
    }

    /// The path of something in the folder.
    pub fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.folder.join(name)
    }

    /// Writes a file of the folder and gives its path; `mode` as for chmod.
    pub fn write(&self, name: &str, mode: u32, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.file(name);
        let mut file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(content.as_ref())?;
        Ok(path)
    }

    /// Makes a folder in the folder.
    pub fn folder(&self, name: &str, mode: u32) -> Result<PathBuf> {
        let path = self.file(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
        Ok(path)
    }

    /// Starts a process in a group of its own, under the guard's eyes.
    pub fn spawn(&self, name: &str, command: &mut Command) -> Result<Process> {
        let child = command.process_group(0).spawn().with_context(|| format!("cannot start {name}"))?;
        let process = Process { name: name.into(), child, workshop: self.clone(), status: None };
        self.tell("watch", process.id());
        Ok(process)
    }

    fn tell(&self, verb: &str, group: u32) {
        let mut line = String::new();
        let _ = writeln!(line, "{verb} {group}");
        let mut guard = self.0.guard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipe) = guard.pipe.as_mut() {
            let _ = pipe.write_all(line.as_bytes()); // a guard that is gone cannot be told; the drop still stops the child
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let guard = self.guard.get_mut().unwrap_or_else(PoisonError::into_inner);
        guard.pipe = None;
        let _ = guard.process.wait();
    }
}

/// A process that was started in a workshop, and what it started. Stopped when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    workshop: Workshop,
    status: Option<ExitStatus>,
}

impl Process {
    /// Its process id, which is also the id of its group.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it was started as.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its standard streams, where they were piped.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// What a process left behind: the ends of all logs in its workshop, for a failure's message.
    pub fn testament(&self) -> String {
        let mut text = String::new();
        let Ok(folder) = fs::read_dir(self.workshop.path()) else { return text };
        for path in folder.flatten().map(|entry| entry.path()) {
            let is_log = path
                .extension()
                .is_some_and(|extension| extension == "log" || extension == "out" || extension == "err");
            if is_log && let Ok(content) = fs::read(&path) {
                let content = String::from_utf8_lossy(&content);
                let lines: Vec<&str> = content.lines().collect();
                let _ = writeln!(text, "{}:", path.file_name().unwrap_or_default().display());
                for line in &lines[lines.len().saturating_sub(15)..] {
                    let _ = writeln!(text, "  {line}");
                }
            }
        }
        text
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.status.is_none() && matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if start.elapsed() > limit {
                bail!("{} did not end within {limit:?}", self.name);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a signal to the process alone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        nix::sys::signal::kill(self.pid(), signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Ends the whole group without warning, as a power cut would.
    pub fn kill(&mut self) {
        if self.status.is_none() {
            self.end();
        }
    }

    /// Asks the group to end, insists after five seconds.
    pub fn stop(&mut self) {
        if self.status.is_some() {
            return;
        }
        let _ = killpg(self.pid(), Signal::SIGTERM);
        let start = Instant::now();
        while (self.ended().is_none() || self.group_lives()) && start.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.end();
    }

    /// Kills what is left of the group and reaps all of it.
    fn end(&mut self) {
        let _ = killpg(self.pid(), Signal::SIGKILL);
        if self.status.is_none() {
            self.status = self.child.wait().ok();
        }
        let start = Instant::now();
        while self.group_lives() && start.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.workshop.tell("forget", self.id());
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// Whether the leader, once reaped itself, left somebody of its group behind. They are our children by now.
    fn group_lives(&self) -> bool {
        loop {
            match waitpid(Pid::from_raw(-self.pid().as_raw()), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => return true,
                Ok(_) => {} // one more reaped
                Err(_) => return killpg(self.pid(), None).is_ok(),
            }
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

//! e2fsck, for a file system that does not mount or has noted errors.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::console::{say, say_as};

const PROGRAM: &str = "/bin/e2fsck";

/// What it says, for the console.
const LOG: &str = "/tmp/e2fsck.log";

/// Lines of it that are shown, of the first and of the last each.
const SHOWN: usize = 20;

/// Longer than any check of a sound card; a disk that takes longer is dying.
const WITHIN: Duration = Duration::from_mins(30);

/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(50);

/// e2fsck(8): everything was in order, or is now.
const MENDED: [i32; 4] = [0, 1, 2, 3];

/// Mends what can be mended without asking, then whatever can be mended at all. The error says how far it came.
pub(super) fn mend(partition: &Path, feed: &dyn Fn()) -> Result<(), String> {
    let mut last = String::new();
    // Where a copy of the superblock had to stand in, the first full run only puts it back and asks for another. What is
    // called clean there is looked at all the same: the copy knows nothing of what came later.
    let rounds = [("-p", "what is safe"), ("-fy", "everything"), ("-fy", "what is left")];
    for (option, meaning) in rounds {
        say!("e2fsck {option}: mends {meaning}");
        match run(option, partition, feed) {
            Ok(code) if MENDED.contains(&code) => return Ok(()),
            Ok(code) => last = format!("e2fsck {option} ended with {code}"),
            Err(error) => last = format!("e2fsck {option}: {error}"),
        }
    }
    Err(last)
}

fn run(option: &str, partition: &Path, feed: &dyn Fn()) -> std::io::Result<i32> {
    let log = File::create(LOG)?;
    let mut check = Command::new(PROGRAM)
        .args([option])
        .arg(partition)
        .env_clear()
        .stdin(Stdio::null())
        .stderr(log.try_clone()?)
        .stdout(log)
        .spawn()?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = check.try_wait()? {
            break status;
        }
        if start.elapsed() > WITHIN {
            check.kill()?;
            break check.wait()?;
        }
        feed();
        thread::sleep(LOOK);
    };
    show();
    Ok(status.code().unwrap_or(-1))
}

/// Its first and last lines.
fn show() {
    let Ok(log) = File::open(LOG) else { return };
    let lines = BufReader::new(log).lines().map_while(Result::ok).collect::<Vec<_>>();
    let skipped = lines.len().saturating_sub(2 * SHOWN);
    for (at, line) in lines.iter().enumerate() {
        if at == SHOWN && skipped > 0 {
            say_as("e2fsck", format_args!("… {skipped} lines …"));
        }
        if at < SHOWN || at >= SHOWN + skipped {
            say_as("e2fsck", format_args!("{line}"));
        }
    }
}

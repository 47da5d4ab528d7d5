//! The end: an ordered one, or one with a reason. PID 1 never exits; the kernel would panic without saying why.

use core::fmt::Display;
use core::sync::atomic::{AtomicBool, Ordering};
use std::panic;
use std::thread;
use std::time::Duration;

use nix::sys::reboot::{RebootMode, reboot, set_cad_enabled};

use crate::console::{self, say};
use crate::mount;

/// Why and how the machine stops.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    /// Power off.
    PowerOff,
    /// Start again.
    Reboot,
}

impl End {
    /// `poweroff` or `reboot`, as stage lines say it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::PowerOff => "poweroff",
            Self::Reboot => "reboot",
        }
    }

    const fn mode(self) -> RebootMode {
        match self {
            Self::PowerOff => RebootMode::RB_POWER_OFF,
            Self::Reboot => RebootMode::RB_AUTOBOOT,
        }
    }
}

/// Set in forked children, whose panics end them alone.
static CHILD: AtomicBool = AtomicBool::new(false);

/// Time for a slow serial line to carry the last words.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Makes Ctrl-Alt-Del and panics end the way this module wants it.
pub(crate) fn prepare() {
    if let Err(error) = set_cad_enabled(false) {
        say!("Ctrl-Alt-Del cannot be switched off: {error}");
    }
    panic::set_hook(Box::new(|panic| {
        if CHILD.load(Ordering::Relaxed) {
            say!("a child of init panicked: {panic}");
            std::process::abort();
        }
        fatal(&panic);
    }));
}

/// Says that this process is a child now: its end is not the machine's.
pub(crate) fn this_is_a_child() {
    CHILD.store(true, Ordering::Relaxed);
}

/// Ends in order. The services have stopped already.
pub(crate) fn halt(end: End) -> ! {
    mount::close_data();
    console::stage("halting", &[("why", &end.name())]);
    stop(end)
}

/// Ends because nothing else is left to do.
pub(crate) fn fatal(why: &dyn Display) -> ! {
    console::stage("fatal", &[("why", why)]);
    mount::close_data();
    stop(End::Reboot)
}

fn stop(end: End) -> ! {
    thread::sleep(LAST_WORDS);
    let Err(error) = reboot(end.mode());
    say!("the kernel refuses to {}: {}", end.name(), error.desc());
    // The watchdog is no longer fed, so this ends too.
    loop {
        thread::park();
    }
}

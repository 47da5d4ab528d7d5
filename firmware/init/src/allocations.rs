//! Counts what PID 1 allocates, in tests and bench builds: after `serving` it is nothing.
#![allow(unsafe_code)]

use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use std::alloc::System;

/// The system's allocator with a counter in front.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

std::thread_local! {
    // By thread, since tests run in many; PID 1 has one. Without destructor, so it may be used in an allocator.
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

/// How often this thread has asked for memory so far.
pub(crate) fn count() -> usize {
    COUNT.with(Cell::get)
}

fn note() {
    // A thread that ends may be past its variables.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::count;
    use crate::socket::{Listeners, Wanted};
    use crate::supervise::{Action, Cause, Patience, Service};
    use crate::{notify, stage};
    use std::time::Duration;

    #[test]
    fn it_counts() {
        let before = count();
        let text = String::from("a text of its own");
        assert!(count() > before && !text.is_empty());
    }

    /// What the loop does all day; the whole loop is tested on the running box by the command `allocations`.
    #[test]
    fn speaking_hearing_and_deciding_allocate_nothing() {
        let wanted = Wanted { key: "imaps", address: "127.0.0.1:0".parse().unwrap() };
        let before = count();
        let mut service = Service::new(Patience::USUAL);
        service.begin(Duration::ZERO);
        assert_eq!(service.tick(Duration::ZERO), Action::Start);
        service.started(Duration::ZERO);
        for word in notify::words(b"READY=1\nWATCHDOG=1\nX_STAGE=network if=eth0") {
            let mut line = stage::Line::new(1, 2, "service");
            line.with("word", &format_args!("{word:?} \u{e9}"));
            assert!(line.finish().len() > 20);
        }
        service.ready(Duration::from_secs(1));
        service.exited(Duration::from_secs(2), Cause::Failure);
        let mut listeners = Listeners::default();
        assert!(listeners.adjust(&[wanted]) && listeners.adjust(&[]));
        assert_eq!(count(), before);
    }
}

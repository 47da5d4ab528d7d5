//! Power cuts during device writes, replayed from a block log: nothing that was acknowledged may be lost.
//!
//! QEMU writes down every request of the box's disk (`blklogwrites`) while clients log in with new devices. Afterwards the
//! disk is put together as each possible power cut would have left it, and judged with the programs the box itself has:
//! which firmware would boot, does the data partition mend itself from its journal, does the gateway open its database, and
//! is every device in it whose login had been answered.
//!
//! Killing QEMU instead would prove nothing: what its guest wrote stays in the cache of this machine.

pub mod gpt;
pub mod image;
pub mod judge;
pub mod load;
pub mod log;
pub mod replay;
pub mod slots;
pub mod trial;

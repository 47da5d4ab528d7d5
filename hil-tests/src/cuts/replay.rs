//! What a power cut may leave of a disk whose writes were recorded.
//!
//! The disk has a cache that forgets. A write that was completed before a flush began lasts; any other may have reached the
//! medium, not at all, or in part. Parts are whole sectors of 512 octets, or pages of 4 KiB for media that write no less;
//! a sector is never half old and half new. Writes reach the medium in any order: keeping any subset of them, applied in
//! their own order, shows every outcome of that, since of two writes to one place the cache holds the newer.
//!
//! The log has writes in the order of their completion, and a flush where it was completed. It must be made so that
//! QEMU's own flush takes no time (`cache.no-flush=on` on the file below): then no write is completed while a flush is
//! under way, and one that the flush did not cover stands behind it.

use std::sync::Arc;

use anyhow::{Context, Result};

use super::image::{Image, is_zero};
use super::log::Log;

/// Octets of a sector, the least that a disk writes.
const SECTOR: usize = 512;
/// Octets of a page, the least that flash memory writes.
const PAGE: usize = 4096;

/// What reached the medium of the writes that no flush covered.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kept {
    /// All of them.
    All,
    /// None of them.
    None,
    /// Some of them, each whole.
    Some,
    /// Some pages of some of them.
    Pages,
    /// Some sectors of some of them.
    Sectors,
}

/// One power cut.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Cut {
    /// How many requests had been completed.
    pub after: usize,
    /// What was kept of what was not flushed.
    pub kept: Kept,
    /// Chooses among the possibilities of [`Kept::Some`] and the like: the same number, the same choice.
    pub seed: u64,
}

/// What the disk makes of a flush.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Disk {
    /// It obeys.
    Honest,
    /// It does nothing, and says that it is done. Whoever judges cuts must find losses here, or could find none.
    Lying,
}

/// How many cuts to make in each part of a log.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Prefixes of its writes: each with all and with nothing of what was not flushed. All prefixes, if there are no more;
    /// otherwise as many, evenly spread. (An SD card writes by sectors: laying out a file system takes it 100,000.)
    pub prefixes: usize,
    /// Cuts at random, where something was not flushed.
    pub random: usize,
    /// For the randomness: the same number, the same cuts.
    pub seed: u64,
}

impl Plan {
    /// The cuts in the parts of a log that end before these requests and, the last one, at its end; in the order of the log.
    pub fn cuts(&self, log: &Log, parts: &[usize]) -> Vec<Cut> {
        let mut writes = Vec::new();
        let mut loose = Vec::new();
        let mut is_loose = false;
        for (number, entry) in log.entries().iter().enumerate() {
            is_loose &= !entry.flush;
            is_loose |= entry.change.is_some_and(|change| !change.lasts);
            if entry.change.is_some() {
                writes.push(number + 1);
            }
            if is_loose {
                loose.push(number + 1);
            }
        }
        let mut cuts = vec![Cut { after: 0, kept: Kept::All, seed: 0 }];
        let mut random = Random(self.seed);
        let mut from = 0;
        for to in parts.iter().copied().chain([usize::MAX]) {
            let part = |all: &[usize]| {
                let place = |bound| all.partition_point(|after| *after < bound);
                all.get(place(from)..place(to)).unwrap_or_default().to_vec()
            };
            let (writes, loose) = (part(&writes), part(&loose));
            let few = self.prefixes.min(writes.len());
            for after in (0..few).filter_map(|number| writes.get(number * writes.len() / few)) {
                cuts.push(Cut { after: *after, kept: Kept::All, seed: 0 });
                if loose.binary_search(after).is_ok() {
                    cuts.push(Cut { after: *after, kept: Kept::None, seed: 0 });
                }
            }
            for _ in 0..self.random {
                let kept = [Kept::Some, Kept::Pages, Kept::Sectors][random.below(3)];
                if let Some(after) = loose.get(random.below(loose.len())) {
                    cuts.push(Cut { after: *after, kept, seed: random.next() });
                }
            }
            from = to;
        }
        cuts.sort_by_key(|cut| cut.after);
        cuts
    }
}

/// A disk on its way through a log.
pub struct Replay<'a> {
    log: &'a Log,
    disk: Disk,
    after: usize,
    /// What lasts.
    durable: Image,
    /// What a reader sees: the medium and the cache.
    seen: Image,
    /// What was written since the last flush, in order.
    cached: Vec<Write>,
}

#[derive(Clone)]
struct Write {
    at: u64,
    what: What,
    /// It is on the medium already; it is here because it must stay on top of what was written before it.
    lasts: bool,
}

#[derive(Clone)]
enum What {
    Data(Arc<[u8]>),
    Zeros(u64),
}

impl<'a> Replay<'a> {
    /// Before the first write.
    pub fn new(base: Image, log: &'a Log, disk: Disk) -> Self {
        Self { log, disk, after: 0, durable: base.clone(), seen: base, cached: Vec::new() }
    }

    /// What a cut leaves. Cuts must come in the order of the log.
    ///
    /// # Errors
    /// The log cannot be read, or has fewer entries.
    pub fn cut(&mut self, cut: &Cut) -> Result<Image> {
        while self.after < cut.after {
            self.step()?;
        }
        Ok(match cut.kept {
            Kept::All => self.seen.clone(),
            Kept::None => self.durable.clone(),
            Kept::Some | Kept::Pages | Kept::Sectors => {
                let mut random = Random(cut.seed);
                let mut image = self.durable.clone();
                for write in &self.cached {
                    write.apply_some(&mut image, cut.kept, &mut random);
                }
                image
            }
        })
    }

    /// What a reader sees after the whole log.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn end(mut self) -> Result<Image> {
        while self.after < self.log.entries().len() {
            self.step()?;
        }
        Ok(self.seen)
    }

    fn step(&mut self) -> Result<()> {
        let entry = self.log.entries().get(self.after).context("a cut behind the end of the log")?;
        self.after += 1;
        if entry.flush && self.disk == Disk::Honest {
            for write in self.cached.drain(..) {
                write.apply(&mut self.durable);
            }
        }
        if let Some(change) = &entry.change {
            let what = match self.log.data(change)? {
                Some(data) if !is_zero(&data) => What::Data(data.into()),
                Some(_) | None => What::Zeros(change.length),
            };
            let write = Write { at: change.at, what, lasts: change.lasts && self.disk == Disk::Honest };
            write.apply(&mut self.seen);
            if write.lasts {
                write.apply(&mut self.durable);
            }
            self.cached.push(write);
        }
        Ok(())
    }
}

impl Write {
    fn apply(&self, image: &mut Image) {
        match &self.what {
            What::Data(data) => image.write(self.at, data),
            What::Zeros(length) => image.clear(self.at, *length),
        }
    }

    /// Whole or not at all with [`Kept::Some`]; otherwise a third of the writes is torn, too.
    fn apply_some(&self, image: &mut Image, kept: Kept, random: &mut Random) {
        if self.lasts {
            self.apply(image);
            return;
        }
        let is_torn = matches!(kept, Kept::Pages | Kept::Sectors) && random.below(3) == 0;
        if !is_torn {
            if random.below(2) == 0 {
                self.apply(image);
            }
            return;
        }
        let unit = if kept == Kept::Pages { PAGE } else { SECTOR };
        let length = match &self.what {
            What::Data(data) => data.len(),
            What::Zeros(length) => usize::try_from(*length).unwrap_or(usize::MAX),
        };
        // Up to somewhere, as a cut in the middle leaves it, or here and there, as a cache does.
        let limit = (random.below(2) == 0).then(|| random.below(length / unit + 1));
        for (number, from) in (0..length).step_by(unit).enumerate() {
            if limit.map_or_else(|| random.below(2) == 0, |limit| number < limit) {
                let (at, end) = (self.at + from as u64, length.min(from + unit));
                match &self.what {
                    What::Data(data) => image.write(at, data.get(from..end).unwrap_or_default()),
                    What::Zeros(_) => image.clear(at, (end - from) as u64),
                }
            }
        }
    }
}

/// The `SplitMix64` generator: a run can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % (bound.max(1) as u64)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::log::tests::{entry, log};
    use super::*;

    const FLUSH: u64 = 1;
    const FUA: u64 = 2;
    const REGION: std::ops::Range<u64> = 0..1 << 20;

    /// The first octets of sectors 0 to 7 and of 8 to 15.
    fn fills(image: &Image) -> (Vec<u8>, Vec<u8>) {
        let of = |from: u64| (from..from + 8).map(|sector| image.get(sector * 512, 1)[0]).collect();
        (of(0), of(8))
    }

    fn recorded() -> tempfile::NamedTempFile {
        log(
            0,
            &[
                entry(0, 8, 0, Some(1)),
                entry(0, 0, FLUSH, None),
                entry(0, 8, 0, Some(2)),
                entry(8, 8, 0, Some(3)),
                entry(4, 1, FUA, Some(4)),
                entry(0, 0, FLUSH, None),
            ],
        )
    }

    #[test]
    fn what_was_flushed_lasts_and_the_rest_may() {
        let file = recorded();
        let log = Log::open(file.path()).unwrap();
        let mut outcomes = HashSet::new();
        for (seed, kept) in (0..2_000).zip([Kept::Some, Kept::Pages, Kept::Sectors].into_iter().cycle()) {
            let mut replay = Replay::new(Image::default(), &log, Disk::Honest);
            let image = replay.cut(&Cut { after: 5, kept, seed }).unwrap();
            let (first, second) = fills(&image);
            assert!(first.iter().all(|fill| [1, 2, 4].contains(fill)), "{first:?}: it was flushed once");
            assert!(first[4] != 1 && second.iter().all(|fill| [0, 3].contains(fill)));
            assert!(kept == Kept::Sectors || HashSet::<u8>::from_iter(second.clone()).len() == 1);
            outcomes.insert((first, second));
        }
        // Each write alone, both, none, and torn ones.
        let whole = |first: u8, second: u8| {
            let mut first = vec![first; 8];
            first[4] = if first[4] == 1 { 4 } else { first[4] };
            (first, vec![second; 8])
        };
        assert!(outcomes.iter().any(|outcome| *outcome == whole(1, 0)));
        assert!(outcomes.iter().any(|(first, second)| first[0] == 2 && second[0] == 0));
        assert!(outcomes.iter().any(|(first, second)| first[0] == 1 && second[0] == 3));
        assert!(outcomes.iter().any(|(first, second)| first[0] == 2 && second[0] == 3));
        assert!(outcomes.iter().any(|(_, second)| second[0] != second[7]));
    }

    #[test]
    fn the_ends_of_what_is_possible() {
        let file = recorded();
        let log = Log::open(file.path()).unwrap();
        let mut replay = Replay::new(Image::default(), &log, Disk::Honest);
        let mut cut = |after, kept| fills(&replay.cut(&Cut { after, kept, seed: 0 }).unwrap()).0;
        assert_eq!(cut(1, Kept::None), [0; 8]);
        assert_eq!(cut(1, Kept::All), [1; 8]);
        assert_eq!(cut(2, Kept::None), [1; 8]);
        assert_eq!(cut(4, Kept::None), [1; 8]);
        assert_eq!(cut(4, Kept::All), [2; 8]);
        assert_eq!(cut(6, Kept::None), [2, 2, 2, 2, 4, 2, 2, 2]);
        let mut lying = Replay::new(Image::default(), &log, Disk::Lying);
        let end = Cut { after: 6, kept: Kept::None, seed: 0 };
        assert_eq!(lying.cut(&end).unwrap().identity(&REGION), Image::default().identity(&REGION));
        assert_eq!(fills(&lying.end().unwrap()).0, [2, 2, 2, 2, 4, 2, 2, 2]);
    }

    #[test]
    fn the_plan_has_the_prefixes_and_the_random_cuts_asked_for() {
        let file = recorded();
        let log = Log::open(file.path()).unwrap();
        let plan = Plan { prefixes: 50, random: 20, seed: 7 };
        let at = |cuts: &[Cut], kept: Kept| -> Vec<usize> {
            cuts.iter().filter(|cut| cut.kept == kept).map(|cut| cut.after).collect()
        };
        let cuts = plan.cuts(&log, &[]);
        assert_eq!(at(&cuts, Kept::All), [0, 1, 3, 4, 5]);
        assert_eq!(at(&cuts, Kept::None), [1, 3, 4, 5]);
        assert_eq!(cuts.len(), 5 + 4 + 20);
        assert!(cuts.is_sorted_by_key(|cut| cut.after));
        assert_eq!(cuts, plan.cuts(&log, &[]));
        let parts = plan.cuts(&log, &[2]);
        assert_eq!(parts.len(), 5 + 4 + 2 * 20);
        assert_eq!(parts.iter().filter(|cut| cut.after == 1).count(), 2 + 20);
        let few = Plan { prefixes: 1, ..plan }.cuts(&log, &[2]);
        assert_eq!(at(&few, Kept::All), [0, 1, 3]);
    }
}

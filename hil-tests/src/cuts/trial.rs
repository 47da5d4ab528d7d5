//! Cuts the power at every write of a recording, and counts what that would have cost.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::gpt::partition;
use super::image::Image;
use super::judge::{Found, Judge};
use super::log::Log;
use super::replay::{Cut, Disk, Replay};
use super::slots::{self, Choice};

/// How many failures are told.
const TOLD: usize = 12;
/// Letters of one failure.
const LONGEST: usize = 400;
/// Letters of what was mended.
const GIST: usize = 100;

/// A disk while something wrote to it, and what its users were told meanwhile.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The disk before the first write, as a raw image.
    pub base: PathBuf,
    /// What was written, as QEMU's `blklogwrites` wrote it down.
    pub log: PathBuf,
    /// What was acknowledged, in any order.
    pub promises: Vec<Promise>,
}

/// An acknowledgement: this device is recorded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Promise {
    /// The account that logged in.
    pub account: String,
    /// What the client called itself, as no other did (IMAP ID).
    pub client: String,
    /// How many requests of the log had been completed and flushed when the client heard it ([`super::log::flushed`]).
    pub after: usize,
}

/// What to look for on a disk after a cut.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Judges the data partition.
    pub judge: Judge,
    /// What must boot, whenever the power is cut; `None`: the disk has no slots.
    pub slot: Option<Choice>,
}

/// The names of the partitions that are judged.
const DATA: &str = "postern-data";
const STATE: &str = "postern-state";

/// What came of all cuts.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Requests in the log, and flushes among them.
    pub requests: usize,
    /// See [`Tally::requests`].
    pub flushes: usize,
    /// Acknowledgements.
    pub promises: usize,
    /// Power cuts.
    pub cuts: usize,
    /// Different data partitions among them.
    pub images: usize,
    /// Cuts with at least one acknowledgement before them.
    pub promised: usize,
    /// Cuts that left no file system: the box makes one.
    pub blank: usize,
    /// Cuts after which a box would lack something acknowledged.
    pub losses: usize,
    /// Cuts after which the gateway would not start.
    pub refused: usize,
    /// Cuts that left a data partition which the box cannot mend, or a file by halves.
    pub damaged: usize,
    /// Cuts that left a data partition which the journal alone does not mend: the box checks all of it, and says so.
    pub repaired: usize,
    /// Cuts after which another firmware would boot.
    pub wrong_slots: usize,
    /// What box and gateway mended, and on how many data partitions; nothing is lost by that.
    pub mended: BTreeMap<String, usize>,
    /// The first failures in words.
    pub failures: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

impl Tally {
    /// Whether no cut cost anything.
    pub fn is_clean(&self) -> bool {
        self.losses + self.refused + self.damaged + self.wrong_slots == 0
    }

    fn fail(&mut self, cut: &Cut, what: impl fmt::Display) {
        if self.failures.len() < TOLD {
            let what: String = what.to_string().chars().take(LONGEST).collect();
            let Cut { after, kept, seed } = cut;
            self.failures.push(format!("cut after request {after} ({kept:?}, seed {seed}): {what}"));
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} power cuts in {} requests ({} flushes, {} acknowledgements): {} different data partitions, {} cuts after an \
             acknowledgement, {} before there was a file system; lost {}, would not open {}, damaged {}, wrong slot {}; \
             repaired {}; \
             {:.0?}",
            self.cuts,
            self.requests,
            self.flushes,
            self.promises,
            self.images,
            self.promised,
            self.blank,
            self.losses,
            self.refused,
            self.damaged,
            self.wrong_slots,
            self.repaired,
            self.took
        )?;
        self.mended.iter().try_for_each(|(what, count)| write!(f, "\n  {count} times {what}"))?;
        self.failures.iter().try_for_each(|failure| write!(f, "\n  {failure}"))
    }
}

/// One cut's outcome but for its data partition, which others may share.
struct Outcome {
    cut: Cut,
    /// Which data partition; an error: why there is none.
    data: Result<u64, String>,
    slot: Option<Choice>,
}

/// Judges these cuts, which come in the order of the log, on a disk of this kind.
///
/// # Errors
/// The recording cannot be read, or the judge fails. What the cuts cost is in the tally.
pub fn run(recording: &Recording, expected: &Expected, disk: Disk, log: &Log, cuts: &[Cut]) -> Result<Tally> {
    let start = Instant::now();
    let base = Image::read(&recording.base)?;
    let last = recording.promises.iter().map(|promise| promise.after).max().unwrap_or(0);
    ensure!(last <= log.entries().len(), "an acknowledgement lies behind the end of the log");
    let (outcomes, founds) = judge_all(base, expected, disk, log, cuts)?;
    let mut tally = Tally {
        requests: log.entries().len(),
        flushes: log.entries().iter().filter(|entry| entry.flush).count(),
        promises: recording.promises.len(),
        cuts: cuts.len(),
        images: founds.len(),
        mended: mended(&founds),
        ..Tally::default()
    };
    for outcome in &outcomes {
        let no_table;
        let found = match &outcome.data {
            Ok(data) => founds.get(data).context("an image was not judged")?,
            Err(why) => {
                no_table = Found { damage: Some(why.clone()), ..Found::default() };
                &no_table
            }
        };
        count(&mut tally, outcome, found, recording, expected);
    }
    tally.took = start.elapsed();
    Ok(tally)
}

/// What was mended in file systems and databases, without numbers and details, so that the like are counted together.
fn mended(founds: &Judged) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for told in founds.values().flat_map(|found| [&found.mended, &found.repaired]).flatten() {
        let gist: String = told.chars().filter(|c| !c.is_ascii_digit()).take(GIST).collect();
        *all.entry(gist).or_default() += 1;
    }
    all
}

fn count(tally: &mut Tally, outcome: &Outcome, found: &Found, recording: &Recording, expected: &Expected) {
    let cut = &outcome.cut;
    let due: Vec<&Promise> = recording.promises.iter().filter(|promise| promise.after <= cut.after).collect();
    tally.promised += usize::from(!due.is_empty());
    tally.blank += usize::from(found.is_blank);
    tally.repaired += usize::from(found.repaired.is_some());
    if let Some(damage) = &found.damage {
        tally.damaged += 1;
        tally.fail(cut, damage);
    }
    if let Some(refused) = &found.refused {
        tally.refused += 1;
        tally.fail(cut, refused);
    }
    let lost: Vec<&Promise> = due
        .into_iter()
        .filter(|promise| !found.devices.contains(&(promise.account.clone(), promise.client.clone())))
        .collect();
    if let Some(first) = lost.first() {
        tally.losses += 1;
        let what = format!(
            "{} acknowledged devices are lost, such as {} of {}; {} are there{}",
            lost.len(),
            first.client,
            first.account,
            found.devices.len(),
            found.mended.as_deref().map(|told| format!("; {told}")).unwrap_or_default()
        );
        tally.fail(cut, what);
    }
    if let (Some(slot), Some(wanted)) = (outcome.slot, expected.slot)
        && slot != wanted
    {
        tally.wrong_slots += 1;
        tally.fail(cut, format_args!("{slot:?} would boot, not {wanted:?}"));
    }
}

type Judged = HashMap<u64, Found>;
/// A data partition that is new: its identity, the disk, and where on it.
type Job = (u64, Image, Range<u64>);
/// Where the data and the state partition are, or why there is none.
type Places = (Result<Range<u64>, String>, Result<Range<u64>, String>);

/// Where the partition table is, its entries included, whether or not they were moved.
const TABLE: Range<u64> = 0..1 << 20;

/// Walks through the log and hands each data partition that is new to a judge, one for each processor.
fn judge_all(
    base: Image,
    expected: &Expected,
    disk: Disk,
    log: &Log,
    cuts: &[Cut],
) -> Result<(Vec<Outcome>, Judged)> {
    let all: Mutex<Judged> = Mutex::default();
    let judged = &all;
    let mut outcomes = Vec::with_capacity(cuts.len());
    let threads = thread::available_parallelism().map_or(2, usize::from);
    let (sender, receiver) = sync_channel::<Job>(threads * 2);
    let receiver = Arc::new(Mutex::new(receiver));
    thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                let receiver = Arc::clone(&receiver);
                scope.spawn(move || work(&expected.judge, &receiver, judged))
            })
            .collect();
        // The judges hold it from here on: when the last of them fails, sending fails, too.
        drop(receiver);
        let mut replay = Replay::new(base, log, disk);
        let mut seen = HashSet::new();
        let mut places: HashMap<u64, Places> = HashMap::new();
        for cut in cuts {
            let image = replay.cut(cut)?;
            let tables = image.identity(&TABLE);
            let (data, state) = places.entry(tables).or_insert_with(|| {
                [DATA, STATE].map(|name| partition(&image, name).map_err(|error| error.to_string())).into()
            });
            let identity = data.clone().map(|data| image.identity(&data).wrapping_add(data.end));
            let slot = expected
                .slot
                .map(|_| state.as_ref().map_or(Choice::Unknown, |state| slots::choice(&image, state.start)));
            outcomes.push(Outcome { cut: *cut, data: identity.clone(), slot });
            if let (Ok(identity), Ok(data)) = (identity, data)
                && seen.insert(identity)
                && sender.send((identity, image, data.clone())).is_err()
            {
                break;
            }
        }
        drop(sender);
        for worker in workers {
            worker.join().map_err(|_| anyhow::anyhow!("a judge panicked"))??;
        }
        Ok(())
    })?;
    Ok((outcomes, all.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

fn work(judge: &Judge, queue: &Mutex<Receiver<Job>>, judged: &Mutex<Judged>) -> Result<()> {
    let table = judge.table()?;
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((identity, image, data)) = next else { return Ok(()) };
        let found = table.judge(&image, &data)?;
        judged.lock().unwrap_or_else(PoisonError::into_inner).insert(identity, found);
    }
}

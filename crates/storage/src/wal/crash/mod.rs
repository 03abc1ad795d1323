//! Every way in which the power can fail under the log.
//!
//! A random life of [`Wal`] is recorded as the trace of its disk operations. Before each of them the power is cut, in every way of
//! [`disk`], and what is left is recovered. It must be a legal state, and the log must go on from there:
//!
//! - what was acknowledged is there, whole, and hard states have not gone back;
//! - nothing is there that was not written, and no shard's log has a hole;
//! - after recovery the log takes more records, and a second recovery finds these and the first ones.
//!
//! Now and then life goes on from such a state instead, after a power cut or after the process alone was killed, so that
//! recovery's own operations become part of the trace.

mod disk;
mod planted;
#[cfg(test)]
mod tests;
mod workload;

pub(crate) use disk::Disk;
pub use planted::Planted;
pub(crate) use workload::{Model, Workload};

use super::{Damage, DiskOp, FileName, LogRecord, Part, Preparation, Recovered, Wal, WalError, WalIdentity, WalLimits};
use bytes::Bytes;
use planted::Saboteur;
use quorate_env::{ClusterId, Incarnation, LogIndex, NodeId, Rng, ShardId};
use std::collections::BTreeSet;
use std::fmt;

const ME: WalIdentity = WalIdentity { cluster: ClusterId(7), node: NodeId(1), incarnation: Incarnation(0xC0FFEE) };

/// Small, so that segments change often.
const LIMITS: WalLimits =
    WalLimits { segment_bytes: 32 << 10, record_bytes: 6 << 10, segments_target: 3, rewrite_bytes: 4 << 10 };

const SHARDS: u64 = 3;

/// Batches in one recorded life. The next one has the next seed.
const STEPS: u64 = 200;

/// States tried at one point of a trace at most: a large flush beside a change of the directory has thousands.
const STATES_PER_POINT_MAX: usize = 150;

/// Of a thousand states, how many are where life goes on: a few per recorded life.
const LIVES: u64 = 1;

/// What to enumerate.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The first life.
    pub seed: u64,
    /// Stops at the first life's end behind this many states.
    pub states: u64,
    /// A bug to be found.
    pub planted: Option<Planted>,
}

/// What was tried, and what happened while it was.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Recorded lives, each with its own seed.
    pub traces: u64,
    /// Points at which the power was cut: one before each operation.
    pub points: u64,
    /// States that were recovered.
    pub states: u64,
    /// Recovered logs that differ.
    pub distinct: BTreeSet<u64>,
    /// States in which a torn flush was cut off.
    pub torn: u64,
    /// States in which an unacknowledged record survived.
    pub unacknowledged: u64,
    /// Times that life went on from such a state.
    pub lives: u64,
    /// Segments made, renamed and deleted.
    pub segments: (u64, u64, u64),
    /// Flushes that wrote live records forward.
    pub rewrites: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (made, renamed, deleted) = self.segments;
        write!(
            f,
            "{} states at {} points of {} traces, {} distinct logs recovered; torn flushes cut {}, unacknowledged records kept {}, lives \
             that went on {}; segments made {made}, recycled {renamed}, deleted {deleted}; rewrites {}",
            self.states,
            self.points,
            self.traces,
            self.distinct.len(),
            self.torn,
            self.unacknowledged,
            self.lives,
            self.rewrites
        )
    }
}

/// A state that is not legal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed}, batch {step}: {rule}")]
pub struct Violation {
    /// The life, for [`Options::seed`].
    pub seed: u64,
    /// The batch in it.
    pub step: u64,
    /// What is wrong.
    pub rule: Rule,
}

/// What can be wrong with a recovered state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    /// A crash is no reason to refuse a log.
    #[error("after a crash the log is refused: {0}")]
    Refused(WalError),
    /// A crash is no damage, and is not reported as such.
    #[error("after a crash damage is reported: {0:?}")]
    FalseAlarm(Damage),
    /// The shard's log is not one that it had since the last acknowledgement.
    #[error("the log of {0} lost what was acknowledged, or holds what was not written")]
    LostOrInvented(ShardId),
    /// Each shard's log is one that it had, but not at the same time.
    #[error("the logs of several shards are of different moments")]
    NotOneMoment,
    /// What is written after recovery must be found by the next one, beside what the first one found.
    #[error("a log that went on after recovery was lost: {0}")]
    DoesNotGoOn(String),
}

/// Tries power cuts until there were enough, or one of them breaks the log.
///
/// # Errors
/// The first state that is not legal.
pub fn enumerate(options: &Options) -> Result<Report, Box<Violation>> {
    let mut report = Report::default();
    while report.states < options.states {
        let seed = options.seed + report.traces;
        report.traces += 1;
        let mut life = Life::begin(seed, options.planted);
        for step in 0..STEPS {
            let fail = |rule| Box::new(Violation { seed, step, rule });
            life.step(step, &mut report).map_err(fail)?;
            if report.states >= options.states {
                break;
            }
        }
    }
    Ok(report)
}

/// One thing in a trace.
enum Event {
    Op(DiskOp),
    /// Whoever wrote the batch hears that it is durable.
    Acknowledged,
}

struct Life {
    rng: Rng,
    workload: Workload,
    disk: Disk,
    wal: Wal,
    model: Model,
    saboteur: Saboteur,
    /// A segment is being prepared on the other thread: its operations that are still to come.
    preparing: Option<(Preparation, Vec<DiskOp>)>,
    /// What was begun and is not part of a trace yet: recovery's own operations, and what a crash among them may leave.
    beginning: Vec<DiskOp>,
    legal: Vec<Model>,
}

impl Life {
    fn begin(seed: u64, planted: Option<Planted>) -> Self {
        let rng = Rng::new(seed);
        let workload = Workload {
            rng: rng.split(1),
            written: 0,
            shards: SHARDS,
            payload_bytes_max: u64::from(LIMITS.record_bytes),
        };
        let (wal, ops) = Wal::create(ME, LIMITS);
        let (mut disk, mut saboteur) = (Disk::default(), Saboteur::new(planted));
        // A crash here leaves a directory without an identity, which is made again.
        saboteur.pass_on(ops).iter().for_each(|op| disk.run(op));
        let model = Model::default();
        let legal = vec![model.clone()];
        Self { rng, workload, disk, wal, model, saboteur, preparing: None, beginning: Vec::new(), legal }
    }

    /// Writes a batch, with the housekeeping that happens beside it, and tries a power cut before each operation.
    fn step(&mut self, step: u64, report: &mut Report) -> Result<(), Rule> {
        let began = std::mem::take(&mut self.beginning);
        let recovering = !began.is_empty();
        let (events, legal) = if recovering {
            let ops = self.saboteur.pass_on(began);
            let acknowledged = std::iter::once(Event::Acknowledged);
            (ops.into_iter().map(Event::Op).chain(acknowledged).collect(), std::mem::take(&mut self.legal))
        } else {
            let batch = self.workload.batch(&self.model, step < 3);
            let legal = self.model.with_each(&batch);
            self.model = legal[legal.len() - 1].clone();
            (self.write(&batch, report), legal)
        };
        let mut legal = &legal[..];
        let acknowledged = std::slice::from_ref(&self.model).to_vec();
        for event in &events {
            match event {
                Event::Acknowledged => legal = &acknowledged,
                Event::Op(op) => {
                    self.disk.run(op);
                    count(op, report);
                }
            }
            if let Some(continued) = self.cut(legal, report)? {
                *self = continued;
                return Ok(());
            }
        }
        Ok(())
    }

    /// The trace of one batch. Preparing a segment goes on beside it, as on another thread.
    fn write(&mut self, batch: &[LogRecord], report: &mut Report) -> Vec<Event> {
        let mut housekeeping = Vec::new();
        if self.preparing.is_none() && self.rng.chance(500) {
            self.preparing = self.wal.prepare().map(|preparation| {
                let ops = preparation.ops.clone();
                (preparation, ops)
            });
        }
        if self.wal.fitting(batch) < batch.len() {
            // The writer waits for its segment.
            self.prepare(usize::MAX, &mut housekeeping);
        }
        let mut before: Vec<Event> = self.saboteur.pass_on(housekeeping).into_iter().map(Event::Op).collect();
        let mut flushes = Vec::new();
        self.wal.append(batch, &mut flushes);
        let mut beside = Vec::new();
        let some = self.rng.below(4) as usize;
        self.prepare(some, &mut beside);
        let flushes = self.saboteur.pass_on(flushes);
        let beside = self.saboteur.pass_on(beside);
        before.extend(self.interleave(flushes, beside).into_iter().map(Event::Op));
        before.push(Event::Acknowledged);

        let mut after = Vec::new();
        if self.preparing.is_none() && self.rng.chance(300) {
            report.rewrites += u64::from(self.wal.rewrite(&mut after));
        }
        if self.preparing.is_none() && self.rng.chance(200) {
            self.wal.mark_durable(&mut after);
        }
        before.extend(self.saboteur.pass_on(after).into_iter().map(Event::Op));
        before
    }

    /// Takes up to `count` operations of the preparation that is under way.
    fn prepare(&mut self, count: usize, out: &mut Vec<DiskOp>) {
        let Some((preparation, mut rest)) = self.preparing.take() else { return };
        out.extend(rest.drain(..count.min(rest.len())));
        if rest.is_empty() {
            self.wal.finish_preparation(&preparation);
        } else {
            self.preparing = Some((preparation, rest));
        }
    }

    fn interleave(&mut self, one: Vec<DiskOp>, other: Vec<DiskOp>) -> Vec<DiskOp> {
        let (mut one, mut other) = (one.into_iter().peekable(), other.into_iter().peekable());
        let mut ops = Vec::new();
        while one.peek().is_some() || other.peek().is_some() {
            let first = if self.rng.chance(500) { &mut one } else { &mut other };
            ops.extend(first.next());
        }
        ops
    }

    /// Cuts the power here in every way. Says where life goes on, if it does.
    fn cut(&mut self, legal: &[Model], report: &mut Report) -> Result<Option<Self>, Rule> {
        report.points += 1;
        let survivals = self.disk.survivals(&mut self.rng, STATES_PER_POINT_MAX);
        for survival in survivals {
            let files = self.disk.after(&survival);
            report.states += 1;
            let (wal, recovered, ops) = self.recover(files.clone())?;
            report.torn += u64::from(recovered.torn.is_some());
            // The last sector of a body may hold a single one: losing it looks like a flipped bit, and is mended like one.
            if let Some(damage) = recovered.damage.iter().find(|damage| damage.part != Part::Records) {
                return Err(Rule::FalseAlarm(*damage));
            }
            let model = judge(recovered, legal)?;
            report.unacknowledged += u64::from(model != legal[0]);
            report.distinct.insert(model.digest());
            if self.rng.chance(LIVES) {
                report.lives += 1;
                // The process alone may have been killed: then nothing is lost yet, and nothing is durable either.
                let killed = self.rng.chance(500);
                return if killed {
                    let (wal, recovered, ops) = self.recover(self.disk.files())?;
                    let model = judge(recovered, legal)?;
                    Ok(Some(self.go_on(self.disk.clone(), wal, model, ops, legal.to_vec())))
                } else {
                    let legal = vec![model.clone()];
                    Ok(Some(self.go_on(Disk::holding(&files), wal, model, ops, legal)))
                };
            }
            self.check_that_it_goes_on(&files, wal, model, ops)?;
        }
        Ok(None)
    }

    fn recover(&self, mut files: Vec<(FileName, Bytes)>) -> Result<(Wal, Recovered, Vec<DiskOp>), Rule> {
        self.saboteur.read(&mut files);
        Wal::recover(ME, LIMITS, files).map_err(Rule::Refused)
    }

    fn go_on(&self, disk: Disk, wal: Wal, model: Model, beginning: Vec<DiskOp>, legal: Vec<Model>) -> Self {
        let workload = Workload { rng: self.workload.rng.clone(), ..self.workload };
        let (rng, saboteur) = (self.rng.clone(), self.saboteur.clone());
        Self { rng, workload, disk, wal, model, saboteur, preparing: None, beginning, legal }
    }

    /// Finishes recovery, writes to every shard, and recovers again.
    fn check_that_it_goes_on(
        &mut self,
        files: &[(FileName, Bytes)],
        mut wal: Wal,
        mut model: Model,
        ops: Vec<DiskOp>,
    ) -> Result<(), Rule> {
        let mut disk = Disk::holding(files);
        let mut saboteur = self.saboteur.clone();
        let mut ops = saboteur.repair(ops);
        let mut batch = Vec::new();
        for shard in (0..=SHARDS).map(ShardId) {
            let index = LogIndex(model.last_index(shard).0 + 1);
            batch.push(LogRecord::Entry(self.workload.entry(shard, index, 100)));
        }
        batch.iter().for_each(|record| model.apply(record));
        wal.append(&batch, &mut ops);
        wal.upkeep(&mut ops);
        saboteur.pass_on(ops).iter().for_each(|op| disk.run(op));
        match self.recover(disk.files()) {
            Ok((_, recovered, _)) if recovered.shards == model.shards => Ok(()),
            Ok(_) => Err(Rule::DoesNotGoOn(String::from("the second recovery found something else"))),
            Err(rule) => Err(Rule::DoesNotGoOn(rule.to_string())),
        }
    }
}

/// Whether what was recovered is one of the legal logs.
fn judge(recovered: Recovered, legal: &[Model]) -> Result<Model, Rule> {
    let model = Model { shards: recovered.shards };
    if legal.contains(&model) {
        return Ok(model);
    }
    let shards: BTreeSet<ShardId> =
        legal.iter().chain([&model]).flat_map(|model| model.shards.keys().copied()).collect();
    let never =
        shards.into_iter().find(|shard| legal.iter().all(|legal| legal.shards.get(shard) != model.shards.get(shard)));
    Err(never.map_or(Rule::NotOneMoment, Rule::LostOrInvented))
}

fn count(op: &DiskOp, report: &mut Report) {
    match op {
        DiskOp::Create { .. } => report.segments.0 += 1,
        DiskOp::Rename { .. } => report.segments.1 += 1,
        DiskOp::Delete { .. } => report.segments.2 += 1,
        DiskOp::Write { .. } | DiskOp::Sync { .. } | DiskOp::SyncDir => {}
    }
}

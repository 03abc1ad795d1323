//! The log on a disk that crashes at every operation, loses any unsynced sector, and rots.

use super::*;
use quorate_env::Rng;
use std::collections::BTreeMap;

const SECTOR: usize = 512;

const ME: WalIdentity = WalIdentity { cluster: ClusterId(7), node: NodeId(1), incarnation: Incarnation(0xC0FFEE) };

const SMALL: WalLimits =
    WalLimits { segment_bytes: 64 << 10, record_bytes: 12 << 10, segments_target: 3, rewrite_bytes: 8 << 10 };

#[derive(Clone, Default)]
struct Inode {
    durable: Vec<u8>,
    now: Vec<u8>,
}

/// A disk that remembers what was synced and what was only written.
#[derive(Clone, Default)]
struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<FileName, usize>,
    /// The directory after the last sync, and after each change since.
    durable_names: Vec<BTreeMap<FileName, usize>>,
}

impl Disk {
    fn run(&mut self, op: &DiskOp) {
        match op {
            DiskOp::Create { file, bytes } => {
                self.names.insert(*file, self.inodes.len());
                self.inodes.push(Inode { durable: Vec::new(), now: vec![0; *bytes as usize] });
                self.durable_names.push(self.names.clone());
            }
            DiskOp::Write { file, offset, bytes } => {
                assert!(bytes.len() % BLOCK == 0 && *offset % BLOCK as u64 == 0);
                let at = *offset as usize;
                self.inodes[self.names[file]].now[at..at + bytes.len()].copy_from_slice(bytes);
            }
            DiskOp::Sync { file } => {
                let inode = &mut self.inodes[self.names[file]];
                inode.durable.clone_from(&inode.now);
            }
            DiskOp::Rename { from, to } => {
                assert!(!self.names.contains_key(to), "{to} is taken");
                let inode = self.names.remove(from).unwrap();
                self.names.insert(*to, inode);
                self.durable_names.push(self.names.clone());
            }
            DiskOp::SyncDir => self.durable_names = vec![self.names.clone()],
            DiskOp::Delete { file } => {
                self.names.remove(file);
                self.durable_names.push(self.names.clone());
            }
        }
    }

    /// What is found after a power cut: the directory at some moment since its last sync, and any subset of the unsynced sectors.
    fn crash(&self, rng: &mut Rng) -> Disk {
        let names = rng.pick(&self.durable_names).cloned().unwrap_or_default();
        let mut disk = Disk::default();
        let keep = *rng.pick(&[0, 100, 500, 900, 1000]).unwrap();
        for (file, inode) in names {
            let Inode { durable, now } = &self.inodes[inode];
            let len = if durable.len() == now.len() || rng.chance(500) { now.len() } else { durable.len() };
            let mut found = durable.clone();
            found.resize(len, 0);
            if durable != now {
                for (sector, written) in found.chunks_mut(SECTOR).zip(now.chunks(SECTOR)) {
                    if sector != written && rng.chance(keep) {
                        sector.copy_from_slice(&written[..sector.len()]);
                    }
                }
            }
            disk.names.insert(file, disk.inodes.len());
            disk.inodes.push(Inode { durable: found.clone(), now: found });
        }
        disk.durable_names = vec![disk.names.clone()];
        disk
    }

    fn files(&self) -> Vec<(FileName, Bytes)> {
        self.names.iter().map(|(file, inode)| (*file, self.inodes[*inode].now.clone().into())).collect()
    }

    fn bytes(&self) -> usize {
        self.names.values().map(|inode| self.inodes[*inode].now.len()).sum()
    }
}

/// What the log should hold, by the plainest code there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    shards: BTreeMap<ShardId, RecoveredLog>,
}

impl Model {
    fn apply(&mut self, record: &LogRecord) {
        match record {
            LogRecord::Entry(entry) => {
                let log = self.shards.entry(entry.shard).or_default();
                log.entries.retain(|old| old.index < entry.index);
                if entry.index > log.start.0 {
                    log.entries.push(entry.clone());
                }
            }
            LogRecord::HardState(hard_state) => {
                self.shards.entry(hard_state.shard).or_default().hard_state = Some(*hard_state);
            }
            LogRecord::Start { shard, index, term, discard_after } => {
                let log = self.shards.entry(*shard).or_default();
                log.start = (*index, *term);
                log.entries.retain(|old| old.index > *index && !discard_after);
            }
        }
    }
}

struct Workload {
    rng: Rng,
    written: u64,
    shards: u64,
}

impl Workload {
    /// A few records that make sense after `model`. Shard 0 is quiet: it gets a few records at the start and then nothing more.
    fn batch(&mut self, model: &Model, quiet_too: bool) -> Vec<LogRecord> {
        let mut model = model.clone();
        let mut batch = Vec::new();
        for _ in 0..self.rng.between(1, 5) {
            let shard = ShardId(if quiet_too { 0 } else { self.rng.between(1, self.shards) });
            let log = model.shards.entry(shard).or_default().clone();
            let last = log.entries.last().map_or(log.start.0, |entry| entry.index);
            self.written += 1;
            let record = match self.rng.below(10) {
                0 => LogRecord::HardState(HardState {
                    shard,
                    replica: ReplicaId(3),
                    term: Term(self.written),
                    vote: ReplicaId(self.rng.below(3)),
                    commit: last,
                }),
                1 if !quiet_too && log.entries.len() > 4 => {
                    let index = LogIndex(self.rng.between(log.start.0.0 + 1, last.0));
                    LogRecord::Start { shard, index, term: Term(self.written), discard_after: false }
                }
                2 if self.rng.chance(100) => {
                    let index = LogIndex(last.0 + self.rng.below(4));
                    LogRecord::Start { shard, index, term: Term(self.written), discard_after: true }
                }
                _ => {
                    let conflict = !log.entries.is_empty() && self.rng.chance(100);
                    let index = if conflict { self.rng.between(log.start.0.0 + 1, last.0) } else { last.0 + 1 };
                    let len = if self.rng.chance(100) { self.rng.below(12 << 10) } else { self.rng.below(600) };
                    let mut payload = format!("payload {} of {shard}.", self.written).into_bytes();
                    payload.resize(payload.len().max(len as usize), self.written as u8);
                    let kind = self.written as u8;
                    LogRecord::Entry(LogEntry {
                        shard,
                        index: LogIndex(index),
                        term: Term(self.written),
                        kind,
                        payload: payload.into(),
                    })
                }
            };
            model.apply(&record);
            batch.push(record);
        }
        // Groups compact their logs in time, as snapshots do in a real node.
        for (&shard, log) in &model.shards {
            if log.entries.len() > 30 && shard != ShardId(0) {
                let index = log.entries[log.entries.len() - 10].index;
                batch.push(LogRecord::Start { shard, index, term: Term(1), discard_after: false });
            }
        }
        batch
    }
}

fn recover(disk: &Disk) -> Result<(Wal, Recovered, Vec<DiskOp>), WalError> {
    Wal::recover(ME, SMALL, disk.files())
}

/// Crashes `before` + some prefix of `ops` in some way, and recovers; and crashes within recovery too. The result must be one
/// of `allowed`. Returns where life went on.
fn crash_and_check(
    disk: &Disk,
    ops: &[DiskOp],
    executed: usize,
    allowed: &[Model],
    rng: &mut Rng,
    what: &str,
) -> (Disk, Wal, Model) {
    let mut disk = disk.clone();
    ops[..executed].iter().for_each(|op| disk.run(op));
    disk = disk.crash(rng);
    let mut allowed = allowed.to_vec();
    for life in 0..3 {
        let (wal, recovered, ops) =
            recover(&disk).unwrap_or_else(|e| panic!("{what}, {executed} of the operations done, life {life}: {e}"));
        let model = Model { shards: recovered.shards };
        assert!(allowed.contains(&model), "{what}, {executed} operations done, life {life}: lost or invented records");
        if life < 2 && rng.chance(300) {
            // Power fails again while the log recovers. What was recovered may be lost again until recovery is done.
            let done = rng.below(ops.len() as u64 + 1) as usize;
            ops[..done].iter().for_each(|op| disk.run(op));
            if done == ops.len() {
                allowed = vec![model];
            }
            disk = disk.crash(rng);
            continue;
        }
        ops.iter().for_each(|op| disk.run(op));
        return (disk, wal, model);
    }
    unreachable!("the last life always goes on")
}

#[test]
fn every_acknowledged_record_survives_a_crash_at_any_operation() {
    let mut torn_or_cut = 0;
    for seed in 0..25 {
        let mut rng = Rng::new(seed);
        let mut workload = Workload { rng: rng.split(1), written: 0, shards: 3 };
        let mut disk = Disk::default();
        let (mut wal, ops) = Wal::create(ME, SMALL);
        ops.iter().for_each(|op| disk.run(op));
        let mut model = Model::default();
        for step in 0..120 {
            let batch = workload.batch(&model, step < 3);
            let before = model.clone();
            let mut allowed = vec![before.clone()];
            for record in &batch {
                model.apply(record);
                allowed.push(model.clone());
            }
            let mut ops = Vec::new();
            wal.append(&batch, &mut ops);
            let acknowledged = ops.len();
            if rng.chance(500) {
                wal.upkeep(&mut ops);
            }
            if rng.chance(200) {
                wal.mark_durable(&mut ops);
            }
            for executed in 0..=ops.len() {
                let allowed = if executed >= acknowledged { &allowed[batch.len()..] } else { &allowed[..] };
                let what = format!("seed {seed} step {step}");
                let (crashed, recovered, held) = crash_and_check(&disk, &ops, executed, allowed, &mut rng, &what);
                if held == before {
                    torn_or_cut += 1;
                }
                if rng.chance(15) {
                    // Life goes on from here instead.
                    (disk, wal, model) = (crashed, recovered, held);
                    ops.clear();
                    break;
                }
            }
            ops.iter().for_each(|op| disk.run(op));
        }
    }
    assert!(torn_or_cut > 1000, "the crashes did not bite");
}

/// A long undisturbed life, everything acknowledged.
fn long_life(seed: u64, steps: usize) -> (Disk, Model, Wal) {
    let mut workload = Workload { rng: Rng::new(seed), written: 0, shards: 4 };
    let (mut wal, mut ops) = Wal::create(ME, SMALL);
    let (mut disk, mut model) = (Disk::default(), Model::default());
    for step in 0..steps {
        let batch = workload.batch(&model, step < 5);
        wal.append(&batch, &mut ops);
        batch.iter().for_each(|record| model.apply(record));
        wal.upkeep(&mut ops);
        ops.drain(..).for_each(|op| disk.run(&op));
    }
    (disk, model, wal)
}

#[test]
fn space_stays_bounded_although_a_quiet_group_never_compacts() {
    let mut most = 0;
    let mut workload = Workload { rng: Rng::new(5), written: 0, shards: 4 };
    let (mut wal, mut ops) = Wal::create(ME, SMALL);
    let (mut disk, mut model) = (Disk::default(), Model::default());
    let mut created = 0;
    for step in 0..4000 {
        let batch = workload.batch(&model, step < 10);
        wal.append(&batch, &mut ops);
        batch.iter().for_each(|record| model.apply(record));
        wal.upkeep(&mut ops);
        created += ops.iter().filter(|op| matches!(op, DiskOp::Create { .. })).count();
        ops.drain(..).for_each(|op| disk.run(&op));
        let live = wal.stats().live_bytes as usize;
        let segment = SMALL.segment_bytes as usize;
        assert!(disk.bytes() <= 2 * live + (SMALL.segments_target as usize + 4) * segment, "step {step}");
        assert_eq!(disk.bytes() as u64, wal.stats().disk_bytes);
        most = most.max(disk.bytes());
    }
    let written = wal.stats().flushes * BLOCK as u64;
    assert!(written > 8 * most as u64, "the workload was too small to prove anything");
    assert!(created < 40, "segments must be recycled, not created: {created}");
    let (_, recovered, _) = recover(&disk).unwrap();
    assert!(recovered.shards == model.shards);
    assert!(!recovered.shards[&ShardId(0)].entries.is_empty(), "the quiet group lost its log");
}

#[test]
fn one_flipped_bit_is_never_silent() {
    let (mut rot, mut harmless) = (0, 0);
    for seed in 0..6 {
        let (disk, model, _) = long_life(seed, 150 + seed as usize * 7);
        let mut rng = Rng::new(seed).split(9);
        for _ in 0..300 {
            let mut files = disk.files();
            let which = rng.below(files.len() as u64) as usize;
            let mut bytes = files[which].1.to_vec();
            let bit = rng.below(bytes.len() as u64 * 8) as usize;
            bytes[bit / 8] ^= 1 << (bit % 8);
            files[which].1 = bytes.into();
            match Wal::recover(ME, SMALL, files) {
                Ok((_, recovered, _)) => {
                    harmless += 1;
                    assert!(recovered.shards == model.shards, "seed {seed}: lost silently: bit {bit} of file {which}");
                }
                Err(WalError::Rot { .. }) => rot += 1,
                Err(e) => panic!("seed {seed}: {e}"),
            }
        }
    }
    assert!(rot > 300 && harmless > 50, "{rot} reported, {harmless} harmless");
}

#[test]
fn rot_in_a_payload_names_the_entry_that_was_hit() {
    for seed in 0..4 {
        let (disk, model, _) = long_life(seed, 120);
        let mut rng = Rng::new(seed).split(3);
        for entry in model.shards.values().flat_map(|log| &log.entries) {
            let mut files = disk.files();
            // A rewritten entry may lie there twice: then both are hit.
            for (_, bytes) in &mut files {
                let Some(at) = find(bytes, &entry.payload) else { continue };
                let mut damaged = bytes.to_vec();
                // Garbage over many bytes, not one bit; never the last flush of the log, which could not be told from a torn one.
                let hit = at + rng.below(entry.payload.len() as u64) as usize;
                damaged[hit] ^= 0xFF;
                *bytes = damaged.into();
            }
            match Wal::recover(ME, SMALL, files) {
                Err(WalError::Rot { shard, index, .. }) => {
                    assert_eq!((shard, index), (Some(entry.shard), Some(entry.index)));
                }
                Ok((_, recovered, _)) => {
                    // The last flush and no mark behind it: cut, and reported as torn.
                    assert!(recovered.torn.is_some(), "seed {seed}: {} {} vanished", entry.shard, entry.index);
                }
                Err(e) => panic!("seed {seed}: {e}"),
            }
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[test]
fn once_marked_even_the_last_record_cannot_rot_unnoticed() {
    let (mut disk, _, mut wal) = long_life(11, 60);
    let (mut quiet, mut ops) = (Vec::new(), Vec::new());
    let last = LogRecord::HardState(HardState {
        shard: ShardId(2),
        replica: ReplicaId(9),
        term: Term(1 << 40),
        vote: ReplicaId(9),
        commit: LogIndex(1),
    });
    wal.append(&[last], &mut ops);
    wal.mark_durable(&mut ops);
    wal.mark_durable(&mut quiet);
    assert!(quiet.is_empty(), "one mark is enough");
    let Some(DiskOp::Write { file, offset, .. }) = ops.first().cloned() else { panic!("{ops:?}") };
    ops.iter().for_each(|op| disk.run(op));
    // The whole block is lost, which without the mark would be a torn write.
    let inode = disk.names[&file];
    disk.inodes[inode].now[offset as usize..offset as usize + 4096].fill(0x5A);
    assert!(matches!(recover(&disk), Err(WalError::Rot { file: at, .. }) if at == file));
}

#[test]
fn a_missing_segment_is_missed() {
    let (disk, model, _) = long_life(3, 300);
    let files = disk.files();
    assert!(files.len() > 3);
    let mut noticed = 0;
    for gone in 0..files.len() {
        let mut rest = files.clone();
        rest.remove(gone);
        match Wal::recover(ME, SMALL, rest) {
            Ok((_, recovered, _)) => assert!(recovered.shards == model.shards, "file {gone} was needed"),
            Err(WalError::Missing { file }) => {
                assert_eq!(file, files[gone].0);
                noticed += 1;
            }
            Err(e) => panic!("{e}"),
        }
    }
    assert!(noticed > 0);
}

#[test]
fn a_log_of_somebody_else_or_of_a_newer_release_is_refused() {
    let (disk, _, _) = long_life(1, 5);
    let somebody = WalIdentity { incarnation: Incarnation(1), ..ME };
    assert!(matches!(Wal::recover(somebody, SMALL, disk.files()), Err(WalError::Foreign { .. })));
    assert_eq!(Wal::recover(ME, SMALL, Vec::new()).err(), Some(WalError::Empty));

    let mut files = disk.files();
    let mut newer = files[0].1.to_vec();
    newer[8] = 2;
    let sum = quorate_env::checksum::checksum(format::SEGMENT_MAGIC, &newer[..56]);
    newer[56..64].copy_from_slice(&sum.to_le_bytes());
    files[0].1 = newer.into();
    assert_eq!(
        Wal::recover(ME, SMALL, files.clone()).err(),
        Some(WalError::NewerFormat { file: files[0].0, found: 2 })
    );
}

#[test]
fn hostile_files_are_refused_without_a_panic() {
    let (disk, _, _) = long_life(2, 40);
    let mut rng = Rng::new(77);
    for _ in 0..300 {
        let mut files = disk.files();
        for (_, bytes) in &mut files {
            let mut damaged = bytes.to_vec();
            match rng.below(4) {
                0 => damaged.truncate(rng.below(damaged.len() as u64) as usize),
                1 => (0..20).for_each(|_| {
                    let at = rng.below(damaged.len() as u64) as usize;
                    damaged[at] = rng.next_u64() as u8;
                }),
                2 => damaged.extend_from_slice(&[0xA5; 5000]),
                _ => {}
            }
            *bytes = damaged.into();
        }
        let _ = Wal::recover(ME, SMALL, files);
    }
}

#[test]
fn the_largest_record_fits_and_a_batch_may_span_segments() {
    let (mut wal, mut ops) = Wal::create(ME, WalLimits::default());
    let mut disk = Disk::default();
    let entry = |index, bytes| {
        LogRecord::Entry(LogEntry {
            shard: ShardId(1),
            index: LogIndex(index),
            term: Term(1),
            kind: 0,
            payload: vec![index as u8; bytes].into(),
        })
    };
    let batch = [entry(1, RECORD_BYTES_MAX), entry(2, RECORD_BYTES_MAX), entry(3, 0)];
    assert_eq!(wal.fitting(&batch), 1, "two of the largest need a second segment");
    let mut model = Model::default();
    batch.iter().for_each(|record| model.apply(record));
    wal.upkeep(&mut ops);
    assert_eq!(wal.fitting(&batch), 3);
    wal.append(&batch, &mut ops);
    ops.iter().for_each(|op| disk.run(op));
    let (_, recovered, _) = Wal::recover(ME, WalLimits::default(), disk.files()).unwrap();
    assert!(recovered.shards == model.shards);
}

#[test]
fn file_names_are_read_back() {
    let file = FileName(0x1F);
    assert_eq!(file.to_string(), "000000000000001f.wal");
    assert_eq!(FileName::parse(&file.to_string()), Some(file));
    for other in ["1f.wal", "000000000000001F.wal", "000000000000001f.tmp", "+00000000000001f.wal", "LOCK"] {
        assert_eq!(FileName::parse(other), None, "{other}");
    }
}

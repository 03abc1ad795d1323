//! The log in the long run, and what it refuses. Rot is in `rot`. What power cuts do to it is in `crash`.

mod rot;

use super::crash::{Disk, Model, Workload};
use super::*;
use quorate_env::Rng;

const ME: WalIdentity = WalIdentity { cluster: ClusterId(7), node: NodeId(1), incarnation: Incarnation(0xC0FFEE) };

const SMALL: WalLimits =
    WalLimits { segment_bytes: 64 << 10, record_bytes: 12 << 10, segments_target: 3, rewrite_bytes: 8 << 10 };

fn workload(seed: u64) -> Workload {
    Workload { rng: Rng::new(seed), written: 0, shards: 4, payload_bytes_max: u64::from(SMALL.record_bytes) }
}

fn recover(disk: &Disk) -> Result<(Wal, Recovered, Vec<DiskOp>), WalError> {
    Wal::recover(ME, SMALL, disk.files())
}

/// A long undisturbed life, everything acknowledged.
fn long_life(seed: u64, steps: usize) -> (Disk, Model, Wal) {
    let mut workload = workload(seed);
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
    let mut workload = workload(5);
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

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
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

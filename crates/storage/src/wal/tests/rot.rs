//! Bytes that change on the disk: every one of a log, one after the other.

use super::super::format::{FLUSH_HEADER, FlushHeader, TAIL};
use super::*;

/// So small that every byte can be tried.
const TINY: WalLimits =
    WalLimits { segment_bytes: 16 << 10, record_bytes: 4 << 10, segments_target: 3, rewrite_bytes: 2 << 10 };

/// A log of a few segments whose last flush is a mark, and what it holds.
fn marked_log(seed: u64) -> (Vec<(FileName, Bytes)>, Model) {
    let (mut wal, mut ops) = Wal::create(ME, TINY);
    let (mut disk, mut model) = (Disk::default(), Model::default());
    let mut workload = Workload { rng: Rng::new(seed), written: 0, shards: 2, payload_bytes_max: 3 << 10 };
    for step in 0..24 {
        let batch = workload.batch(&model, step < 2);
        wal.append(&batch, &mut ops);
        batch.iter().for_each(|record| model.apply(record));
        wal.upkeep(&mut ops);
    }
    wal.mark_durable(&mut ops);
    ops.iter().for_each(|op| disk.run(op));
    let files = disk.files();
    assert!(files.len() > 3, "several segments");
    (files, model)
}

/// The parts of a log that mean something: where each flush begins and ends, and which bytes of it are not padding.
fn flushes(files: &[(FileName, Bytes)]) -> Vec<(usize, usize, usize, usize)> {
    let mut found = Vec::new();
    for (number, (file, bytes)) in files.iter().enumerate() {
        let mut offset = BLOCK;
        while let Some(header) = FlushHeader::decode(&ME, *file, bytes, offset) {
            found.push((number, offset, offset + FLUSH_HEADER + header.body as usize, offset + header.disk_bytes()));
            offset += header.disk_bytes();
        }
    }
    found
}

fn with(files: &[(FileName, Bytes)], number: usize, change: impl FnOnce(&mut [u8])) -> Vec<(FileName, Bytes)> {
    let mut files = files.to_vec();
    let mut bytes = files[number].1.to_vec();
    change(&mut bytes);
    files[number].1 = bytes.into();
    files
}

/// Checks that each record of the model is handed out as it was or named as lost, and nothing else is. Returns what was named.
fn check(recovered: &Recovered, model: &Model, what: &str) -> Vec<(ShardId, Rotted)> {
    let mut named = Vec::new();
    assert_eq!(recovered.torn, None, "{what}: cut below the watermark");
    assert!(recovered.shards.keys().eq(model.shards.keys()), "{what}");
    for (shard, log) in &recovered.shards {
        let expected = &model.shards[shard];
        assert_eq!(log.start, expected.start, "{what}");
        match log.promises_lost {
            None => assert_eq!(log.hard_state, expected.hard_state, "{what}"),
            Some(lost) => {
                let had = expected.hard_state.expect("it had promised");
                assert_eq!((log.hard_state, lost.term, lost.commit), (None, had.term, had.commit), "{what}");
            }
        }
        let (mut entries, mut rotted) = (log.entries.iter().peekable(), log.rotted.iter().peekable());
        for entry in &expected.entries {
            if entries.next_if(|found| *found == entry).is_none() {
                let lost = rotted.next_if(|lost| lost.was(entry));
                named
                    .push((*shard, lost.unwrap_or_else(|| panic!("{what}: {shard} {} vanished", entry.index)).clone()));
            }
        }
        assert!(entries.next().is_none() && rotted.next().is_none(), "{what}: invented");
    }
    named
}

#[test]
fn one_flipped_bit_is_turned_back_in_whichever_byte_it_is() {
    let (files, model) = marked_log(1);
    for (number, begin, records_end, end) in flushes(&files) {
        for at in (begin..records_end).chain(end - TAIL..end) {
            let what = format!("bit {} of byte {at} of file {number}", at % 8);
            let files = with(&files, number, |bytes| bytes[at] ^= 1 << (at % 8));
            let (_, recovered, _) = Wal::recover(ME, TINY, files).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(check(&recovered, &model, &what), [], "{what}");
            let [damage] = recovered.damage[..] else { panic!("{what}: {:?}", recovered.damage) };
            assert!((begin as u64..end as u64).contains(&damage.offset), "{what}: {damage:?}");
            let part = if at < begin + FLUSH_HEADER {
                Part::FlushHeader
            } else if at < records_end {
                Part::Records
            } else {
                Part::Tail
            };
            assert_eq!((damage.part, damage.file), (part, FileName(damage.file.0)), "{what}");
        }
    }
}

#[test]
fn a_bit_flipped_in_a_segments_header_or_in_padding_does_no_harm() {
    let (files, model) = marked_log(2);
    let known = flushes(&files);
    for (number, (file, bytes)) in files.iter().enumerate() {
        let used = |at: usize| {
            known.iter().any(|(n, begin, records, end)| {
                *n == number && (*begin..*records).contains(&at) || (end - TAIL..*end).contains(&at)
            })
        };
        let in_use = known.iter().any(|(n, ..)| *n == number);
        for at in (0..64).chain((64..bytes.len()).step_by(61)).filter(|at| *at < BLOCK || !used(*at)) {
            let what = format!("byte {at} of {file}");
            let files = with(&files, number, |bytes| bytes[at] ^= 1 << (at % 8));
            let (_, recovered, _) = Wal::recover(ME, TINY, files).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(check(&recovered, &model, &what), []);
            let expected = (at < 64 && in_use).then_some(Damage { file: *file, offset: 0, part: Part::SegmentHeader });
            assert_eq!(recovered.damage, Vec::from_iter(expected), "{what}");
        }
    }
}

#[test]
fn a_garbled_byte_costs_at_most_the_record_it_lies_in_and_that_one_is_named_and_repaired() {
    let (files, model) = marked_log(3);
    let known = flushes(&files);
    let (mut lost, mut lost_promises) = (0, 0);
    // The last flush is the mark: what happens to it cannot be told from a torn write, and it holds nothing.
    for &(number, begin, records_end, end) in &known[..known.len() - 1] {
        for at in (begin..records_end).chain(end - TAIL..end) {
            let what = format!("byte {at} of file {number}");
            let files = with(&files, number, |bytes| bytes[at] ^= 0xFF);
            let (mut wal, recovered, mut ops) =
                Wal::recover(ME, TINY, files.clone()).unwrap_or_else(|e| panic!("{what}: {e}"));
            let named = check(&recovered, &model, &what);
            assert!(named.len() < 2, "{what}: {named:?}");
            assert_eq!(recovered.damage.len(), usize::from(at < records_end), "{what}");
            let promises = recovered.shards.values().filter(|log| log.promises_lost.is_some()).count();
            assert_eq!(recovered.require_whole().is_ok(), named.is_empty() && promises == 0, "{what}");
            lost_promises += promises;
            let Some((shard, rotted)) = named.first() else { continue };
            lost += 1;
            if lost % 16 != 0 {
                continue;
            }
            let entry = model.shards[shard].entries.iter().find(|entry| entry.index == rotted.index).unwrap();
            let other = LogEntry { payload: vec![0; entry.payload.len()].into(), ..entry.clone() };
            assert!(!wal.repair(&other, &mut ops), "{what}: another entry was put in its place");
            assert!(wal.repair(entry, &mut ops) && !wal.repair(entry, &mut ops), "{what}");
            let mut disk = Disk::holding(&files);
            ops.iter().for_each(|op| disk.run(op));
            let (_, recovered, _) = Wal::recover(ME, TINY, disk.files()).unwrap();
            assert_eq!(check(&recovered, &model, &what), [], "{what}: repaired");
        }
    }
    assert!(lost > 500 && lost_promises > 10, "{lost} entries and {lost_promises} promises were hit");
}

#[test]
fn a_lost_sector_is_restored_named_or_refused() {
    let (mut restored, mut named, mut refused) = (0, 0, 0);
    for seed in 4..8 {
        let (files, model) = marked_log(seed);
        let known = flushes(&files);
        for &(number, begin, _, end) in &known[..known.len() - 1] {
            for at in (begin..end).step_by(512) {
                let what = format!("seed {seed}, sector at {at} of file {number}");
                let damaged = with(&files, number, |bytes| bytes[at..at + 512].fill(0));
                if damaged == files {
                    continue;
                }
                match Wal::recover(ME, TINY, damaged) {
                    Ok((_, recovered, _)) if check(&recovered, &model, &what).is_empty() => restored += 1,
                    Ok(_) => named += 1,
                    Err(WalError::Rot { .. }) => refused += 1,
                    Err(e) => panic!("{what}: {e}"),
                }
            }
        }
    }
    assert!(restored > 100 && named > 20 && refused > 20, "{restored} restored, {named} named, {refused} refused");
}

#[test]
fn a_log_with_rotted_entries_goes_on_and_keeps_them_named() {
    let (files, mut model) = marked_log(9);
    let victim = model.shards[&ShardId(0)].entries[0].clone();
    let mut damaged = files;
    for number in 0..damaged.len() {
        // A rewritten entry may lie there twice.
        if let Some(at) = find(&damaged[number].1, &victim.payload) {
            damaged = with(&damaged, number, |bytes| bytes[at] ^= 0xFF);
        }
    }
    let mut disk = Disk::holding(&damaged);
    let (mut wal, _, mut ops) = Wal::recover(ME, TINY, disk.files()).unwrap();
    let mut workload = Workload { rng: Rng::new(99), written: 1000, shards: 2, payload_bytes_max: 3 << 10 };
    for _ in 0..100 {
        let batch = workload.batch(&model, false);
        wal.append(&batch, &mut ops);
        batch.iter().for_each(|record| model.apply(record));
        wal.upkeep(&mut ops);
        ops.drain(..).for_each(|op| disk.run(&op));
    }
    let (mut wal, recovered, mut ops) = Wal::recover(ME, TINY, disk.files()).unwrap();
    let named = check(&recovered, &model, "much later");
    assert_eq!(
        named.iter().map(|(shard, rotted)| (*shard, rotted.index)).collect::<Vec<_>>(),
        [(ShardId(0), victim.index)]
    );
    let segments = wal.stats().segments;
    assert!(wal.repair(&victim, &mut ops));
    for _ in 0..40 {
        wal.upkeep(&mut ops);
        ops.drain(..).for_each(|op| disk.run(&op));
    }
    assert!(wal.stats().segments < segments / 2, "the rotted entry no longer keeps its segment");
    let (_, recovered, _) = Wal::recover(ME, TINY, disk.files()).unwrap();
    assert_eq!(check(&recovered, &model, "repaired"), []);
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
    disk.run(&DiskOp::Write { file, offset, bytes: vec![0x5A; BLOCK].into() });
    assert!(matches!(recover(&disk), Err(WalError::Rot { file: at, .. }) if at == file));
}

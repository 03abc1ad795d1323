//! What the store and the log cost: `cargo run --release -p quorate-storage --example storage_cost [keys]`.
//!
//! Prints microseconds per operation. The store loads random keys in batches of 32 with 256-byte values, flushing at 32 MiB on a second
//! thread as a node does; the log encodes flushes without a disk, and recovers what it encoded.

use bytes::Bytes;
use quorate_env::{ClusterId, Incarnation, LogIndex, NodeId, Rng, ShardId, Term};
use quorate_storage::store::{FlushJob, LsmOptions, LsmStore, Store, WriteBatch};
use quorate_storage::wal::{DiskOp, FileName, LogEntry, LogRecord, Wal, WalIdentity, WalLimits};
use std::collections::BTreeMap;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

fn main() {
    let keys = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    store(keys);
    log();
}

fn per(took: Duration, operations: u64) -> f64 {
    took.as_secs_f64() * 1e6 / operations.max(1) as f64
}

fn store(keys: u64) {
    let path = std::env::temp_dir().join(format!("quorate-storage-cost-{}", std::process::id()));
    let store = LsmStore::open(&path, LsmOptions::default()).expect("open");
    let (jobs, queue) = channel::<Box<dyn FlushJob>>();
    let flusher = std::thread::spawn(move || {
        queue.into_iter().for_each(|job| {
            job.run().and_then(|()| job.compact()).expect("flush");
        });
    });
    let key = |n: u64| format!("key/{:016x}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15)).into_bytes();

    let mut batch = WriteBatch::new();
    let (mut worst, began) = (Duration::ZERO, Instant::now());
    for n in 0..keys {
        batch.put(key(n), vec![n as u8; 256]);
        if batch.len() == 32 {
            let began = Instant::now();
            store.write(&mut batch).expect("write");
            store.publish();
            worst = worst.max(began.elapsed());
            if store.memory_bytes() > 32 << 20 {
                store.seal().into_iter().for_each(|job| jobs.send(job).expect("flusher"));
            }
        }
    }
    store.write(&mut batch).expect("write");
    println!("insert              {:8.2} us, worst batch of 32 {worst:?}", per(began.elapsed(), keys));
    store.seal().into_iter().for_each(|job| jobs.send(job).expect("flusher"));
    drop(jobs);
    flusher.join().expect("flusher");
    println!("with compaction     {:8.2} us, {} MiB on disk", per(began.elapsed(), keys), store.disk_bytes() >> 20);

    let mut rng = Rng::new(1);
    let reads = 200_000.min(keys);
    for (what, base, found) in [("get, present", 0, true), ("get, absent", keys, false)] {
        let began = Instant::now();
        for _ in 0..reads {
            assert_eq!(store.get(&key(base + rng.below(keys))).expect("get").is_some(), found);
        }
        println!("{what:20}{:8.2} us", per(began.elapsed(), reads));
    }
    let began = Instant::now();
    let rows = store.scan(std::ops::Bound::Unbounded, std::ops::Bound::Unbounded, false).count() as u64;
    println!("scan, per row       {:8.2} us", per(began.elapsed(), rows));
    drop(store);
    let began = Instant::now();
    LsmStore::open(&path, LsmOptions::default()).expect("reopen");
    println!("reopen              {:8.2} ms", began.elapsed().as_secs_f64() * 1e3);
    std::fs::remove_dir_all(&path).expect("clean up");
}

fn log() {
    let me = WalIdentity { cluster: ClusterId(1), node: NodeId(1), incarnation: Incarnation(1) };
    let (mut wal, mut ops) = Wal::create(me, WalLimits::default());
    let payload = Bytes::from(vec![7; 300]);
    let (flushes, records) = (2_000u64, 64u64);
    let mut files: BTreeMap<FileName, Vec<u8>> = BTreeMap::new();
    let mut encoding = Duration::ZERO;
    for flush in 0..flushes {
        let batch: Vec<LogRecord> = (1..=records)
            .map(|n| {
                let index = LogIndex(flush * records + n);
                let entry = LogEntry { shard: ShardId(1), index, term: Term(1), kind: 0, payload: payload.clone() };
                LogRecord::Entry(entry)
            })
            .collect();
        let began = Instant::now();
        wal.append(&batch, &mut ops);
        encoding += began.elapsed();
        for op in ops.drain(..) {
            match op {
                DiskOp::Create { file, bytes } => drop(files.insert(file, vec![0; bytes as usize])),
                DiskOp::Write { file, offset, bytes } => {
                    let file = files.get_mut(&file).expect("a file that was created");
                    file[offset as usize..offset as usize + bytes.len()].copy_from_slice(&bytes);
                }
                _ => {}
            }
        }
    }
    println!(
        "log, per record     {:8.2} us to encode ({records} records of 300 bytes per flush)",
        per(encoding, flushes * records)
    );
    let mib = files.values().map(Vec::len).sum::<usize>() >> 20;
    let files = files.into_iter().map(|(name, bytes)| (name, Bytes::from(bytes))).collect();
    let began = Instant::now();
    let (_, recovered, _) = Wal::recover(me, WalLimits::default(), files).expect("recover");
    assert_eq!(recovered.shards[&ShardId(1)].entries.len() as u64, flushes * records);
    println!("log, recovery       {:8.2} ms for {mib} MiB", began.elapsed().as_secs_f64() * 1e3);
}

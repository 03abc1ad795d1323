//! Both engines against a plain ordered map: the same random history, the same answers, the same survivors.

mod crash;
mod heal;
mod overlay;

use super::*;
use quorate_env::Rng;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

type Rows = BTreeMap<Bytes, Bytes>;

/// An engine that can be crashed.
trait Engine {
    fn store(&self) -> Arc<dyn Store>;
    fn crash(&mut self);
}

struct Model(ModelStore);

impl Engine for Model {
    fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.0.clone())
    }

    fn crash(&mut self) {
        self.0 = self.0.crash();
    }
}

struct Lsm {
    dir: tempfile::TempDir,
    store: Option<Arc<LsmStore>>,
}

impl Lsm {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut lsm = Self { dir, store: None };
        lsm.crash();
        lsm
    }
}

impl Engine for Lsm {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone().unwrap()
    }

    fn crash(&mut self) {
        self.store = None;
        let options = LsmOptions { table_bytes: 64 << 10, ..LsmOptions::default() };
        self.store = Some(Arc::new(LsmStore::open(&self.dir.path().join("store"), options).unwrap()));
    }
}

fn all(rows: super::Rows) -> Vec<(Bytes, Bytes)> {
    rows.map(Result::unwrap).collect()
}

fn key(rng: &mut Rng) -> Bytes {
    let prefix = [b"a/".as_slice(), b"b/", b"\xFF\xFF"][rng.below(3) as usize];
    let mut key = prefix.to_vec();
    key.extend_from_slice(format!("{:03}", rng.below(120)).as_bytes());
    key.into()
}

fn bound(rng: &mut Rng) -> Bound<Bytes> {
    match rng.below(4) {
        0 => Bound::Unbounded,
        1 => Bound::Excluded(key(rng)),
        _ => Bound::Included(key(rng)),
    }
}

fn expected(rows: &Rows, from: &Bound<Bytes>, to: &Bound<Bytes>, reverse: bool) -> Vec<(Bytes, Bytes)> {
    let inside = |key: &Bytes| {
        let above = match from {
            Bound::Included(from) => key >= from,
            Bound::Excluded(from) => key > from,
            Bound::Unbounded => true,
        };
        let below = match to {
            Bound::Included(to) => key <= to,
            Bound::Excluded(to) => key < to,
            Bound::Unbounded => true,
        };
        above && below
    };
    let mut rows: Vec<_> = rows.iter().filter(|(key, _)| inside(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
    if reverse {
        rows.reverse();
    }
    rows
}

/// One random life of a store, with what it must say at every moment.
fn live(engine: &mut dyn Engine, seed: u64, steps: usize) {
    let mut rng = Rng::new(seed);
    let (mut newest, mut published, mut durable) = (Rows::new(), Rows::new(), Rows::new());
    let mut snapshots: Vec<(Arc<dyn Snapshot>, Rows)> = Vec::new();
    let mut job: Option<(Box<dyn FlushJob>, Rows)> = None;
    // What a job that was given up had frozen: the next job flushes exactly this.
    let mut given_up: Option<Rows> = None;
    for step in 0..steps {
        let store = engine.store();
        match rng.below(100) {
            0..45 => {
                let mut batch = WriteBatch::new();
                for _ in 0..rng.below(12) {
                    let key = key(&mut rng);
                    if rng.chance(250) {
                        batch.delete(key.clone());
                        newest.remove(&key);
                    } else {
                        let value = Bytes::from(vec![step as u8; rng.below(400) as usize]);
                        batch.put(key.clone(), value.clone());
                        newest.insert(key, value);
                    }
                }
                store.write(&mut batch).unwrap();
                assert!(batch.is_empty());
            }
            45..55 => {
                store.publish();
                published = newest.clone();
            }
            55..60 => snapshots.push((store.snapshot(), published.clone())),
            60..63 if !snapshots.is_empty() => {
                let which = rng.below(snapshots.len() as u64) as usize;
                snapshots.swap_remove(which);
            }
            63..70 => {
                let sealed = store.seal();
                if job.is_some() {
                    assert!(sealed.is_none(), "two flushes at once, seed {seed} step {step}");
                }
                published = newest.clone();
                if let Some(sealed) = sealed {
                    let rows = given_up.take().unwrap_or_else(|| newest.clone());
                    job = Some((sealed, rows));
                }
            }
            70..76 => {
                if let Some((job, rows)) = job.take() {
                    if rng.chance(200) {
                        given_up = Some(rows);
                        drop(job);
                    } else {
                        job.run().unwrap();
                        job.compact().unwrap();
                        durable = rows;
                    }
                }
            }
            76..78 => {
                (job, given_up) = (None, None);
                snapshots.clear();
                drop(store);
                engine.crash();
                newest = durable.clone();
                published = durable.clone();
                let rows = all(engine.store().scan(Bound::Unbounded, Bound::Unbounded, false));
                assert_eq!(rows, durable.clone().into_iter().collect::<Vec<_>>(), "survivors, seed {seed} step {step}");
            }
            78..80 => {
                let limit = rng.below(30) as usize;
                let after = rng.chance(500).then(|| key(&mut rng)).filter(|key| key.starts_with(b"a/"));
                let behind = |key: &&Bytes| key.starts_with(b"a/") && after.as_ref().is_none_or(|after| *key > after);
                let gone: Vec<_> = newest.keys().filter(behind).take(limit).cloned().collect();
                let last = store.clear_prefix(b"a/", after, limit).unwrap();
                assert_eq!(last.as_ref(), gone.last().filter(|_| gone.len() == limit), "seed {seed} step {step}");
                gone.iter().for_each(|key| drop(newest.remove(key)));
            }
            80..90 => {
                let key = key(&mut rng);
                assert_eq!(store.get(&key).unwrap().as_ref(), newest.get(&key), "seed {seed} step {step}");
                for (snapshot, rows) in &snapshots {
                    assert_eq!(snapshot.get(&key).unwrap().as_ref(), rows.get(&key), "seed {seed} step {step}");
                }
            }
            _ => {
                let (from, to, reverse) = (bound(&mut rng), bound(&mut rng), rng.chance(500));
                let rows = all(store.scan(from.clone(), to.clone(), reverse));
                assert_eq!(rows, expected(&newest, &from, &to, reverse), "seed {seed} step {step}");
                for (snapshot, rows) in &snapshots {
                    let seen = all(snapshot.scan(from.clone(), to.clone(), reverse));
                    assert_eq!(seen, expected(rows, &from, &to, reverse), "seed {seed} step {step}");
                }
            }
        }
    }
}

#[test]
fn the_model_lives_like_a_map() {
    for seed in 0..60 {
        live(&mut Model(ModelStore::new()), seed, 600);
    }
}

#[test]
fn the_tree_lives_like_a_map() {
    for seed in 0..12 {
        live(&mut Lsm::new(), seed, 600);
    }
}

#[test]
fn a_scan_does_not_see_what_is_written_while_it_runs() {
    for engine in [&mut Model(ModelStore::new()) as &mut dyn Engine, &mut Lsm::new()] {
        let store = engine.store();
        let mut batch = WriteBatch::new();
        for i in 0..300u32 {
            batch.put(i.to_be_bytes().to_vec(), "old");
        }
        store.write(&mut batch).unwrap();
        let mut scan = store.scan(Bound::Unbounded, Bound::Unbounded, false);
        assert_eq!(scan.next().unwrap().unwrap().1, "old");
        for i in 0..400u32 {
            batch.put(i.to_be_bytes().to_vec(), "new");
        }
        store.write(&mut batch).unwrap();
        store.seal().unwrap().run().unwrap();
        let rest = all(scan);
        assert_eq!(rest.len(), 299);
        assert!(rest.iter().all(|(_, value)| value == "old"));
    }
}

#[test]
fn memory_is_counted_until_it_is_on_the_disk() {
    for engine in [&mut Model(ModelStore::new()) as &mut dyn Engine, &mut Lsm::new()] {
        let store = engine.store();
        let write = |keys: std::ops::Range<u32>| {
            let mut batch = WriteBatch::new();
            keys.for_each(|i| batch.put(i.to_be_bytes().to_vec(), vec![b'v'; 100]));
            store.write(&mut batch).unwrap();
            store.memory_bytes()
        };
        let before = store.memory_bytes();
        let first = write(0..100);
        assert!(first >= before + 10_000, "{first}");
        let flush = store.seal().unwrap();
        assert_eq!(store.memory_bytes(), first, "what is being flushed is still there");
        let both = write(100..200);
        assert!((first + 10_000..3 * first).contains(&both), "{both} after {first}");
        flush.run().unwrap();
        assert!(store.memory_bytes() < first + 10_000 && store.memory_bytes() >= 10_000, "{}", store.memory_bytes());
    }
}

#[test]
fn a_key_that_cannot_be_stored_is_refused_and_nothing_of_its_batch_is_written() {
    for engine in [&mut Model(ModelStore::new()) as &mut dyn Engine, &mut Lsm::new()] {
        let store = engine.store();
        for bad in [Vec::new(), vec![b'k'; KEY_BYTES_MAX + 1]] {
            let mut batch = WriteBatch::new();
            batch.put("good", "value");
            batch.put(bad.clone(), "value");
            assert!(matches!(store.write(&mut batch), Err(StoreError::KeySize { bytes }) if bytes == bad.len()));
            assert_eq!(store.get(b"good").unwrap(), None);
        }
        let mut batch = WriteBatch::new();
        batch.put(vec![b'k'; KEY_BYTES_MAX], "value");
        store.write(&mut batch).unwrap();
        store.seal().unwrap().run().unwrap();
        assert_eq!(store.get(&[b'k'; KEY_BYTES_MAX]).unwrap(), Some("value".into()));
    }
}

#[test]
fn readers_see_whole_batches_while_flushes_and_compactions_run() {
    let engine = Lsm::new();
    let store = engine.store();
    let stop = AtomicBool::new(false);
    let jobs: Mutex<Vec<Box<dyn FlushJob>>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                let job = jobs.lock().unwrap().pop();
                job.inspect(|job| job.run().and_then(|()| job.compact()).unwrap());
                std::thread::yield_now();
            }
        });
        scope.spawn(|| {
            // Each batch sets all of these rows to its own number, so a reader must never see two numbers at once.
            while !stop.load(Ordering::Acquire) {
                let rows = all(store.scan(Bound::Unbounded, Bound::Unbounded, false));
                assert!(rows.iter().all(|(_, value)| *value == rows[0].1), "half a batch");
                let frozen = store.snapshot();
                let (first, last) = (frozen.get(b"k00").unwrap(), frozen.get(b"k49").unwrap());
                assert_eq!(first, last, "half a batch in a snapshot");
            }
        });
        let mut batch = WriteBatch::new();
        for round in 0..1500u32 {
            for row in 0..50 {
                batch.put(format!("k{row:02}"), round.to_be_bytes().to_vec());
            }
            store.write(&mut batch).unwrap();
            if round % 40 == 0 {
                jobs.lock().unwrap().extend(store.seal());
            }
        }
        stop.store(true, Ordering::Release);
    });
}

#[test]
fn files_that_rot_are_reported_and_never_read_as_data() {
    let mut engine = Lsm::new();
    let mut batch = WriteBatch::new();
    for i in 0..2000u32 {
        batch.put(i.to_be_bytes().to_vec(), vec![b'v'; 100]);
    }
    engine.store().write(&mut batch).unwrap();
    engine.store().seal().unwrap().run().unwrap();
    engine.store = None;
    std::fs::remove_dir_all(engine.dir.path().join("store/sums")).unwrap();
    let tables: Vec<_> = std::fs::read_dir(engine.dir.path().join("store/tables")).unwrap().collect();
    let table = tables.into_iter().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&table).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&table, bytes).unwrap();
    let opened = LsmStore::open(&engine.dir.path().join("store"), LsmOptions::default());
    let damaged = match opened {
        Err(e) => Some(e),
        Ok(store) => store.scan(Bound::Unbounded, Bound::Unbounded, false).find_map(Result::err),
    };
    assert!(matches!(damaged, Some(StoreError::Damaged(_))), "{damaged:?}");
}

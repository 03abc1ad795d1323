//! Rot in the store's files, and how it is healed from what lies beside them: never a wrong row, and after a scrub the same bytes as before.

use super::*;
use crate::store::{Checked, Healed};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const PAGE: usize = 4096;

type Files = BTreeMap<PathBuf, Vec<u8>>;

fn options() -> LsmOptions {
    // Nothing is kept in memory that could be read from the disk.
    LsmOptions { cache_bytes: 0, table_bytes: 128 << 10, ..LsmOptions::default() }
}

fn open(path: &Path) -> LsmStore {
    LsmStore::open(path, options()).unwrap()
}

fn read_all(folder: &Path) -> Files {
    let mut files = Files::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(read_all(&path));
        } else {
            files.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    files
}

/// A store of several tables on two levels, closed, with its rows.
struct Made {
    _dir: tempfile::TempDir,
    path: PathBuf,
    rows: Rows,
    files: Files,
}

impl Made {
    fn new(rows_per_flush: u64, flushes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let store = open(&path);
        let (mut rng, mut rows, mut batch) = (Rng::new(1), Rows::new(), WriteBatch::new());
        for flush in 0..flushes {
            for _ in 0..rows_per_flush {
                let key = Bytes::from(format!("key/{:05}", rng.below(20_000)));
                if rng.chance(100) {
                    batch.delete(key.clone());
                    rows.remove(&key);
                } else {
                    let value =
                        Bytes::from((0..rng.between(20, 300)).map(|_| rng.below(256) as u8).collect::<Vec<_>>());
                    batch.put(key.clone(), value.clone());
                    rows.insert(key, value);
                }
            }
            store.write(&mut batch).unwrap();
            let job = store.seal().unwrap();
            job.run().unwrap();
            if flush + 2 < flushes {
                job.compact().unwrap();
            }
        }
        drop(store);
        let files = read_all(&path);
        Self { _dir: dir, path, rows, files }
    }

    fn tables(&self) -> Vec<PathBuf> {
        self.files.keys().filter(|path| path.starts_with(self.path.join("tables"))).cloned().collect()
    }

    fn sums_of(&self, table: &Path) -> PathBuf {
        self.path.join("sums").join(table.file_name().unwrap())
    }

    /// Every row is right, read one by one and in both directions.
    fn check_rows(&self, store: &LsmStore) {
        for (key, value) in self.rows.iter().step_by(7) {
            assert_eq!(store.get(key).unwrap().as_ref(), Some(value));
        }
        for reverse in [true, false] {
            let found = all(store.scan(Bound::Unbounded, Bound::Unbounded, reverse));
            let expected = expected(&self.rows, &Bound::Unbounded, &Bound::Unbounded, reverse);
            assert!(found == expected, "rows differ, reverse {reverse}");
        }
    }

    fn check_files(&self, what: &str) {
        let files = read_all(&self.path);
        assert!(files.keys().eq(self.files.keys()), "{what}: other files: {:?}", files.keys());
        for (path, bytes) in &files {
            assert!(*bytes == self.files[path], "{what}: {} is not what it was", path.display());
        }
    }

    /// Puts everything back.
    fn reset(&self) {
        fs::remove_dir_all(&self.path).unwrap();
        for (path, bytes) in &self.files {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
}

type Change = fn(&mut Vec<u8>);

/// Changes a file in place, as rot does.
fn damage(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn flip(bytes: &mut [u8], bit: u64) {
    bytes[bit as usize / 8] ^= 1 << (bit % 8);
}

fn flip_a_bit_in_each_page(bytes: &mut [u8], rng: &mut Rng) {
    bytes.chunks_mut(PAGE).for_each(|page| flip(page, rng.below(page.len() as u64 * 8)));
}

fn scrub(store: &LsmStore) -> Result<Healed, StoreError> {
    store.check_version()?;
    for table in store.tables() {
        let mut check = store.check_table(table)?.unwrap();
        while check.step()? != Checked::Whole {}
    }
    Ok(store.healed())
}

#[test]
fn a_bit_flipped_in_each_page_of_each_file_loses_nothing() {
    let made = Made::new(1500, 6);
    assert!(made.tables().len() > 4, "{} tables", made.tables().len());
    let pages: usize = made.tables().iter().map(|table| made.files[table].len().div_ceil(PAGE)).sum();
    for seed in 0..8 {
        let mut rng = Rng::new(seed);
        made.reset();
        let hit = |rng: &mut Rng| made.files.keys().for_each(|path| damage(path, |b| flip_a_bit_in_each_page(b, rng)));
        hit(&mut rng);
        let store = open(&made.path);
        made.check_rows(&store);
        let healed = scrub(&store).unwrap();
        assert_eq!((healed.bits, healed.pages, healed.failures), (pages as u64, 0, 0), "seed {seed}");
        made.check_files("rot before the store is opened");
        // Now while it is open.
        hit(&mut rng);
        if seed % 2 == 0 {
            made.check_rows(&store);
        }
        let healed = scrub(&store).unwrap();
        assert_eq!((healed.bits, healed.pages, healed.failures), (2 * pages as u64, 0, 0), "seed {seed}");
        made.check_files("rot under an open store");
        made.check_rows(&store);
    }
}

#[test]
fn any_byte_of_a_small_table_may_change() {
    let made = Made::new(60, 1);
    let table = made.tables().remove(0);
    let mut rng = Rng::new(5);
    let store = open(&made.path);
    for at in (0..made.files[&table].len()).step_by(37) {
        let other = rng.between(1, 255) as u8;
        damage(&table, |bytes| bytes[at] ^= other);
        let found = all(store.scan(Bound::Unbounded, Bound::Unbounded, false));
        assert!(found.into_iter().eq(made.rows.clone()), "byte {at}");
        let fresh = open(&made.path);
        made.check_rows(&fresh);
        scrub(&fresh).unwrap();
        made.check_files("a byte changed");
    }
}

#[test]
fn a_page_lost_in_each_group_is_made_from_the_others() {
    let made = Made::new(1500, 4);
    for seed in 0..6 {
        let mut rng = Rng::new(seed);
        made.reset();
        let mut lost = 0;
        for table in made.tables() {
            damage(&table, |bytes| {
                let groups = bytes.len().div_ceil(PAGE).div_ceil(16);
                // Neighbours: they are in different groups.
                let first = rng.below((bytes.len() / PAGE - groups) as u64) as usize;
                for page in bytes.chunks_mut(PAGE).skip(first).take(groups) {
                    let garbage = rng.chance(500);
                    page.iter_mut().for_each(|byte| *byte = if garbage { rng.below(256) as u8 } else { 0 });
                    lost += 1;
                }
            });
            // The sums lose a page, too: any one, of any kind.
            damage(&made.sums_of(&table), |bytes| {
                let blocks = bytes.len() / PAGE;
                let headers_and_sums = [0, 1, blocks - 2, blocks - 1];
                bytes[headers_and_sums[rng.below(4) as usize] * PAGE..][..PAGE].fill(0xAA);
            });
        }
        let store = open(&made.path);
        made.check_rows(&store);
        let healed = scrub(&store).unwrap();
        assert_eq!((healed.pages, healed.bits, healed.failures), (lost, 0, 0), "seed {seed}");
        made.check_files("pages lost");
    }
}

#[test]
fn two_pages_lost_in_a_group_are_damage_and_never_a_wrong_row() {
    let made = Made::new(1500, 3);
    for table in made.tables() {
        for gap in [1, 2, 3] {
            made.reset();
            damage(&table, |bytes| {
                let groups = bytes.len().div_ceil(PAGE).div_ceil(16);
                bytes[PAGE..2 * PAGE].fill(0);
                bytes[(1 + gap * groups) * PAGE..][..PAGE].fill(0);
            });
            let bytes = fs::read(&table).unwrap();
            let Ok(store) = LsmStore::open(&made.path, options()) else { continue };
            let mut damaged = 0;
            for row in store.scan(Bound::Unbounded, Bound::Unbounded, false) {
                match row {
                    Ok((key, value)) => assert_eq!(made.rows.get(&key), Some(&value)),
                    Err(StoreError::Damaged(_)) => {
                        damaged += 1;
                        break;
                    }
                    Err(e) => panic!("{e}"),
                }
            }
            for key in made.rows.keys() {
                match store.get(key) {
                    Ok(value) => assert_eq!(value.as_ref(), made.rows.get(key)),
                    Err(StoreError::Damaged(_)) => damaged += 1,
                    Err(e) => panic!("{e}"),
                }
            }
            assert!(damaged > 0);
            assert!(matches!(scrub(&store), Err(StoreError::Damaged(_))));
            assert!(store.healed().failures > 0);
            assert_eq!(bytes, fs::read(&table).unwrap(), "what is not proven is not written");
        }
    }
}

#[test]
fn damage_that_looks_like_one_flipped_bit_is_not_taken_for_it() {
    let made = Made::new(1500, 1);
    let table = made.tables().remove(0);
    // Bits at the same place of three words of 32: together they look like that bit of a fourth word.
    for (bit, words) in [(0, [1, 2, 4]), (17, [100, 200, 300]), (31, [1000, 7, 512])] {
        damage(&table, |bytes| words.iter().for_each(|word| flip(bytes, word * 32 + bit)));
        let store = open(&made.path);
        made.check_rows(&store);
        let healed = scrub(&store).unwrap();
        assert_eq!((healed.bits, healed.pages, healed.failures), (0, 1, 0), "bit {bit} of {words:?}");
        made.check_files("damage that looks like a flipped bit");
    }
}

#[test]
fn tables_that_were_cut_or_have_grown_are_healed() {
    let made = Made::new(1500, 2);
    for table in made.tables() {
        let length = made.files[&table].len();
        for new in [length - 1, length - 700, length - length % PAGE, length + 1, length + 3 * PAGE] {
            made.reset();
            damage(&table, |bytes| bytes.resize(new, 0x55));
            let store = open(&made.path);
            made.check_rows(&store);
            assert_eq!(scrub(&store).unwrap().failures, 0, "{new} instead of {length} bytes");
            made.check_files("another length");
            damage(&table, |bytes| bytes.resize(new, 0x55));
            made.check_rows(&store);
            scrub(&store).unwrap();
            made.check_files("another length while it is open");
        }
        made.reset();
        if length <= PAGE {
            continue;
        }
        damage(&table, Vec::clear);
        assert!(
            matches!(LsmStore::open(&made.path, options()), Err(StoreError::Damaged(_))),
            "nothing is left of {length} bytes"
        );
        fs::remove_file(&table).unwrap();
        assert!(matches!(LsmStore::open(&made.path, options()), Err(StoreError::Damaged(_))), "it is missing");
    }
}

#[test]
fn tables_that_took_each_others_place_are_noticed() {
    let made = Made::new(1500, 3);
    let tables = made.tables();
    let swap = |a: &Path, b: &Path| {
        fs::write(a, &made.files[b]).unwrap();
        fs::write(b, &made.files[a]).unwrap();
    };
    swap(&tables[0], &tables[1]);
    assert!(matches!(LsmStore::open(&made.path, options()), Err(StoreError::Damaged(_))));
    // With their sums, which say which table they are of.
    swap(&made.sums_of(&tables[0]), &made.sums_of(&tables[1]));
    assert!(matches!(LsmStore::open(&made.path, options()), Err(StoreError::Damaged(_))));
    made.reset();
    swap(&made.sums_of(&tables[0]), &made.sums_of(&tables[1]));
    let store = open(&made.path);
    made.check_rows(&store);
    made.check_files("the sums took each other's place");
    swap(&tables[0], &tables[1]);
    assert!(matches!(scrub(&store), Err(StoreError::Damaged(_))));
}

#[test]
fn sums_that_are_missing_or_spoilt_are_made_again() {
    let made = Made::new(1500, 3);
    fs::remove_dir_all(made.path.join("sums")).unwrap();
    made.check_rows(&open(&made.path));
    made.check_files("all are missing");
    for table in made.tables() {
        let sums = made.sums_of(&table);
        let spoil: [Change; 4] =
            [Vec::clear, |bytes| bytes.fill(0), |bytes| bytes.truncate(bytes.len() / 2), |bytes| bytes.push(0)];
        for change in spoil {
            damage(&sums, change);
            let store = open(&made.path);
            scrub(&store).unwrap();
            made.check_files("spoilt while it is closed");
            damage(&sums, change);
            scrub(&store).unwrap();
            made.check_files("spoilt while it is open");
        }
        // In the middle, where nobody looks when the store is opened.
        damage(&sums, |bytes| bytes[PAGE..].fill(0xFF));
        let store = open(&made.path);
        scrub(&store).unwrap();
        made.check_files("spoilt behind the header");
    }
    for orphan in ["777", "new"] {
        fs::write(made.path.join("sums").join(orphan), b"left over").unwrap();
    }
    open(&made.path);
    made.check_files("sums of a table that is gone");
}

#[test]
fn version_files_are_restored_from_their_copy() {
    let made = Made::new(1500, 3);
    let copy = made.path.join("sums/version");
    let small: Vec<_> = made.files.keys().filter(|path| path.parent() == Some(&*made.path)).cloned().collect();
    assert_eq!(small.len(), 2, "current, and the version that it names");
    for path in small.iter().chain([&copy]) {
        for how in 0..4 {
            let spoil = || match how {
                0 => fs::remove_file(path).unwrap(),
                1 => damage(path, Vec::clear),
                2 => damage(path, |bytes| bytes.fill(0)),
                _ => damage(path, |bytes| bytes.extend_from_slice(b"more")),
            };
            spoil();
            let store = open(&made.path);
            made.check_rows(&store);
            made.check_files("spoilt while it is closed");
            spoil();
            scrub(&store).unwrap();
            made.check_files("spoilt while it is open");
        }
    }
    fs::remove_file(&copy).unwrap();
    damage(&small[0], |bytes| flip(bytes, 3));
    assert!(matches!(LsmStore::open(&made.path, options()), Err(StoreError::Damaged(_))), "both are lost");
}

#[test]
fn merges_and_snapshots_of_damaged_tables_heal_them_first() {
    let mut made = Made::new(1500, 2);
    let store = open(&made.path);
    let mut batch = WriteBatch::new();
    for round in 0..4u8 {
        for n in 0..400 {
            let (key, value) = (Bytes::from(format!("key/{:05}", n * 40)), Bytes::from(vec![round; 300]));
            batch.put(key.clone(), value.clone());
            made.rows.insert(key, value);
        }
        store.write(&mut batch).unwrap();
        store.seal().unwrap().run().unwrap();
    }
    batch.put("last", "row");
    made.rows.insert("last".into(), "row".into());
    store.write(&mut batch).unwrap();
    let job = store.seal().unwrap();
    job.run().unwrap();
    let (tables, mut rng) = (store.tables(), Rng::new(9));
    let path = |id: &u64| made.path.join("tables").join(id.to_string());
    let hit = |rng: &mut Rng| tables.iter().for_each(|id| damage(&path(id), |b| flip_a_bit_in_each_page(b, rng)));
    let snapshot = store.snapshot();
    hit(&mut rng);
    job.compact().unwrap();
    assert!(tables.iter().any(|id| !store.tables().contains(id)), "nothing was merged");
    let healed = store.healed();
    assert!(healed.bits > 100 && healed.failures == 0, "{healed:?}");
    made.check_rows(&store);
    // The tables that were merged are still there for the snapshot.
    hit(&mut rng);
    let rows = all(snapshot.scan(Bound::Unbounded, Bound::Unbounded, false));
    assert!(rows.into_iter().eq(made.rows.clone()));
    assert!(store.healed().bits > healed.bits && store.healed().failures == 0);
    drop((snapshot, job));
    scrub(&store).unwrap();
    drop(store);
    let store = open(&made.path);
    assert_eq!(store.healed(), Healed::default(), "nothing was left to heal");
    let mut sums: Vec<u64> = Vec::new();
    for entry in fs::read_dir(made.path.join("sums")).unwrap() {
        sums.extend(entry.unwrap().file_name().to_str().unwrap().parse::<u64>());
    }
    sums.sort_unstable();
    let mut tables = store.tables();
    tables.sort_unstable();
    assert_eq!(sums, tables, "each table has sums, and no other");
    made.check_rows(&store);
}

/// Flips a bit in about half of the tables that are there, and in none twice before it was scrubbed: that might be more than can be healed.
fn rot(path: &Path, rng: &mut Rng, hit: &mut BTreeSet<OsString>) {
    for entry in fs::read_dir(path.join("tables")).unwrap().flatten() {
        // A table may be removed just now; one without sums is in the making.
        let sums = path.join("sums").join(entry.file_name());
        let Ok(file) = fs::OpenOptions::new().read(true).write(true).open(entry.path()) else { continue };
        let length = file.metadata().unwrap().len();
        if !sums.exists() || length == 0 || rng.chance(500) || !hit.insert(entry.file_name()) {
            continue;
        }
        let at = rng.below(length);
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ (1 << rng.below(8))], at).unwrap();
    }
}

/// Ends the readers also when the test fails.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn rot_under_readers_writers_flushes_and_merges_changes_no_answer() {
    for seed in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let store = Arc::new(LsmStore::open(&path, LsmOptions { table_bytes: 32 << 10, ..options() }).unwrap());
        let model = ModelStore::new();
        let (stop, mut rng, mut hit) = (AtomicBool::new(false), Rng::new(seed), BTreeSet::new());
        // Rows that never change are read all the time; the others are compared when nothing is being written.
        let fixed = |n: u64| (format!("a/{n:04}"), format!("value of {n} {}", "x".repeat(200)));
        let mut batch = WriteBatch::new();
        let both = |batch: &mut WriteBatch| {
            model.write(&mut batch.clone()).unwrap();
            store.write(batch).unwrap();
        };
        (0..600).map(fixed).for_each(|(key, value)| batch.put(key, value));
        both(&mut batch);
        store.seal().unwrap().run().unwrap();
        std::thread::scope(|scope| {
            for reader in 0..2 {
                let (store, stop) = (&store, &stop);
                scope.spawn(move || {
                    let mut rng = Rng::new(1000 + seed * 10 + reader);
                    while !stop.load(Ordering::Acquire) {
                        let (key, value) = fixed(rng.below(600));
                        assert_eq!(store.get(key.as_bytes()).unwrap(), Some(value.into()), "{key}");
                        let reverse = rng.chance(500);
                        let rows = store.scan(Bound::Included("a/".into()), Bound::Excluded("b".into()), reverse);
                        let mut expected: Vec<_> = (0..600).map(fixed).map(|(k, v)| (k.into(), v.into())).collect();
                        if reverse {
                            expected.reverse();
                        }
                        assert!(all(rows) == expected, "a scan");
                    }
                });
            }
            let _stop = StopAtEnd(&stop);
            for round in 0..60u64 {
                for _ in 0..40 {
                    let key = format!("b/{:04}", rng.below(500));
                    match rng.chance(200) {
                        true => batch.delete(key),
                        false => batch.put(key, vec![round as u8; rng.below(400) as usize]),
                    }
                }
                both(&mut batch);
                rot(&path, &mut rng, &mut hit);
                let job = store.seal().unwrap();
                job.run().unwrap();
                rot(&path, &mut rng, &mut hit);
                job.compact().unwrap();
                if round % 4 == 0 {
                    rot(&path, &mut rng, &mut hit);
                    let rows = |store: &dyn Store| all(store.scan(Bound::Unbounded, Bound::Unbounded, round % 8 == 0));
                    assert!(rows(&*store) == rows(&model), "seed {seed} round {round}");
                    scrub(&store).unwrap();
                    hit.clear();
                }
            }
        });
        let healed = scrub(&store).unwrap();
        assert!(healed.bits > 50 && healed.failures == 0, "seed {seed}: {healed:?}");
        drop(store);
        hit.clear();
        rot(&path, &mut rng, &mut hit);
        let rows = |store: &dyn Store| all(store.scan(Bound::Unbounded, Bound::Unbounded, false));
        assert!(rows(&open(&path)) == rows(&model), "seed {seed}, opened again");
    }
}

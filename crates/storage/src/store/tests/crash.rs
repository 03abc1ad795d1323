//! The store on disk when its process or its machine ends in the middle of a flush.
//!
//! A shard's applied index and its rows are one: whatever is found, the rows must be those of some seal's entry, and of none before
//! the last flush that was reported done.
//!
//! Tables, their sums and version files are written once; only `current` and its copy are ever replaced, by a rename. So the states between two moments follow
//! from the two: before the switch everything of the first is there, and of the second's new files any part; after the switch everything of
//! the second is there, and of what it no longer names any file. What really happens in between, compactions included, is tried by
//! killing a process at any moment.

use super::*;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const APPLIED: &[u8] = b"applied";

/// Entries between two seals.
const ENTRIES_PER_SEAL: u64 = 40;

/// Writes what entry `index` does, with the applied index, as a shard would.
fn apply(index: u64, batch: &mut WriteBatch, rows: &mut Rows) {
    let mut rng = Rng::new(index);
    for _ in 0..rng.between(1, 4) {
        let key = Bytes::from(format!("key/{:03}", rng.below(150)));
        if rng.chance(250) {
            batch.delete(key.clone());
            rows.remove(&key);
        } else {
            let value = Bytes::from(vec![index as u8; rng.below(600) as usize]);
            batch.put(key.clone(), value.clone());
            rows.insert(key, value);
        }
    }
    let applied = Bytes::copy_from_slice(&index.to_le_bytes());
    batch.put(APPLIED, applied.clone());
    rows.insert(APPLIED.into(), applied);
}

fn rows_after(index: u64) -> Rows {
    let (mut rows, mut batch) = (Rows::new(), WriteBatch::new());
    (1..=index).for_each(|index| apply(index, &mut batch, &mut rows));
    rows
}

fn open(path: &Path) -> LsmStore {
    LsmStore::open(path, LsmOptions { table_bytes: 16 << 10, ..LsmOptions::default() }).unwrap()
}

fn applied(store: &LsmStore) -> u64 {
    let row = store.get(APPLIED).unwrap();
    row.map_or(0, |row| u64::from_le_bytes(row[..].try_into().unwrap()))
}

/// Applies entries up to the next seal, and makes them durable. The job may merge tables now.
fn advance(store: &LsmStore) -> (u64, Box<dyn FlushJob>) {
    let (mut batch, mut rows) = (WriteBatch::new(), Rows::new());
    let from = applied(store);
    for index in from + 1..=from + ENTRIES_PER_SEAL {
        apply(index, &mut batch, &mut rows);
        store.write(&mut batch).unwrap();
    }
    let job = store.seal().unwrap();
    job.run().unwrap();
    (from + ENTRIES_PER_SEAL, job)
}

fn check(store: &LsmStore, what: &str) -> u64 {
    let index = applied(store);
    assert_eq!(index % ENTRIES_PER_SEAL, 0, "{what}: the rows between two seals were torn apart");
    let found = all(store.scan(Bound::Unbounded, Bound::Unbounded, false));
    assert!(found.into_iter().eq(rows_after(index)), "{what}: the rows are not those of entry {index}");
    index
}

type Files = BTreeMap<PathBuf, Vec<u8>>;

fn read_all(dir: &Path, under: &Path, files: &mut Files) {
    for entry in fs::read_dir(dir.join(under)).unwrap() {
        let entry = entry.unwrap();
        let path = under.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            read_all(dir, &path, files);
        } else {
            files.insert(path.clone(), fs::read(dir.join(path)).unwrap());
        }
    }
}

fn write_all(dir: &Path, files: &Files) {
    for folder in ["tables", "sums"] {
        fs::create_dir_all(dir.join(folder)).unwrap();
    }
    for (path, bytes) in files {
        fs::write(dir.join(path), bytes).unwrap();
    }
}

/// What a crash may leave between two moments, with the moment whose rows must be found: 0 or 1.
fn between(before: &Files, after: &Files) -> Vec<(String, Files, usize)> {
    let mut states = Vec::new();
    // Tables are written before the version that names them.
    let mut new: Vec<_> = after.iter().filter(|(path, _)| !before.contains_key(*path)).collect();
    new.sort_by_key(|(path, _)| (!path.starts_with("tables"), (*path).clone()));
    let mut whole = before.clone();
    for (path, bytes) in new {
        for (how, left) in [("empty", &[][..]), ("half", &bytes[..bytes.len() / 2]), ("zeros", &vec![0; bytes.len()])] {
            let mut files = whole.clone();
            files.insert(path.clone(), left.to_vec());
            states.push((format!("{} is {how}", path.display()), files, 0));
        }
        whole.insert(path.clone(), bytes.clone());
        states.push((format!("{} is there", path.display()), whole.clone(), 0));
    }
    let mut draft = whole.clone();
    draft.insert(".tmpDRAFT".into(), after[Path::new("current")][..5].to_vec());
    states.push((String::from("the next current is half written"), draft, 0));

    let gone: Vec<_> = before.iter().filter(|(path, _)| !after.contains_key(*path)).collect();
    for left in 0..=gone.len() {
        let mut files = after.clone();
        files.extend(gone[..left].iter().map(|(path, bytes)| ((*path).clone(), (*bytes).clone())));
        states.push((format!("{left} files are not removed yet"), files, 1));
    }
    // What is kept for healing is written last; until then nothing is removed that the older copy names.
    let mut files: Files = before.clone();
    files.extend(after.iter().filter(|(path, _)| !path.starts_with("sums")).map(|(p, b)| (p.clone(), b.clone())));
    states.push((String::from("nothing is there yet to heal it"), files.clone(), 1));
    files.remove(Path::new("current"));
    states.push((String::from("nothing is there yet to heal it, and current is lost"), files, 0));
    states
}

#[test]
fn a_flush_is_there_as_a_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = open(&path);
    let mut before = Files::new();
    read_all(&path, Path::new(""), &mut before);
    let (mut states, mut removed, mut done) = (0, 0, 0);
    for _ in 0..14 {
        let (next, job) = advance(&store);
        for step in ["flush", "merge after the flush"] {
            if step != "flush" {
                job.compact().unwrap();
            }
            let mut after = Files::new();
            read_all(&path, Path::new(""), &mut after);
            removed += before.keys().filter(|path| path.starts_with("tables") && !after.contains_key(*path)).count();
            if after == before {
                continue;
            }
            for (what, files, moment) in between(&before, &after) {
                states += 1;
                let what = format!("{step} of entry {next}: {what}");
                let copy = tempfile::tempdir().unwrap();
                write_all(copy.path(), &files);
                let found = check(&open(copy.path()), &what);
                assert_eq!(found, [done, next][moment], "{what}");
                if states % 5 == 0 {
                    let store = open(copy.path());
                    advance(&store).1.compact().unwrap();
                    drop(store);
                    assert_eq!(check(&open(copy.path()), &what), found + ENTRIES_PER_SEAL, "{what}: it goes on");
                }
            }
            (before, done) = (after, next);
        }
    }
    assert!(states > 80 && removed > 0, "{states} states, {removed} tables removed by compactions");
}

#[test]
fn a_switch_before_its_tables_were_whole_would_be_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = open(&path);
    let (mut before, mut after) = (Files::new(), Files::new());
    advance(&store);
    read_all(&path, Path::new(""), &mut before);
    advance(&store);
    read_all(&path, Path::new(""), &mut after);
    let is_new = |path: &&PathBuf| !before.contains_key(*path) && !path.starts_with("sums");
    let new: Vec<_> = after.keys().filter(is_new).cloned().collect();
    assert!(new.len() > 1, "a table and a version");
    for hit in new {
        for left in [None, Some(0), Some(after[&hit].len() / 2)] {
            let mut files = after.clone();
            // Nothing is there to heal it: that comes after the switch.
            files.retain(|path, _| !path.starts_with("sums"));
            let whole = files.remove(&hit).unwrap();
            files.extend(left.map(|left| (hit.clone(), whole[..left].to_vec())));
            let copy = tempfile::tempdir().unwrap();
            write_all(copy.path(), &files);
            let opened = LsmStore::open(copy.path(), LsmOptions::default());
            let read = opened.map(|store| store.scan(Bound::Unbounded, Bound::Unbounded, false).all(|row| row.is_ok()));
            assert!(!matches!(read, Ok(true)), "{}: {left:?} bytes of it were enough", hit.display());
        }
    }
}

/// Names the directory to the child that [`a_process_killed_at_any_moment_leaves_a_seal`] starts.
const KILLED: &str = "QUORATE_TEST_KILLED_STORE";

#[test]
fn a_process_killed_at_any_moment_leaves_a_seal() {
    if let Some(path) = std::env::var_os(KILLED) {
        let store = open(Path::new(&path));
        loop {
            let (index, job) = advance(&store);
            println!("sealed {index}");
            io::stdout().flush().unwrap();
            job.compact().unwrap();
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let mut rng = Rng::new(3);
    let (mut last, mut unreported) = (0, 0);
    for life in 0..25 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::crash::a_process_killed_at_any_moment_leaves_a_seal", "--nocapture"])
            .env(KILLED, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let seal = |line: String| line.strip_prefix("sealed ").and_then(|index| index.parse::<u64>().ok());
        // The libtest runner speaks first.
        last = lines.by_ref().find_map(seal).expect("it flushes");
        std::thread::sleep(Duration::from_micros(rng.below(40_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        last = lines.filter_map(seal).last().unwrap_or(last);
        let found = check(&open(&path), &format!("life {life}"));
        assert!(found >= last, "life {life}: entry {last} was flushed, entry {found} is found");
        assert!(found <= last + ENTRIES_PER_SEAL, "life {life}: invented");
        unreported += usize::from(found > last);
    }
    println!("{last} entries, {unreported} flushes were done and not reported");
}

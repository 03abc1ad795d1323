//! A data directory that is opened, written, closed and opened again.

use super::*;
use quorate_env::{LogIndex, ReplicaId, ShardId, Term};
use quorate_storage::store::{FlushJob, Store, WriteBatch};
use quorate_storage::wal::{HardState, LogEntry, LogRecord};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::Instant;

const PATIENCE: Duration = Duration::from_secs(20);

fn owner() -> Owner {
    Owner { cluster: ClusterId(1), node: NodeId(2), name: String::from("n2"), only_copy: false, incarnation: None }
}

fn small() -> DiskOptions {
    let wal =
        WalLimits { segment_bytes: 256 << 10, record_bytes: 64 << 10, segments_target: 3, rewrite_bytes: 32 << 10 };
    DiskOptions { wal, ..DiskOptions::default() }
}

fn open(path: &Path) -> Opened {
    DataDir::open_or_create(path, &owner(), &small()).unwrap()
}

fn entry(shard: u64, index: u64, payload: Vec<u8>) -> LogRecord {
    let payload = payload.into();
    LogRecord::Entry(LogEntry { shard: ShardId(shard), index: LogIndex(index), term: Term(1), kind: 0, payload })
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "{what} did not happen in time");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_was_acknowledged_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let mut next = [1u64; 3];
    for life in 0..4u64 {
        let opened = open(dir.path());
        assert_eq!(opened.dir.is_fresh(), life == 0);
        for (shard, next) in next.iter().enumerate() {
            let entries = opened
                .recovered
                .shards
                .get(&ShardId(shard as u64))
                .map_or(0, |log| log.start.0.0 + log.entries.len() as u64);
            assert_eq!(entries, next - 1, "life {life}, shard {shard}");
        }
        let durable = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&durable);
        let writer = LogWriter::spawn(
            opened.wal,
            opened.files,
            |_, records| assert!(records > 0),
            move |ticket| assert!(seen.swap(ticket, Ordering::AcqRel) < ticket, "tickets go up"),
            |space| panic!("{space:?}"),
        )
        .unwrap();
        for ticket in 1..=600u64 {
            let shard = ticket % 3;
            let index = &mut next[shard as usize];
            let mut records = vec![entry(shard, *index, vec![*index as u8; (ticket * 7 % 3000) as usize])];
            *index += 1;
            if *index % 50 == 0 {
                let (shard, index) = (ShardId(shard), LogIndex(*index - 5));
                records.push(LogRecord::Start { shard, index, term: Term(1), discard_after: false });
            }
            writer.append(records, ticket).unwrap();
        }
        if life % 2 == 0 {
            wait_until("the last flush", || durable.load(Ordering::Acquire) == 600);
        }
        drop(writer);
        assert_eq!(durable.load(Ordering::Acquire), 600, "a clean stop flushes what was accepted");
    }
    let segments = fs::read_dir(dir.path().join("wal")).unwrap().count();
    assert!(segments <= 8, "{segments} segments for a log that is compacted");
}

#[test]
fn a_log_that_is_copied_while_it_is_written_holds_every_acknowledged_record() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let opened = open(dir.path());
    let (told, acknowledged) = channel();
    let writer =
        LogWriter::spawn(opened.wal, opened.files, |_, _| {}, move |ticket| told.send(ticket).unwrap(), |_| {})
            .unwrap();
    for index in 1..=40 {
        writer.append(vec![entry(1, index, vec![7; 500])], index).unwrap();
    }
    while acknowledged.recv_timeout(PATIENCE).unwrap() < 40 {}
    // The process dies here, as far as the copy can tell: nothing was closed.
    fs::create_dir(copy.path().join("wal")).unwrap();
    fs::copy(dir.path().join("IDENTITY"), copy.path().join("IDENTITY")).unwrap();
    for file in fs::read_dir(dir.path().join("wal")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.path().join("wal").join(file.file_name())).unwrap();
    }
    let recovered = open(copy.path()).recovered;
    assert_eq!(recovered.shards[&ShardId(1)].entries.len(), 40);
    drop(writer);
}

#[test]
fn a_second_process_on_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let held = open(dir.path());
    let second = DataDir::open_or_create(dir.path(), &owner(), &small()).err();
    assert!(matches!(second, Some(DiskError::InUse(_))), "{second:?}");
    drop(held);
    open(dir.path());
}

#[test]
fn somebody_elses_directory_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let stranger = Owner { node: NodeId(3), ..owner() };
    let refused = DataDir::open_or_create(dir.path(), &stranger, &small()).err();
    assert!(matches!(refused, Some(DiskError::Identity { source: IdentityError::Foreign { .. }, .. })), "{refused:?}");
    assert!(!open(dir.path()).dir.is_fresh());
}

#[test]
fn a_lost_identity_does_not_make_the_data_disappear() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let identity = dir.path().join("IDENTITY");
    let saved = fs::read(&identity).unwrap();
    fs::remove_file(&identity).unwrap();
    let refused = DataDir::open_or_create(dir.path(), &owner(), &small()).err();
    assert!(matches!(refused, Some(DiskError::IdentityMissing(_))), "{refused:?}");

    let mut damaged = saved.clone();
    damaged[30] ^= 4;
    fs::write(&identity, damaged).unwrap();
    drop(open(dir.path()));
    assert_eq!(fs::read(&identity).unwrap(), saved, "a damaged copy is mended from a good one");
}

#[test]
fn a_directory_whose_making_was_cut_short_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    fs::rename(dir.path().join("IDENTITY"), dir.path().join("IDENTITY.new")).unwrap();
    assert!(open(dir.path()).dir.is_fresh());
}

#[test]
fn rot_in_the_log_is_named_and_what_nobody_else_has_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let writer = LogWriter::spawn(opened.wal, opened.files, |_, _| {}, |_| {}, |_| {}).unwrap();
    let vote = ReplicaId(0xABCD_EF01_2345);
    let promise = HardState { shard: ShardId(1), replica: ReplicaId(1), term: Term(3), vote, commit: LogIndex(0) };
    writer.append(vec![LogRecord::HardState(promise), entry(1, 1, b"a needle in the log".to_vec())], 1).unwrap();
    drop(writer);
    drop(opened.dir);
    let segment = dir.path().join("wal/0000000000000001.wal");
    let whole = fs::read(&segment).unwrap();
    let place = |what: &[u8]| whole.windows(what.len()).position(|window| window == what).unwrap();

    let mut bytes = whole.clone();
    bytes[place(&vote.0.to_le_bytes())] = b'X';
    fs::write(&segment, &bytes).unwrap();
    let refused = DataDir::open_or_create(dir.path(), &owner(), &small()).err();
    let Some(DiskError::Log { source: WalError::Rot { shard, index, term, .. }, .. }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!((shard, index, term), (Some(ShardId(1)), None, Some(Term(3))));
    assert_eq!(fs::read(&segment).unwrap(), bytes);

    // An entry is on other nodes too.
    let at = place(b"a needle");
    bytes.clone_from(&whole);
    bytes[at] = b'X';
    fs::write(&segment, &bytes).unwrap();
    let log = open(dir.path()).recovered.shards[&ShardId(1)].clone();
    assert!(log.entries.is_empty() && log.rotted.len() == 1);
    assert_eq!((log.rotted[0].index, log.rotted[0].term), (LogIndex(1), Term(1)));

    // One flipped bit is turned back.
    bytes[at..at + 8].copy_from_slice(b"a neeDle");
    fs::write(&segment, &bytes).unwrap();
    let recovered = open(dir.path()).recovered;
    assert_eq!(recovered.shards[&ShardId(1)].entries[0].payload, "a needle in the log");
    assert_eq!(recovered.damage.len(), 1);
}

#[test]
fn flushed_rows_are_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let (told, flushed) = channel();
    let thread = StoreThread::spawn(|_| {}, move |ticket| told.send(ticket).unwrap(), |_| {}, |_| {}).unwrap();
    let mut batch = WriteBatch::new();
    batch.put("key", "value");
    opened.store.write(&mut batch).unwrap();
    thread.flush(opened.store.seal().unwrap(), 5).unwrap();
    assert_eq!(flushed.recv_timeout(PATIENCE), Ok(5));
    batch.put("key", "not flushed");
    opened.store.write(&mut batch).unwrap();
    drop((thread, opened));
    assert_eq!(open(dir.path()).store.get(b"key").unwrap(), Some("value".into()));
}

struct FullThrice(AtomicU64);

impl FlushJob for FullThrice {
    fn run(&self) -> Result<(), StoreError> {
        if self.0.fetch_add(1, Ordering::AcqRel) < 3 { Err(StoreError::NoSpace) } else { Ok(()) }
    }
}

#[test]
fn a_full_disk_is_waited_out() {
    let (told, events) = channel();
    let spaces = told.clone();
    let thread = StoreThread::spawn(
        |_| {},
        move |ticket| told.send(format!("flushed {ticket}")).unwrap(),
        move |space| spaces.send(format!("{space:?}")).unwrap(),
        |_| {},
    )
    .unwrap();
    thread.flush(Box::new(FullThrice(AtomicU64::new(0))), 9).unwrap();
    let seen: Vec<String> = (0..3).map(|_| events.recv_timeout(PATIENCE).unwrap()).collect();
    assert_eq!(seen, ["Full", "Enough", "flushed 9"]);
}

#[test]
fn the_disk_is_full_until_everybody_who_waited_goes_on() {
    let (told, events) = channel();
    let gauge = SpaceGauge::new(move |space| told.send(space).unwrap());
    // The store is served first; the log still waits for a segment.
    for (said, heard) in [
        (Space::Full, Some(Space::Full)),
        (Space::Full, None),
        (Space::Enough, None),
        (Space::Enough, Some(Space::Enough)),
        (Space::Full, Some(Space::Full)),
    ] {
        gauge.report(said);
        assert_eq!(events.try_recv().ok(), heard);
    }
}

/// Names the directory to the child that [`a_disk_that_fails_ends_the_process_and_acknowledges_nothing`] starts.
const FAILING: &str = "QUORATE_TEST_FAILING_DISK";

#[test]
fn a_disk_that_fails_ends_the_process_and_acknowledges_nothing() {
    if let Some(path) = std::env::var_os(FAILING) {
        write_to_a_failing_disk(Path::new(&path));
    }
    let dir = tempfile::tempdir().unwrap();
    let me = "disk::tests::a_disk_that_fails_ends_the_process_and_acknowledges_nothing";
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", me, "--nocapture"])
        .env(FAILING, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(!child.status.success());
    assert!(said.contains("quorate: writing at byte 8192 of 0000000000000001.wal in the log failed:"), "{said}");
    assert!(said.contains("ending the process"), "{said}");
    assert!(!said.contains("acknowledged"), "{said}");
}

fn write_to_a_failing_disk(path: &Path) -> ! {
    let opened = open(path);
    // Low addresses belong to no process: the kernel answers writes there with EIO.
    let segment = path.join("wal/0000000000000001.wal");
    fs::remove_file(&segment).unwrap();
    std::os::unix::fs::symlink("/proc/self/mem", &segment).unwrap();
    let files = Arc::new(LogFiles::open(&path.join("wal")).unwrap());
    let writer = LogWriter::spawn(opened.wal, files, |_, _| {}, |_| eprintln!("acknowledged"), |_| {}).unwrap();
    writer.append(vec![entry(1, 1, vec![7])], 1).unwrap();
    std::thread::sleep(PATIENCE);
    panic!("the process goes on");
}

//! One machine on a store in memory: what a command leaves behind, and what of it is found again later.

use crate::rows::SLOT_BYTES;
use crate::{EventPage, Export, Machine, MachineError, Output, Procedures, Remains, Slot, encode_entry};
use bytes::Bytes;
use quorate_env::{LogIndex, ShardId, Term, Timestamp, WallMs};
use quorate_kv::across::TxId;
use quorate_kv::reserve::ReserveStep;
use quorate_kv::{
    Applied, Command, CommandId, DeleteOp, Envelope, Event, EventKind, KeyRange, LeaseId, Level, Op, OpResult, Outcome,
    PutOp, RangeEnd, RangeOp, RangeResult, Refusal, Revision, SessionId, Sort, SortBy, Txn, limits,
};
use quorate_storage::store::ModelStore;
use std::sync::Arc;

const SESSION: SessionId = SessionId(1);

struct Fixture {
    machine: Machine,
    seq: u64,
}

impl Fixture {
    fn new() -> Self {
        Self::of(Level::LATEST)
    }

    /// Of a release that knows no more than this.
    fn of(level: Level) -> Self {
        let (store, procedures) = (Arc::new(ModelStore::new()), Arc::new(Procedures::of(level)));
        Self { machine: Machine::create(store, Slot(1), Bytes::new(), procedures).expect("created"), seq: 0 }
    }

    /// Applies a command as an entry of its own; returns its answer and the events.
    fn apply(&mut self, command: Command) -> (Result<Applied, Refusal>, Vec<Event>) {
        let mut output = self.try_apply(command).expect("applied");
        (output.results.remove(0).1, output.events)
    }

    fn try_apply(&mut self, command: Command) -> Result<Output, MachineError> {
        self.seq += 1;
        let id = CommandId { session: SESSION, seq: self.seq };
        let envelope = Envelope { id, answered_below: self.seq, command };
        let entry = encode_entry(WallMs(0), Timestamp::ZERO, [&envelope].into_iter()).into();
        self.machine.apply(LogIndex(self.seq), Term(1), &entry, &|asked| asked.id.session == SESSION)
    }

    /// Runs operations as one transaction.
    fn run(&mut self, ops: Vec<Op>) -> Result<Vec<OpResult>, Refusal> {
        self.run_with_events(ops).0
    }

    fn run_with_events(&mut self, ops: Vec<Op>) -> (Result<Vec<OpResult>, Refusal>, Vec<Event>) {
        let (answer, events) = self.apply(Command::Transact(Txn { success: ops, ..Txn::default() }));
        let results = answer.map(|applied| match applied.outcome {
            Outcome::Transacted(result) => result.results,
            other => panic!("a transaction was answered with {other:?}"),
        });
        (results, events)
    }

    fn compact(&mut self, revision: u64) {
        self.apply(Command::Compact { revision: Revision(revision) }).0.expect("compacted");
        while self.machine.collect_garbage(100).expect("collected") {}
    }

    fn read(&self, op: &RangeOp) -> Result<RangeResult, Refusal> {
        self.machine.view().range(op).expect("readable")
    }

    /// All that happened from a revision on, from history.
    fn events(&self, from: u64) -> EventPage {
        self.machine.view().events(&KeyRange::all(), Revision(from), true, usize::MAX).expect("readable")
    }
}

fn put(key: &'static str, value: &'static str) -> Op {
    Op::Put(PutOp::of(key, value))
}

/// Of the keys from `start` on; next to a put of one of them only such an open end gets past the layer.
fn delete_from(start: &'static str) -> Op {
    Op::Delete(DeleteOp { range: KeyRange { start: start.into(), end: RangeEnd::Unbounded }, prev_kv: true })
}

fn at(key: &'static str, revision: u64) -> RangeOp {
    RangeOp { revision: Some(Revision(revision)), ..RangeOp::of(KeyRange::single(key)) }
}

fn keys(result: &RangeResult) -> Vec<&str> {
    result.kvs.iter().map(|kv| std::str::from_utf8(&kv.key).expect("text")).collect()
}

#[test]
fn of_two_refusals_that_of_a_write_is_given() {
    let mut fixture = Fixture::new();
    let unknown_lease = Op::Put(PutOp { lease: LeaseId(77), ..PutOp::of("k", "v") });
    let nested = Op::Txn(Txn::just(unknown_lease));
    assert_eq!(fixture.run(vec![Op::Range(at("k", 99)), nested]), Err(Refusal::LeaseNotFound));
    let current = Revision(1);
    assert_eq!(fixture.run(vec![Op::Range(at("k", 99))]), Err(Refusal::RevisionInFuture { current }));
}

#[test]
fn a_limit_may_come_before_the_order() {
    let mut fixture = Fixture::new();
    for (key, value) in [("a", "9"), ("b", "8"), ("c", "7"), ("d", "1")] {
        fixture.run(vec![put(key, value)]).expect("put");
    }
    let sort = |after_limit| Some(Sort { by: SortBy::Value, descending: false, after_limit });
    let mut op = RangeOp { limit: 2, sort: sort(false), ..RangeOp::of(KeyRange::all()) };
    assert_eq!(keys(&fixture.read(&op).expect("read")), ["d", "c"]);
    op.sort = sort(true);
    let cut = fixture.read(&op).expect("read");
    assert_eq!((keys(&cut), cut.more, cut.count), (vec!["c", "b"], true, 4));
    op.max_mod = 99;
    assert_eq!(keys(&fixture.read(&op).expect("read")), ["d", "c"], "a filter needs all rows first");
}

#[test]
fn as_many_rows_come_as_there_is_room_for_and_one_at_least() {
    let mut fixture = Fixture::new();
    for key in ["a", "b", "c"] {
        fixture.run(vec![put(key, "123")]).expect("put");
    }
    for (bytes_max, expected) in [(0, 3), (1, 1), (4, 1), (7, 1), (8, 2), (11, 2), (12, 3)] {
        let op = RangeOp { bytes_max, ..RangeOp::of(KeyRange::all()) };
        let result = fixture.read(&op).expect("read");
        assert_eq!((result.kvs.len(), result.more), (expected, expected < 3), "{bytes_max} bytes");
    }
}

#[test]
fn revision_zero_is_the_present_until_something_is_compacted() {
    let mut fixture = Fixture::new();
    fixture.run(vec![put("k", "v")]).expect("put");
    assert_eq!(keys(&fixture.read(&at("k", 0)).expect("read")), ["k"]);
    fixture.compact(1);
    let compacted = Revision(1);
    assert_eq!(fixture.read(&at("k", 0)), Err(Refusal::RevisionCompacted { compacted }));
}

#[test]
fn a_key_written_and_removed_by_one_revision_is_told_as_two_events() {
    let mut fixture = Fixture::new();
    fixture.run(vec![put("k", "old")]).expect("put");
    let (results, live) = fixture.run_with_events(vec![put("k", "brief"), delete_from("a")]);
    // The answer knows the steps of the transaction, events compare revisions.
    let results = results.expect("run");
    assert!(matches!(&results[1], OpResult::Delete(r) if r.prev[0].value == "brief"), "{results:?}");
    let told: Vec<_> =
        live.iter().map(|e| (e.kind, &e.kv.value[..], e.prev.as_ref().map(|kv| &kv.value[..]))).collect();
    let old = Some(&b"old"[..]);
    assert_eq!(told, [(EventKind::Put, &b"brief"[..], old), (EventKind::Delete, b"", old)]);
    assert_eq!(fixture.events(3).events, live, "history tells the same");
    assert_eq!(keys(&fixture.read(&at("k", 2)).expect("read")), ["k"]);
    fixture.compact(3);
    assert!(keys(&fixture.read(&at("k", 3)).expect("read")).is_empty());
}

#[test]
fn a_key_removed_and_written_by_one_revision_outlives_a_compaction_there() {
    let mut fixture = Fixture::new();
    fixture.run(vec![put("k", "old")]).expect("put");
    let (results, live) = fixture.run_with_events(vec![delete_from("a"), put("k", "new")]);
    results.expect("run");
    assert_eq!(live[1].prev, None, "it came into being");
    assert_eq!(fixture.events(3).events, live);
    fixture.run(vec![put("k", "newer")]).expect("put");
    let hash = |fixture: &Fixture| fixture.machine.view().hash(Some(Revision(3))).expect("readable").expect("hashed");
    fixture.apply(Command::Compact { revision: Revision(3) }).0.expect("compacted");
    let before = hash(&fixture);
    while fixture.machine.collect_garbage(100).expect("collected") {}
    let read = fixture.read(&at("k", 3)).expect("read");
    assert_eq!(read.kvs[0].value, "new", "collecting took the tombstone's place for a tombstone");
    assert_eq!(hash(&fixture).hash, before.hash, "what was collected cannot be seen");
}

#[test]
fn what_only_a_later_release_knows_is_not_guessed_at() {
    let wean = || Command::Wean { child: ShardId(21) };
    for (level, known) in [(Level::FIRST, false), (Level::ACROSS, false), (Level::SPLIT, true), (Level::LATEST, true)] {
        match Fixture::of(level).try_apply(wean()) {
            Ok(_) => assert!(known, "{level}"),
            Err(MachineError::TooNew { needs: Level::SPLIT, knows }) => assert!(!known && knows == level),
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a_lease_lasts_as_long_as_it_may_and_no_longer() {
    let mut fixture = Fixture::new();
    let mut grant = |id, ttl_s| fixture.apply(Command::LeaseGrant { id: LeaseId(id), ttl_s }).0.map(|it| it.outcome);
    let max = limits::LEASE_TTL_S_MAX;
    assert_eq!(grant(1, max), Ok(Outcome::LeaseGranted));
    assert_eq!(grant(2, max + 1), Err(Refusal::LeaseTtlTooLarge));
    assert_eq!(grant(1, 60), Err(Refusal::LeaseExists));
}

/// Reserves keys for a transaction of that age; says how many it was given.
fn reserve(fixture: &mut Fixture, by: u128, keys: Vec<Bytes>) -> Result<usize, Refusal> {
    let step = ReserveStep::Reserve { age: Timestamp(by as u64), patient: false, keys, held: Vec::new() };
    let (answer, _) = fixture.apply(Command::Reserve { by: TxId(by), step });
    answer.map(|applied| match applied.outcome {
        Outcome::Reserved(reserved) => reserved.keys.len(),
        other => panic!("a reservation was answered with {other:?}"),
    })
}

fn names(prefix: u128, count: usize) -> Vec<Bytes> {
    (0..count).map(|n| Bytes::from(format!("{prefix}/{n}"))).collect()
}

#[test]
fn nobody_reserves_more_than_there_is_room_for() {
    let (one, all) = (limits::RESERVED_KEYS_MAX, limits::RESERVED_KEYS_OF_SHARD_MAX);
    let full = Err(Refusal::TooManyReserved { max: one });
    let mut fixture = Fixture::new();
    assert_eq!(reserve(&mut fixture, 1, names(1, one + 1)), full);
    assert_eq!(reserve(&mut fixture, 1, names(1, one)), Ok(one));
    assert_eq!(reserve(&mut fixture, 1, names(1, one)), Ok(one), "what one has is not counted twice");
    assert_eq!(reserve(&mut fixture, 1, names(2, 1)), full);
    for by in 2..=(all / one) as u128 {
        assert_eq!(reserve(&mut fixture, by, names(by, one)), Ok(one));
    }
    assert_eq!(reserve(&mut fixture, 77, names(77, 1)), Err(Refusal::TooManyReserved { max: all }));
    let (freed, _) = fixture.apply(Command::Reserve { by: TxId(2), step: ReserveStep::Release });
    freed.expect("released");
    assert_eq!(reserve(&mut fixture, 77, names(77, 1)), Ok(1));
}

#[test]
fn what_remains_of_a_sound_shard_is_offered_as_it_would_be_sent() {
    let mut fixture = Fixture::new();
    for key in ["a", "b", "c"] {
        fixture.run(vec![put(key, "value")]).expect("put");
    }
    let remains = Remains::new(fixture.machine.store().clone(), fixture.machine.slot());
    let mut export = Export::new(fixture.machine.view());
    let (mut cursor, mut chunks) = (Bytes::new(), 0);
    loop {
        let sent = export.chunk(&cursor, 50).expect("readable").expect("known");
        let bytes = sent.rows.iter().map(|(key, value)| SLOT_BYTES + key.len() + value.len()).sum::<usize>();
        let offered = |bytes_max| remains.chunk(&cursor, sent.next.as_ref(), sent.hash, bytes_max);
        assert_eq!(offered(bytes).as_ref(), Some(&sent));
        assert_eq!(offered(bytes - 1), None, "more than it should be");
        chunks += 1;
        match sent.next {
            Some(next) => cursor = next,
            None => break,
        }
    }
    assert!(chunks > 2);
}

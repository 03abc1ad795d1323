//! Histories made by hand: a right one, and the ways in which it can be wrong, each of which is noticed.

use super::*;
use quorate_env::Term;
use quorate_kv::{Header, KeyValue, OpResult, Outcome, PutResult, Revision, Txn, TxnResult};

fn write(number: u64, began_us: u64, ended_us: u64, told: Told) -> Operation {
    let asked = Asked::Write(Command::Transact(Txn::just(mark(1, number))));
    Operation { number, began_us, ended_us, asked, told }
}

fn done(revision: u64) -> Told {
    let results = vec![OpResult::Put(PutResult::default())];
    let outcome = Outcome::Transacted(TxnResult { succeeded: true, results });
    Told::Done(Applied { header: Header { revision: Revision(revision), term: Term(1) }, outcome })
}

fn event(number: u64, revision: u64) -> Event {
    let kv = KeyValue {
        key: "m/1".into(),
        value: number.to_string().into(),
        create_revision: Revision(2),
        mod_revision: Revision(revision),
        version: revision - 1,
        lease: LeaseId::NONE,
    };
    Event { kind: EventKind::Put, kv, prev: None }
}

fn read(number: u64, began_us: u64, ended_us: u64, revision: u64, value: Option<u64>) -> Operation {
    let op = RangeOp::of(KeyRange::single("m/1"));
    let kvs: Vec<KeyValue> = value.map(|value| event(value, value - 8).kv).into_iter().collect();
    let result = RangeResult { count: kvs.len() as u64, more: false, kvs };
    let asked = Asked::Read { op, linearizable: true };
    Operation { number, began_us, ended_us, asked, told: Told::Read(revision, result) }
}

/// Operations 10 to 12 at revisions 2 to 4, one after the other, and a read after the second; 13 is refused, of 14 nothing is known.
fn right() -> History {
    let notice = |events: Vec<Event>| Notice { at_us: 90, events };
    History {
        operations: vec![
            write(10, 0, 9, done(2)),
            write(11, 10, 19, done(3)),
            read(20, 20, 25, 3, Some(11)),
            write(12, 30, 39, done(4)),
            write(13, 40, 49, Told::NotDone),
            write(14, 50, 59, Told::Unknown),
        ],
        committed: vec![event(10, 2), event(11, 3), event(12, 4)],
        watches: vec![vec![notice(vec![event(10, 2)]), notice(vec![event(11, 3), event(12, 4)])]],
        renewals: Vec::new(),
    }
}

fn rule(history: &History) -> &'static str {
    judge(history).expect_err("an objection").rule
}

#[test]
fn a_right_history_is_found_right() {
    let judged = judge(&right()).expect("right");
    let expected = Judged {
        acknowledged: 3,
        unknown: 1,
        refused: 1,
        reads: 1,
        linearizable: 1,
        revision: 4,
        watched: 3,
        ..Judged::default()
    };
    assert_eq!(judged, expected);
    let mut later = right();
    later.committed.push(event(14, 5));
    later.watches.clear();
    assert_eq!(judge(&later).expect("what is unknown may be done").unknown_done, 1);
}

#[test]
fn a_lost_write_is_noticed() {
    let mut history = right();
    history.committed.pop();
    assert_eq!(rule(&history), "acknowledged is committed");
}

#[test]
fn a_write_that_was_done_twice_is_noticed() {
    let mut history = right();
    history.committed.push(event(14, 5));
    history.committed.push(event(14, 6));
    assert_eq!(rule(&history), "applied at most once");
}

#[test]
fn a_write_that_was_refused_and_done_is_noticed() {
    let mut history = right();
    history.committed.push(event(13, 5));
    assert_eq!(rule(&history), "what is answered as not done has no effect");
}

#[test]
fn a_write_that_nobody_sent_is_noticed() {
    let mut history = right();
    history.committed.push(event(99, 5));
    assert_eq!(rule(&history), "only what was asked for is committed");
}

#[test]
fn a_wrong_revision_is_noticed() {
    let mut history = right();
    history.operations[3].told = done(5);
    assert_eq!(rule(&history), "revisions are the model's");
    let mut gap = right();
    gap.committed.remove(1);
    assert_eq!(rule(&gap), "watch events are complete, ordered and unique");
}

#[test]
fn an_order_against_time_is_noticed() {
    let mut history = right();
    // The second began after the first was acknowledged, and stands before it.
    history.committed = vec![event(11, 2), event(10, 3), event(12, 4)];
    history.operations[0].told = done(3);
    history.operations[1].told = done(2);
    assert_eq!(rule(&history), "commit order respects real time");
}

#[test]
fn a_stale_read_is_noticed() {
    let mut history = right();
    history.operations[2] = read(20, 20, 25, 2, Some(10));
    assert_eq!(rule(&history), "linearizable reads are not stale");
    history.operations[2] = read(20, 20, 25, 3, Some(10));
    assert_eq!(rule(&history), "reads are the model's");
    history.operations[2] = read(20, 15, 25, 2, Some(10));
    judge(&history).expect("it began before the second was acknowledged");
}

#[test]
fn what_a_watch_leaves_out_or_repeats_is_noticed() {
    let complete = "watch events are complete, ordered and unique";
    let mut history = right();
    history.watches[0].remove(0);
    assert_eq!(rule(&history), complete);
    history = right();
    history.watches[0].pop();
    assert_eq!(rule(&history), complete);
    history = right();
    let again = history.watches[0][0].clone();
    history.watches[0].push(again);
    assert_eq!(rule(&history), complete);
}

/// Lease 10 of two seconds, granted at 0, renewed at 1 s, with a key that goes at `end_us`.
fn leased(end_us: u64) -> History {
    let lease = LeaseId(10);
    let key = format!("{LEASED}10");
    let attach = Op::Put(PutOp { lease, ..PutOp::of(key.clone(), "x") });
    let txn = Txn { success: vec![mark(1, 11), attach], ..Txn::default() };
    let mut attached = event(11, 2);
    attached.kv = KeyValue { key: key.clone().into(), value: "x".into(), version: 1, lease, ..attached.kv };
    let mut gone = event(0, 3);
    gone.kind = EventKind::Delete;
    gone.kv = KeyValue { key: key.into(), value: "".into(), ..gone.kv };
    let grant = Asked::Write(Command::LeaseGrant { id: lease, ttl_s: 2 });
    let operation = |number, asked| Operation { number, began_us: 0, ended_us: 1, asked, told: Told::Unknown };
    let renewal = |asked_us| Renewal { lease, ttl_s: 2, asked_us };
    let committed = vec![event(11, 2), attached, gone];
    History {
        operations: vec![operation(10, grant), operation(11, Asked::Write(Command::Transact(txn)))],
        watches: vec![vec![Notice { at_us: end_us, events: committed.clone() }]],
        committed,
        renewals: vec![renewal(0), renewal(1_000_000)],
    }
}

#[test]
fn a_lease_that_ends_early_is_noticed() {
    assert_eq!(judge(&leased(3_000_000)).expect("in time").leases_ended, 1);
    assert_eq!(rule(&leased(2_900_000)), "leases are never early");
}

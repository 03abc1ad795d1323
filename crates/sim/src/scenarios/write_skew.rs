//! Write skew: two doctors who each see the other on call, and both go home.

use super::board::Board;
use super::{Play, Scenario, finding};
use quorate_env::{LogIndex, Rng, Term, Timestamp, WallMs};
use quorate_kv::{
    Command, CommandId, Compare, CompareOp, DeleteOp, Envelope, Expected, KeyRange, KeyValue, Level, Op, Outcome,
    PutOp, RangeOp, SessionId, Txn,
};
use quorate_shard::{Machine, MachineError, Procedures, Slot, View, encode_entry};
use quorate_storage::store::ModelStore;
use std::sync::Arc;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "write-skew",
    title: "snapshots let all doctors go home at once, checked reads keep one on call",
    text: "Three doctors are on call, and one must stay. Each looks who is, in a snapshot of her own, and goes off if another stays. All orders in which \
           they look and write are tried, on Quorate's own state machine. If a commit checks only that nobody else wrote what it writes, \
           snapshot isolation's rule, orders exist in which each leaves because of another, and nobody is left: each wrote a row that nobody else \
           wrote. If a commit checks what was read, as transactions do unless told otherwise, whoever looked too early is refused and looks again, \
           and one stays in every order. One after another, nobody is ever refused.",
    source: "Berenson, Bernstein, Gray, Melton, O'Neil, O'Neil: A critique of ANSI SQL isolation levels (SIGMOD 1995); Cahill, Röhm, Fekete: \
             Serializable isolation for snapshot databases (SIGMOD 2008).",
    play,
};

const DOCTORS: usize = 3;
const SESSION: SessionId = SessionId(1);

/// What a commit checks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Checks {
    /// That nobody wrote meanwhile what it writes.
    Snapshot,
    /// That nobody wrote meanwhile what it read.
    Strict,
}

/// A doctor's next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Looks(usize),
    Writes(usize),
}

fn key(doctor: usize) -> String {
    format!("on-call/{}", doctor + 1)
}

/// The ward's rows, in a real state machine.
struct Ward {
    machine: Machine,
    entries: u64,
}

impl Ward {
    fn new() -> Result<Self, MachineError> {
        let procedures = Arc::new(Procedures::of(Level::LATEST));
        let machine = Machine::create(Arc::new(ModelStore::new()), Slot(1), Default::default(), procedures)?;
        let mut ward = Self { machine, entries: 0 };
        let comes = (0..DOCTORS).map(|doctor| Op::Put(PutOp::of(key(doctor), "on call")));
        ward.commit(Txn { success: comes.collect(), ..Txn::default() })?;
        Ok(ward)
    }

    /// Whether its compares held.
    fn commit(&mut self, txn: Txn) -> Result<bool, MachineError> {
        self.entries += 1;
        let id = CommandId { session: SESSION, seq: self.entries };
        let envelope = Envelope { id, answered_below: self.entries, command: Command::Transact(txn) };
        let entry = encode_entry(WallMs(0), Timestamp::ZERO, [&envelope].into_iter()).into();
        let output = self.machine.apply(LogIndex(self.entries), Term(1), &entry, &|_| true)?;
        let done = |outcome: &Outcome| matches!(outcome, Outcome::Transacted(result) if result.succeeded);
        Ok(output.results.iter().all(|(_, result)| result.as_ref().is_ok_and(|applied| done(&applied.outcome))))
    }

    fn on_call(&self) -> Result<Vec<KeyValue>, MachineError> {
        rows(&self.machine.view())
    }
}

fn rows(view: &View) -> Result<Vec<KeyValue>, MachineError> {
    let read = view.range(&RangeOp::of(KeyRange::prefix("on-call/")))?;
    Ok(read.map(|read| read.kvs).unwrap_or_default())
}

/// What a doctor does about what she saw; nothing if nobody else stays.
fn leaves(doctor: usize, seen: &[KeyValue], checks: Checks) -> Option<Txn> {
    let own = key(doctor);
    let mine = |kv: &&KeyValue| kv.key == own;
    if seen.len() < 2 || !seen.iter().any(|kv| mine(&kv)) {
        return None;
    }
    let checked = seen.iter().filter(|kv| checks == Checks::Strict || mine(kv));
    let unchanged = |kv: &KeyValue| Compare {
        range: KeyRange::single(kv.key.clone()),
        op: CompareOp::Equal,
        expected: Expected::Mod(kv.mod_revision.0 as i64),
    };
    let goes = Op::Delete(DeleteOp { range: KeyRange::single(own.clone()), prev_kv: false });
    Some(Txn { compares: checked.map(unchanged).collect(), success: vec![goes], ..Txn::default() })
}

/// What came of one order.
struct Shift {
    left: usize,
    refused: usize,
    /// Each step, with what it came to.
    told: Vec<(Step, String)>,
}

/// Plays an order. Whoever is refused looks and writes once more, and again, with nobody in between.
fn shift(order: &[Step], checks: Checks) -> Result<Shift, MachineError> {
    let mut ward = Ward::new()?;
    let mut snapshots: [Option<View>; DOCTORS] = Default::default();
    let (mut refused, mut told) = (0, Vec::new());
    for step in order {
        match *step {
            Step::Looks(doctor) => {
                let view = ward.machine.view();
                told.push((*step, format!("sees {} on call", rows(&view)?.len())));
                snapshots[doctor] = Some(view);
            }
            Step::Writes(doctor) => {
                let mut view = snapshots[doctor].take();
                while let Some(now) = view.take() {
                    let Some(txn) = leaves(doctor, &rows(&now)?, checks) else {
                        told.push((*step, "stays".into()));
                        break;
                    };
                    if ward.commit(txn)? {
                        told.push((*step, "goes home".into()));
                    } else {
                        refused += 1;
                        told.push((*step, "is refused, and looks again".into()));
                        view = Some(ward.machine.view());
                    }
                }
            }
        }
    }
    Ok(Shift { left: ward.on_call()?.len(), refused, told })
}

/// All orders in which each looks before she writes.
fn orders() -> Vec<Vec<Step>> {
    let mut done = Vec::new();
    let mut begun = vec![Vec::new()];
    while let Some(order) = begun.pop() {
        if order.len() == 2 * DOCTORS {
            done.push(order);
            continue;
        }
        for doctor in 0..DOCTORS {
            let next = match (order.contains(&Step::Looks(doctor)), order.contains(&Step::Writes(doctor))) {
                (false, _) => Step::Looks(doctor),
                (true, false) => Step::Writes(doctor),
                (true, true) => continue,
            };
            begun.push(order.iter().copied().chain([next]).collect());
        }
    }
    done
}

/// Whether each writes at once after she has looked.
fn is_serial(order: &[Step]) -> bool {
    order.chunks(2).all(|pair| matches!(pair, [Step::Looks(one), Step::Writes(other)] if one == other))
}

fn play(seed: u64) -> Play {
    match examine(seed) {
        Ok(play) => play,
        Err(e) => {
            let findings = vec![finding(false, format!("the state machine applies and reads: {e}"))];
            Play { findings, trace: Board::new(&[]).finish() }
        }
    }
}

fn examine(seed: u64) -> Result<Play, MachineError> {
    let orders = orders();
    let (mut skewed, mut deserted, mut refused, mut serial_refused) = (Vec::new(), 0, 0, 0);
    for order in &orders {
        let (loose, strict) = (shift(order, Checks::Snapshot)?, shift(order, Checks::Strict)?);
        if loose.left == 0 {
            skewed.push(order);
        }
        deserted += usize::from(strict.left == 0);
        refused += usize::from(strict.refused > 0);
        serial_refused += usize::from(is_serial(order) && strict.refused > 0);
    }
    let serial = orders.iter().filter(|order| is_serial(order)).count();
    let findings = vec![
        finding(
            !skewed.is_empty() && !skewed.iter().any(|order| is_serial(order)),
            format!(
                "where a commit checks what it writes, nobody is on call after {} of {} orders",
                skewed.len(),
                orders.len()
            ),
        ),
        finding(
            deserted == 0,
            format!(
                "where it checks what it read, somebody is after all {}; in {refused} of them somebody had to look again",
                orders.len()
            ),
        ),
        finding(serial_refused == 0, format!("in none of the {serial} orders without overlap")),
    ];
    let mut rng = Rng::new(seed);
    let told = rng.pick(&skewed).map_or(&orders[0], |order| *order);
    Ok(Play { findings, trace: tell(told)? })
}

/// An order after which nobody is left, and the same with what was read checked.
fn tell(order: &[Step]) -> Result<crate::Trace, MachineError> {
    let mut board = Board::new(&["the ward's shard"]);
    let mut at = 1_000;
    for (checks, words) in
        [(Checks::Snapshot, "commits check what they write"), (Checks::Strict, "commits check what they read")]
    {
        board.note(at, 0, words);
        let shift = shift(order, checks)?;
        for (step, came) in shift.told {
            at += 2_000;
            let (doctor, asked) = match step {
                Step::Looks(doctor) => (doctor, "look"),
                Step::Writes(doctor) => (doctor, "go home if another stays"),
            };
            board.operation((doctor as u64, 0), (at, at + 1_000), asked, came);
        }
        at += 3_000;
        board.note(at, 0, format!("{} on call", shift.left));
        at += 8_000;
    }
    Ok(board.finish())
}

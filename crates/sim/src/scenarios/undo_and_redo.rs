//! Undo and redo: what a database must write down that changes pages in place, and what is left of that where nothing is undone.

use super::board::Board;
use super::{Play, Scenario, finding};
use quorate_env::Rng;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "undo-and-redo",
    title: "who writes pages before commits needs undo, who commits before pages needs redo",
    text: "Two transactions change two pages in place, and a log says for each change what was there before and what is there now. Pages reach the disk \
           whenever they like, each after its log; then the power goes, at any moment, and goes again at any moment of the recovery. Recovery as ARIES \
           has it repeats history, then undoes those that did not commit, and writes down what it undid: it ends in what was committed, however \
           often it is cut short. Without redo a commit is lost whose page was late; without undo a page keeps what was never committed; without \
           words about what was undone it may be undone twice, over another's commit. Quorate's own log holds entries that are applied after they \
           are committed: there is nothing to undo, and redo is all that is left of this.",
    source: "Gray: Notes on data base operating systems (1978); Mohan, Haderle, Lindsay, Pirahesh, Schwarz: ARIES (TODS 1992).",
    play,
};

const PAGES: usize = 2;
type Pages = [i64; PAGES];

/// What the log says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Record {
    /// A transaction adds to a page: what was there before is one subtraction away.
    Adds {
        by: usize,
        page: usize,
        amount: i64,
    },
    Commits {
        by: usize,
    },
    /// The change of that record was taken back.
    Undid {
        record: usize,
        page: usize,
        amount: i64,
    },
    /// Nothing of it is left.
    Ended {
        by: usize,
    },
}

/// A page as it is on the disk: what is on it, and the last record whose change is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Page {
    holds: i64,
    upto: usize,
}

/// What recovery does.
#[derive(Clone, Copy)]
struct Rules {
    redo: bool,
    undo: bool,
    /// Writes down what it undoes.
    logs_undo: bool,
}

const ARIES: Rules = Rules { redo: true, undo: true, logs_undo: true };

/// One history: the second transaction does not commit in all of them, nor does the first.
const HISTORY: [Record; 6] = [
    Record::Adds { by: 0, page: 0, amount: 1 },
    Record::Adds { by: 1, page: 1, amount: 10 },
    Record::Adds { by: 0, page: 1, amount: 100 },
    Record::Commits { by: 0 },
    Record::Adds { by: 1, page: 0, amount: 1_000 },
    Record::Commits { by: 1 },
];

/// The page that a record changes, and by how much.
fn change(record: Record) -> Option<(usize, i64)> {
    match record {
        Record::Adds { page, amount, .. } => Some((page, amount)),
        Record::Undid { page, amount, .. } => Some((page, -amount)),
        Record::Commits { .. } | Record::Ended { .. } => None,
    }
}

/// A page with all changes of the log up to some record.
fn page_at(log: &[Record], page: usize, upto: usize) -> Page {
    let changes = log[..upto].iter().filter_map(|record| change(*record)).filter(|(changed, _)| *changed == page);
    Page { holds: changes.map(|(_, amount)| amount).sum(), upto }
}

/// What was committed, and nothing else.
fn committed(log: &[Record]) -> Pages {
    let done = |by: usize| log.contains(&Record::Commits { by });
    let mut pages = Pages::default();
    for record in log {
        if let Record::Adds { by, page, amount } = *record
            && done(by)
        {
            pages[page] += amount;
        }
    }
    pages
}

/// Recovers. Stops after so many steps, if it is not done by then: the power is gone again. Each step's log record and page are on the disk, since pages may
/// be written whenever they like. Returns whether it was done.
fn recover(log: &mut Vec<Record>, disk: &mut [Page; PAGES], rules: Rules, steps: usize) -> bool {
    let mut left = steps;
    let mut step = || {
        let goes = left > 0;
        left = left.saturating_sub(1);
        goes
    };
    for (number, record) in log.iter().enumerate() {
        if let Some((page, amount)) = change(*record).filter(|(page, _)| rules.redo && disk[*page].upto <= number) {
            if !step() {
                return false;
            }
            disk[page] = Page { holds: disk[page].holds + amount, upto: number + 1 };
        }
    }
    let over = |log: &[Record], by| log.contains(&Record::Commits { by }) || log.contains(&Record::Ended { by });
    for by in (0..2).filter(|_| rules.undo) {
        if over(log, by) {
            continue;
        }
        for number in (0..log.len()).rev() {
            let Record::Adds { by: whose, page, amount } = log[number] else { continue };
            let undone = |said: &Record| matches!(said, Record::Undid { record, .. } if *record == number);
            // Where history was not repeated, a change may never have reached its page.
            if whose != by || log.iter().any(undone) || (!rules.redo && disk[page].upto <= number) {
                continue;
            }
            if !step() {
                return false;
            }
            if rules.logs_undo {
                log.push(Record::Undid { record: number, page, amount });
                disk[page].upto = log.len();
            }
            disk[page].holds -= amount;
        }
        if !step() {
            return false;
        }
        if rules.logs_undo {
            log.push(Record::Ended { by });
        }
    }
    true
}

/// A moment at which the power goes: how long the log is, up to where each page has come, and after how many steps of the recovery it goes again.
#[derive(Clone, Copy)]
struct Moment {
    log: usize,
    upto: [usize; PAGES],
    again: Option<usize>,
}

/// All of them.
fn moments() -> Vec<Moment> {
    let mut all = Vec::new();
    for log in 0..=HISTORY.len() {
        for first in 0..=log {
            for second in 0..=log {
                let again = (0..=2 * HISTORY.len()).map(Some).chain([None]);
                all.extend(again.map(|again| Moment { log, upto: [first, second], again }));
            }
        }
    }
    all
}

/// What the pages hold after the power went at a moment and all is recovered, and what they should.
fn after(moment: Moment, rules: Rules) -> (Pages, Pages) {
    let mut log = HISTORY[..moment.log].to_vec();
    let wanted = committed(&log);
    let mut disk = [0, 1].map(|page| page_at(&log, page, moment.upto[page]));
    if let Some(steps) = moment.again {
        recover(&mut log, &mut disk, rules, steps);
    }
    recover(&mut log, &mut disk, rules, usize::MAX);
    (disk.map(|page| page.holds), wanted)
}

fn wrong(moments: &[Moment], rules: Rules) -> usize {
    moments.iter().map(|moment| after(*moment, rules)).filter(|(holds, wanted)| holds != wanted).count()
}

fn play(seed: u64) -> Play {
    let moments = moments();
    let once: Vec<Moment> = moments.iter().copied().filter(|moment| moment.again.is_none()).collect();
    let no_redo = wrong(&once, Rules { redo: false, ..ARIES });
    let no_undo = wrong(&once, Rules { undo: false, ..ARIES });
    let silent = Rules { logs_undo: false, ..ARIES };
    let (silent_once, silent_twice) = (wrong(&once, silent), wrong(&moments, silent));
    // What is applied only when it is committed needs nothing undone: pages never have anything else.
    let applied: Vec<Moment> = once.iter().copied().filter(|moment| moment.upto == [0, 0]).collect();
    let entries = applied.iter().filter(|moment| {
        let log: Vec<Record> = HISTORY[..moment.log].to_vec();
        let only_done: Vec<Record> = log
            .iter()
            .copied()
            .filter(|record| matches!(*record, Record::Adds { by, .. } if log.contains(&Record::Commits { by })))
            .collect();
        (0..=only_done.len()).all(|upto| {
            let mut disk = [0, 1].map(|page| page_at(&only_done, page, upto));
            recover(&mut only_done.clone(), &mut disk, Rules { undo: false, ..ARIES }, usize::MAX);
            disk.map(|page| page.holds) == committed(&log)
        })
    });
    let (right, all) = (entries.count(), applied.len());
    let findings = vec![
        finding(
            wrong(&moments, ARIES) == 0,
            format!(
                "recovery ends in what was committed, from each of {} moments, also if it is cut short",
                moments.len()
            ),
        ),
        finding(no_redo > 0, format!("without redo {no_redo} of {} moments end wrong", once.len())),
        finding(no_undo > 0, format!("without undo {no_undo} do")),
        finding(
            silent_once == 0 && silent_twice > 0,
            format!(
                "undo that is not written down goes well once, and wrong in {silent_twice} of {} that are cut short",
                moments.len()
            ),
        ),
        finding(right == all, "a log of what is committed needs redo alone"),
    ];
    Play { findings, trace: tell(seed, &moments) }
}

/// One moment at which there is something to redo and something to undo, and the recovery that is cut short and begun again.
fn tell(seed: u64, moments: &[Moment]) -> crate::Trace {
    let mut rng = Rng::new(seed);
    let told = moments.iter().filter(|moment| moment.log == 5 && moment.again == Some(3) && moment.upto[0] == 5);
    let told: Vec<&Moment> = told.filter(|moment| moment.upto[1] < 3).collect();
    let mut board = Board::new(&["a database with two pages"]);
    let Some(moment) = rng.pick(&told) else { return board.finish() };
    let mut at = 1_000;
    let mut say = |board: &mut Board, text: String| {
        board.note(at, 0, text);
        at += 1_000;
    };
    let mut log = HISTORY[..moment.log].to_vec();
    for (number, record) in log.iter().enumerate() {
        say(&mut board, format!("{}: {record:?}", number + 1));
    }
    let mut disk = [0, 1].map(|page| page_at(&log, page, moment.upto[page]));
    say(&mut board, format!("the power goes; pages hold {} and {}", disk[0].holds, disk[1].holds));
    board.restart(0, (12_000, 14_000), 2);
    for (life, steps) in [(2, moment.again.unwrap_or(0)), (3, usize::MAX)] {
        let (at, known) = (life * 10_000 - 5_000, log.len());
        let done = recover(&mut log, &mut disk, ARIES, steps);
        for (number, record) in log.iter().enumerate().skip(known) {
            board.note(at + 500 * (number - known) as u64, 0, format!("{}: {record:?}", number + 1));
        }
        let words = if done { "recovered" } else { "the power goes again" };
        board.note(at + 4_000, 0, format!("{words}; pages hold {} and {}", disk[0].holds, disk[1].holds));
        if !done {
            board.restart(0, (at + 6_000, at + 8_000), life + 1);
        }
    }
    board.finish()
}

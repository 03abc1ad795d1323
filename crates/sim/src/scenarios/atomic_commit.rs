//! Atomic commit: two phases may block, three may split, and two phases over replicated logs do neither.

use super::board::Board;
use super::{Play, Scenario, finding};
use quorate_env::Rng;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "atomic-commit",
    title: "two phases block, three split under a partition, two over replicated logs do neither",
    text: "Three participants and a coordinator agree whether a transaction is done. The coordinator dies after any part of any of its messages, or \
           the network is cut in two at any step, in any way; then those who can still talk to each other finish by what they know. With two phases \
           nobody ever does the contrary of another, and whoever has promised may wait for ever. The third phase ends the waiting where only \
           processes die, and no failure is mistaken for another: under a cut one side does what the other has undone. Where the decision is a \
           row in a replicated log that whoever comes first writes, and participants are replicated logs as well, the side with a majority always \
           ends, both sides agree, and messages that come late change nothing.",
    source: "Gray: Notes on data base operating systems (1978); Skeen: Nonblocking commit protocols (SIGMOD 1981); Gray, Lamport: Consensus on \
             transaction commit (2006).",
    play,
};

const PARTICIPANTS: usize = 3;

/// The coordinator's place behind the participants, and how many there are with it.
const COORDINATOR: usize = PARTICIPANTS;
const ALL: usize = PARTICIPANTS + 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Has not voted.
    Working,
    /// Has promised to do as is decided.
    Prepared,
    /// Knows that all have promised.
    Precommitted,
    Committed,
    Aborted,
}

use State::{Aborted, Committed, Precommitted, Prepared, Working};

/// What the coordinator tells all participants, in this order; each is answered before the next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Prepare,
    Precommit,
    Decide,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The coordinator dies while it says its word of that number: only these participants hear it.
    Dies { word: usize, heard: usize },
    /// From the word of that number on, or only from its answers on, nothing passes between these and the others.
    Cut { word: usize, answers: bool, side: usize },
}

fn has(set: usize, member: usize) -> bool {
    set >> member & 1 == 1
}

/// Every way to go wrong in a protocol of so many words.
fn faults(words: usize) -> Vec<Fault> {
    let sets = |members: usize| 0..1_usize << members;
    let dies = (0..words).flat_map(|word| sets(PARTICIPANTS).map(move |heard| Fault::Dies { word, heard }));
    // The side without the coordinator, which is not nobody.
    let cut =
        |word| sets(PARTICIPANTS).skip(1).flat_map(move |side| [false, true].map(|answers| (word, answers, side)));
    let cuts = (0..words).flat_map(cut).map(|(word, answers, side)| Fault::Cut { word, answers, side });
    dies.chain(cuts).collect()
}

/// How all end, the coordinator last; `votes` are those who would vote for it.
fn run(words: &[Word], votes: usize, fault: Fault) -> [State; ALL] {
    let mut states = [Working; ALL];
    let mut dead = false;
    for (number, word) in words.iter().enumerate() {
        // What the coordinator does before it says this.
        states[COORDINATOR] = match word {
            Word::Prepare => Prepared,
            Word::Precommit => Precommitted,
            Word::Decide => Committed,
        };
        let is_cut = |member: usize, answer: bool| match fault {
            Fault::Cut { word, answers, side } => has(side, member) && (number, answer) >= (word, answers),
            Fault::Dies { .. } => false,
        };
        let mut answered = 0;
        for (member, state) in states[..PARTICIPANTS].iter_mut().enumerate() {
            let lost = matches!(fault, Fault::Dies { word, heard } if word == number && !has(heard, member));
            if lost || is_cut(member, false) {
                continue;
            }
            *state = match word {
                Word::Prepare if !has(votes, member) => Aborted,
                Word::Prepare => Prepared,
                Word::Precommit => Precommitted,
                Word::Decide => Committed,
            };
            answered += usize::from(!is_cut(member, true) && *state != Aborted);
        }
        dead = matches!(fault, Fault::Dies { word, .. } if word == number);
        // Whoever misses a vote aborts; one who misses any other answer takes its participant for dead.
        if dead || (*word == Word::Prepare && answered < PARTICIPANTS) {
            break;
        }
    }
    if states[COORDINATOR] == Prepared && !dead {
        states[COORDINATOR] = Aborted;
    }
    // Time is up: each side ends by what it knows.
    let cut_off = if let Fault::Cut { side, .. } = fault { side } else { 0 };
    let alive = |member: &usize| *member < PARTICIPANTS || !dead;
    let (here, there): (Vec<usize>, Vec<usize>) = (0..ALL).filter(alive).partition(|member| !has(cut_off, *member));
    let three = words.contains(&Word::Precommit);
    for side in [here, there] {
        let knows = |state: State| side.iter().any(|member| states[*member] == state);
        let decision = match () {
            () if knows(Committed) => Some(Committed),
            () if knows(Aborted) => Some(Aborted),
            () if three && knows(Precommitted) => Some(Committed),
            // Nobody can have decided without the vote of one who has not voted; with three phases, nor before all knew of all votes.
            () if three || knows(Working) => Some(Aborted),
            () => None,
        };
        if let Some(decision) = decision {
            side.into_iter().for_each(|member| states[member] = decision);
        }
    }
    if dead && states[COORDINATOR] != Committed {
        // It had decided nothing, and asks the others when it is back.
        states[COORDINATOR] = states[0];
    }
    states
}

fn is_split(states: &[State]) -> bool {
    states.contains(&Committed) && states.contains(&Aborted)
}

fn is_blocked(states: &[State]) -> bool {
    states.iter().any(|state| !matches!(state, Committed | Aborted))
}

/// Every part a log on each of three machines, the coordinator a process on the first. It is cut off or dies at any step, whoever is left finishes; what was under
/// way to those in `late` comes after that. `remembers` is whether an abort is written down where nothing was prepared.
fn replicated(votes: usize, step: usize, late: usize, remembers: bool) -> [State; PARTICIPANTS] {
    let mut logs = [Working; PARTICIPANTS];
    let mut decision: Option<State> = None;
    let prepare = |logs: &mut [State; PARTICIPANTS], member: usize| {
        if logs[member] == Working {
            logs[member] = if has(votes, member) { Prepared } else { Aborted };
        }
    };
    // Its steps: to prepare each, to decide, to have each do as is decided.
    let prepared = step.min(PARTICIPANTS);
    (0..prepared).for_each(|member| prepare(&mut logs, member));
    let wants = if logs.iter().all(|log| *log == Prepared) { Committed } else { Aborted };
    if step > PARTICIPANTS {
        decision = Some(wants);
        (0..(step - PARTICIPANTS - 1).min(PARTICIPANTS)).for_each(|member| logs[member] = wants);
    }
    // Whoever meets a promise that nobody ends asks the log in which the decision belongs to abort; what is there already stands.
    let decided = *decision.get_or_insert(Aborted);
    for log in &mut logs {
        if *log == Prepared || (*log == Working && remembers) {
            *log = decided;
        }
    }
    // What the coordinator had sent arrives: it prepares what it had not prepared yet, and decides, if that is not decided.
    for member in (prepared..PARTICIPANTS).filter(|member| has(late, *member)) {
        prepare(&mut logs, member);
    }
    if step == PARTICIPANTS {
        decision.get_or_insert(wants);
    }
    logs
}

/// The runs of it that end split, and those in which somebody is left with a promise.
fn replicated_runs(remembers: bool) -> (usize, usize, usize) {
    let (mut runs, mut split, mut left) = (0, 0, 0);
    for votes in 0..1 << PARTICIPANTS {
        for step in 0..=2 * PARTICIPANTS + 1 {
            for late in 0..1 << PARTICIPANTS {
                let logs = replicated(votes, step, late, remembers);
                runs += 1;
                split += usize::from(is_split(&logs));
                left += usize::from(logs.contains(&Prepared));
            }
        }
    }
    (runs, split, left)
}

const TWO: &[Word] = &[Word::Prepare, Word::Decide];
const THREE: &[Word] = &[Word::Prepare, Word::Precommit, Word::Decide];

/// Runs under deaths or cuts, those that end split, and those in which somebody waits for ever.
fn count(words: &[Word], cuts: bool) -> (usize, usize, usize) {
    let (mut runs, mut split, mut blocked) = (0, 0, 0);
    for fault in faults(words.len()).into_iter().filter(|fault| matches!(fault, Fault::Cut { .. }) == cuts) {
        for votes in 0..1 << PARTICIPANTS {
            let states = run(words, votes, fault);
            runs += 1;
            split += usize::from(is_split(&states));
            blocked += usize::from(is_blocked(&states));
        }
    }
    (runs, split, blocked)
}

fn play(seed: u64) -> Play {
    let (two_dies, two_cut) = (count(TWO, false), count(TWO, true));
    let (three_dies, three_cut) = (count(THREE, false), count(THREE, true));
    let (runs, split, left) = replicated_runs(true);
    let (_, _, forgotten) = replicated_runs(false);
    let findings = vec![
        finding(
            two_dies.1 + two_cut.1 == 0,
            format!("with two phases none of {} runs ends split", two_dies.0 + two_cut.0),
        ),
        finding(
            two_dies.2 > 0 && two_cut.2 > 0,
            format!(
                "but somebody waits for ever in {} of {} where the coordinator dies, and in {} of {} under a cut",
                two_dies.2, two_dies.0, two_cut.2, two_cut.0
            ),
        ),
        finding(
            three_dies.1 + three_dies.2 == 0,
            format!("with three phases all of {} runs in which the coordinator dies end, and none split", three_dies.0),
        ),
        finding(
            three_cut.1 > 0 && three_cut.2 == 0,
            format!(
                "but {} of {} runs under a cut end split: done on one side, undone on the other",
                three_cut.1, three_cut.0
            ),
        ),
        finding(
            split + left == 0,
            format!("over replicated logs none of {runs} runs ends split or leaves a promise, whatever arrives late"),
        ),
        finding(
            forgotten > 0,
            format!(
                "and {forgotten} would leave one, did a log not write down that it aborted what it had not heard of"
            ),
        ),
    ];
    Play { findings, trace: tell(seed) }
}

/// Three phases, and a cut between two of its words that ends split.
fn tell(seed: u64) -> crate::Trace {
    let mut rng = Rng::new(seed);
    let everybody = (1 << PARTICIPANTS) - 1;
    let splits = faults(THREE.len()).into_iter().filter(|fault| is_split(&run(THREE, everybody, *fault)));
    let splits: Vec<Fault> = splits.filter(|fault| matches!(fault, Fault::Cut { answers: false, .. })).collect();
    let mut board = Board::new(&["a participant", "a participant", "a participant", "the coordinator"]);
    let Some(Fault::Cut { word: cut, side, .. }) = rng.pick(&splits).copied() else { return board.finish() };
    let mut at = 1_000;
    for (number, (word, answer)) in [("prepare", "yes"), ("all are prepared", "I know")].into_iter().enumerate() {
        for member in 0..PARTICIPANTS {
            let passes = number < cut || !has(side, member);
            let arrives = at + rng.between(1_000, 4_000);
            board.message((COORDINATOR, member), (at, passes.then_some(arrives)), word, word);
            if passes {
                board.message((member, COORDINATOR), (arrives + 200, Some(arrives + 3_000)), answer, answer);
            }
        }
        at += 10_000;
        if number + 1 == cut {
            board.note(at - 1_000, COORDINATOR, "the network is cut");
        }
    }
    for (member, state) in run(THREE, everybody, Fault::Cut { word: cut, answers: false, side }).into_iter().enumerate()
    {
        let words = if state == Committed { "all knew: done" } else { "nobody here knows of all votes: undone" };
        board.note(at + 10_000, member, words);
    }
    board.finish()
}

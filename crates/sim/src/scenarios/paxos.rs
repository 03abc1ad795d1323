//! Single-decree Paxos: proposers duel over a lossy network, and nothing is ever chosen twice.

use super::board::Board;
use super::{Play, Scenario, finding};
use quorate_env::Rng;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "paxos",
    title: "one value is chosen, whoever proposes what over whatever network",
    text: "Three acceptors, two proposers with a value each. A proposer asks for promises under a ballot; a majority of promises tells it what may \
           have been accepted before, and the value of the highest ballot among that, if there is one, is what it must propose. Messages are lost, \
           doubled and overtake each other, and a proposer that hears too little tries a higher ballot. In thousands of runs never two values are chosen. \
           A proposer that disregards what the promises tell it breaks that soon, which shows that the check can fail. Raft keeps the same two \
           majorities apart in time: a vote is a promise, an append an acceptance.",
    source: "Lamport: The part-time parliament (TOCS 1998); Paxos made simple (2001).",
    play,
};

const ACCEPTORS: usize = 3;
const PROPOSERS: usize = 2;
const RUNS: u64 = 1_000;
/// Until then messages are lost; then one proposer is left in peace.
const STORM_US: u64 = 300_000;
const END_US: u64 = 900_000;

type Ballot = u64;
/// An accepted proposal.
type Vote = Option<(Ballot, usize)>;

#[derive(Clone, Copy, Debug)]
enum Message {
    Prepare(Ballot),
    Promise(Ballot, Vote),
    Accept(Ballot, usize),
    Accepted(Ballot, usize),
}

enum Event {
    Arrive { from: usize, to: usize, message: Message },
    Retry { proposer: usize },
}

#[derive(Clone, Default)]
struct Acceptor {
    promised: Ballot,
    voted: Vote,
}

#[derive(Default)]
struct Proposer {
    ballot: Ballot,
    promises: BTreeMap<usize, Vote>,
    accepting: bool,
    accepted: BTreeSet<usize>,
    decided: Option<usize>,
}

struct Run<'a> {
    now: u64,
    heap: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    rng: Rng,
    acceptors: Vec<Acceptor>,
    proposers: Vec<Proposer>,
    /// Who accepted each proposal: what an observer of everything knows.
    votes: BTreeMap<(Ballot, usize), BTreeSet<usize>>,
    chosen: BTreeSet<usize>,
    deaf: bool,
    board: Option<&'a mut Board>,
}

impl<'a> Run<'a> {
    fn new(seed: u64, deaf: bool, board: Option<&'a mut Board>) -> Self {
        Self {
            now: 0,
            heap: BinaryHeap::new(),
            events: BTreeMap::new(),
            sequence: 0,
            rng: Rng::new(seed),
            acceptors: vec![Acceptor::default(); ACCEPTORS],
            proposers: (0..PROPOSERS).map(|_| Proposer::default()).collect(),
            votes: BTreeMap::new(),
            chosen: BTreeSet::new(),
            deaf,
            board,
        }
    }

    fn after(&mut self, us: u64, event: Event) {
        self.sequence += 1;
        let at = (self.now + us, self.sequence);
        self.heap.push(Reverse(at));
        self.events.insert(at, event);
    }

    fn note(&mut self, who: usize, text: String) {
        let now = self.now;
        if let Some(board) = &mut self.board {
            board.note(now, who, text);
        }
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        let storm = self.now < STORM_US;
        let copies = match storm {
            true if self.rng.chance(300) => 0,
            true if self.rng.chance(200) => 2,
            _ => 1,
        };
        let (kind, text) = match message {
            Message::Prepare(ballot) => ("prepare", format!("ballot {ballot}")),
            Message::Promise(ballot, None) => ("promise", format!("ballot {ballot}, nothing accepted")),
            Message::Promise(ballot, Some((old, value))) => {
                ("promise", format!("ballot {ballot}, accepted v{value} in {old}"))
            }
            Message::Accept(ballot, value) => ("accept", format!("ballot {ballot}, v{value}")),
            Message::Accepted(ballot, value) => ("accepted", format!("ballot {ballot}, v{value}")),
        };
        let waits: Vec<u64> =
            (0..copies).map(|_| self.rng.between(1_000, if storm { 30_000 } else { 3_000 })).collect();
        let now = self.now;
        if let Some(board) = &mut self.board {
            board.message((from, to), (now, waits.iter().min().map(|wait| now + wait)), kind, text);
        }
        for wait in waits {
            self.after(wait, Event::Arrive { from, to, message });
        }
    }

    /// A proposer's lane comes before the acceptors'.
    fn ask_all(&mut self, proposer: usize, message: Message) {
        (0..ACCEPTORS).for_each(|acceptor| self.send(proposer, PROPOSERS + acceptor, message));
    }

    fn run(mut self) -> Self {
        for proposer in 0..PROPOSERS {
            let wait = self.rng.between(0, 20_000);
            self.after(wait, Event::Retry { proposer });
        }
        while let Some(Reverse(at)) = self.heap.pop().filter(|Reverse(at)| at.0 < END_US) {
            self.now = at.0;
            match self.events.remove(&at).expect("every heap entry has its event") {
                Event::Retry { proposer } => self.retry(proposer),
                Event::Arrive { from, to, message } if to < PROPOSERS => self.answered(to, from, message),
                Event::Arrive { from, to, message } => self.asked(to - PROPOSERS, from, message),
            }
        }
        self
    }

    fn retry(&mut self, proposer: usize) {
        let this = &mut self.proposers[proposer];
        if this.decided.is_some() || (self.now > STORM_US && proposer > 0) {
            return;
        }
        // Ballots of different proposers differ.
        let round = this.ballot / PROPOSERS as u64 + 1;
        let ballot = round * PROPOSERS as u64 + proposer as u64;
        *this = Proposer { ballot, ..Proposer::default() };
        self.ask_all(proposer, Message::Prepare(ballot));
        let wait = self.rng.between(40_000, 90_000);
        self.after(wait, Event::Retry { proposer });
    }

    fn asked(&mut self, acceptor: usize, from: usize, message: Message) {
        let this = &mut self.acceptors[acceptor];
        match message {
            Message::Prepare(ballot) if ballot >= this.promised => {
                this.promised = ballot;
                let answer = Message::Promise(ballot, this.voted);
                self.send(PROPOSERS + acceptor, from, answer);
            }
            Message::Accept(ballot, value) if ballot >= this.promised => {
                *this = Acceptor { promised: ballot, voted: Some((ballot, value)) };
                let votes = self.votes.entry((ballot, value)).or_default();
                votes.insert(acceptor);
                if votes.len() * 2 > ACCEPTORS && self.chosen.insert(value) {
                    self.note(PROPOSERS + acceptor, format!("v{value} is chosen"));
                }
                self.send(PROPOSERS + acceptor, from, Message::Accepted(ballot, value));
            }
            _ => {}
        }
    }

    fn answered(&mut self, proposer: usize, from: usize, message: Message) {
        let deaf = self.deaf;
        let this = &mut self.proposers[proposer];
        match message {
            Message::Promise(ballot, voted) if ballot == this.ballot && !this.accepting => {
                this.promises.insert(from, voted);
                if this.promises.len() * 2 > ACCEPTORS {
                    this.accepting = true;
                    let told = this.promises.values().flatten().max().map(|(_, value)| *value);
                    let value = told.filter(|_| !deaf).unwrap_or(proposer + 1);
                    self.ask_all(proposer, Message::Accept(ballot, value));
                }
            }
            Message::Accepted(ballot, value) if ballot == this.ballot => {
                this.accepted.insert(from);
                if this.accepted.len() * 2 > ACCEPTORS && this.decided.replace(value).is_none() {
                    self.note(proposer, format!("knows that v{value} is chosen"));
                }
            }
            _ => {}
        }
    }
}

fn play(seed: u64) -> Play {
    let first = seed.wrapping_mul(RUNS);
    let all = |deaf| (0..RUNS).map(move |run| Run::new(first.wrapping_add(run), deaf, None).run());
    let (mut safe, mut decided, mut adopted) = (0, 0, 0);
    for run in all(false) {
        let known: BTreeSet<usize> = run.proposers.iter().filter_map(|proposer| proposer.decided).collect();
        safe += u64::from(run.chosen.len() <= 1 && known.is_subset(&run.chosen));
        decided += u64::from(run.proposers[0].decided.is_some());
        // The first proposer ended up with the other's value.
        adopted += u64::from(run.proposers[0].decided == Some(2));
    }
    let broken = all(true).filter(|run| run.chosen.len() > 1).count();
    let findings = vec![
        finding(
            safe == RUNS,
            format!("in {safe} of {RUNS} runs at most one value is chosen, and nobody believes in another"),
        ),
        finding(decided == RUNS, format!("in {decided} of them the proposer that is left in peace learns of it")),
        finding(adopted > 0, format!("in {adopted} it is the other's value, taken over from a promise")),
        finding(broken > 0, format!("with proposers that do not listen to promises, {broken} runs choose two values")),
    ];
    let mut board = Board::new(&["a proposer of v1", "a proposer of v2", "an acceptor", "an acceptor", "an acceptor"]);
    Run::new(first, false, Some(&mut board)).run();
    Play { findings, trace: board.finish() }
}

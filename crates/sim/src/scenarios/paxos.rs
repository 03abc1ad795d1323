//! Single-decree Paxos: proposers duel over a lossy network, and nothing is ever chosen twice.

pub(super) mod roles;

use super::agenda::Agenda;
use super::board::Board;
use super::{Play, Scenario, finding};
use quorate_env::Rng;
use roles::{Acceptor, Ballot, Message, Proposer, ballot_after};
use std::collections::{BTreeMap, BTreeSet};

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

enum Event {
    Arrive { from: usize, to: usize, message: Message },
    Retry { proposer: usize },
}

struct Run<'a> {
    agenda: Agenda<Event>,
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
            agenda: Agenda::beginning_at(0),
            rng: Rng::new(seed),
            acceptors: vec![Acceptor::default(); ACCEPTORS],
            proposers: (0..PROPOSERS).map(|_| Proposer::default()).collect(),
            votes: BTreeMap::new(),
            chosen: BTreeSet::new(),
            deaf,
            board,
        }
    }

    fn note(&mut self, who: usize, text: String) {
        let now = self.agenda.now();
        if let Some(board) = &mut self.board {
            board.note(now, who, text);
        }
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        let now = self.agenda.now();
        let storm = now < STORM_US;
        let copies = match storm {
            true if self.rng.chance(300) => 0,
            true if self.rng.chance(200) => 2,
            _ => 1,
        };
        let arrivals: Vec<u64> =
            (0..copies).map(|_| now + self.rng.between(1_000, if storm { 30_000 } else { 3_000 })).collect();
        if let Some(board) = &mut self.board {
            let (kind, text) = message.words();
            board.copies((from, to), (now, &arrivals), kind, text);
        }
        for at in arrivals {
            self.agenda.at(at, Event::Arrive { from, to, message });
        }
    }

    /// A proposer's lane comes before the acceptors'.
    fn ask_all(&mut self, proposer: usize, message: Message) {
        (0..ACCEPTORS).for_each(|acceptor| self.send(proposer, PROPOSERS + acceptor, message));
    }

    fn run(mut self) -> Self {
        for proposer in 0..PROPOSERS {
            let wait = self.rng.between(0, 20_000);
            self.agenda.after(wait, Event::Retry { proposer });
        }
        while let Some(event) = self.agenda.next_before(END_US) {
            match event {
                Event::Retry { proposer } => self.retry(proposer),
                Event::Arrive { from, to, message } if to < PROPOSERS => self.answered(to, from, message),
                Event::Arrive { from, to, message } => self.asked(to - PROPOSERS, from, message),
            }
        }
        self
    }

    fn retry(&mut self, proposer: usize) {
        let this = &mut self.proposers[proposer];
        if this.decided().is_some() || (self.agenda.now() > STORM_US && proposer > 0) {
            return;
        }
        let ballot = ballot_after(this.ballot(), proposer, PROPOSERS);
        *this = Proposer::under(ballot, ACCEPTORS);
        self.ask_all(proposer, Message::Prepare(ballot));
        let wait = self.rng.between(40_000, 90_000);
        self.agenda.after(wait, Event::Retry { proposer });
    }

    fn asked(&mut self, acceptor: usize, from: usize, message: Message) {
        let Some(answer) = self.acceptors[acceptor].asked(message) else { return };
        if let Message::Accepted(ballot, value) = answer {
            let votes = self.votes.entry((ballot, value)).or_default();
            votes.insert(acceptor);
            if votes.len() * 2 > ACCEPTORS && self.chosen.insert(value) {
                self.note(PROPOSERS + acceptor, format!("v{value} is chosen"));
            }
        }
        self.send(PROPOSERS + acceptor, from, answer);
    }

    fn answered(&mut self, proposer: usize, from: usize, message: Message) {
        let this = &mut self.proposers[proposer];
        match message {
            Message::Promise(ballot, voted) => {
                if let Some(accept) = this.promised(from, (ballot, voted), proposer + 1, self.deaf) {
                    self.ask_all(proposer, accept);
                }
            }
            Message::Accepted(ballot, value) if this.accepted(from, ballot, value) => {
                self.note(proposer, format!("knows that v{value} is chosen"));
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
        let known: BTreeSet<usize> = run.proposers.iter().filter_map(Proposer::decided).collect();
        safe += u64::from(run.chosen.len() <= 1 && known.is_subset(&run.chosen));
        decided += u64::from(run.proposers[0].decided().is_some());
        // The first proposer ended up with the other's value.
        adopted += u64::from(run.proposers[0].decided() == Some(2));
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

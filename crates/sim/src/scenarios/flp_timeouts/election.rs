//! Raft's leader election and nothing else: terms, one vote in each, a majority, and a timeout per process. No message is lost; an adversary says
//! how long each is on its way. Times are in milliseconds.

use super::super::agenda::Agenda;
use super::super::board::Board;
use crate::trace::Part;
use quorate_env::Rng;
use std::collections::{BTreeMap, BTreeSet};

pub const PROCESSES: usize = 3;
/// What the adversary does not touch takes so long.
pub const PROMPT_MS: u64 = 1;

/// How long a process waits for a leader before it asks for votes.
#[derive(Clone)]
pub enum Timeouts {
    /// Each process always as long.
    Fixed([u64; PROCESSES]),
    /// Between these two, drawn anew each time.
    Drawn((u64, u64), Rng),
    /// Each process has its own, twice as long in each term as in the one before.
    Doubled([u64; PROCESSES]),
}

/// What the adversary does to requests for votes.
#[derive(Clone, Copy)]
pub enum Adversary {
    /// Nothing.
    Absent,
    /// They come so much later, whatever happens: this was fixed before anything began.
    Oblivious(u64),
    /// They come when their candidate has just given up: the adversary sees how long it is going to wait.
    Watching,
}

#[derive(Clone, Copy)]
enum Message {
    Request,
    Answer { granted: bool },
}

enum Event {
    Arrive { from: usize, to: usize, term: u64, message: Message },
    Timeout { who: usize, set: u64 },
}

struct Process {
    term: u64,
    part: Part,
    voted: Option<usize>,
    votes: BTreeSet<usize>,
    /// When its timeout is over, and how often it was set: only the last one counts.
    deadline: u64,
    set: u64,
}

/// Where an election is told: times and terms go on from those of the one before.
pub struct Telling<'a> {
    pub board: &'a mut Board,
    pub begin_ms: u64,
    pub terms_before: u64,
}

pub struct Election<'a> {
    timeouts: Timeouts,
    adversary: Adversary,
    forgetful: bool,
    agenda: Agenda<Event>,
    processes: Vec<Process>,
    leaders: BTreeMap<u64, BTreeSet<usize>>,
    slowest_ms: u64,
    telling: Option<Telling<'a>>,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// The terms in which somebody asked for votes.
    pub elections: u64,
    pub elected: bool,
    /// Whether some term had two leaders.
    pub two_leaders: bool,
    /// The longest that a message was on its way.
    pub slowest_ms: u64,
    pub ended_ms: u64,
}

impl<'a> Election<'a> {
    pub fn new(timeouts: Timeouts, adversary: Adversary) -> Self {
        let process =
            || Process { term: 0, part: Part::Follower, voted: None, votes: BTreeSet::new(), deadline: 0, set: 0 };
        Self {
            timeouts,
            adversary,
            forgetful: false,
            agenda: Agenda::beginning_at(0),
            processes: (0..PROCESSES).map(|_| process()).collect(),
            leaders: BTreeMap::new(),
            slowest_ms: 0,
            telling: None,
        }
    }

    /// Nobody remembers whom it voted for.
    pub fn forgetful(self) -> Self {
        Self { forgetful: true, ..self }
    }

    pub fn told(self, telling: Telling<'a>) -> Self {
        Self { telling: Some(telling), ..self }
    }

    /// Until there is a leader and everything has arrived that was on its way, or until so many elections had none.
    pub fn run(mut self, elections_max: u64) -> Outcome {
        for who in 0..PROCESSES {
            self.become_part(who, 0, Part::Follower);
            self.wait(who);
        }
        let (mut elections, mut ended_ms) = (0, 0);
        while let Some(event) = self.agenda.next_before(u64::MAX) {
            let over = !self.leaders.is_empty();
            if !over {
                ended_ms = self.agenda.now();
            }
            match event {
                Event::Arrive { from, to, term, message } => self.arrive((from, to), term, message),
                Event::Timeout { who, set } if !over && self.processes[who].set == set => {
                    let term = self.processes[who].term + 1;
                    if term > elections_max {
                        break;
                    }
                    elections = elections.max(term);
                    self.ask(who, term);
                }
                Event::Timeout { .. } => {}
            }
        }
        Outcome {
            elections,
            elected: !self.leaders.is_empty(),
            two_leaders: self.leaders.values().any(|leaders| leaders.len() > 1),
            slowest_ms: self.slowest_ms,
            ended_ms,
        }
    }

    /// Sets its timeout anew.
    fn wait(&mut self, who: usize) {
        let term = self.processes[who].term;
        let wait = match &mut self.timeouts {
            Timeouts::Fixed(waits) => waits[who],
            Timeouts::Drawn((least, most), rng) => rng.between(*least, *most),
            Timeouts::Doubled(waits) => waits[who] << term,
        };
        let process = &mut self.processes[who];
        process.set += 1;
        process.deadline = self.agenda.now() + wait;
        self.agenda.after(wait, Event::Timeout { who, set: process.set });
    }

    /// Begins a term and asks for votes in it.
    fn ask(&mut self, who: usize, term: u64) {
        self.become_part(who, term, Part::Candidate);
        let process = &mut self.processes[who];
        process.voted = Some(who);
        process.votes = BTreeSet::from([who]);
        self.wait(who);
        for to in (0..PROCESSES).filter(|to| *to != who) {
            self.send((who, to), term, Message::Request);
        }
    }

    fn send(&mut self, (from, to): (usize, usize), term: u64, message: Message) {
        let now = self.agenda.now();
        let wait = match (message, self.adversary) {
            (Message::Request, Adversary::Oblivious(wait)) => wait,
            (Message::Request, Adversary::Watching) => self.processes[from].deadline + 1 - now,
            _ => PROMPT_MS,
        };
        self.slowest_ms = self.slowest_ms.max(wait);
        self.agenda.after(wait, Event::Arrive { from, to, term, message });
        if let Some(telling) = &mut self.telling {
            let (kind, text) = match message {
                Message::Request => ("RequestVote", ""),
                Message::Answer { granted: true } => ("RequestVoteResponse", ": yes"),
                Message::Answer { granted: false } => ("RequestVoteResponse", ": no"),
            };
            let text = format!("term {}{text}", term + telling.terms_before);
            let at = |ms| (telling.begin_ms + ms) * 1_000;
            let times = (at(now), Some(at(now + wait)));
            telling.board.message((from, to), times, kind, text);
        }
    }

    fn arrive(&mut self, (from, to): (usize, usize), term: u64, message: Message) {
        if term > self.processes[to].term {
            self.become_part(to, term, Part::Follower);
            self.processes[to].voted = None;
        }
        let this = &mut self.processes[to];
        match message {
            Message::Request => {
                let granted = term == this.term && (self.forgetful || this.voted.is_none_or(|voted| voted == from));
                let term = this.term;
                if granted {
                    this.voted = Some(from);
                    self.wait(to);
                }
                self.send((to, from), term, Message::Answer { granted });
            }
            Message::Answer { granted } if term == this.term && this.part == Part::Candidate => {
                this.votes.extend(granted.then_some(from));
                if this.votes.len() * 2 > PROCESSES {
                    self.become_part(to, term, Part::Leader);
                }
            }
            Message::Answer { .. } => {}
        }
    }

    fn become_part(&mut self, who: usize, term: u64, part: Part) {
        let process = &mut self.processes[who];
        (process.term, process.part) = (term, part);
        if part == Part::Leader {
            self.leaders.entry(term).or_default().insert(who);
        }
        if let Some(telling) = &mut self.telling {
            let at = (telling.begin_ms + self.agenda.now()) * 1_000;
            let leader = (part == Part::Leader).then_some(who);
            telling.board.role(at, who, (term + telling.terms_before, part), leader);
        }
    }
}

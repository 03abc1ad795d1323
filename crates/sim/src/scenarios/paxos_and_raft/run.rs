//! Three processes of one protocol under a schedule. The same code carries both protocols' messages.

use super::super::agenda::Agenda;
use super::super::board::Board;
use super::schedule::{PROCESSES, Schedule};
use crate::trace::Part;
use std::collections::BTreeSet;

/// All processes count time in these.
const TICK_US: u64 = 5_000;
/// Long after the storm.
const END_US: u64 = 3_000_000;

/// What a process says, and to whom.
pub type Saying<M> = Vec<(usize, M)>;

/// One process of a protocol. A value is the place of the process that wanted it, counted from 1.
pub trait Process {
    type Message: Clone;

    /// From now on it wants its own value chosen.
    fn wish(&mut self) -> Saying<Self::Message>;
    /// A tick of its clock.
    fn tick(&mut self) -> Saying<Self::Message>;
    fn hear(&mut self, from: usize, message: &Self::Message) -> Saying<Self::Message>;
    /// It is killed: what its disk holds is left.
    fn restart(&mut self);
    /// What it knows to be chosen.
    fn known(&self) -> Option<usize>;
    /// How often somebody has tried to be the one who proposes, as far as it knows: rounds of ballots, or terms.
    fn attempts(&self) -> u64;
    /// Whether it has furthered another's value because a majority told it to.
    fn adopted(&self) -> bool;
    /// What it is, for the picture: its term, its part, and whom it follows.
    fn standing(&self) -> Option<(u64, Part, Option<usize>)>;
    /// A message's kind, and the rest.
    fn words(message: &Self::Message) -> (String, String);
}

enum Event<M> {
    Wish(usize),
    Tick(usize),
    Stop(usize),
    Arrive { from: usize, to: usize, message: M },
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Everything that anybody ever knew to be chosen.
    pub values: BTreeSet<usize>,
    /// Who has ever known: what it forgets when it is killed it can learn again.
    pub knew: BTreeSet<usize>,
    /// When the last of them came to know.
    pub all_know_us: Option<u64>,
    /// Sent until then.
    pub messages: u64,
    pub attempts: u64,
    pub adopted: bool,
    /// When each kind of message was first sent.
    pub firsts: Vec<(String, u64)>,
}

/// Where a run is told, and on which lane its first process is.
pub struct Telling<'a> {
    pub board: &'a mut Board,
    pub lane: usize,
}

pub struct Run<'a, P: Process> {
    schedule: &'a Schedule,
    agenda: Agenda<Event<P::Message>>,
    processes: Vec<P>,
    lives: [u64; PROCESSES],
    standings: [Option<(u64, Part, Option<usize>)>; PROCESSES],
    outcome: Outcome,
    telling: Option<Telling<'a>>,
}

impl<'a, P: Process> Run<'a, P> {
    pub fn new(schedule: &'a Schedule, process: impl Fn(usize) -> P) -> Self {
        Self {
            schedule,
            agenda: Agenda::beginning_at(0),
            processes: (0..PROCESSES).map(process).collect(),
            lives: [1; PROCESSES],
            standings: [None; PROCESSES],
            outcome: Outcome::default(),
            telling: None,
        }
    }

    pub fn told(self, board: &'a mut Board, lane: usize) -> Self {
        Self { telling: Some(Telling { board, lane }), ..self }
    }

    /// Until all know, or two know different things.
    pub fn run(mut self) -> Outcome {
        for who in 0..PROCESSES {
            if let Some(at) = self.schedule.wishes[who] {
                self.agenda.at(at, Event::Wish(who));
            }
            self.agenda.at(TICK_US, Event::Tick(who));
        }
        for (number, stop) in self.schedule.stops.iter().enumerate() {
            self.agenda.at(stop.from, Event::Stop(number));
        }
        while self.outcome.all_know_us.is_none()
            && self.outcome.values.len() < 2
            && let Some(event) = self.agenda.next_before(END_US)
        {
            self.happen(event);
        }
        let attempts = self.processes.iter().map(Process::attempts).max();
        let adopted = self.processes.iter().any(Process::adopted);
        Outcome { attempts: attempts.unwrap_or(0), adopted, ..self.outcome }
    }

    fn happen(&mut self, event: Event<P::Message>) {
        let now = self.agenda.now();
        let (who, said) = match event {
            Event::Wish(who) => match self.schedule.stop(who, now) {
                Some(stop) => {
                    self.agenda.at(stop.until, Event::Wish(who));
                    return;
                }
                None => {
                    self.note(who, format!("wants v{}", who + 1));
                    (who, self.processes[who].wish())
                }
            },
            Event::Tick(who) => {
                self.agenda.after(TICK_US, Event::Tick(who));
                if self.schedule.stop(who, now).is_some() {
                    return;
                }
                (who, self.processes[who].tick())
            }
            Event::Stop(stop) => {
                self.stop(stop);
                return;
            }
            Event::Arrive { from, to, message } => (to, self.processes[to].hear(from, &message)),
        };
        self.send(who, said);
        self.look(who);
    }

    /// A process stands still from now on. What dies with it is gone at once, though it comes back later.
    fn stop(&mut self, stop: usize) {
        let stop = self.schedule.stops[stop];
        if stop.killed {
            self.processes[stop.who].restart();
            self.lives[stop.who] += 1;
            self.standings[stop.who] = None;
        }
        if let Some(Telling { board, lane }) = &mut self.telling {
            let times = (stop.from, stop.until);
            if stop.killed {
                board.restart(*lane + stop.who, times, self.lives[stop.who]);
            } else {
                board.pause(*lane + stop.who, times);
            }
        }
    }

    fn send(&mut self, from: usize, said: Saying<P::Message>) {
        let now = self.agenda.now();
        for (to, message) in said {
            let arrivals = self.schedule.arrivals((from, to), now);
            let (kind, text) = P::words(&message);
            if let Some(Telling { board, lane }) = &mut self.telling {
                board.copies((*lane + from, *lane + to), (now, &arrivals), &kind, text);
            }
            if !self.outcome.firsts.iter().any(|(known, _)| *known == kind) {
                self.outcome.firsts.push((kind, now));
            }
            self.outcome.messages += 1;
            for at in arrivals {
                self.agenda.at(at, Event::Arrive { from, to, message: message.clone() });
            }
        }
    }

    /// What has become of a process that has just done something.
    fn look(&mut self, who: usize) {
        let now = self.agenda.now();
        let process = &self.processes[who];
        let (known, standing) = (process.known(), process.standing());
        if let Some(value) = known
            && self.outcome.values.insert(value)
        {
            self.note(who, format!("knows that v{value} is chosen"));
        }
        self.outcome.knew.extend(known.map(|_| who));
        if self.outcome.knew.len() == PROCESSES {
            self.outcome.all_know_us = Some(now);
            self.note(who, "now all know".into());
        }
        if self.standings[who] != standing
            && let (Some((term, part, leader)), Some(Telling { board, lane })) = (standing, &mut self.telling)
        {
            board.role(now, *lane + who, (term, part), leader.map(|leader| *lane + leader));
        }
        self.standings[who] = standing;
    }

    fn note(&mut self, who: usize, text: String) {
        let now = self.agenda.now();
        if let Some(Telling { board, lane }) = &mut self.telling {
            board.note(now, *lane + who, text);
        }
    }
}

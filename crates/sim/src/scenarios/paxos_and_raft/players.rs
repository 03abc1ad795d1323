//! The two protocols as processes that a run can drive: Paxos with both its roles in each process, and Quorate's own replica.

use super::super::paxos::roles::{Acceptor, Message, Proposer, ballot_after};
use super::super::replica::{Replica, place};
use super::run::{Process, Saying};
use super::schedule::PROCESSES;
use crate::trace::Part;
use crate::trace::words::part;
use quorate_consensus::{Message as Said, MessageKind, Role};
use quorate_env::Rng;

/// Ticks until a proposer that was not successful tries again: drawn, so that duels end.
const PATIENCE_TICKS: (u64, u64) = (8, 18);

/// Proposer, acceptor and learner in one. The acceptor is on disk, the rest is lost with the process.
pub struct Paxos {
    who: usize,
    acceptor: Acceptor,
    proposer: Proposer,
    known: Option<usize>,
    wants: bool,
    patience: u64,
    rng: Rng,
    /// It does not listen to what promises tell it.
    deaf: bool,
    adopted: bool,
}

impl Paxos {
    pub fn new(who: usize, rng: Rng, deaf: bool) -> Self {
        Self {
            who,
            acceptor: Acceptor::default(),
            proposer: Proposer::default(),
            known: None,
            wants: false,
            patience: 0,
            rng,
            deaf,
            adopted: false,
        }
    }

    /// Tries under a ballot above all that it knows. That its own acceptor promises it first is what makes it new after a crash, too.
    fn propose(&mut self) -> Saying<Message> {
        let ballot = ballot_after(self.acceptor.promised(), self.who, PROCESSES);
        self.proposer = Proposer::under(ballot, PROCESSES);
        self.patience = self.rng.between(PATIENCE_TICKS.0, PATIENCE_TICKS.1);
        self.ask_all(Message::Prepare(ballot))
    }

    /// All others are asked, and so is its own acceptor.
    fn ask_all(&mut self, message: Message) -> Saying<Message> {
        let mut said = self.to_others(message);
        if let Some(answer) = self.acceptor.asked(message) {
            said.extend(self.answered(self.who, answer));
        }
        said
    }

    fn to_others(&self, message: Message) -> Saying<Message> {
        (0..PROCESSES).filter(|to| *to != self.who).map(|to| (to, message)).collect()
    }

    fn answered(&mut self, from: usize, answer: Message) -> Saying<Message> {
        match answer {
            Message::Promise(ballot, voted) => {
                let own = self.who + 1;
                let Some(accept) = self.proposer.promised(from, (ballot, voted), own, self.deaf) else {
                    return Vec::new();
                };
                self.adopted |= matches!(accept, Message::Accept(_, value) if value != own);
                self.ask_all(accept)
            }
            Message::Accepted(ballot, value) if self.proposer.accepted(from, ballot, value) => {
                self.known.get_or_insert(value);
                self.to_others(Message::Decided(value))
            }
            _ => Vec::new(),
        }
    }
}

impl Process for Paxos {
    type Message = Message;

    fn wish(&mut self) -> Saying<Message> {
        self.wants = true;
        if self.known.is_some() { Vec::new() } else { self.propose() }
    }

    fn tick(&mut self) -> Saying<Message> {
        if !self.wants || self.known.is_some() {
            return Vec::new();
        }
        self.patience = self.patience.saturating_sub(1);
        if self.patience == 0 { self.propose() } else { Vec::new() }
    }

    fn hear(&mut self, from: usize, message: &Message) -> Saying<Message> {
        match (*message, self.known) {
            (Message::Decided(value), _) => {
                self.known.get_or_insert(value);
                Vec::new()
            }
            (Message::Prepare(_) | Message::Accept(..), Some(value)) => vec![(from, Message::Decided(value))],
            (asked @ (Message::Prepare(_) | Message::Accept(..)), None) => {
                self.acceptor.asked(asked).into_iter().map(|answer| (from, answer)).collect()
            }
            (answer, _) => self.answered(from, answer),
        }
    }

    fn restart(&mut self) {
        (self.proposer, self.known, self.patience) = (Proposer::default(), None, 1);
    }

    fn known(&self) -> Option<usize> {
        self.known
    }

    fn attempts(&self) -> u64 {
        self.acceptor.promised() / PROCESSES as u64
    }

    fn adopted(&self) -> bool {
        self.adopted
    }

    fn standing(&self) -> Option<(u64, Part, Option<usize>)> {
        None
    }

    fn words(message: &Message) -> (String, String) {
        let (kind, text) = message.words();
        (kind.into(), text)
    }
}

/// A replica whose first committed command is the value that is chosen.
pub struct Raft {
    who: usize,
    replica: Replica,
    known: Option<usize>,
    wants: bool,
    /// Its disk forgets whom it voted for.
    forgetful: bool,
    adopted: bool,
}

impl Raft {
    pub fn new(who: usize, forgetful: bool) -> Self {
        Self { who, replica: Replica::new(who, PROCESSES), known: None, wants: false, forgetful, adopted: false }
    }

    /// Who leads proposes, unless its log has a command already: that one is furthered.
    fn settle(&mut self) -> Saying<Said> {
        let mut said = Vec::new();
        loop {
            let (more, applied) = self.replica.settle();
            said.extend(more.into_iter().map(|message| (place(message.to), message)));
            if let Some(first) = applied.iter().find(|entry| !entry.data.is_empty()) {
                self.known.get_or_insert(value(&first.data));
            }
            if self.replica.group.role() != Role::Leader {
                return said;
            }
            match self.replica.first_command().map(|(term, data)| (term, value(data))) {
                Some((term, value)) => {
                    self.adopted |= term < self.replica.group.term() && value != self.who + 1;
                    return said;
                }
                None if self.wants && self.replica.group.propose(vec![self.who as u8 + 1]).is_ok() => {}
                None => return said,
            }
        }
    }
}

fn value(data: &[u8]) -> usize {
    usize::from(data[0])
}

impl Process for Raft {
    type Message = Said;

    fn wish(&mut self) -> Saying<Said> {
        self.wants = true;
        if self.replica.group.leader().is_none() {
            self.replica.group.campaign();
        }
        self.settle()
    }

    fn tick(&mut self) -> Saying<Said> {
        self.replica.group.tick();
        self.settle()
    }

    fn hear(&mut self, _: usize, message: &Said) -> Saying<Said> {
        self.replica.group.step(message).expect("what a replica says is plausible");
        self.settle()
    }

    fn restart(&mut self) {
        if self.forgetful {
            self.replica.lose_vote();
        }
        self.replica.restart();
        self.known = None;
    }

    fn known(&self) -> Option<usize> {
        self.known
    }

    fn attempts(&self) -> u64 {
        self.replica.group.term().0
    }

    fn adopted(&self) -> bool {
        self.adopted
    }

    fn standing(&self) -> Option<(u64, Part, Option<usize>)> {
        let group = &self.replica.group;
        Some((group.term().0, part(group.role()), group.leader().map(place)))
    }

    fn words(message: &Said) -> (String, String) {
        let mut text = format!("term {}", message.term.0);
        for entry in &message.entries {
            match entry.data.first() {
                Some(value) => text += &format!(", v{value}"),
                None => text += ", its first entry",
            }
        }
        if message.kind == MessageKind::Append && message.commit.0 > 0 {
            text += &format!(", {} committed", message.commit.0);
        }
        if message.reject {
            text += ": no";
        }
        (format!("{:?}", message.kind), text)
    }
}

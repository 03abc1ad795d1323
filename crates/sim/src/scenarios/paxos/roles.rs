//! The two roles of single-decree Paxos: data in, what to say out. Who carries the messages is somebody else's matter.

use std::collections::{BTreeMap, BTreeSet};

/// Unique to a proposer and an attempt; the higher one wins.
pub type Ballot = u64;
/// An accepted proposal: its ballot and its value.
pub type Vote = Option<(Ballot, usize)>;

/// What the roles say to each other.
#[derive(Clone, Copy, Debug)]
pub enum Message {
    Prepare(Ballot),
    Promise(Ballot, Vote),
    Accept(Ballot, usize),
    Accepted(Ballot, usize),
    /// Who has learned what was chosen tells the others.
    Decided(usize),
}

impl Message {
    /// Its kind and the rest.
    pub fn words(self) -> (&'static str, String) {
        match self {
            Self::Prepare(ballot) => ("prepare", format!("ballot {ballot}")),
            Self::Promise(ballot, None) => ("promise", format!("ballot {ballot}, nothing accepted")),
            Self::Promise(ballot, Some((old, value))) => {
                ("promise", format!("ballot {ballot}, accepted v{value} in {old}"))
            }
            Self::Accept(ballot, value) => ("accept", format!("ballot {ballot}, v{value}")),
            Self::Accepted(ballot, value) => ("accepted", format!("ballot {ballot}, v{value}")),
            Self::Decided(value) => ("decided", format!("v{value}")),
        }
    }
}

/// The proposer's first ballot above another. Ballots of different proposers differ.
pub fn ballot_after(other: Ballot, proposer: usize, proposers: usize) -> Ballot {
    let round = other / proposers as u64 + 1;
    round * proposers as u64 + proposer as u64
}

/// Who remembers. All of it must survive a crash.
#[derive(Clone, Default)]
pub struct Acceptor {
    promised: Ballot,
    voted: Vote,
}

impl Acceptor {
    pub fn promised(&self) -> Ballot {
        self.promised
    }

    /// The answer, or silence to a ballot below the promise.
    pub fn asked(&mut self, message: Message) -> Option<Message> {
        match message {
            Message::Prepare(ballot) if ballot >= self.promised => {
                self.promised = ballot;
                Some(Message::Promise(ballot, self.voted))
            }
            Message::Accept(ballot, value) if ballot >= self.promised => {
                *self = Self { promised: ballot, voted: Some((ballot, value)) };
                Some(Message::Accepted(ballot, value))
            }
            _ => None,
        }
    }
}

/// Who wants a value chosen, under one ballot.
#[derive(Default)]
pub struct Proposer {
    ballot: Ballot,
    acceptors: usize,
    promises: BTreeMap<usize, Vote>,
    proposed: bool,
    accepted: BTreeSet<usize>,
    decided: Option<usize>,
}

impl Proposer {
    pub fn under(ballot: Ballot, acceptors: usize) -> Self {
        Self { ballot, acceptors, ..Self::default() }
    }

    pub fn ballot(&self) -> Ballot {
        self.ballot
    }

    pub fn decided(&self) -> Option<usize> {
        self.decided
    }

    /// A promise came. With a majority of them it proposes, once: what was accepted under the highest ballot, or its own value if
    /// nothing was. A deaf one proposes its own in any case.
    pub fn promised(
        &mut self,
        from: usize,
        (ballot, voted): (Ballot, Vote),
        own: usize,
        deaf: bool,
    ) -> Option<Message> {
        if ballot != self.ballot || self.proposed {
            return None;
        }
        self.promises.insert(from, voted);
        if self.promises.len() * 2 <= self.acceptors {
            return None;
        }
        self.proposed = true;
        let told = self.promises.values().flatten().max().map(|(_, value)| *value);
        Some(Message::Accept(ballot, told.filter(|_| !deaf).unwrap_or(own)))
    }

    /// An acceptor has accepted. Whether this tells it that the value is chosen.
    pub fn accepted(&mut self, from: usize, ballot: Ballot, value: usize) -> bool {
        if ballot != self.ballot {
            return false;
        }
        self.accepted.insert(from);
        self.accepted.len() * 2 > self.acceptors && self.decided.replace(value).is_none()
    }
}

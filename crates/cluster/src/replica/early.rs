//! Clients who are told what came of their writes when these are on the leader's disk, before a majority has them (docs/design/consistency.md).
//!
//! ```text
//!   proposed ──> on the leader's disk ──> applied to a copy that is ahead ──> the client is told
//!                        └──> on the disks of a majority ──> applied: that came of it, indeed
//! ```
//!
//! Nothing else is different: the log decides what happened. If this leader fails, others lead who may lack the last of what it told, and that is lost. So:
//!
//! - It tells only what was done. That something was not, because of what it found, it tells when that is certain.
//! - It tells nobody anything while more than [`EARLY_ENTRIES_MAX`](crate::bounds::EARLY_ENTRIES_MAX) entries, or one that is older than [`EARLY_FOR`], wait for a majority: who is cut off soon
//!   tells nobody anything at all, and what is lost is no more than that.
//! - A strict read that it answers, or that a follower answers with its leave, waits until what was told is committed.
//! - When other entries take the places of those that were told, it counts what was lost, and says so.

use super::guests::in_messages;
use super::{Context, Replica};
use crate::ack_wait::may_be_early;
use crate::bounds::{EARLY_FOR, EARLY_IDLE, ENTRIES_IN_FLIGHT_MAX, GUEST_ANSWER_BYTES_MAX, GUESTS_MAX};
use crate::config::Sabotage;
use crate::wire::{Answer, PeerBody};
use quorate_consensus::{EntryKind, Group, Role};
use quorate_env::{Instant, LogIndex, ReplicaId, Term};
use quorate_kv::{Applied, CommandId, Envelope, SessionId};
use quorate_shard::{Ahead, EntryPayload, MachineError};
use std::collections::{BTreeMap, VecDeque};

/// An entry whose clients were told, and that is not applied yet.
struct Told {
    index: LogIndex,
    term: Term,
    /// How many were.
    answers: u64,
    /// Of the state after it, as it was foreseen; none if that was in a former life, and it is not even known whether anybody was told.
    hash: Option<u64>,
    at: Instant,
}

/// What would be lost with a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtRisk {
    /// The last entry that they were told of, by its index and term.
    pub last: (LogIndex, Term),
    /// So many entries that one is ahead of what is known to be committed.
    pub entries: u64,
    /// When they were told of the first of them.
    pub since: Instant,
}

/// See the top of this file.
#[derive(Default)]
pub(super) struct Early {
    wanted: bool,
    /// Up to here the log is on this disk.
    durable: LogIndex,
    ahead: Option<Ahead>,
    /// When that was last needed.
    used: Instant,
    told: VecDeque<Told>,
    /// The last entry that clients were told of since this replica leads. It counts also when it is committed: a question may have been asked before that.
    told_up_to: LogIndex,
    /// Nodes that had commands forwarded here, by their sessions.
    askers: BTreeMap<SessionId, ReplicaId>,
    lost: LostAnswers,
}

/// Answers to clients that were lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LostAnswers {
    pub certainly: u64,
    /// Those that a former life may have given, if clients of the shard want to be told early at all.
    pub perhaps: u64,
}

impl LostAnswers {
    fn add(&mut self, told: &Told) {
        match told.hash {
            Some(_) => self.certainly += told.answers,
            None => self.perhaps += told.answers,
        }
    }
}

impl Early {
    /// Of a replica that starts with a log, of which so much is known to be committed. Before it stopped it may have told clients of the rest.
    pub fn new(group: &Group, now: Instant) -> Self {
        let rest = group.entries().into_iter().filter(|entry| entry.index > group.committed());
        let told = rest.filter(|entry| entry.kind == EntryKind::Normal).filter_map(|entry| {
            let commands = EntryPayload::decode(entry.data).ok()?.commands;
            let answers = commands.iter().filter(|envelope| envelope.command.is_whole_wish()).count() as u64;
            (answers > 0).then_some(Told { index: entry.index, term: entry.term, answers, hash: None, at: now })
        });
        Self { durable: group.last_index(), used: now, told: told.collect(), ..Self::default() }
    }

    /// Up to where the log is on this disk.
    pub fn durable(&self) -> LogIndex {
        self.durable
    }

    /// The log is on this disk up to there.
    pub fn persisted(&mut self, last: LogIndex) {
        self.durable = last;
    }

    /// Commands of a node's clients came.
    pub fn asked(&mut self, from: ReplicaId, envelopes: &[Envelope]) {
        if self.wanted {
            if self.askers.len() >= GUESTS_MAX {
                // Who is forgotten is told later, when it is applied there.
                self.askers.clear();
            }
            self.askers.extend(envelopes.iter().map(|envelope| (envelope.id.session, from)));
        }
    }

    /// What was told and never became certain here: that replica is gone.
    pub fn give_up(mut self) -> LostAnswers {
        self.told.iter().for_each(|told| self.lost.add(told));
        self.lost
    }

    /// Rows came from elsewhere that cover the log up to there. What was told of it may be in them or not.
    pub fn overtaken(&mut self, index: LogIndex, term: Term) {
        while let Some(told) = self.judged_by(index, term) {
            self.lost.add(&told);
        }
    }

    /// What was told that an entry judges which is committed.
    fn judged_by(&mut self, index: LogIndex, term: Term) -> Option<Told> {
        // Terms ascend in a log: after that entry nothing of an earlier term comes any more.
        self.told.front().filter(|told| told.index <= index || told.term < term)?;
        self.told.pop_front()
    }

    /// This replica leads, or does not any more.
    pub fn restart(&mut self) {
        self.ahead = None;
        self.askers.clear();
        self.told_up_to = LogIndex(0);
    }

    fn certainly_told(&self) -> impl DoubleEndedIterator<Item = &Told> {
        self.told.iter().filter(|told| told.hash.is_some())
    }

    /// Whether somebody may be told something of an entry, when the log is committed up to there.
    fn may_tell(&self, index: LogIndex, committed: LogIndex, cx: &Context<'_>) -> bool {
        let waits = self.certainly_told().next().is_some_and(|told| cx.now.since(told.at) >= EARLY_FOR);
        !waits && index.0.saturating_sub(committed.0) <= cx.config.early_entries
    }
}

impl Replica {
    /// Whether clients of this shard want to be told early.
    pub fn want_early(&mut self, wanted: bool) {
        self.early.wanted = wanted;
    }

    /// Answers that were given and lost, as it has found out since it was last asked.
    pub fn take_lost(&mut self) -> LostAnswers {
        std::mem::take(&mut self.early.lost)
    }

    /// Answers that are lost, as it has found out, or whose entries are not in its log any more.
    pub fn unsaid_losses(&self) -> u64 {
        let kept = |told: &Told| self.group.entry(told.index).is_some_and(|entry| entry.term == told.term);
        let gone = self.early.certainly_told().filter(|told| !kept(told)).map(|told| told.answers);
        self.early.lost.certainly + self.early.lost.perhaps + gone.sum::<u64>()
    }

    /// Up to where a leader may propose. Who is told when the leader's disk has it waits for that disk, and not for a majority.
    pub(super) fn end_of_proposals(&self, cx: &Context<'_>) -> LogIndex {
        let (committed, next) = (self.group.committed(), self.early.durable.next());
        let ahead = self.early.wanted && self.early.may_tell(next, committed, cx);
        let certain = if ahead { committed.max(self.early.durable) } else { committed };
        LogIndex(certain.0 + ENTRIES_IN_FLIGHT_MAX)
    }

    /// As a leader: what clients were told of that no majority is known to have.
    pub fn at_risk(&self) -> Option<AtRisk> {
        let (mut told, early) = (self.early.certainly_told(), &self.early);
        let (first, last) = (told.next()?, early.certainly_told().next_back()?);
        let entries = last.index.0.saturating_sub(self.group.committed().0);
        let leads = self.group.role() == Role::Leader;
        leads.then_some(AtRisk { entries, last: (last.index, last.term), since: first.at })
    }

    /// As a leader: up to where clients were told something. Who reads strictly must see it.
    pub(super) fn told_up_to(&self, cx: &Context<'_>) -> LogIndex {
        let leads = self.group.role() == Role::Leader && !cx.sabotaged(Sabotage::ReadUntold);
        if leads { self.early.told_up_to } else { LogIndex(0) }
    }

    /// Finds out what will come of entries that are on this disk, if it leads, and tells whoever waits for that.
    pub(super) fn look_ahead(&mut self, cx: &mut Context<'_>) {
        if !self.early.wanted || self.group.role() != Role::Leader {
            self.early.ahead = None;
        } else if let Err(e) = self.go_ahead(cx) {
            self.fail(&e);
        }
    }

    fn go_ahead(&mut self, cx: &mut Context<'_>) -> Result<(), MachineError> {
        let applied = self.machine.meta().applied;
        let unwritten = cx.sabotaged(Sabotage::TellUnwritten);
        let until = if unwritten { self.group.last_index() } else { self.early.durable.max(applied) };
        let mut ahead = match self.early.ahead.take() {
            Some(ahead) => ahead,
            None if until == applied || !self.leads_informed() => return Ok(()),
            None => match Ahead::of(&self.machine) {
                Ok(ahead) => ahead,
                Err(e) => {
                    self.fatal.get_or_insert(format!("what was applied here cannot be read: {e}"));
                    return Ok(());
                }
            },
        };
        while ahead.applied() < until {
            let index = ahead.applied().next();
            // It begins anew where the log has been cut off.
            let Some(entry) = self.group.entry(index) else { return Ok(()) };
            if entry.kind == EntryKind::Membership {
                if index > applied {
                    break;
                }
                ahead.apply_membership(index, entry.term, self.machine.meta().membership.clone())?;
                continue;
            }
            let (own, guests, askers) = (self.proposals.session(), &self.guests, &self.early.askers);
            let awaited = |asked: &Envelope| {
                let session = asked.id.session;
                let known = session == own || guests.knows(session) || askers.contains_key(&session);
                known && asked.command.is_whole_wish()
            };
            let output = ahead.apply(index, entry.term, &entry.data, &awaited)?;
            self.early.used = cx.now;
            let bounded = self.early.may_tell(index, self.group.committed(), cx);
            if index > applied && (bounded || cx.sabotaged(Sabotage::TellUnbounded)) {
                let results =
                    output.results.into_iter().filter_map(|(id, result)| Some((id, result.ok().filter(may_be_early)?)));
                let answers = self.tell_early(results.collect(), cx);
                if answers > 0 {
                    self.early.told_up_to = index;
                    let hash = Some(ahead.state_hash());
                    self.early.told.push_back(Told { index, term: entry.term, answers, hash, at: cx.now });
                }
            }
        }
        ahead.let_go(&self.machine);
        let idle = until == applied && cx.now.since(self.early.used) >= EARLY_IDLE;
        self.early.ahead = (!idle).then_some(ahead);
        Ok(())
    }

    /// Tells whoever asked for it what will come of it. Returns how many were told.
    fn tell_early(&mut self, results: Vec<(CommandId, Applied)>, cx: &mut Context<'_>) -> u64 {
        let (mut told, mut elsewhere) = (0, BTreeMap::<ReplicaId, Vec<_>>::new());
        for (id, applied) in results {
            if id.session == self.proposals.session() {
                if let Some(request) = self.proposals.tell_early(id) {
                    cx.out.replies.push((request, Ok(super::Reply::Applied(applied))));
                    told += 1;
                }
                continue;
            }
            // What is too large for a message is told when it is applied there.
            let asker = self.guests.home_of(id.session).or_else(|| self.early.askers.get(&id.session).copied());
            if let Some(to) = asker.filter(|_| applied.size_estimate() <= GUEST_ANSWER_BYTES_MAX) {
                elsewhere.entry(to).or_default().push((id, Answer::Given(Ok(applied))));
                told += 1;
            }
        }
        for (to, answers) in elsewhere {
            in_messages(answers).into_iter().for_each(|answers| self.send(to, PeerBody::Early { answers }, cx));
        }
        told
    }

    /// The leader says what will come of commands of this node's clients.
    pub(super) fn hear_early(&mut self, answers: Vec<(CommandId, Answer)>, cx: &mut Context<'_>) {
        cx.out.replies.extend(self.proposals.hear_early(answers));
    }

    /// An entry was applied: what was told of it is true, or lost.
    pub(super) fn judge_told(&mut self, index: LogIndex, term: Term, cx: &Context<'_>) {
        while let Some(told) = self.early.judged_by(index, term) {
            let found = self.machine.meta().state_hash;
            if (told.index, told.term) != (index, term) {
                if !cx.sabotaged(Sabotage::ForgetLosses) {
                    self.early.lost.add(&told);
                }
            } else if let Some(foreseen) = told.hash.filter(|foreseen| *foreseen != found) {
                self.fatal.get_or_insert(format!(
                    "clients were told what would come of the entry {index}, and something else did: {found:016x}, not {foreseen:016x}"
                ));
            }
        }
    }
}

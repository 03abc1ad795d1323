//! Reads that are no transactions: one question to a replica of each shard that is read, here or elsewhere, and one answer to the client
//! (docs/design/consistency.md).
//!
//! ```text
//!   look ──> plan ──> a replica of each shard ──(as fresh as it must be)──> what it sees ──> one answer, one token
//!              ^         │ locked, or no answer: asked again, maybe elsewhere
//!              └─────────┘ moved: the shard was split; all is asked again
//! ```
//!
//! What is seen of several shards at a moment is one picture, since that moment is the same in all of them. At any other freshness each shard is seen for itself.

use crate::across::Plan;
use crate::bounds::{ACROSS_CLIENTS_MAX, GUEST_ANSWER_BYTES_MAX, RETRY};
use crate::input::{Lost, Reply, RequestId};
use crate::keyspaces::Keyspaces;
use quorate_env::{Instant, ReplicaId, ShardId, Timestamp};
use quorate_kv::across::{Look, PartResult, Transaction};
use quorate_kv::{Error, Freshness, Looked, RangeOp, Refusal, Unavailable};
use quorate_shard::View;
use std::collections::BTreeMap;
use std::time::Duration;

/// Until what was locked is looked at again.
const LOCKED_PAUSE: Duration = Duration::from_millis(5);

/// Who wants to know what a replica sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// This node: its question of that number.
    Here(u64),
    /// Another node's replica, or what stands for one.
    Peer { replica: ReplicaId, ask: u64 },
}

/// A read whose view is fresh enough. It may take long and touches nothing else, so it is not for the thread that owns the node.
#[derive(Clone)]
pub struct Observation {
    pub(crate) shard: ShardId,
    pub(crate) asker: Asker,
    pub(crate) view: View,
    pub(crate) freshness: Freshness,
    pub(crate) reads: Vec<RangeOp>,
}

/// What came of it, for the node.
#[derive(Debug)]
pub struct Observed {
    pub(crate) shard: ShardId,
    pub(crate) asker: Asker,
    pub(crate) sight: Result<Result<PartResult, Refusal>, (String, Option<Lost>)>,
}

impl Observation {
    /// Reads.
    #[must_use]
    pub fn run(self) -> Observed {
        let (shard, asker) = (self.shard, self.asker);
        let sight = self.look().map_err(|e| (e.to_string(), e.is_damage().then_some(Lost::Rows)));
        Observed { shard, asker, sight }
    }

    fn look(self) -> Result<Result<PartResult, Refusal>, quorate_shard::MachineError> {
        let (reads, at) = (Vec::with_capacity(self.reads.len()), self.view.clock());
        let mut sight = PartResult { holds: true, reads, at, ..PartResult::default() };
        for read in &self.reads {
            if let Some(blocker) = self.view.blocker(read).filter(|_| self.freshness.minds_locks()) {
                return Ok(Err(blocker.into()));
            }
            let result = match self.freshness {
                Freshness::At(at) => self.view.range_at(read, at)?,
                _ => self.view.range(read)?,
            };
            match result {
                Ok(result) => sight.reads.push(result),
                Err(refusal) => return Ok(Err(refusal)),
            }
        }
        let (bytes, max) = (sight.size_estimate(), GUEST_ANSWER_BYTES_MAX);
        if bytes > max && matches!(self.asker, Asker::Peer { .. }) {
            return Ok(Err(Refusal::TooLarge { bytes, max }));
        }
        if let Freshness::At(at) = self.freshness {
            sight.at = at;
        }
        Ok(Ok(sight))
    }
}

/// A question to a replica.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// Names the answer.
    pub ask: u64,
    pub shard: ShardId,
    pub freshness: Freshness,
    pub reads: Vec<RangeOp>,
    pub deadline: Instant,
    /// How often it was asked before.
    pub tried: usize,
}

/// One shard's share.
struct Piece {
    reads: Vec<RangeOp>,
    /// When it is asked again.
    due: Instant,
    tried: usize,
    sight: Option<PartResult>,
}

struct Client {
    request: RequestId,
    looks: Transaction,
    freshness: Freshness,
    deadline: Instant,
    plan: Plan,
    pieces: BTreeMap<ShardId, Piece>,
    /// Why it has no answer yet.
    why: Error,
}

/// See the module.
pub(crate) struct Looking {
    clients: BTreeMap<u64, Client>,
    next: u64,
    questions: Vec<Question>,
    replies: Vec<(RequestId, Result<Reply, Error>)>,
}

impl Looking {
    /// `first` is drawn at random, so that answers to questions of a former life are nobody's.
    pub fn new(first: u64) -> Self {
        Self { clients: BTreeMap::new(), next: first >> 16, questions: Vec::new(), replies: Vec::new() }
    }

    /// What replicas are to be asked.
    pub fn take_questions(&mut self) -> Vec<Question> {
        std::mem::take(&mut self.questions)
    }

    /// What clients are to be told.
    pub fn take_replies(&mut self) -> Vec<(RequestId, Result<Reply, Error>)> {
        std::mem::take(&mut self.replies)
    }

    /// A client looks.
    pub fn begin(
        &mut self,
        request: RequestId,
        looks: Vec<Look>,
        freshness: Freshness,
        deadline: Instant,
        keyspaces: &Keyspaces,
        now: Instant,
    ) {
        if self.clients.len() >= ACROSS_CLIENTS_MAX {
            return self.replies.push((request, Err(Unavailable::Overloaded.into())));
        }
        let looks = Transaction { looks, ..Transaction::default() };
        match Plan::of(&looks, keyspaces) {
            Ok(plan) => {
                let (pieces, why) = (BTreeMap::new(), Unavailable::NoLeader.into());
                self.plan(Client { request, looks, freshness, deadline, plan, pieces, why }, now);
            }
            Err(refusal) => self.replies.push((request, Err(refusal.into()))),
        }
    }

    /// Asks all that is to be asked, under a new name: what was answered before counts no more.
    fn plan(&mut self, mut client: Client, due: Instant) {
        let share = |(shard, part): (&ShardId, &quorate_kv::across::Part)| {
            (*shard, Piece { reads: part.reads.clone(), due, tried: 0, sight: None })
        };
        client.pieces = client.plan.parts.iter().map(share).collect();
        self.next += 1;
        self.clients.insert(self.next, client);
        self.ask(self.next, due);
    }

    fn ask(&mut self, ask: u64, now: Instant) {
        let Some(client) = self.clients.get_mut(&ask) else { return };
        for (shard, piece) in client.pieces.iter_mut().filter(|(_, piece)| piece.sight.is_none() && piece.due <= now) {
            let (freshness, reads, deadline) = (client.freshness, piece.reads.clone(), client.deadline);
            self.questions.push(Question { ask, shard: *shard, freshness, reads, deadline, tried: piece.tried });
            piece.tried += 1;
            piece.due = now + RETRY;
        }
    }

    /// A replica answers.
    pub fn answered(
        &mut self,
        (ask, shard): (u64, ShardId),
        sight: Result<PartResult, Error>,
        keyspaces: &Keyspaces,
        now: Instant,
    ) {
        let Some(client) = self.clients.get_mut(&ask) else { return };
        let Some(piece) = client.pieces.get_mut(&shard) else { return };
        match sight {
            Ok(sight) => {
                piece.sight.get_or_insert(sight);
                if client.pieces.values().all(|piece| piece.sight.is_some()) {
                    self.finish(ask);
                }
            }
            Err(why @ Error::Refused(Refusal::Locked { .. })) => {
                piece.due = now + LOCKED_PAUSE;
                client.why = why;
            }
            Err(why @ Error::Refused(Refusal::Moved { .. })) => {
                let Some(mut client) = self.clients.remove(&ask) else { return };
                match Plan::of(&client.looks, keyspaces) {
                    Ok(plan) => (client.plan, client.why) = (plan, why),
                    Err(refusal) => return self.replies.push((client.request, Err(refusal.into()))),
                }
                self.plan(client, now + LOCKED_PAUSE);
            }
            Err(Error::Unavailable(_)) => {
                // Another replica may know more, and soon enough.
                piece.due = piece.due.min(now + LOCKED_PAUSE * 4);
            }
            Err(why) => {
                if let Some(client) = self.clients.remove(&ask) {
                    self.replies.push((client.request, Err(why)));
                }
            }
        }
    }

    /// Nobody waits for a client's answer any more.
    pub fn abandon(&mut self, request: RequestId) {
        self.clients.retain(|_, client| client.request != request);
    }

    /// A node that was asked has no replica of a shard (any more): another is asked with the next tick.
    pub fn not_there(&mut self, shard: ShardId, now: Instant) {
        for client in self.clients.values_mut() {
            if let Some(piece) = client.pieces.get_mut(&shard) {
                piece.due = now;
            }
        }
    }

    fn finish(&mut self, ask: u64) {
        let Some(client) = self.clients.remove(&ask) else { return };
        let sights: BTreeMap<ShardId, PartResult> =
            client.pieces.into_iter().filter_map(|(shard, piece)| Some((shard, piece.sight?))).collect();
        let token = sights.values().map(|sight| sight.at).max().unwrap_or(Timestamp::ZERO);
        let token = token.max(client.freshness.moment().unwrap_or_default());
        let looks = client.plan.answers(&sights);
        self.replies.push((client.request, Ok(Reply::Looked(Looked { looks, token }))));
    }

    /// Time passes: what has no answer is asked again, and whose time is up is told.
    pub fn tick(&mut self, now: Instant) {
        let late: Vec<u64> =
            self.clients.iter().filter(|(_, client)| client.deadline <= now).map(|(n, _)| *n).collect();
        for ask in late {
            if let Some(client) = self.clients.remove(&ask) {
                self.replies.push((client.request, Err(client.why)));
            }
        }
        for ask in self.clients.keys().copied().collect::<Vec<_>>() {
            self.ask(ask, now);
        }
    }

    /// The node stops.
    pub fn stop(&mut self) {
        let all = std::mem::take(&mut self.clients).into_values();
        self.replies.extend(all.map(|client| (client.request, Err(Unavailable::Stopping.into()))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspaces::tests::made;
    use quorate_kv::{KeyRange, KeyValue, LeaseId, RangeResult, Revision};

    fn at(ms: u64) -> Instant {
        Instant(0) + Duration::from_millis(ms)
    }

    fn sight(key: &'static str, at: u64) -> PartResult {
        let (create_revision, mod_revision) = (Revision(2), Revision(2));
        let kv = KeyValue {
            key: key.into(),
            value: "v".into(),
            create_revision,
            mod_revision,
            version: 1,
            lease: LeaseId::NONE,
        };
        let reads = vec![RangeResult { kvs: vec![kv], more: false, count: 1 }];
        PartResult { holds: true, reads, at: Timestamp(at), ..PartResult::default() }
    }

    /// Looks at all keys of a keyspace of two shards; returns these, and the number of the question.
    fn looking(freshness: Freshness) -> (Looking, Keyspaces, [ShardId; 2], u64) {
        let (keyspaces, orders) = made("orders", &["m"]);
        let shards = [0, 1].map(|at: usize| keyspaces.get(orders).expect("made").shards[at].1);
        let mut looking = Looking::new(0);
        let look = Look { keyspace: orders, range: KeyRange::all(), limit: 0 };
        looking.begin(7, vec![look], freshness, at(1_000), &keyspaces, at(0));
        let asked = looking.take_questions();
        assert_eq!(asked.iter().map(|it| (it.shard, it.tried)).collect::<Vec<_>>(), shards.map(|shard| (shard, 0)));
        (looking, keyspaces, shards, asked[0].ask)
    }

    fn asked(looking: &mut Looking) -> Vec<(ShardId, usize)> {
        looking.take_questions().iter().map(|it| (it.shard, it.tried)).collect()
    }

    fn told(looking: &mut Looking) -> Option<Result<Looked, Error>> {
        let reply = looking.take_replies().pop()?.1;
        Some(reply.map(|reply| match reply {
            Reply::Looked(looked) => looked,
            _ => panic!("a look was asked for"),
        }))
    }

    #[test]
    fn the_answers_of_all_shards_are_one_and_its_token_is_the_youngest() {
        let (mut looking, keyspaces, [left, right], ask) = looking(Freshness::Any);
        looking.answered((ask, right), Ok(sight("x", 9)), &keyspaces, at(1));
        looking.answered((ask, right), Ok(sight("late", 99)), &keyspaces, at(1));
        assert_eq!(told(&mut looking), None);
        looking.answered((ask, left), Ok(sight("a", 5)), &keyspaces, at(2));
        let looked = told(&mut looking).expect("told").expect("seen");
        assert_eq!(looked.looks[0].kvs.iter().map(|kv| &kv.key[..]).collect::<Vec<_>>(), [b"a", b"x"]);
        assert_eq!(looked.token, Timestamp(9));
        let (mut looking, keyspaces, shards, ask) = self::looking(Freshness::After(Timestamp(70)));
        shards.iter().for_each(|shard| looking.answered((ask, *shard), Ok(sight("a", 5)), &keyspaces, at(1)));
        assert_eq!(told(&mut looking).expect("told").expect("seen").token, Timestamp(70), "a token never goes back");
    }

    #[test]
    fn who_does_not_answer_is_asked_again_and_in_the_end_the_client_is_told() {
        let (mut looking, keyspaces, [left, right], ask) = looking(Freshness::Strict);
        looking.answered((ask, left), Ok(sight("a", 5)), &keyspaces, at(1));
        looking.tick(at(20));
        assert_eq!(asked(&mut looking), []);
        looking.tick(Instant(0) + RETRY);
        assert_eq!(asked(&mut looking), [(right, 1)]);
        let locked = Refusal::Locked { key: "x".into(), by: quorate_kv::across::TxId(4) };
        looking.answered((ask, right), Err(locked.clone().into()), &keyspaces, at(501));
        looking.tick(at(520));
        assert_eq!(asked(&mut looking), [(right, 2)], "a lock is soon released");
        looking.not_there(right, at(530));
        looking.tick(at(540));
        assert_eq!(asked(&mut looking), [(right, 3)], "the next of those who may have it");
        looking.tick(at(1_000));
        assert_eq!(told(&mut looking), Some(Err(locked.into())));
        looking.answered((ask, right), Ok(sight("x", 5)), &keyspaces, at(1_001));
        assert_eq!(told(&mut looking), None);
    }

    #[test]
    fn where_a_shard_was_split_all_is_asked_anew_under_another_name() {
        let (mut looking, keyspaces, [left, right], ask) = looking(Freshness::At(Timestamp(3)));
        looking.answered((ask, left), Ok(sight("a", 3)), &keyspaces, at(1));
        looking.answered((ask, right), Err(Refusal::Moved { key: "x".into() }.into()), &keyspaces, at(1));
        looking.tick(at(20));
        let again = looking.take_questions();
        assert_eq!(again.iter().map(|it| it.shard).collect::<Vec<_>>(), [left, right]);
        looking.answered((ask, right), Ok(sight("old", 3)), &keyspaces, at(21));
        for shard in [left, right] {
            assert_eq!(told(&mut looking), None);
            looking.answered((again[0].ask, shard), Ok(sight("a", 3)), &keyspaces, at(22));
        }
        assert!(told(&mut looking).expect("told").is_ok());
    }

    #[test]
    fn a_refusal_is_told_at_once() {
        let (mut looking, keyspaces, [left, _], ask) = looking(Freshness::At(Timestamp(3)));
        let forgotten = Refusal::MomentForgotten { at: Timestamp(3) };
        looking.answered((ask, left), Err(forgotten.clone().into()), &keyspaces, at(1));
        assert_eq!(told(&mut looking), Some(Err(forgotten.into())));
        looking.stop();
        assert_eq!(told(&mut looking), None);
    }
}

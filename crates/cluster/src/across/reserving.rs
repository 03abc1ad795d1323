//! Clients that reserve keys for interactive transactions, as the node that they asked sees to it; and what becomes of the reservations of those who are gone.
//!
//! ```text
//!   client ──> the keys of one shard after the other: Reserve ──> all are reserved: client
//!                    │ an older one has them: the shard's replica asks again when something is released
//!                    └ the keys have moved, or nobody leads: again, after a moment
//!
//!   a shard's leader sees a reservation for so long ──> Lapse
//! ```

use super::{Across, Purpose, Surroundings};
use crate::ack_wait::AckWait;
use crate::bounds::{ACROSS_CLIENTS_MAX, ACROSS_STEP_TIMEOUT, RESERVED_FOR};
use crate::input::{Reply, RequestId};
use quorate_env::{Instant, LogIndex, ShardId, Timestamp};
use quorate_kv::across::TxId;
use quorate_kv::reserve::{Granted, Held, Hold, ReserveStep, Reserved, Wish};
use quorate_kv::{Command, Error, KeyspaceId, KeyspaceKind, Outcome, Refusal, Unavailable, limits};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long it is before a shard is asked again that could not be.
const AGAIN_AFTER: Duration = Duration::from_millis(20);

/// A client that waits for keys.
pub(super) struct Reserving {
    request: RequestId,
    wish: Wish,
    age: Timestamp,
    deadline: Instant,
    got: BTreeMap<usize, Held>,
    at: Timestamp,
    /// The keys that a shard is being asked for, by their places in the wish.
    asked: Vec<usize>,
    again: Option<(Instant, Error)>,
}

/// A client that gives up what it has reserved.
pub(super) struct Releasing {
    request: RequestId,
    left: usize,
    failed: Option<Error>,
}

/// Since when this node, leading, has seen reservations.
#[derive(Default)]
pub(super) struct Lapses(BTreeMap<(ShardId, TxId, LogIndex), Instant>);

impl Lapses {
    /// Takes note of what is reserved, and returns what has been for too long. It is due again, later, if that does not help.
    pub fn take_due(
        &mut self,
        found: impl Iterator<Item = (ShardId, TxId, LogIndex)>,
        now: Instant,
    ) -> Vec<(ShardId, TxId, LogIndex)> {
        let (mut still, mut due) = (BTreeMap::new(), Vec::new());
        for reservation in found {
            let when = self.0.get(&reservation).copied().unwrap_or(now + RESERVED_FOR);
            let over = when <= now;
            still.insert(reservation, if over { now + ACROSS_STEP_TIMEOUT } else { when });
            due.extend(over.then_some(reservation));
        }
        self.0 = still;
        due
    }
}

impl Across {
    /// A client reserves keys.
    pub fn reserve(&mut self, request: RequestId, wish: Wish, deadline: Instant, at: &Surroundings<'_>) {
        let refused = if self.reserving.len() >= ACROSS_CLIENTS_MAX {
            Some(Unavailable::Overloaded.into())
        } else {
            judge(&wish).err().map(Error::from)
        };
        if let Some(error) = refused {
            return self.replies.push((request, Err(error)));
        }
        let age = wish.age.unwrap_or(at.moment);
        let (got, asked) = (BTreeMap::new(), Vec::new());
        self.next_client += 1;
        let client = Reserving { request, wish, age, deadline, got, at: Timestamp::ZERO, asked, again: None };
        self.reserving.insert(self.next_client, client);
        self.reserve_next(self.next_client, at);
    }

    /// Asks the next shard; if there is none, the client has all that it wants.
    fn reserve_next(&mut self, number: u64, at: &Surroundings<'_>) {
        let Some(client) = self.reserving.get_mut(&number) else { return };
        client.again = None;
        let wish = &client.wish;
        let is_log = |id| at.keyspaces.get(id).is_some_and(|keyspace| keyspace.kind == KeyspaceKind::Log);
        if wish.keys.iter().any(|(keyspace, _)| is_log(*keyspace)) {
            return self.reserved_all(number, Err(Refusal::KeysInLog.into()));
        }
        let shard_of = |keyspace: KeyspaceId, key: &[u8]| Some(at.keyspaces.get(keyspace)?.shard_of(key));
        let missing = (0..wish.keys.len()).filter(|n| !client.got.contains_key(n));
        let missing: Vec<_> = missing.map(|n| (n, shard_of(wish.keys[n].0, &wish.keys[n].1))).collect();
        let shard = match missing.first() {
            Some((_, Some(shard))) => *shard,
            Some((_, None)) => return self.reserved_all(number, Err(Refusal::KeyspaceNotFound.into())),
            None => {
                let keys = std::mem::take(&mut client.got).into_values().collect();
                let granted = Granted { age: client.age, keys, at: client.at };
                return self.reserved_all(number, Ok(Reply::Reserved(granted)));
            }
        };
        client.asked = missing.iter().filter(|(_, its)| *its == Some(shard)).map(|(n, _)| *n).collect();
        let keys = client.asked.iter().map(|n| wish.keys[*n].1.clone()).collect();
        let here = wish.held.iter().filter(|(keyspace, hold)| shard_of(*keyspace, &hold.key) == Some(shard));
        let held: Vec<Hold> = here.map(|(_, hold)| hold.clone()).collect();
        // Whoever has an age may have something, if only from a run before.
        let patient = wish.age.is_none() && client.got.is_empty();
        let step = ReserveStep::Reserve { age: client.age, patient, keys, held };
        let (command, deadline) = (Command::Reserve { by: wish.by, step }, client.deadline);
        self.ask_for(shard, (command, AckWait::default()), deadline, Purpose::Reserved { client: number });
    }

    /// A shard answers.
    pub(super) fn reserved(&mut self, number: u64, answer: Result<Reserved, Error>, at: &Surroundings<'_>) {
        let Some(client) = self.reserving.get_mut(&number) else { return };
        match answer {
            Ok(reserved) => {
                client.got.extend(client.asked.drain(..).zip(reserved.keys));
                client.at = client.at.max(reserved.at);
                self.reserve_next(number, at);
            }
            Err(error @ (Error::Refused(Refusal::Moved { .. }) | Error::Unavailable(Unavailable::NoLeader))) => {
                client.again = Some((at.now + AGAIN_AFTER, error));
            }
            // What was reserved without anybody's hearing of it is in nobody's way for long, and the same wish finds it.
            Err(Error::UnknownOutcome(_)) => self.reserved_all(number, Err(Unavailable::Timeout.into())),
            Err(error) => self.reserved_all(number, Err(error)),
        }
    }

    fn reserved_all(&mut self, number: u64, reply: Result<Reply, Error>) {
        if let Some(client) = self.reserving.remove(&number) {
            self.replies.push((client.request, reply));
        }
    }

    /// A client gives up what it has reserved in the shards of these keys.
    pub fn release(
        &mut self,
        request: RequestId,
        (by, keys): (TxId, Vec<(KeyspaceId, bytes::Bytes)>),
        deadline: Instant,
        at: &Surroundings<'_>,
    ) {
        let shard_of = |(keyspace, key): &(KeyspaceId, bytes::Bytes)| Some(at.keyspaces.get(*keyspace)?.shard_of(key));
        let shards: Option<BTreeSet<ShardId>> = keys.iter().map(shard_of).collect();
        let Some(shards) = shards else {
            return self.replies.push((request, Err(Refusal::KeyspaceNotFound.into())));
        };
        self.next_client += 1;
        let job = self.next_client;
        self.releasing.insert(job, Releasing { request, left: shards.len() + 1, failed: None });
        for shard in shards {
            let command = Command::Reserve { by, step: ReserveStep::Release };
            self.ask_for(shard, (command, AckWait::default()), deadline, Purpose::Released { job });
        }
        self.released(job, Ok(()));
    }

    pub(super) fn released(&mut self, job: u64, answer: Result<(), Error>) {
        let Some(releasing) = self.releasing.get_mut(&job) else { return };
        releasing.left -= 1;
        let failed = answer.err().map(|error| match error {
            // Sent again, it does no more than once.
            Error::UnknownOutcome(_) => Unavailable::Timeout.into(),
            error => error,
        });
        releasing.failed = failed.or(releasing.failed.take());
        if releasing.left == 0
            && let Some(Releasing { request, failed, .. }) = self.releasing.remove(&job)
        {
            self.replies.push((request, failed.map_or(Ok(Reply::Released), Err)));
        }
    }

    /// Time passes: who was to ask again does, and what was reserved for too long is no more.
    pub(super) fn tick_reservations(
        &mut self,
        found: impl Iterator<Item = (ShardId, TxId, LogIndex)>,
        at: &Surroundings<'_>,
    ) {
        let waiting =
            self.reserving.iter().filter_map(|(n, client)| client.again.as_ref().map(|(when, _)| (*n, *when)));
        let due: Vec<u64> = waiting.filter(|(_, when)| *when <= at.now).map(|(n, _)| n).collect();
        for number in due {
            let late = self.reserving.get_mut(&number).filter(|client| client.deadline <= at.now);
            match late.and_then(|client| client.again.take()) {
                Some((_, error)) => self.reserved_all(number, Err(error)),
                None => self.reserve_next(number, at),
            }
        }
        for (shard, by, until) in self.lapses.take_due(found, at.now) {
            let command = Command::Reserve { by, step: ReserveStep::Lapse { until } };
            self.ask_for(shard, (command, AckWait::default()), at.now + ACROSS_STEP_TIMEOUT, Purpose::Nothing);
        }
    }

    pub(super) fn stop_reserving(&mut self) {
        let reserving = std::mem::take(&mut self.reserving).into_values().map(|client| client.request);
        let releasing = std::mem::take(&mut self.releasing).into_values().map(|client| client.request);
        self.replies.extend(reserving.chain(releasing).map(|request| (request, Err(Unavailable::Stopping.into()))));
    }
}

/// What was reserved, of an answer.
pub(super) fn reserved_of(outcome: Outcome) -> Reserved {
    match outcome {
        Outcome::Reserved(reserved) => reserved,
        other => unreachable!("a wish was answered with {other:?}"),
    }
}

fn judge(wish: &Wish) -> Result<(), Refusal> {
    let max = limits::RESERVED_KEYS_MAX;
    if wish.keys.len() + wish.held.len() > max {
        return Err(Refusal::TooManyReserved { max });
    }
    wish.keys.iter().try_for_each(|(_, key)| super::plan::not_empty(key).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspaces::Keyspaces;
    use crate::keyspaces::tests::made;
    use bytes::Bytes;
    use quorate_env::Rng;
    use quorate_kv::{Applied, CommandId, Header};

    /// A client that wants keys of two shards; what is asked of which shard, and what it is told.
    struct Desk {
        across: Across,
        keyspaces: Keyspaces,
        orders: KeyspaceId,
        now: Instant,
    }

    impl Desk {
        fn new() -> Self {
            let (keyspaces, orders) = made("orders", &["m"]);
            Self { across: Across::new(Rng::new(1)), keyspaces, orders, now: Instant(0) }
        }

        fn with(&mut self, f: impl FnOnce(&mut Across, &Surroundings<'_>)) {
            let (applied, moment) = (|_| None, Timestamp(77));
            let Self { across, keyspaces, now, .. } = self;
            f(
                across,
                &Surroundings { now: *now, moment, keyspaces, applied: &applied, bounded: false, sabotage: None },
            );
        }

        fn wants(&mut self, age: Option<Timestamp>, keys: &[&'static str], held: &[(&'static str, u64)]) {
            let keys = keys.iter().map(|key| (self.orders, Bytes::from(*key))).collect();
            let hold = |(key, since): &(&'static str, u64)| Hold { key: (*key).into(), since: LogIndex(*since) };
            let held = held.iter().map(|one| (self.orders, hold(one))).collect();
            let wish = Wish { by: TxId(7), age, keys, held };
            let deadline = Instant(0) + Duration::from_secs(2);
            self.with(|across, at| across.reserve(1, wish, deadline, at));
        }

        fn asked(&mut self) -> (RequestId, ShardId, ReserveStep) {
            let mut asks = self.across.take_asks();
            let ask = asks.pop().expect("a shard is asked");
            assert!(asks.is_empty(), "one after the other: {asks:?}");
            let Command::Reserve { by: TxId(7), step } = ask.command else { panic!("{:?}", ask.command) };
            (ask.id, ask.shard, step)
        }

        fn answer(&mut self, id: RequestId, answer: Result<&[u64], Error>) {
            let held = |since: &u64| Held { since: LogIndex(*since), kv: None };
            let answer = answer.map(|since| {
                let reserved = Reserved { keys: since.iter().map(held).collect(), at: Timestamp(since[0]) };
                Reply::Applied(Applied { header: Header::default(), outcome: Outcome::Reserved(reserved) })
            });
            self.with(|across, at| across.answered(id, answer, at));
        }

        fn told(&mut self) -> Option<Result<Reply, Error>> {
            self.across.take_replies().pop().map(|(_, reply)| reply)
        }
    }

    #[test]
    fn keys_are_reserved_in_one_shard_after_the_other_and_answered_in_the_order_of_the_wish() {
        let mut desk = Desk::new();
        desk.wants(None, &["z", "a", "y"], &[("b", 3)]);
        let (id, right, step) = desk.asked();
        let (age, held) = (Timestamp(77), Vec::new());
        assert_eq!(step, ReserveStep::Reserve { age, patient: true, keys: vec!["z".into(), "y".into()], held });
        desk.answer(id, Ok(&[20, 20]));
        assert!(desk.told().is_none());
        let (id, left, step) = desk.asked();
        let held = vec![Hold { key: "b".into(), since: LogIndex(3) }];
        assert_eq!(step, ReserveStep::Reserve { age, patient: false, keys: vec!["a".into()], held });
        assert_ne!(left, right);
        desk.answer(id, Ok(&[9]));
        let Some(Ok(Reply::Reserved(granted))) = desk.told() else { panic!("it has all of them") };
        let since: Vec<u64> = granted.keys.iter().map(|held| held.since.0).collect();
        assert_eq!((granted.age, since, granted.at), (age, vec![20, 9, 20], Timestamp(20)));
        assert!(!desk.across.is_asking() && desk.across.reserving.is_empty());
    }

    #[test]
    fn who_has_moved_is_found_again_and_who_has_lost_something_is_told() {
        let mut desk = Desk::new();
        desk.wants(Some(Timestamp(5)), &["a"], &[]);
        let (id, ..) = desk.asked();
        desk.answer(id, Err(Refusal::Moved { key: "a".into() }.into()));
        assert!(desk.told().is_none());
        desk.now = Instant(0) + AGAIN_AFTER;
        desk.with(|across, at| across.tick(Vec::new(), at));
        let (id, _, step) = desk.asked();
        assert!(
            matches!(step, ReserveStep::Reserve { age: Timestamp(5), patient: false, .. }),
            "as old as it was: {step:?}"
        );
        let lost = Error::Refused(Refusal::ReservationLost { key: "b".into() });
        desk.answer(id, Err(lost.clone()));
        assert_eq!(desk.told().expect("an answer").err(), Some(lost));
        // When there is no time left, the last reason is told.
        desk.wants(None, &["a"], &[]);
        let (id, ..) = desk.asked();
        desk.answer(id, Err(Unavailable::NoLeader.into()));
        desk.now = Instant(0) + Duration::from_secs(3);
        desk.with(|across, at| across.tick(Vec::new(), at));
        assert_eq!(desk.told().expect("an answer").err(), Some(Unavailable::NoLeader.into()));
        // What nobody heard of is not called done or undone: it is nothing that anybody sees.
        desk.wants(None, &["a"], &[]);
        let (id, ..) = desk.asked();
        desk.answer(id, Err(Error::UnknownOutcome(CommandId::default())));
        assert_eq!(desk.told().expect("an answer").err(), Some(Unavailable::Timeout.into()));
    }

    #[test]
    fn what_cannot_be_reserved_is_refused_and_a_release_is_heard_of_when_all_have_answered() {
        let mut desk = Desk::new();
        desk.wants(None, &[""], &[]);
        assert_eq!(desk.told().expect("an answer").err(), Some(Refusal::EmptyKey.into()));
        let max = limits::RESERVED_KEYS_MAX;
        desk.wants(None, &vec!["a"; max + 1], &[]);
        assert_eq!(desk.told().expect("an answer").err(), Some(Refusal::TooManyReserved { max }.into()));
        let keys = ["a", "z"].map(|key| (desk.orders, Bytes::from(key))).to_vec();
        desk.with(|across, at| across.release(1, (TxId(7), keys), Instant(9), at));
        let asks: Vec<RequestId> = desk.across.take_asks().into_iter().map(|ask| ask.id).collect();
        assert_eq!(asks.len(), 2);
        let released = || Reply::Applied(Applied { header: Header::default(), outcome: Outcome::Released });
        desk.with(|across, at| across.answered(asks[0], Ok(released()), at));
        assert!(desk.told().is_none());
        desk.with(|across, at| across.answered(asks[1], Ok(released()), at));
        assert!(matches!(desk.told(), Some(Ok(Reply::Released))));
    }

    #[test]
    fn what_is_reserved_for_too_long_is_due_and_then_due_again() {
        let mut lapses = Lapses::default();
        let (first, then) = ((ShardId(1), TxId(7), LogIndex(9)), (ShardId(1), TxId(7), LogIndex(30)));
        let at = |since: Duration| Instant(0) + since;
        assert!(lapses.take_due([first].into_iter(), at(Duration::ZERO)).is_empty());
        assert!(lapses.take_due([first, then].into_iter(), at(RESERVED_FOR / 2)).is_empty());
        assert_eq!(lapses.take_due([first, then].into_iter(), at(RESERVED_FOR)), [first], "each has its own time");
        assert!(lapses.take_due([first, then].into_iter(), at(RESERVED_FOR)).is_empty(), "it is being asked for");
        assert_eq!(lapses.take_due([then].into_iter(), at(RESERVED_FOR * 3 / 2)), [then]);
        assert!(lapses.take_due(std::iter::empty(), at(RESERVED_FOR * 2)).is_empty());
        assert!(lapses.0.is_empty());
    }
}

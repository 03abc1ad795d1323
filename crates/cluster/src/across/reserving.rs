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
use crate::bounds::{ACROSS_CLIENTS_MAX, ACROSS_STEP_TIMEOUT, RESERVED_FOR};
use crate::input::{Reply, RequestId};
use quorate_env::{Instant, LogIndex, ShardId, Timestamp};
use quorate_kv::across::TxId;
use quorate_kv::reserve::{Granted, Held, Hold, ReserveStep, Reserved, Wish};
use quorate_kv::{Command, Error, KeyspaceId, Outcome, Refusal, Unavailable, limits};
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
        let step = ReserveStep::Reserve { age: client.age, keys, held };
        let (command, deadline) = (Command::Reserve { by: wish.by, step }, client.deadline);
        self.ask_for(shard, command, deadline, Purpose::Reserved { client: number });
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
            self.ask_for(shard, command, deadline, Purpose::Released { job });
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
        let waiting = self.reserving.iter().filter_map(|(n, client)| client.again.as_ref().map(|(when, _)| (*n, *when)));
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
            self.ask_for(shard, command, at.now + ACROSS_STEP_TIMEOUT, Purpose::Nothing);
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

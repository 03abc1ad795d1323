//! Logs keep no more than they are to: leaders cut off what is too old or too much, and see to it that the rows of what was cut off go.
//!
//! How old a record is, is told by the clock of the node that leads its shard: an idle log is cut off, too.

use super::{Node, RETAINED};
use crate::bounds::{RECORDS_PER_LOOK, RETRY};
use crate::config::Sabotage;
use crate::input::{Lost, Request};
use quorate_env::{Instant, ShardId, Timestamp, WallMs};
use quorate_kv::log::{Bounds, Entry};
use quorate_kv::{Command, Policy};
use quorate_shard::{MachineError, View};
use std::time::Duration;

/// See the top of this file.
#[derive(Default)]
pub(super) struct Retaining {
    look_again: Option<Instant>,
    /// Answers that are to come.
    pub asked: u64,
}

impl Node {
    /// Looks at the logs that this node leads, and asks for them to be cut off. Where there is more to be done, it looks again as soon as that is done.
    pub(super) fn cut_logs(&mut self, now: Instant) {
        if self.retaining.asked > 0 || self.retaining.look_again.is_some_and(|when| when > now) {
            return;
        }
        self.retaining.look_again = Some(now + self.pause_between_looks());
        let wall = WallMs(self.shared.wall.0 + now.since(self.shared.ticked).as_millis() as u64);
        for (shard, policy) in self.system.keyspaces.logs().collect::<Vec<_>>() {
            let Some(replica) = self.replicas.get(&shard).filter(|replica| replica.leads()) else { continue };
            let policy = match self.shared.config.sabotage {
                Some(Sabotage::RetainNothing) => Policy { retain: Some(Duration::ZERO), ..policy },
                _ => policy,
            };
            match due(&replica.view(), policy, wall) {
                Ok(None) => {}
                Ok(Some(_)) if self.shared.config.sabotage == Some(Sabotage::LeaveCutRows) => {}
                Ok(Some(before)) => self.cut(now, shard, before),
                Err(e) => {
                    let lost = self.shared.out.lost.or_else(|| e.is_damage().then_some(Lost::Rows));
                    self.shared.out.lost = lost;
                    self.shared.out.fatal.get_or_insert(e.to_string());
                }
            }
        }
    }

    fn cut(&mut self, now: Instant, shard: ShardId, before: u64) {
        self.retaining.asked += 1;
        self.retaining.look_again = None;
        let request = Request::Submit { shard, command: Command::Trim { before } };
        self.request(now, RETAINED, request, now + 2 * RETRY);
    }
}

/// Where a log is to be cut off now; none if there is nothing to be done.
fn due(view: &View, policy: Policy, now: WallMs) -> Result<Option<u64>, MachineError> {
    let bounds = view.log_bounds()?;
    if bounds.swept < bounds.first {
        return Ok(Some(bounds.first));
    }
    if !policy.retains() || bounds.first == bounds.end {
        return Ok(None);
    }
    let entries = view.log_entries(bounds.first, bounds.end.min(bounds.first + RECORDS_PER_LOOK))?;
    let before = kept_from(bounds, &entries, policy, now);
    Ok((before > bounds.first).then_some(before))
}

/// The first offset that is to be kept, as far as these records tell. The last record of all is never too much, but may be too old.
fn kept_from(bounds: Bounds, entries: &[Entry], policy: Policy, now: WallMs) -> u64 {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let oldest = policy.retain.map(|age| Timestamp::of(WallMs(now.0.saturating_sub(ms(age)))));
    let mut surplus = policy.retain_bytes.map_or(0, |max| bounds.bytes.saturating_sub(max));
    let mut first = bounds.first;
    for entry in entries {
        let old = oldest.is_some_and(|oldest| entry.at < oldest);
        let much = surplus > 0 && entry.offset + 1 < bounds.end;
        if !old && !much {
            break;
        }
        surplus = surplus.saturating_sub(entry.record.bytes());
        first = entry.offset + 1;
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_kv::log::Record;

    /// The first that is kept of ten records of four bytes each, from offset 5 on, one appended in each second.
    fn first(policy: Policy, now_ms: u64) -> u64 {
        let entry = |offset: u64| Entry {
            offset,
            at: Timestamp::of(WallMs((offset - 5) * 1_000)),
            record: Record::of("k", "val"),
        };
        let entries: Vec<Entry> = (5..15).map(entry).collect();
        kept_from(Bounds { first: 5, swept: 5, end: 15, bytes: 40 }, &entries, policy, WallMs(now_ms))
    }

    #[test]
    fn what_is_too_old_or_too_much_is_cut_off_and_nothing_else() {
        let age = |secs| Policy { retain: Some(Duration::from_secs(secs)), ..Policy::OF_MADE };
        let bytes = |bytes| Policy { retain_bytes: Some(bytes), ..Policy::OF_MADE };
        assert_eq!(first(Policy::OF_MADE, 1 << 40), 5);
        assert_eq!((first(age(4), 9_000), first(age(4), 9_001)), (10, 11));
        assert_eq!(first(age(4), 1 << 40), 15, "all of it may be too old");
        assert_eq!((first(age(100), 9_000), first(bytes(40), 9_000)), (5, 5));
        assert_eq!((first(bytes(39), 0), first(bytes(36), 0), first(bytes(35), 0)), (6, 6, 7));
        assert_eq!(first(bytes(1), 0), 14, "one is left, however large");
        assert_eq!(first(Policy { retain: Some(Duration::from_secs(1)), ..bytes(30) }, 9_000), 13);
    }
}

//! By how much clocks differ, from the messages between them.
//!
//! Of all messages from one life to another the fastest says most: as the clocks stand it took *d* from sending to arrival, and one took *e* back. If
//! the fastest are equally fast both ways, as NTP supposes, the second clock is ahead by (d - e) / 2, and wrong by no more than half of d + e.
//!
//! Lives are placed one after the other, each by the best hint that connects it to one that is placed: messages both ways, the shortest round trip
//! first; then another life on the same machine; then messages one way, which must not arrive before they are sent; then nothing but the clocks.

use std::collections::BTreeMap;

/// The least delay from one life to another, in microseconds as their clocks stand: it may be negative.
pub(super) type Delays = BTreeMap<(usize, usize), i64>;

/// How good a hint is (the least is best), and what must be added to a clock so that it agrees with the first one's.
type Hint = ((u8, i64), i64);

/// What must be added to each life's clock, in microseconds. `nodes` says which lives ran on the same machine.
pub(super) fn differences(nodes: &[u64], delays: &Delays) -> Vec<i64> {
    let mut placed: Vec<Option<i64>> = vec![None; nodes.len()];
    let mut best: Vec<Hint> = vec![((u8::MAX, 0), 0); nodes.len()];
    while let Some(next) = (0..nodes.len()).filter(|life| placed[*life].is_none()).min_by_key(|life| best[*life].0) {
        let own = best[next].1;
        placed[next] = Some(own);
        for other in (0..nodes.len()).filter(|life| placed[*life].is_none()) {
            let (rank, added) = hint(nodes, delays, next, other);
            if rank < best[other].0 {
                best[other] = (rank, own + added);
            }
        }
    }
    placed.into_iter().map(|placed| placed.expect("every life was placed")).collect()
}

fn hint(nodes: &[u64], delays: &Delays, placed: usize, other: usize) -> Hint {
    match (delays.get(&(placed, other)), delays.get(&(other, placed))) {
        (Some(there), Some(back)) => ((0, there + back), (back - there) / 2),
        _ if nodes[placed] == nodes[other] => ((1, placed.abs_diff(other) as i64), 0),
        (Some(there), None) => ((2, 0), (-there).max(0)),
        (None, Some(back)) => ((2, 0), (*back).min(0)),
        (None, None) => ((3, 0), 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;

    #[test]
    fn an_hour_is_found_between_messages_both_ways() {
        // The second clock is an hour ahead; messages take 200 us there and 300 us back.
        let delays = Delays::from([((0, 1), HOUR + 200), ((1, 0), 300 - HOUR)]);
        assert_eq!(differences(&[1, 2], &delays), [0, 50 - HOUR]);
    }

    #[test]
    fn the_shortest_way_round_counts() {
        // From 0 to 2 it is far; by way of 1 it is near.
        let delays = Delays::from([
            ((0, 1), HOUR + 100),
            ((1, 0), 100 - HOUR),
            ((1, 2), 100 - HOUR),
            ((2, 1), HOUR + 100),
            ((0, 2), 90_000),
            ((2, 0), 10_000),
        ]);
        assert_eq!(differences(&[1, 2, 3], &delays), [0, -HOUR, 0]);
    }

    #[test]
    fn without_messages_both_ways_there_are_lesser_hints() {
        // A later life on the same machine.
        let delays = Delays::from([((0, 2), HOUR), ((2, 0), -HOUR)]);
        assert_eq!(differences(&[1, 2, 2], &delays), [0, -HOUR, -HOUR]);
        // One way: nothing arrives before it is sent.
        assert_eq!(differences(&[1, 2], &Delays::from([((0, 1), -500)])), [0, 500]);
        assert_eq!(differences(&[1, 2], &Delays::from([((1, 0), -500)])), [0, -500]);
        assert_eq!(differences(&[1, 2], &Delays::from([((0, 1), 500)])), [0, 0]);
        assert_eq!(differences(&[1, 2], &Delays::new()), [0, 0]);
    }
}

//! Strict serializability of transactions over many shards, from what clients saw and from the versions that the shards hold in the end.
//!
//! Every version of a key names the operation that wrote it. So who follows whom is known: a writer follows the writer of the version before
//! (ww), a reader follows whose version it saw (wr) and comes before who replaced that (rw), and who began after another was answered comes after it (real
//! time). There is an order that explains everything if and only if nobody comes, by these, before himself (Adya, "Weak Consistency", MIT 1999;
//! Kingsbury and Alvaro, "Elle", VLDB 2020).

use crate::history::{Violation, demand};
use bytes::Bytes;
use quorate_kv::KeyRange;
use std::collections::{BTreeMap, BTreeSet};

/// Nobody has written the key yet.
pub(crate) const NOBODY: u64 = 0;

/// What a client did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Done {
    pub began_us: u64,
    /// When it was answered; none if it never was, and nobody knows whether it happened.
    pub ended_us: Option<u64>,
    /// The ranges that it looked at. Of a key in them that it did not see, it saw that nobody had written it.
    pub looked: Vec<KeyRange>,
    /// Who had last written the keys that it saw.
    pub saw: BTreeMap<Bytes, u64>,
    /// The keys that it wrote.
    pub wrote: Vec<Bytes>,
}

/// Everything that was done.
#[derive(Debug, Default)]
pub(crate) struct SerialCheck {
    pub done: BTreeMap<u64, Done>,
    /// Operations that were answered as not done.
    pub refused: BTreeSet<u64>,
    /// Those that were answered as done before a majority had them: they may be lost.
    pub early: BTreeSet<u64>,
}

impl SerialCheck {
    /// What was answered as done and is not there, where that may be; and what read of it.
    pub fn lost(&self, versions: &BTreeMap<Bytes, Vec<u64>>) -> BTreeSet<u64> {
        let found: BTreeSet<u64> = versions.values().flatten().copied().collect();
        let writers = self.early.iter().filter(|early| !found.contains(early));
        let wrote = |operation: &&u64| self.done.get(operation).is_some_and(|done| !done.wrote.is_empty());
        let mut lost: BTreeSet<u64> = writers.filter(wrote).copied().collect();
        let readers =
            self.done.iter().filter(|(operation, done)| self.early.contains(operation) && done.wrote.is_empty());
        let readers: Vec<u64> = readers
            .filter(|(_, done)| done.saw.values().any(|writer| lost.contains(writer)))
            .map(|(n, _)| *n)
            .collect();
        lost.extend(readers);
        lost
    }

    /// Judges, given who wrote the versions of each key, oldest first. Returns how many operations are explained.
    pub fn finish(&self, versions: &BTreeMap<Bytes, Vec<u64>>) -> Result<u64, Violation> {
        let happened = self.all_or_nothing(versions)?;
        let places = places(versions);
        let mut graph = Graph::default();
        for (key, writers) in versions {
            for pair in writers.windows(2) {
                self.follow(&mut graph, pair[0], pair[1], || format!("{} replaced its {}", pair[1], show(key)));
            }
        }
        for (operation, done) in self.done.iter().filter(|(operation, _)| happened.contains(operation)) {
            let looked = done.looked.iter().flat_map(|range| {
                let keys = versions.range(range.start.clone()..).map(|(key, _)| key);
                keys.take_while(|key| range.contains(key))
            });
            let unseen = looked.filter(|key| !done.saw.contains_key(*key)).map(|key| (key, &NOBODY));
            for (key, writer) in done.saw.iter().chain(unseen) {
                let none = Vec::new();
                let writers = versions.get(key).unwrap_or(&none);
                let at = places.get(key).and_then(|places| places.get(writer)).copied();
                demand(*writer == NOBODY || at.is_some(), "reads see what was committed", || {
                    format!(
                        "operation {operation} saw {} as written by {writer}, who is not among its writers",
                        show(key)
                    )
                })?;
                if *writer != NOBODY {
                    self.follow(&mut graph, *writer, *operation, || format!("{operation} saw its {}", show(key)));
                }
                // Of its own writes a transaction sees nothing: whoever replaced what it saw may be itself.
                if let Some(next) = writers.get(at.map_or(0, |at| at + 1)) {
                    self.follow(&mut graph, *operation, *next, || {
                        format!("{next} replaced the {} that it saw", show(key))
                    });
                }
            }
        }
        graph.in_real_time(happened.iter().map(|operation| (*operation, &self.done[operation])));
        match graph.circle() {
            None => Ok(happened.len() as u64),
            Some(detail) => Err(Violation { rule: "transactions are strictly serializable", detail }),
        }
    }

    /// One comes before another. Where the one was answered before the other began, real time says so already: in a history in which most has been seen before, that is
    /// nearly all there is to be said.
    fn follow(&self, graph: &mut Graph, first: u64, then: u64, why: impl Fn() -> String) {
        let began = self.done.get(&then).map_or(0, |done| done.began_us);
        let ended = self.done.get(&first).and_then(|done| done.ended_us);
        if ended.is_none_or(|ended| ended >= began) {
            graph.follow(first, then, why);
        }
    }

    /// What was acknowledged is there once, on every key; what was refused is nowhere; of the rest each is there wholly or not at all.
    fn all_or_nothing(&self, versions: &BTreeMap<Bytes, Vec<u64>>) -> Result<BTreeSet<u64>, Violation> {
        let mut found: BTreeMap<u64, BTreeMap<&Bytes, u64>> = BTreeMap::new();
        for (key, writers) in versions {
            for writer in writers {
                *found.entry(*writer).or_default().entry(key).or_default() += 1;
            }
        }
        for writer in found.keys() {
            demand(!self.refused.contains(writer), "what is answered as not done has no effect", || {
                format!("operation {writer} was refused and has written")
            })?;
            demand(self.done.contains_key(writer), "nobody else writes", || format!("operation {writer}"))?;
        }
        let (mut happened, lost) = (BTreeSet::new(), self.lost(versions));
        for (operation, done) in self.done.iter().filter(|(operation, _)| !lost.contains(operation)) {
            let none = BTreeMap::new();
            let written = found.get(operation).unwrap_or(&none);
            let whole = done.wrote.iter().all(|key| written.contains_key(key));
            let once = written.values().all(|times| *times == 1);
            demand(once, "applied at most once", || format!("operation {operation} wrote {written:?}"))?;
            match done.ended_us {
                Some(_) => demand(whole, "acknowledged is committed", || {
                    format!("operation {operation} was acknowledged; of {:?} it wrote {written:?}", done.wrote)
                })?,
                None => demand(whole || written.is_empty(), "all of a transaction or nothing", || {
                    format!("operation {operation} was to write {:?} and wrote {written:?}", done.wrote)
                })?,
            }
            if done.ended_us.is_some() || !written.is_empty() {
                happened.insert(*operation);
            }
        }
        Ok(happened)
    }
}

/// Where among a key's versions each of its writers is, first.
fn places(versions: &BTreeMap<Bytes, Vec<u64>>) -> BTreeMap<&Bytes, BTreeMap<u64, usize>> {
    let of = |writers: &Vec<u64>| writers.iter().enumerate().rev().map(|(at, writer)| (*writer, at)).collect();
    versions.iter().map(|(key, writers)| (key, of(writers))).collect()
}

fn show(key: &[u8]) -> String {
    key.escape_ascii().to_string()
}

/// Who comes before whom, and why.
#[derive(Default)]
struct Graph {
    edges: BTreeMap<Node, BTreeMap<Node, String>>,
}

/// An operation, or a moment: everybody who was answered by then comes before it, and everybody who began later after it. So real time takes a
/// few edges for each operation, not one for each pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Node {
    Operation(u64),
    Moment(usize),
}

impl Graph {
    fn follow(&mut self, first: u64, then: u64, why: impl Fn() -> String) {
        if first != then {
            let after = self.edges.entry(Node::Operation(first)).or_default();
            after.entry(Node::Operation(then)).or_insert_with(why);
        }
    }

    fn in_real_time<'a>(&mut self, operations: impl Iterator<Item = (u64, &'a Done)> + Clone) {
        let ends: BTreeSet<u64> = operations.clone().filter_map(|(_, done)| done.ended_us).collect();
        let ends: Vec<u64> = ends.into_iter().collect();
        let mut edge = |from: Node, to: Node| {
            self.edges.entry(from).or_default().entry(to).or_default();
        };
        for moment in 1..ends.len() {
            edge(Node::Moment(moment - 1), Node::Moment(moment));
        }
        for (operation, done) in operations {
            if let Some(end) = done.ended_us {
                edge(Node::Operation(operation), Node::Moment(ends.partition_point(|e| *e < end)));
            }
            // The last moment that lies before its beginning.
            if let Some(before) = ends.partition_point(|e| *e < done.began_us).checked_sub(1) {
                edge(Node::Moment(before), Node::Operation(operation));
            }
        }
    }

    /// Somebody who comes before himself, and how; none if there is an order. Depth first, without recursion.
    fn circle(&self) -> Option<String> {
        let mut finished = BTreeSet::new();
        for start in self.edges.keys() {
            let mut path: Vec<(Node, Box<dyn Iterator<Item = &Node> + '_>)> = Vec::new();
            let mut on_path = BTreeSet::new();
            let mut enter = Some(*start);
            loop {
                if let Some(node) = enter.take()
                    && !finished.contains(&node)
                {
                    if on_path.contains(&node) {
                        let from = path.iter().position(|(n, _)| *n == node).unwrap_or_default();
                        return Some(self.tell(path[from..].iter().map(|(n, _)| *n).chain([node]).collect()));
                    }
                    let next = self.edges.get(&node).into_iter().flat_map(BTreeMap::keys);
                    path.push((node, Box::new(next)));
                    on_path.insert(node);
                }
                let Some((node, next)) = path.last_mut() else { break };
                match next.next() {
                    Some(node) => enter = Some(*node),
                    None => {
                        finished.insert(*node);
                        on_path.remove(node);
                        path.pop();
                    }
                }
            }
        }
        None
    }

    fn tell(&self, circle: Vec<Node>) -> String {
        let mut told = String::new();
        for pair in circle.windows(2) {
            match pair {
                [Node::Operation(first), to] => {
                    let why = self.edges[&pair[0]][to].as_str();
                    let why = if why.is_empty() { "was answered" } else { why };
                    told += &format!("{first}: {why}; ");
                }
                [Node::Moment(_), Node::Operation(then)] => told += &format!("then {then} began; "),
                _ => {}
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(began_us: u64, ended_us: u64, saw: &[(&'static str, u64)], wrote: &[&'static str]) -> Done {
        Done {
            began_us,
            ended_us: (ended_us > 0).then_some(ended_us),
            looked: saw.iter().map(|(key, _)| KeyRange::single(*key)).collect(),
            saw: saw.iter().filter(|(_, w)| *w != NOBODY).map(|(key, writer)| (Bytes::from(*key), *writer)).collect(),
            wrote: wrote.iter().map(|key| Bytes::from(*key)).collect(),
        }
    }

    fn judge(done: Vec<Done>, versions: &[(&'static str, &[u64])]) -> Result<u64, &'static str> {
        let (refused, early) = (BTreeSet::from([99]), BTreeSet::new());
        let check = SerialCheck { done: (1..).zip(done).collect(), refused, early };
        let versions = versions.iter().map(|(key, writers)| (Bytes::from(*key), writers.to_vec())).collect();
        check.finish(&versions).map_err(|violation| violation.rule)
    }

    const SERIAL: &str = "transactions are strictly serializable";

    #[test]
    fn what_has_an_order_is_explained() {
        let history = vec![done(1, 5, &[("x", 0)], &["x", "y"]), done(2, 4, &[("x", 1), ("y", 1)], &["x"])];
        assert_eq!(judge(history, &[("x", &[1, 2]), ("y", &[1])]), Ok(2));
        // Nobody knows of the third, and it did not happen.
        let history = vec![done(1, 2, &[], &["x"]), done(3, 4, &[("x", 1)], &[]), done(3, 0, &[("x", 7)], &["x"])];
        assert_eq!(judge(history, &[("x", &[1])]), Ok(2));
    }

    #[test]
    fn write_skew_is_noticed() {
        let history = vec![done(1, 5, &[("x", 0), ("y", 0)], &["x"]), done(2, 4, &[("x", 0), ("y", 0)], &["y"])];
        assert_eq!(judge(history, &[("x", &[1]), ("y", &[2])]), Err(SERIAL));
    }

    #[test]
    fn a_fractured_read_is_noticed() {
        let history = vec![done(1, 5, &[], &["x", "y"]), done(2, 4, &[("x", 1), ("y", 0)], &[])];
        assert_eq!(judge(history, &[("x", &[1]), ("y", &[1])]), Err(SERIAL));
    }

    #[test]
    fn a_lost_update_is_noticed() {
        let history = vec![done(1, 5, &[("x", 0)], &["x"]), done(2, 4, &[("x", 0)], &["x"])];
        assert_eq!(judge(history, &[("x", &[1, 2])]), Err(SERIAL));
    }

    #[test]
    fn a_stale_read_is_noticed_by_real_time_alone() {
        let history = vec![done(1, 2, &[], &["x"]), done(3, 4, &[("x", 0)], &[])];
        assert_eq!(judge(history, &[("x", &[1])]), Err(SERIAL));
    }

    #[test]
    fn what_was_told_early_may_be_lost_and_nothing_else() {
        let judge = |early: &[u64]| {
            let history = [done(1, 2, &[], &["x"]), done(3, 4, &[("x", 1)], &[]), done(5, 6, &[("x", 0)], &["x"])];
            let (done, early) = ((1..).zip(history).collect(), early.iter().copied().collect());
            let check = SerialCheck { done, early, ..SerialCheck::default() };
            let versions = BTreeMap::from([(Bytes::from("x"), vec![3])]);
            (check.lost(&versions), check.finish(&versions).map_err(|violation| violation.rule))
        };
        assert_eq!(judge(&[1, 2]), (BTreeSet::from([1, 2]), Ok(1)), "with who read of it");
        assert_eq!(judge(&[]), (BTreeSet::new(), Err("acknowledged is committed")));
        assert_eq!(judge(&[1]).1, Err("reads see what was committed"), "who read of it was not told early");
        assert_eq!(judge(&[2]).1, Err("acknowledged is committed"));
    }

    #[test]
    fn halves_and_doubles_and_ghosts_are_noticed() {
        let half = vec![done(1, 0, &[], &["x", "y"])];
        assert_eq!(judge(half, &[("x", &[1])]), Err("all of a transaction or nothing"));
        let lost = vec![done(1, 2, &[], &["x", "y"])];
        assert_eq!(judge(lost, &[("x", &[1])]), Err("acknowledged is committed"));
        let twice = vec![done(1, 2, &[], &["x"])];
        assert_eq!(judge(twice, &[("x", &[1, 1])]), Err("applied at most once"));
        assert_eq!(judge(Vec::new(), &[("x", &[99])]), Err("what is answered as not done has no effect"));
        assert_eq!(judge(vec![done(1, 2, &[("x", 7)], &[])], &[]), Err("reads see what was committed"));
    }
}

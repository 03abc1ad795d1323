//! Watches of the simulated clients: each follows its keys from node to node, now and then from the past, and has all that it is told judged.

use super::{Event, Step, World};
use crate::client::SHARD;
use crate::history::{Violation, demand};
use crate::planted::DriverBug;
use crate::trace::recorder::node_lane;
use crate::trace::{Lane, TraceEvent, words};
use quorate_cluster::{Input, WatchOutput, WatchRequest};
use quorate_kv::{Revision, WatchSpec};
use quorate_shard::{View, WatcherKey};

/// How often a watch is replaced by one that starts in the past, and how many revisions back at most.
pub(super) const REWATCH_US: (u64, u64) = (1_000_000, 6_000_000);
const REWATCH_BACK: u64 = 200;

impl World<'_> {
    pub(super) fn watch_turn(&mut self, watcher: usize) -> Step {
        if let Some(view) = self.watchers[watcher].catching_up.take() {
            return self.catch_up(watcher, &view);
        }
        if self.watchers[watcher].key != 0 {
            return Ok(());
        }
        let nodes: Vec<usize> = self.lasting().into_iter().collect();
        let node = nodes[self.rng.below(nodes.len() as u64) as usize];
        if self.nodes[node].node.is_none() {
            self.after(100_000, Event::Watch { watcher });
            return Ok(());
        }
        self.watchers[watcher].node = node;
        self.attach(watcher)
    }

    /// Somebody else watches now, from some revision of the past.
    pub(super) fn rewatch(&mut self, watcher: usize) -> Step {
        let (low, high) = REWATCH_US;
        let wait = self.watch_rng.between(low, high);
        self.after(wait, Event::Rewatch { watcher });
        let back = self.watch_rng.below(REWATCH_BACK);
        let this = &mut self.watchers[watcher];
        let (old, node) = (std::mem::replace(&mut this.key, 0), this.node);
        this.catching_up = None;
        this.check.next = this.check.next.saturating_sub(back).max(1);
        if old != 0 {
            self.mark("watch from the past");
            self.feed(node, Input::Watch { key: old, shard: SHARD, request: WatchRequest::Detach })?;
        }
        self.watch_turn(watcher)
    }

    fn attach(&mut self, watcher: usize) -> Step {
        let key = self.next_key;
        self.next_key += 1;
        let this = &mut self.watchers[watcher];
        let old = std::mem::replace(&mut this.key, key);
        let range = this.check.range.clone();
        let from = Some(Revision(this.check.next));
        let spec = WatchSpec { range, start: from, no_put: false, no_delete: false, prev_kv: true };
        let node = this.node;
        let next = this.check.next;
        let lane = Lane::Watch(watcher as u64);
        self.trace(|| TraceEvent::Watch {
            watch: lane,
            node: node_lane(node),
            text: format!("watch from revision {next}"),
        });
        if old != 0 {
            self.feed(node, Input::Watch { key: old, shard: SHARD, request: WatchRequest::Detach })?;
        }
        self.feed(node, Input::Watch { key, shard: SHARD, request: WatchRequest::Attach { spec, from } })
    }

    fn catch_up(&mut self, watcher: usize, view: &View) -> Step {
        self.mark("history read by a watch");
        let check = &mut self.watchers[watcher].check;
        let page = view
            .events(&check.range, Revision(check.next), true, 2_000)
            .map_err(|e| Violation { rule: "views can be read", detail: e.to_string() })?;
        check.events(&self.order.model, &page.events)?;
        check.next = check.next.max(page.next.0);
        if page.next > view.revision() {
            return self.attach(watcher);
        }
        self.watchers[watcher].catching_up = Some(view.clone());
        self.after(1_000, Event::Watch { watcher });
        Ok(())
    }

    pub(super) fn watch_output(&mut self, key: WatcherKey, output: WatchOutput) -> Step {
        let Some(watcher) = self.watchers.iter().position(|watcher| watcher.key == key) else { return Ok(()) };
        if self.driver_bug() == Some(DriverBug::LoseWatchEvents)
            && matches!(output, WatchOutput::Events { .. })
            && self.rng.chance(50)
        {
            return Ok(());
        }
        let (lane, node) = (Lane::Watch(watcher as u64), node_lane(self.watchers[watcher].node));
        self.trace(|| words::told(lane, node, &output));
        let check = &mut self.watchers[watcher].check;
        match output {
            WatchOutput::Attached { backlog, .. } => {
                for events in backlog {
                    check.events(&self.order.model, &events)?;
                }
                // Not at once: the node's remaining outputs come first.
                self.after(200, Event::Progress { key });
            }
            WatchOutput::Behind { view, from } => {
                demand(from.0 == check.next, "watches resume where they were", || {
                    format!("{} not {}", from.0, check.next)
                })?;
                self.watchers[watcher].catching_up = Some(view);
                self.after(500, Event::Watch { watcher });
            }
            WatchOutput::Compacted { compacted, .. } => {
                let known = self.order.model.compacted.unwrap_or(0);
                demand(compacted.0 <= known && check.next < compacted.0, "only the compacted is refused", || {
                    format!("a watch from {} was refused at compaction {}", check.next, compacted.0)
                })?;
                check.next = compacted.0;
                self.mark("watch compacted");
                self.watchers[watcher].key = 0;
                self.after(1_000, Event::Watch { watcher });
            }
            WatchOutput::Events { events, .. } => check.events(&self.order.model, &events)?,
            WatchOutput::Progress { revision } => check.progress(&self.order.model, revision.0)?,
            WatchOutput::Detached | WatchOutput::Gone => return self.attach(watcher),
        }
        Ok(())
    }
}

//! What a node does when it is told of more than its disk holds.

use super::{FIRST_SHARDS, Node};
use crate::config::{BootMember, NodeConfig, Timing};
use crate::input::{Input, Lost, Outputs, Request};
use crate::wire::{PeerBody, PeerMessage};
use bytes::Bytes;
use quorate_consensus::{Message, MessageKind};
use quorate_env::{ClusterId, Instant, LogIndex, NodeId, ReplicaId, Term, WallMs};
use quorate_kv::across::TxId;
use quorate_kv::{Error, Level, Unavailable};
use quorate_storage::store::ModelStore;
use quorate_storage::wal::Recovered;
use std::sync::Arc;
use std::time::Duration;

/// A fresh one of three.
fn fresh() -> Node {
    let member = |n: u64| BootMember { id: NodeId(n), name: format!("n{n}"), peer_address: String::new() };
    let config = NodeConfig {
        cluster: ClusterId(1),
        node: NodeId(1),
        members: (1..=3).map(member).collect(),
        known: Vec::new(),
        level: Level::LATEST,
        zone: String::new(),
        evict_after: Duration::from_secs(300),
        balance_pause: crate::bounds::BALANCE_PAUSE,
        clock_bound: None,
        timing: Timing::default(),
        flush_bytes: 1 << 20,
        unflushed_bytes_max: 4 << 20,
        log_keep_bytes: 1 << 20,
        log_hold_bytes: 1 << 20,
        split_bytes: u64::MAX,
        split_load: crate::SplitLoad::NEVER,
        merges: crate::Merges::NEVER,
        early_entries: crate::bounds::EARLY_ENTRIES_MAX,
        batch_bytes: 1 << 20,
        apply_bytes: 1 << 20,
        chunk_bytes: 1 << 10,
        sabotage: None,
    };
    let store = Arc::new(ModelStore::new());
    Node::boot(config, store, None, &Recovered::default(), Instant(0), 1).expect("it boots")
}

/// What a fresh one of three says to a heartbeat with this commit index.
fn told_of(commit: u64) -> Outputs {
    let mut node = fresh();
    let heartbeat = Message {
        kind: MessageKind::Heartbeat,
        from: ReplicaId(2),
        to: ReplicaId(1),
        term: Term(1),
        log_term: Term(0),
        index: LogIndex(0),
        entries: Vec::new(),
        commit: LogIndex(commit),
        commit_term: Term(0),
        snapshot: None,
        request_snapshot: LogIndex(0),
        reject: false,
        reject_hint: LogIndex(0),
        context: Bytes::new(),
        priority: 0,
    };
    let message =
        PeerMessage { shard: FIRST_SHARDS[1], from: ReplicaId(2), to: ReplicaId(1), body: PeerBody::Raft(heartbeat) };
    node.step(Instant(1), Input::Peer { from: NodeId(2), message });
    node.drain(Instant(1))
}

#[test]
fn a_replica_that_lost_what_it_acknowledged_says_so() {
    let outputs = told_of(5);
    assert_eq!(outputs.lost, Some(Lost::Acknowledged));
    assert!(outputs.fatal.is_some_and(|why| why.contains("acknowledged")));
    assert!(outputs.messages.is_empty(), "it takes no part any more");
}

#[test]
fn a_replica_that_lost_nothing_goes_on() {
    let outputs = told_of(0);
    assert_eq!((outputs.lost, outputs.fatal), (None, None));
}

#[test]
fn what_needs_a_level_waits_until_the_first_leader_has_said_which() {
    let mut node = fresh();
    let request = Request::Settle { home: FIRST_SHARDS[1], tx: TxId(1) };
    node.step(Instant(1), Input::Request { id: 7, timeout: Duration::from_secs(1), request });
    assert!(node.drain(Instant(1)).replies.is_empty(), "it is not known yet whether that is too much");
    let late = Instant(2_000_000);
    node.step(late, Input::Tick { wall: WallMs(0) });
    let replies = node.drain(late).replies;
    assert!(matches!(replies[..], [(7, Err(Error::Unavailable(Unavailable::NoLeader)))]));
}

//! Keyspaces, as clients ask for them: rows are written, and the nodes follow.

use crate::admin::roster;
use crate::db::RuntimeDb;
use bytes::Bytes;
use quorate_cluster::keyspaces::Keyspaces;
use quorate_cluster::levels::Levels;
use quorate_cluster::placement::Placements;
use quorate_cluster::placing::Landscape;
use quorate_cluster::{BootMember, Reply, Request};
use quorate_env::{DecodeError, NodeId, ShardId};
use quorate_kv::{
    Command, Db, Error, Keyspace, KeyspaceId, KeyspaceKind, Level, MemberRefusal, PolicyChange, Refusal, Txn,
    Unavailable, limits,
};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// How long a change is waited for. The rows keep the wish if it takes longer.
const PATIENCE: Duration = Duration::from_secs(4);

/// Between two looks whether a shard is there.
const LOOK: Duration = Duration::from_millis(5);

fn unreadable(e: &DecodeError) -> ! {
    crate::driver::stop_process(&format!("the keyspaces' rows cannot be read: {e}"))
}

/// A keyspace that somebody wants.
#[derive(Debug)]
pub(crate) struct Wish {
    pub name: String,
    pub kind: KeyspaceKind,
    /// Where its shards begin, besides the first.
    pub starts: Vec<Bytes>,
    /// Of each shard.
    pub replicas: usize,
}

/// The rows, as a majority knows them.
pub(crate) async fn rows(db: &RuntimeDb) -> Result<(Keyspaces, Placements), Error> {
    let ranges = Keyspaces::ranges().into_iter().chain(Placements::ranges());
    let (kvs, revision) = db.read_together(KeyspaceId::SYSTEM, ranges).await?;
    let (keyspaces, places) = kvs.into_iter().partition::<Vec<_>, _>(|kv| Keyspaces::has(&kv.key));
    let keyspaces = Keyspaces::read(keyspaces, revision).unwrap_or_else(|e| unreadable(&e));
    Ok((keyspaces, Placements::read(places).unwrap_or_else(|e| unreadable(&e))))
}

/// The cluster's level, as a majority knows it; none before its first leader has said at which it begins.
async fn level(db: &RuntimeDb) -> Result<Option<Level>, Error> {
    let (kvs, revision) = db.read_together(KeyspaceId::SYSTEM, Levels::ranges()).await?;
    let levels = Levels::read(kvs, revision).unwrap_or_else(|e| unreadable(&e));
    Ok(levels.begun().then(|| levels.cluster()))
}

/// Makes a keyspace. Its groups begin with those who vote in the system keyspace's; where not every member knows how to have a shard on some
/// nodes only, with all of them.
pub(crate) async fn create(db: &RuntimeDb, first: &[BootMember], wish: Wish) -> Result<Keyspace, Error> {
    let Wish { name, kind, starts, replicas } = wish;
    if replicas == 0 || replicas > limits::REPLICAS_MAX {
        return Err(Refusal::Replicas.into());
    }
    let deadline = Instant::now() + PATIENCE;
    let mut sent = false;
    while Instant::now() < deadline {
        // A new cluster is not taken for one of an older release: what is asked of it early waits for the level, and would then be made everywhere.
        let Some(level) = level(db).await? else {
            tokio::time::sleep(LOOK).await;
            continue;
        };
        let (roster, (keyspaces, placements)) = (roster(db).await?, rows(db).await?);
        let made = keyspaces.made().find(|row| row.keyspace.name == name);
        if let Some(row) = made.filter(|_| sent) {
            // An answer was lost, or somebody else made the same: then it must be the same. It may have been split since.
            let first = row.keyspace.shards.iter().filter(|(_, shard)| !row.parents.contains_key(shard));
            let have: BTreeSet<&Bytes> = first.map(|(start, _)| start).filter(|start| !start.is_empty()).collect();
            return if row.keyspace.kind == kind && have == starts.iter().collect() {
                Ok(row.keyspace.clone())
            } else {
                Err(Refusal::KeyspaceExists.into())
            };
        }
        let founders = roster.founders(first.iter().map(|member| member.id));
        let nodes = founders.iter().map(|founder| NodeId(founder.0)).collect();
        let (keyspace, mut txn) = keyspaces.create(&name, kind, &starts, founders)?;
        if level >= Level::PLACED {
            let none = BTreeSet::new();
            let landscape = Landscape { nodes: &nodes, dead: &none, placements: &placements };
            let places = landscape.begin(keyspace.shards.iter().map(|(_, shard)| *shard), replicas);
            txn.success.extend(Placements::found(keyspace.id, replicas, places));
        }
        txn.compares.extend(roster.unchanged());
        sent = true;
        write(db, txn).await?;
    }
    Err(Unavailable::Timeout.into())
}

/// Wants something else of a keyspace.
pub(crate) async fn want(db: &RuntimeDb, keyspace: KeyspaceId, change: PolicyChange) -> Result<Keyspace, Error> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let (keyspaces, _) = rows(db).await?;
        let found = keyspaces.get(keyspace).ok_or(Refusal::KeyspaceNotFound)?;
        if found.policy.with(change) == found.policy {
            return Ok(found.clone());
        }
        write(db, keyspaces.want(keyspace, change)?).await?;
    }
    Err(Unavailable::Timeout.into())
}

/// Gives the keys of a keyspace from one on a shard of their own, and waits until somebody leads it.
pub(crate) async fn split(db: &RuntimeDb, keyspace: KeyspaceId, at: Bytes) -> Result<Keyspace, Error> {
    let deadline = Instant::now() + PATIENCE;
    let mut sent: Option<ShardId> = None;
    while Instant::now() < deadline {
        let (keyspaces, placements) = rows(db).await?;
        let found = keyspaces.get(keyspace).ok_or(Refusal::KeyspaceNotFound)?;
        match sent.filter(|child| found.shards.iter().any(|(start, shard)| (start, shard) == (&at, child))) {
            Some(child) if is_led(db, &placements, child).await => return Ok(found.clone()),
            Some(_) => tokio::time::sleep(LOOK).await,
            None => {
                let (child, txn) = keyspaces.split(&placements, keyspace, &at)?;
                sent = Some(child);
                write(db, txn).await?;
            }
        }
    }
    Err(Unavailable::Timeout.into())
}

/// Has shards leave a node, or lets them come back to it. Returns when they have left, or after some patience, and whether they have: the wish is written.
///
/// # Errors
/// If there is no such member, or a keyspace would have fewer replicas than it asks for and has.
pub(crate) async fn drain(db: &RuntimeDb, first: &[BootMember], node: NodeId, drained: bool) -> Result<bool, Error> {
    let roster = roster(db).await?;
    let (keyspaces, placements) = rows(db).await?;
    let nodes: BTreeSet<NodeId> =
        roster.founders(first.iter().map(|member| member.id)).into_iter().map(|founder| NodeId(founder.0)).collect();
    if !nodes.contains(&node) {
        return Err(Refusal::Member(MemberRefusal::NotFound).into());
    }
    let gets_some = |other: &NodeId| !placements.drained().contains(other) && placements.replaced_by(*other).is_none();
    let usable = nodes.iter().filter(|other| **other != node && gets_some(other)).count();
    let placed = keyspaces.made().filter(|row| row.keyspace.shards.iter().any(|(_, s)| placements.of(*s).is_some()));
    let most = placed.map(|row| placements.replicas_of(row.keyspace.id)).filter(|asked| *asked <= nodes.len()).max();
    if drained && most.is_some_and(|most| usable < most) {
        return Err(Refusal::Member(MemberRefusal::Needed).into());
    }
    write(db, Placements::drain(node, drained)).await?;
    let deadline = Instant::now() + PATIENCE;
    while drained && Instant::now() < deadline {
        let (_, placements) = rows(db).await?;
        let uses = |shard| placements.group(shard).is_none_or(|group| group.has(node));
        if placements.placed().all(|(shard, at)| !at.wanted.contains(&node) && !uses(shard)) {
            return Ok(true);
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(false)
}

/// Whether somebody leads a shard, as far as this node can tell.
async fn is_led(db: &RuntimeDb, placements: &Placements, shard: ShardId) -> bool {
    if placements.of(shard).is_some() {
        return placements.group(shard).is_some();
    }
    matches!(db.ask(Request::Status { shard }).await, Ok(Reply::Status(status)) if status.leader.is_some())
}

/// Writes rows. Whether they were written, the next look at them tells.
pub(crate) async fn write(db: &RuntimeDb, txn: Txn) -> Result<(), Error> {
    match db.submit(KeyspaceId::SYSTEM, Command::Transact(txn)).await {
        Ok(_) | Err(Error::UnknownOutcome(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

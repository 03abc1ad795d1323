//! The contract of `kv`, kept on tokio: each call becomes an input of the lane and a wait for its answer.
//!
//! Reads are confirmed by the lane but evaluated here, on the caller's thread, against a view: a large range never delays consensus.

use crate::damage::OnDamage;
use crate::driver::{LaneInput, LaneStats, stop_process};
use crate::members::MemberTable;
use crate::recording::{Asked, Recorder, questions};
use crate::watch;
use crate::{admin, keyspaces, replacing};
use bytes::Bytes;
use quorate_cluster::keyspaces::Keyspaces;
use quorate_cluster::losses::Losses;
use quorate_cluster::placement::Placements;
use quorate_cluster::{BootMember, FIRST_SHARDS, Reply, Request, Standings};
use quorate_env::{LogIndex, NodeId, ShardId, Term};
use quorate_kv::across::{Decision, Look, Transaction, TransactionResult, TxId};
use quorate_kv::reserve::{Granted, Wish};
use quorate_kv::{
    Applied, BoxFuture, Command, CommandId, Consistency, Db, Error, Freshness, Identity, KeyRange, KeyValue, Keyspace,
    KeyspaceHash, KeyspaceId, KeyspaceKind, LeaseId, LeaseInfo, Level, Looked, Loss, Member, MemberChange, MoveRefusal,
    NodeInfo, Op, PolicyChange, RangeOp, RangeResult, Read, Refusal, Repairs, Revision, ShardCounts, ShardHomes,
    Status, Txn, Unavailable, WatchSession, limits,
};
use quorate_shard::MachineError;
use quorate_storage::store::{Healed, LsmStore};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a read that meets a lock waits before it looks again: at first, and at most.
const LOCK_WAIT: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

/// Which shards there are and where they live, as the lane last told.
#[derive(Clone, Default)]
pub(crate) struct Map {
    pub keyspaces: Arc<Keyspaces>,
    pub placements: Arc<Placements>,
    pub losses: Arc<Losses>,
}

pub(crate) type SharedMap = Arc<RwLock<Map>>;

/// What a handle needs to know of this node's disk.
pub(crate) struct OwnDisk {
    pub damage: OnDamage,
    pub store: Arc<LsmStore>,
    pub stats: Arc<LaneStats>,
}

pub(crate) struct RuntimeDb {
    identity: Identity,
    lane: Sender<LaneInput>,
    members: Arc<MemberTable>,
    /// The first configuration.
    first: Vec<BootMember>,
    timeout: Duration,
    disk: OwnDisk,
    map: SharedMap,
    recorder: Option<Recorder>,
    /// Whether this node knows how far clocks may be from true time.
    bounded: bool,
}

impl RuntimeDb {
    pub fn new(
        identity: Identity,
        lane: Sender<LaneInput>,
        members: Arc<MemberTable>,
        map: SharedMap,
        first: Vec<BootMember>,
        timeout: Duration,
        disk: OwnDisk,
    ) -> Self {
        Self { identity, lane, members, map, first, timeout, disk, recorder: None, bounded: false }
    }

    /// What clients ask is recorded.
    pub fn recorded_by(self, recorder: Option<Recorder>) -> Self {
        Self { recorder, ..self }
    }

    /// It is known how far clocks may be from true time, or not.
    pub fn bounded(self, bounded: bool) -> Self {
        Self { bounded, ..self }
    }

    /// A client asks: recorded, if anything is. What the node asks itself, in the system keyspace, is not.
    fn asked(&self, keyspace: KeyspaceId, question: impl FnOnce() -> String) -> Option<Asked<'_>> {
        let recorder = self.recorder.as_ref().filter(|_| keyspace != KeyspaceId::SYSTEM)?;
        recorder.asked(question())
    }

    /// A view that cannot be read means that this copy is damaged: it must not answer anything any more.
    fn readable<T>(&self, result: Result<Result<T, Refusal>, MachineError>) -> Result<T, Error> {
        match result {
            Ok(result) => Ok(result?),
            Err(e) if e.is_damage() => self.disk.damage.store(&e.to_string()),
            Err(e) => stop_process(&format!("the store cannot be read: {e}")),
        }
    }

    /// Whether this node has neither a term nor an entry: nobody can have promised it anything, nor it to anybody.
    pub(crate) async fn is_virgin(&self) -> bool {
        for shard in FIRST_SHARDS {
            match self.ask(Request::Status { shard }).await {
                Ok(Reply::Status(status)) if status.header.term == Term(0) && status.committed == LogIndex(0) => {}
                _ => return false,
            }
        }
        true
    }

    /// Every shard that this node knows of.
    pub(crate) fn shards(&self) -> Vec<ShardId> {
        let made = self.known_keyspaces().into_iter().flat_map(|keyspace| keyspace.shards).map(|(_, shard)| shard);
        FIRST_SHARDS.into_iter().chain(made.filter(|shard| !FIRST_SHARDS.contains(shard))).collect()
    }

    /// Those of which every member has a replica.
    pub(crate) fn shards_everywhere(&self) -> Vec<ShardId> {
        let Map { placements, .. } = self.map();
        self.shards().into_iter().filter(|shard| placements.of(*shard).is_none()).collect()
    }

    /// How a group stands, in its leader's eyes.
    pub(crate) async fn standings(&self, shard: ShardId) -> Result<Vec<Standings>, Error> {
        match self.ask(Request::Standings { shard }).await? {
            Reply::Standings(standings) => Ok(standings),
            _ => unreachable!("standings were asked for"),
        }
    }

    /// Reads several ranges at one revision, linearizably.
    pub(crate) async fn read_together(
        &self,
        keyspace: KeyspaceId,
        ranges: impl IntoIterator<Item = KeyRange>,
    ) -> Result<(Vec<KeyValue>, Revision), Error> {
        let (view, header) = self.view(keyspace, Consistency::Linearizable).await?;
        let mut kvs = Vec::new();
        for range in ranges {
            kvs.extend(self.readable(view.range(&RangeOp::of(range)))?.kvs);
        }
        Ok((kvs, header.revision))
    }

    async fn read_behind_locks(
        &self,
        keyspace: KeyspaceId,
        op: RangeOp,
        consistency: Consistency,
    ) -> Result<Read<RangeResult>, Error> {
        let mut wait = LOCK_WAIT.0;
        let give_up = tokio::time::Instant::now() + self.timeout;
        loop {
            let (view, header) = self.view(keyspace, consistency).await?;
            // What a transaction over several shards may have written and been acknowledged for is not here until it is carried out.
            let blocker = view.blocker(&op).filter(|_| consistency == Consistency::Linearizable);
            match blocker {
                None => return Ok(Read { header, result: self.readable(view.range(&op))? }),
                Some(blocker) if tokio::time::Instant::now() >= give_up => {
                    return Err(Refusal::from(blocker).into());
                }
                Some(_) => tokio::time::sleep(wait).await,
            }
            wait = LOCK_WAIT.1.min(wait * 2);
        }
    }

    async fn submitted(&self, keyspace: KeyspaceId, command: Command) -> Result<Applied, Error> {
        check_limits(&command)?;
        let shard = match &command {
            Command::Trim { .. } => self.log_of(keyspace)?,
            _ => self.shard_of(keyspace)?,
        };
        match self.ask(Request::Submit { shard, command }).await? {
            Reply::Applied(applied) => Ok(applied),
            _ => unreachable!("a command was submitted"),
        }
    }

    async fn transacted(&self, transaction: Transaction) -> Result<TransactionResult, Error> {
        match self.ask(Request::Transact(transaction)).await? {
            Reply::Transacted(result) => Ok(result),
            _ => unreachable!("a transaction was asked for"),
        }
    }

    async fn looked(&self, looks: Vec<Look>, freshness: Freshness) -> Result<Looked, Error> {
        if self.feature_level() < Level::TIMED && freshness == Freshness::Strict {
            // Below that level it is what it has always been.
            let result = self.transacted(Transaction { looks, ..Transaction::default() }).await?;
            return Ok(Looked { looks: result.looks, token: result.at });
        }
        match self.ask(Request::Look { looks, freshness }).await? {
            Reply::Looked(looked) => Ok(looked),
            Reply::Transacted(result) => Ok(Looked { looks: result.looks, token: result.at }),
            _ => unreachable!("a look was asked for"),
        }
    }

    async fn leader_moved(&self, keyspace: KeyspaceId, to: NodeId) -> Result<(), Error> {
        let asked = self.shard_of(keyspace)?;
        match self.ask(Request::MoveLeader { shard: asked, to }).await {
            Err(Error::Unavailable(Unavailable::Timeout)) => return Err(Refusal::Move(MoveRefusal::TooLong).into()),
            asked => drop(asked?),
        };
        // The other groups follow where they can: whoever moves a leader wants the node free of it.
        for shard in self.shards().into_iter().filter(|shard| *shard != asked) {
            let _ = self.ask(Request::MoveLeader { shard, to }).await;
        }
        Ok(())
    }

    pub(crate) async fn ask(&self, request: Request) -> Result<Reply, Error> {
        let (reply, answer) = oneshot::channel();
        let input = LaneInput::Request(request, self.timeout, reply);
        self.lane.send(input).map_err(|_| Error::from(Unavailable::Stopping))?;
        answer.await.map_err(|_| Error::from(Unavailable::Stopping))?
    }

    async fn view(
        &self,
        keyspace: KeyspaceId,
        consistency: Consistency,
    ) -> Result<(quorate_shard::View, quorate_kv::Header), Error> {
        match self.ask(Request::View { shard: self.shard_of(keyspace)?, consistency }).await? {
            Reply::View { view, header } => Ok((view, header)),
            _ => unreachable!("a view was asked for"),
        }
    }

    fn map(&self) -> Map {
        self.map.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The one shard of an ordered keyspace. The first keyspaces are the shards of their own numbers, whatever else is known.
    fn shard_of(&self, keyspace: KeyspaceId) -> Result<ShardId, Refusal> {
        if matches!(keyspace, KeyspaceId::SYSTEM | KeyspaceId::DEFAULT) {
            return Ok(ShardId(keyspace.0));
        }
        match self.map().keyspaces.get(keyspace) {
            None => Err(Refusal::KeyspaceNotFound),
            Some(Keyspace { kind: KeyspaceKind::Ranged, .. }) => Err(Refusal::NotOrdered),
            Some(Keyspace { kind: KeyspaceKind::Log, .. }) => Err(Refusal::KeysInLog),
            Some(Keyspace { kind: KeyspaceKind::Ordered, shards, .. }) => Ok(shards[0].1),
        }
    }

    /// The one shard of a log.
    fn log_of(&self, keyspace: KeyspaceId) -> Result<ShardId, Refusal> {
        match self.map().keyspaces.get(keyspace) {
            None => Err(Refusal::KeyspaceNotFound),
            Some(Keyspace { kind: KeyspaceKind::Log, shards, .. }) => Ok(shards[0].1),
            Some(_) => Err(Refusal::NotLog),
        }
    }
}

/// Waits for an answer, which has a revision or none, and has it recorded if the question was.
async fn answered<T>(
    asked: Option<Asked<'_>>,
    revision: impl FnOnce(&T) -> Option<Revision>,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let answer = work.await;
    if let Some(asked) = asked {
        asked.answered(answer.as_ref().map(|answer| revision(answer).map_or(0, |revision| revision.0)));
    }
    answer
}

/// Refuses what could not be stored, before it reaches the log.
fn check_limits(command: &Command) -> Result<(), Refusal> {
    fn longest_key(txn: &Txn) -> usize {
        let ops = txn.success.iter().chain(&txn.failure).map(|op| match op {
            Op::Put(put) => put.key.len(),
            Op::Txn(txn) => longest_key(txn),
            Op::Range(_) | Op::Delete(_) => 0,
        });
        ops.max().unwrap_or(0)
    }
    if let Command::Transact(txn) = command {
        let bytes = longest_key(txn);
        if bytes > limits::KEY_BYTES_MAX {
            return Err(Refusal::TooLarge { bytes, max: limits::KEY_BYTES_MAX });
        }
    }
    let id = CommandId::default();
    let bytes = quorate_kv::Envelope { id, answered_below: 0, command: command.clone() }.size_estimate();
    let max = limits::REQUEST_BYTES_MAX;
    if bytes > max { Err(Refusal::TooLarge { bytes, max }) } else { Ok(()) }
}

impl Db for RuntimeDb {
    fn identity(&self) -> Identity {
        self.identity
    }

    fn read(
        &self,
        keyspace: KeyspaceId,
        op: RangeOp,
        consistency: Consistency,
    ) -> BoxFuture<'_, Result<Read<RangeResult>, Error>> {
        Box::pin(async move {
            let asked = self.asked(keyspace, || questions::read(&op, consistency));
            answered(asked, |read| Some(read.header.revision), self.read_behind_locks(keyspace, op, consistency)).await
        })
    }

    fn submit(&self, keyspace: KeyspaceId, command: Command) -> BoxFuture<'_, Result<Applied, Error>> {
        Box::pin(async move {
            let asked = self.asked(keyspace, || questions::submit(&command));
            answered(asked, |applied| Some(applied.header.revision), self.submitted(keyspace, command)).await
        })
    }

    fn outcome_of(&self, keyspace: KeyspaceId, id: CommandId) -> BoxFuture<'_, Result<Option<Revision>, Error>> {
        Box::pin(async move {
            match self.ask(Request::OutcomeOf { shard: self.shard_of(keyspace)?, id }).await? {
                Reply::Outcome(outcome) => Ok(outcome),
                _ => unreachable!("an outcome was asked for"),
            }
        })
    }

    fn lease_keep_alive(&self, keyspace: KeyspaceId, lease: LeaseId) -> BoxFuture<'_, Result<Read<LeaseInfo>, Error>> {
        self.lease(keyspace, lease, true, false)
    }

    fn lease_info(
        &self,
        keyspace: KeyspaceId,
        lease: LeaseId,
        with_keys: bool,
    ) -> BoxFuture<'_, Result<Read<LeaseInfo>, Error>> {
        self.lease(keyspace, lease, false, with_keys)
    }

    fn leases(&self, keyspace: KeyspaceId) -> BoxFuture<'_, Result<Read<Vec<LeaseId>>, Error>> {
        Box::pin(async move {
            // The view confirms that this replica is up to date; the list is then read from it.
            self.view(keyspace, Consistency::Linearizable).await?;
            match self.ask(Request::Leases { shard: self.shard_of(keyspace)? }).await? {
                Reply::Leases(leases) => Ok(leases),
                _ => unreachable!("leases were asked for"),
            }
        })
    }

    fn watch(&self, keyspace: KeyspaceId) -> Result<WatchSession, Error> {
        let shard = self.shard_of(keyspace).or_else(|why| self.log_of(keyspace).map_err(|_| why))?;
        if !self.map().placements.opens(shard, self.identity.node) {
            return Err(Unavailable::NotHere.into());
        }
        Ok(watch::session(shard, self.lane.clone()))
    }

    fn compaction_done(&self, keyspace: KeyspaceId) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move { self.ask(Request::Collected { shard: self.shard_of(keyspace)? }).await.map(|_| ()) })
    }

    fn hash(
        &self,
        keyspace: KeyspaceId,
        revision: Option<Revision>,
    ) -> BoxFuture<'_, Result<Read<KeyspaceHash>, Error>> {
        Box::pin(async move {
            let (view, header) = self.view(keyspace, Consistency::Serializable).await?;
            let hash = tokio::task::spawn_blocking(move || view.hash(revision)).await;
            let result = self.readable(hash.map_err(|_| Error::from(Unavailable::Stopping))?)?;
            Ok(Read { header, result })
        })
    }

    fn status(&self, keyspace: KeyspaceId) -> BoxFuture<'_, Result<Status, Error>> {
        Box::pin(async move {
            match self.ask(Request::Status { shard: self.shard_of(keyspace)? }).await? {
                Reply::Status(status) => Ok(status),
                _ => unreachable!("a status was asked for"),
            }
        })
    }

    fn change_members(&self, change: MemberChange) -> BoxFuture<'_, Result<NodeId, Error>> {
        Box::pin(async move {
            let asked = self.asked(KeyspaceId::DEFAULT, || format!("change of members: {change:?}"));
            answered(asked, |_| None, admin::change(self, &self.first, change)).await
        })
    }

    fn known_keyspaces(&self) -> Vec<Keyspace> {
        self.map().keyspaces.all().cloned().collect()
    }

    fn homes(&self, keyspace: KeyspaceId) -> Vec<ShardHomes> {
        let (Map { keyspaces, placements, .. }, members) = (self.map(), self.members.all());
        let voters: BTreeSet<NodeId> =
            members.iter().filter(|member| !member.learner).map(|member| member.id).collect();
        let of = |ids: &BTreeSet<NodeId>| members.iter().filter(|member| ids.contains(&member.id)).cloned().collect();
        let shards = keyspaces.get(keyspace).into_iter().flat_map(|keyspace| keyspace.shards.iter());
        shards
            .map(|(_, shard)| {
                let (placement, group) = (placements.of(*shard), placements.group(*shard));
                let none = BTreeSet::new();
                let votes = group.map(|group| &group.voters).or(placement.map(|_| &none));
                ShardHomes {
                    shard: *shard,
                    here: placements.opens(*shard, self.identity.node),
                    wanted: of(placement.map_or(&voters, |placement| &placement.wanted)),
                    voters: of(votes.unwrap_or(&voters)),
                }
            })
            .collect()
    }

    fn replicas(&self, keyspace: KeyspaceId) -> Option<usize> {
        let Map { keyspaces, placements, .. } = self.map();
        let mut shards = keyspaces.get(keyspace)?.shards.iter();
        shards.any(|(_, shard)| placements.of(*shard).is_some()).then(|| placements.replicas_of(keyspace))
    }

    fn losses(&self, keyspace: KeyspaceId) -> Option<Loss> {
        self.map().losses.of(keyspace)
    }

    fn nodes(&self) -> Vec<NodeInfo> {
        let placements = self.map().placements;
        let homes: Vec<ShardHomes> =
            self.known_keyspaces().iter().flat_map(|keyspace| self.homes(keyspace.id)).collect();
        let count = |list: fn(&ShardHomes) -> &Vec<Member>, id| {
            homes.iter().filter(|home| list(home).iter().any(|member| member.id == id)).count()
        };
        let told = |member: Member| NodeInfo {
            zone: placements.zone(member.id).to_owned(),
            drained: placements.drained().contains(&member.id),
            replaced_by: placements.replaced_by(member.id),
            replicas: count(|home| &home.wanted, member.id),
            votes: count(|home| &home.voters, member.id),
            member,
        };
        self.members.all().into_iter().map(told).collect()
    }

    fn keyspaces(&self) -> BoxFuture<'_, Result<Vec<Keyspace>, Error>> {
        Box::pin(async move {
            // Whatever a majority knows, this node's replica has applied by then; and the lane has told of it before it answers.
            self.view(KeyspaceId::SYSTEM, Consistency::Linearizable).await?;
            Ok(self.known_keyspaces())
        })
    }

    fn create_keyspace(
        &self,
        name: String,
        kind: KeyspaceKind,
        starts: Vec<Bytes>,
        replicas: usize,
    ) -> BoxFuture<'_, Result<Keyspace, Error>> {
        Box::pin(async move {
            let asked = self.asked(KeyspaceId::DEFAULT, || format!("make keyspace {name}"));
            let wish = keyspaces::Wish { name, kind, starts, replicas };
            answered(asked, |_| None, keyspaces::create(self, &self.first, wish)).await
        })
    }

    fn split_keyspace(&self, keyspace: KeyspaceId, at: Bytes) -> BoxFuture<'_, Result<Keyspace, Error>> {
        Box::pin(async move {
            let asked = self.asked(keyspace, || questions::split(keyspace, &at));
            answered(asked, |_| None, keyspaces::split(self, keyspace, at)).await
        })
    }

    fn change_policy(&self, keyspace: KeyspaceId, change: PolicyChange) -> BoxFuture<'_, Result<Keyspace, Error>> {
        Box::pin(async move {
            let asked = self.asked(keyspace, || format!("want of {keyspace:?}: {change:?}"));
            if change.commit_wait == Some(true) && !self.bounded {
                return answered(asked, |_| None, async { Err(Unavailable::NoClockBound.into()) }).await;
            }
            answered(asked, |_| None, keyspaces::want(self, keyspace, change)).await
        })
    }

    fn drain_node(&self, node: NodeId, drained: bool) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(async move {
            let asked = self.asked(KeyspaceId::DEFAULT, || format!("drain {}: {drained}", self.members.name_of(node)));
            answered(asked, |_| None, keyspaces::drain(self, &self.first, node, drained)).await
        })
    }

    fn replace_node(&self, node: NodeId, by: NodeId) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(async move {
            let named = |node| self.members.name_of(node);
            let asked = self.asked(KeyspaceId::DEFAULT, || format!("replace {} with {}", named(node), named(by)));
            answered(asked, |_| None, replacing::replace(self, &self.first, node, by)).await
        })
    }

    fn transact(&self, transaction: Transaction) -> BoxFuture<'_, Result<TransactionResult, Error>> {
        Box::pin(async move {
            let asked = self.asked(KeyspaceId::DEFAULT, || questions::transact(&transaction));
            answered(asked, |_| None, self.transacted(transaction)).await
        })
    }

    fn look(&self, looks: Vec<Look>, freshness: Freshness) -> BoxFuture<'_, Result<Looked, Error>> {
        Box::pin(async move {
            let asked = self.asked(KeyspaceId::DEFAULT, || questions::look(&looks, freshness));
            answered(asked, |_| None, self.looked(looks, freshness)).await
        })
    }

    fn reserve(&self, wish: Wish) -> BoxFuture<'_, Result<Granted, Error>> {
        Box::pin(async move {
            let asked = self.asked(KeyspaceId::DEFAULT, || questions::reserve(&wish));
            let granted = async {
                match self.ask(Request::Reserve(wish)).await? {
                    Reply::Reserved(granted) => Ok(granted),
                    _ => unreachable!("keys were to be reserved"),
                }
            };
            answered(asked, |_| None, granted).await
        })
    }

    fn release(&self, by: TxId, keys: Vec<(KeyspaceId, Bytes)>) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move { self.ask(Request::Release { by, keys }).await.map(drop) })
    }

    fn settle(&self, home: ShardId, tx: TxId) -> BoxFuture<'_, Result<Option<Decision>, Error>> {
        Box::pin(async move {
            match self.ask(Request::Settle { home, tx }).await? {
                Reply::Settled(decision) => Ok(decision),
                _ => unreachable!("a decision was asked for"),
            }
        })
    }

    fn repairs(&self) -> Repairs {
        let Healed { bits, pages, versions, sums, failures } = self.disk.store.healed();
        let entries = self.disk.stats.mended.load(Ordering::Relaxed);
        let fetched_bytes = self.disk.stats.mended_bytes.load(Ordering::Relaxed);
        Repairs { bits, pages, files: versions + sums, failures, entries, fetched_bytes }
    }

    fn shard_counts(&self) -> ShardCounts {
        let LaneStats { shards, led, asleep, .. } = &*self.disk.stats;
        let [here, led, asleep] = [shards, led, asleep].map(|count| count.load(Ordering::Relaxed));
        ShardCounts { here, led, asleep }
    }

    fn feature_level(&self) -> Level {
        Level(self.disk.stats.level.load(Ordering::Relaxed) as u16)
    }

    fn move_leader(&self, keyspace: KeyspaceId, to: NodeId) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let asked = self.asked(keyspace, || format!("let {} lead", self.members.name_of(to)));
            answered(asked, |()| None, self.leader_moved(keyspace, to)).await
        })
    }

    fn members(&self, consistency: Consistency) -> BoxFuture<'_, Result<Vec<Member>, Error>> {
        Box::pin(async move {
            if consistency == Consistency::Linearizable {
                self.view(KeyspaceId::SYSTEM, consistency).await?;
            }
            Ok(self.members.all())
        })
    }
}

impl RuntimeDb {
    fn lease(
        &self,
        keyspace: KeyspaceId,
        lease: LeaseId,
        renew: bool,
        with_keys: bool,
    ) -> BoxFuture<'_, Result<Read<LeaseInfo>, Error>> {
        Box::pin(async move {
            let asked = self.asked(keyspace, || match renew {
                true => format!("renew lease {}", lease.0),
                false => format!("read lease {}", lease.0),
            });
            let reply = self.ask(Request::Lease { shard: self.shard_of(keyspace)?, lease, renew, with_keys });
            let info = async {
                match reply.await? {
                    Reply::Lease(info) => Ok(info),
                    _ => unreachable!("a lease was asked about"),
                }
            };
            answered(asked, |info| Some(info.header.revision), info).await
        })
    }
}

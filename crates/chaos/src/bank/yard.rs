//! The nodes, shared by all who do harm: who is a member, who is harmed at the moment, and what was done so far and when.

use super::money::BANK;
use crate::client::connect;
use crate::cluster::Cluster;
use crate::failure::Failure;
use quorate_client::{Client, Keyspace};
use quorate_etcd::proto::etcdserverpb::cluster_client::ClusterClient;
use quorate_etcd::proto::etcdserverpb::{Member, MemberListRequest};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Between two looks at something that is awaited.
pub const POLL: Duration = Duration::from_millis(200);

/// How long one question to a node may take.
const QUESTION: Duration = Duration::from_secs(3);

/// Code of a process whose node was removed.
const REMOVED: i32 = 70;

/// What is known of the nodes.
pub struct Nodes {
    pub cluster: Cluster,
    /// Those that run, or are to run again in a moment.
    pub present: BTreeSet<usize>,
    /// Members with a vote that are to stay. Of them never half are harmed at once.
    pub voters: BTreeSet<usize>,
    /// Those that were killed, stand still, or have not come back quite.
    pub harmed: BTreeSet<usize>,
    /// For each of the bank's shards, the nodes whose replicas vote, as of the last look.
    pub shards: Vec<BTreeSet<usize>>,
}

impl Nodes {
    /// Whether the members and every shard could do without one more, besides those that are harmed already.
    pub fn can_spare(&self, node: usize) -> bool {
        let whole = |group: &BTreeSet<usize>| {
            let lost = group.iter().filter(|member| **member == node || self.harmed.contains(member)).count();
            lost <= group.len().saturating_sub(1) / 2
        };
        whole(&self.voters) && self.shards.iter().all(whole)
    }
}

/// What happened, and how long after the beginning.
pub type Line = (Duration, String);

/// The nodes, the clock and the counts.
pub struct Yard {
    nodes: Mutex<Nodes>,
    bites: Mutex<BTreeMap<&'static str, u64>>,
    diary: Mutex<Vec<Line>>,
    began: Instant,
    /// For what is not a client's work. It is patient.
    pub admin: Client,
    pub endpoints: Vec<String>,
    over: Instant,
    /// Members come and go no more, so the others may stop, too.
    done: AtomicBool,
}

impl Yard {
    /// `began` is when clients' clocks began.
    pub fn new(
        (cluster, founders): (Cluster, usize),
        admin: Client,
        (began, seconds): (Instant, u64),
        kinds: &[&'static str],
    ) -> Self {
        let endpoints = cluster.endpoints();
        let present: BTreeSet<usize> = (0..founders).collect();
        let nodes = Nodes { cluster, voters: present.clone(), present, harmed: BTreeSet::new(), shards: Vec::new() };
        Self {
            nodes: Mutex::new(nodes),
            bites: Mutex::new(kinds.iter().map(|kind| (*kind, 0)).collect()),
            diary: Mutex::default(),
            began,
            admin,
            endpoints,
            over: Instant::now() + Duration::from_secs(seconds),
            done: AtomicBool::new(false),
        }
    }

    /// The nodes, for a moment: nobody waits for anything while holding them.
    pub fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn into_nodes(self) -> Nodes {
        self.nodes.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what proves that something happened.
    pub fn bit(&self, what: &'static str, times: u64) {
        *self.bites.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += times;
    }

    /// Writes down what happens to a node.
    pub fn note(&self, node: usize, what: &str) {
        let line = (self.began.elapsed(), format!("n{} {what}", node + 1));
        self.diary.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// All that was written down, in its order.
    pub fn diary(&self) -> Vec<Line> {
        self.diary.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn bites(&self) -> BTreeMap<&'static str, u64> {
        self.bites.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the time is over. Who has begun something ends it.
    pub fn over(&self) -> bool {
        Instant::now() >= self.over
    }

    /// How much time there is.
    pub fn left(&self) -> Duration {
        self.over.saturating_duration_since(Instant::now())
    }

    /// Members come and go no more.
    pub fn end(&self) {
        self.done.store(true, Ordering::Relaxed);
    }

    pub fn ended(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    /// The bank's shards, as a majority knows them; none if nobody can be asked.
    pub async fn bank(&self) -> Option<Keyspace> {
        let all = self.admin.keyspaces().await.ok()?;
        all.into_iter().find(|keyspace| keyspace.name == BANK)
    }

    /// The members, as a majority knows them; none if nobody can be asked.
    pub async fn members(&self) -> Option<Vec<Member>> {
        for endpoint in self.endpoints_present() {
            let asked = async {
                let mut client = ClusterClient::new(connect(&endpoint).await?);
                client.member_list(MemberListRequest { linearizable: true }).await.ok()
            };
            if let Ok(Some(list)) = tokio::time::timeout(QUESTION, asked).await {
                return Some(list.into_inner().members);
            }
        }
        None
    }

    /// Where those are reached that are present.
    pub fn endpoints_present(&self) -> Vec<String> {
        self.nodes().present.iter().map(|node| self.endpoints[*node].clone()).collect()
    }

    /// Nobody ends by himself, but who was removed.
    pub fn nobody_fell(&self) -> Result<(), Failure> {
        let mut nodes = self.nodes();
        let Nodes { cluster, present, voters, harmed, .. } = &mut *nodes;
        for node in present.difference(harmed) {
            if let Some(status) = cluster.ended(*node)
                && (voters.contains(node) || status.code() != Some(REMOVED))
            {
                let said = cluster.said(*node);
                return Err(Failure::NotAsPromised(format!(
                    "n{} ended by itself with {status}; it said:\n{said}",
                    node + 1
                )));
            }
        }
        Ok(())
    }

    /// Waits until something is so.
    pub async fn until(
        &self,
        what: &str,
        patience: Duration,
        mut so: impl AsyncFnMut() -> bool,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + patience;
        while !so().await {
            if Instant::now() > deadline {
                return Err(Failure::NotAsPromised(format!("{what}: not within {} s", patience.as_secs())));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_harmed_whom_a_shard_cannot_spare() {
        let cluster = Cluster::with_founders(std::path::Path::new("none"), Vec::new(), 0).expect("nothing is started");
        let voters: BTreeSet<usize> = (0..5).collect();
        let shards = vec![[0, 1, 2].into(), [2, 3, 4].into(), [2].into()];
        let mut nodes = Nodes { cluster, present: voters.clone(), voters, harmed: BTreeSet::new(), shards };
        assert!(nodes.can_spare(0) && nodes.can_spare(4));
        assert!(!nodes.can_spare(2), "one shard lives there alone");
        nodes.harmed.insert(0);
        assert!(nodes.can_spare(3), "no shard has both");
        assert!(!nodes.can_spare(1), "a shard would have one of three");
        nodes.harmed.insert(3);
        nodes.shards.clear();
        assert!(!nodes.can_spare(1), "two of five are enough");
    }
}

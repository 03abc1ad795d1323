//! Where a nemesis works: the cluster, its disks and its network, and a record of what was done to them and when.

use crate::client::Crowd;
use crate::cluster::{self, Cluster};
use crate::disk::CruelDisk;
use crate::failure::Failure;
use crate::network::Network;
use crate::report::{Report, Timeline};
use quorate_env::Rng;
use quorate_sim::witness;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Nodes of every cluster here.
pub const NODES: usize = 3;

/// Undisturbed work before the first fault, and after everything has healed.
const CALM: Duration = Duration::from_millis(700);

/// What a nemesis needs besides processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// A cruel disk for each node.
    pub disks: bool,
    /// A network of its own for each node.
    pub network: bool,
    /// Of the values that clients write. Large ones fill logs and tables.
    pub value_bytes_max: u64,
}

/// The fields are in this order because what is dropped first uses what is dropped later.
pub struct Arena {
    crowd: Crowd,
    /// The nodes.
    pub cluster: Cluster,
    /// One for each node, if they were asked for.
    pub disks: Vec<CruelDisk>,
    network: Option<Network>,
    folders: Vec<TempDir>,
    /// For the nemesis.
    pub rng: Rng,
    seed: u64,
    timeline: Timeline,
    bites: BTreeMap<&'static str, u64>,
    notes: Vec<String>,
    converged: Vec<Duration>,
}

impl Arena {
    /// A cluster that serves, and clients at work.
    ///
    /// # Errors
    /// If this machine cannot do what is needed, or the cluster does not get ready.
    pub async fn open(binary: &Path, needs: Needs, seed: u64) -> Result<Self, Failure> {
        let folder = TempDir::new()?;
        let mut places = cluster::loopback(NODES, folder.path())?;
        let mut disks = Vec::new();
        if needs.disks {
            for place in &mut places {
                let disk = CruelDisk::mount()?;
                place.disk = disk.path().to_path_buf();
                disks.push(disk);
            }
        }
        let network = if needs.network { Some(Network::make(NODES)?) } else { None };
        for (node, place) in places.iter_mut().enumerate() {
            if let Some(network) = &network {
                (place.client, place.peer) = network.addresses(node);
                place.namespace = Some(network.namespace(node).to_owned());
            }
        }
        let mut cluster = Cluster::new(binary, places)?;
        cluster.start_all()?;
        cluster.ready().await?;
        let crowd = Crowd::start(cluster.endpoints(), seed, needs.value_bytes_max);
        tokio::time::sleep(CALM).await;
        let (timeline, bites) = (Timeline::default(), BTreeMap::new());
        let rng = Rng::new(seed).split(2);
        Ok(Self {
            crowd,
            cluster,
            disks,
            network,
            folders: vec![folder],
            rng,
            seed,
            timeline,
            bites,
            notes: Vec::new(),
            converged: Vec::new(),
        })
    }

    /// The network, for a nemesis that asked for one.
    ///
    /// # Errors
    /// If it did not.
    pub fn network(&mut self) -> Result<&mut Network, Failure> {
        self.network.as_mut().ok_or_else(|| Failure::Stuck("this nemesis asked for no network".into()))
    }

    /// A fault begins now; the longest time without an acknowledged write from here to the next one is its gap.
    pub fn fault(&mut self) {
        self.timeline.faults.push(self.crowd.now_us());
    }

    /// Everything that is needed for serving was started again now.
    pub fn restarted(&mut self) {
        self.timeline.restarts.push(self.crowd.now_us());
    }

    /// Counts what proves that a fault happened. One that stays at zero fails the run.
    pub fn bit(&mut self, what: &'static str, times: u64) {
        *self.bites.entry(what).or_default() += times;
    }

    /// A fault has just ended: waits until every node serves again, and takes the time.
    ///
    /// # Errors
    /// If one does not.
    pub async fn converges(&mut self) -> Result<(), Failure> {
        let healed = Instant::now();
        self.cluster.ready().await?;
        self.converged.push(healed.elapsed());
        Ok(())
    }

    /// Keeps a folder that processes use until they have ended.
    pub fn keep(&mut self, folder: TempDir) {
        self.folders.push(folder);
    }

    /// Something worth a line in the report.
    pub fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// A node drawn from the seed.
    pub fn any_node(&mut self) -> usize {
        self.rng.below(self.cluster.len() as u64) as usize
    }

    /// Who leads.
    ///
    /// # Errors
    /// If nobody does for long.
    pub async fn leader(&self) -> Result<usize, Failure> {
        self.cluster.leader().await.ok_or_else(|| Failure::NotAsPromised("nobody leads".into()))
    }

    /// Somebody who follows.
    ///
    /// # Errors
    /// If nobody leads for long.
    pub async fn follower(&mut self) -> Result<usize, Failure> {
        let leader = self.leader().await?;
        Ok((leader + 1 + self.rng.below(self.cluster.len() as u64 - 1) as usize) % self.cluster.len())
    }

    /// Heals everything, calls the clients in and holds against the model what they saw.
    ///
    /// # Errors
    /// If something was not as it must be, or no fault bit.
    pub async fn close(mut self, name: &'static str) -> Result<Report, Failure> {
        self.timeline.healed = self.crowd.now_us();
        if let Some(network) = &mut self.network {
            network.heal()?;
        }
        self.cluster.start_all()?;
        (0..self.cluster.len()).for_each(|node| self.cluster.resume(node));
        self.converges().await?;
        tokio::time::sleep(CALM).await;
        let Self { crowd, cluster, seed, timeline, bites, notes, converged, .. } = &mut self;
        let ended_us = crowd.now_us();
        let history = std::mem::replace(crowd, Crowd::nobody()).end().await?;
        let judged = witness::judge(&history).map_err(|violation| Failure::Broken { seed: *seed, violation })?;
        let hashes = cluster.hashes(judged.revision).await?;
        if hashes.iter().any(|hash| *hash != hashes[0]) {
            let text = format!("nodes differ at revision {}: {hashes:x?}", judged.revision);
            return Err(Failure::NotAsPromised(text));
        }
        if let Some((what, _)) = bites.iter().find(|(_, times)| **times == 0) {
            return Err(Failure::NoBite(format!("{what}: 0")));
        }
        if bites.is_empty() || timeline.faults.is_empty() {
            return Err(Failure::NoBite(format!("{name} did nothing")));
        }
        Ok(Report {
            name,
            seed: *seed,
            seconds: ended_us as f64 / 1e6,
            bites: std::mem::take(bites),
            notes: std::mem::take(notes),
            judged,
            gaps: timeline.gaps(&history),
            restarts: timeline.first_after_restart(&history),
            pace: timeline.pace(&history),
            converged: std::mem::take(converged),
        })
    }
}

//! A cluster of real processes: each node a `quorate start` with a place of its own, ended with the value.

use crate::client::connect;
use crate::failure::Failure;
use quorate_etcd::proto::etcdserverpb::kv_client::KvClient;
use quorate_etcd::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_etcd::proto::etcdserverpb::{HashKvRequest, MoveLeaderRequest, RangeRequest, StatusRequest};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take that should take a moment.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long one question to a node may take.
const QUESTION: Duration = Duration::from_secs(2);

/// Between two looks at something that is awaited.
const POLL: Duration = Duration::from_millis(5);

/// Where a node lives.
#[derive(Clone, Debug)]
pub struct Place {
    /// host:port for clients.
    pub client: String,
    /// host:port for the other nodes.
    pub peer: String,
    /// Its disk; its data directory is a folder in it that it makes itself.
    pub disk: PathBuf,
    /// The network namespace it runs in, if not this process' own.
    pub namespace: Option<String>,
}

/// Places on this machine's loopback, with disks in a folder. All ports are held until all are known, so that none is given out twice.
///
/// # Errors
/// If there are no free ports or the folders cannot be made.
pub fn loopback(nodes: usize, folder: &Path) -> Result<Vec<Place>, Failure> {
    let mut held = Vec::new();
    let mut places = Vec::new();
    for node in 0..nodes {
        let mut address = || -> Result<String, Failure> {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let address = listener.local_addr()?.to_string();
            held.push(listener);
            Ok(address)
        };
        let disk = folder.join(format!("disk{}", node + 1));
        fs::create_dir(&disk)?;
        places.push(Place { client: address()?, peer: address()?, disk, namespace: None });
    }
    Ok(places)
}

struct Node {
    place: Place,
    process: Option<Child>,
    /// Variables that it is started with.
    environment: Vec<(String, String)>,
    /// Whether it is not of the first configuration: it asks the others to be let in.
    joins: bool,
    /// How often it was started.
    starts: u64,
}

/// The processes.
pub struct Cluster {
    binary: PathBuf,
    nodes: Vec<Node>,
    /// The first so many nodes are the first configuration.
    founders: usize,
    outputs: TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.kill(node));
    }
}

impl Cluster {
    /// Nodes that do not run yet.
    ///
    /// # Errors
    /// If there is no room for their output.
    pub fn new(binary: &Path, places: Vec<Place>) -> Result<Self, Failure> {
        let founders = places.len();
        Self::with_founders(binary, places, founders)
    }

    /// Nodes of which the first few found the cluster; the others join when they are started.
    ///
    /// # Errors
    /// If there is no room for their output.
    pub fn with_founders(binary: &Path, places: Vec<Place>, founders: usize) -> Result<Self, Failure> {
        let node = |(n, place)| Node { place, process: None, environment: Vec::new(), joins: n >= founders, starts: 0 };
        let nodes = places.into_iter().enumerate().map(node).collect();
        Ok(Self { binary: binary.to_path_buf(), nodes, founders, outputs: TempDir::new()? })
    }

    /// Throws away what a node that has ended had on its disk. If it is started again, it joins as somebody new.
    ///
    /// # Errors
    /// If that cannot be removed.
    pub fn throw_away(&mut self, node: usize) -> Result<(), Failure> {
        self.kill(node);
        let at = &mut self.nodes[node];
        at.joins = true;
        Ok(fs::remove_dir_all(at.place.disk.join("data"))?)
    }

    /// Keeps what the nodes have said, for people; where that is.
    pub fn keep_outputs(&mut self) -> PathBuf {
        self.outputs.disable_cleanup(true);
        self.outputs.path().to_path_buf()
    }

    /// How many.
    #[must_use]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Where clients reach the nodes.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.place.client.clone()).collect()
    }

    /// Sets the variables that a node is started with from now on.
    pub fn set_environment(&mut self, node: usize, environment: Vec<(String, String)>) {
        self.nodes[node].environment = environment;
    }

    fn output(&self, node: usize) -> PathBuf {
        self.outputs.path().join(format!("n{}-{}", node + 1, self.nodes[node].starts))
    }

    /// What a node has said to standard error since it was started last.
    #[must_use]
    pub fn said(&self, node: usize) -> String {
        fs::read(self.output(node)).map_or_else(|e| e.to_string(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Starts a node, unless it runs.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start(&mut self, node: usize) -> Result<(), Failure> {
        if self.runs(node) {
            return Ok(());
        }
        self.nodes[node].starts += 1;
        let output = File::create(self.output(node))?;
        let at = &self.nodes[node];
        let peers = self.nodes.iter().map(|node| &node.place.peer).enumerate();
        let (way, others) = match at.joins {
            false => ("--initial-cluster", peers.take(self.founders).map(member).collect::<Vec<_>>()),
            true => ("--join", peers.filter(|(n, _)| *n != node).map(|(_, peer)| peer.clone()).collect()),
        };
        let place = &at.place;
        let mut command = match &place.namespace {
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(&self.binary);
                command
            }
            None => Command::new(&self.binary),
        };
        command
            .args(["start", "--insecure", "--name", &format!("n{}", node + 1)])
            .args([way, &others.join(","), "--data-dir"])
            .arg(place.disk.join("data"))
            .args(["--listen-client", &place.client, "--listen-peer", &place.peer])
            .envs(at.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output);
        let child = command.spawn().map_err(|source| Failure::Start { program: self.binary.clone(), source })?;
        self.nodes[node].process = Some(child);
        Ok(())
    }

    /// Starts all that do not run.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start_all(&mut self) -> Result<(), Failure> {
        (0..self.len()).try_for_each(|node| self.start(node))
    }

    /// kill -9, also of one that is stopped. Returns when it is gone.
    pub fn kill(&mut self, node: usize) {
        if let Some(mut child) = self.nodes[node].process.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGSTOP of all.
    pub fn pause_all(&self) {
        (0..self.len()).for_each(|node| self.pause(node));
    }

    /// kill -9 of all at once: the signals first, then the waiting.
    pub fn kill_all(&mut self) {
        for child in self.nodes.iter_mut().filter_map(|node| node.process.as_mut()) {
            let _ = child.kill();
        }
        (0..self.len()).for_each(|node| self.kill(node));
    }

    /// SIGTERM: it is told to stop.
    pub fn terminate(&self, node: usize) {
        self.signal(node, Signal::TERM);
    }

    /// Asks a node that leads to let another lead; whether that came about.
    pub async fn move_leader(&self, from: usize, to: usize) -> bool {
        let endpoints = self.endpoints();
        hand_over(&endpoints[from], &endpoints[to]).await
    }

    /// SIGSTOP: it answers nothing, and its connections stay.
    pub fn pause(&self, node: usize) {
        self.signal(node, Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self, node: usize) {
        self.signal(node, Signal::CONT);
    }

    fn signal(&self, node: usize, signal: Signal) {
        let pid = self.nodes[node].process.as_ref().and_then(|child| i32::try_from(child.id()).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            // It may have ended by itself.
            let _ = kill_process(pid, signal);
        }
    }

    /// Whether a node's process has loaded a library of that name.
    #[must_use]
    pub fn uses(&self, node: usize, library: &str) -> bool {
        let Some(child) = &self.nodes[node].process else { return false };
        fs::read_to_string(format!("/proc/{}/maps", child.id())).is_ok_and(|maps| maps.contains(library))
    }

    /// Whether a node's process has been started and has not ended.
    pub fn runs(&mut self, node: usize) -> bool {
        self.nodes[node].process.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// How a node ended, if it has.
    pub fn ended(&mut self, node: usize) -> Option<ExitStatus> {
        self.nodes[node].process.as_mut()?.try_wait().ok().flatten()
    }

    /// Waits until a node has ended by itself.
    ///
    /// # Errors
    /// If it goes on.
    pub async fn wait_for_end(&mut self, node: usize, patience: Duration) -> Result<ExitStatus, Failure> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.ended(node) {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(Failure::NotAsPromised(format!("n{} goes on, and was to end", node + 1)));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until every node serves a linearizable read.
    ///
    /// # Errors
    /// If one does not in time; with what it said.
    pub async fn ready(&mut self) -> Result<(), Failure> {
        let all: Vec<usize> = (0..self.len()).collect();
        self.these_ready(&all).await
    }

    /// Waits until each of these nodes serves a linearizable read.
    ///
    /// # Errors
    /// If one does not in time; with what it said.
    pub async fn these_ready(&mut self, nodes: &[usize]) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        for node in nodes.iter().copied() {
            let endpoint = self.nodes[node].place.client.clone();
            while !serves(&endpoint).await {
                if let Some(status) = self.ended(node) {
                    let said = self.said(node);
                    return Err(Failure::Stuck(format!("n{} ended with {status} and said:\n{said}", node + 1)));
                }
                if Instant::now() > deadline {
                    let said = self.said(node);
                    return Err(Failure::Stuck(format!("n{} does not serve in time; it said:\n{said}", node + 1)));
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// Who leads, if anybody can be found who says so of himself.
    pub async fn leader(&self) -> Option<usize> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            for (node, endpoint) in self.endpoints().iter().enumerate() {
                if leads(endpoint).await {
                    return Some(node);
                }
            }
            tokio::time::sleep(POLL).await;
        }
        None
    }

    /// The hash of every node's keys and history up to a revision.
    ///
    /// # Errors
    /// If one does not answer.
    pub async fn hashes(&self, revision: u64) -> Result<Vec<u32>, Failure> {
        let mut hashes = Vec::new();
        for endpoint in self.endpoints() {
            let stuck = |e: String| Failure::Stuck(format!("{endpoint} says no hash: {e}"));
            let channel = connect(&endpoint).await.ok_or_else(|| stuck("no connection".into()))?;
            let request = HashKvRequest { revision: revision as i64 };
            let answer = MaintenanceClient::new(channel).hash_kv(request).await.map_err(|e| stuck(e.to_string()))?;
            hashes.push(answer.into_inner().hash);
        }
        Ok(hashes)
    }
}

/// Asks a node that leads to let another lead; whether that came about.
pub async fn hand_over(from: &str, to: &str) -> bool {
    let (Some(leader), Some(heir)) = (connect(from).await, connect(to).await) else { return false };
    let Ok(status) = MaintenanceClient::new(heir).status(StatusRequest {}).await else { return false };
    let target_id = status.into_inner().header.map_or(0, |header| header.member_id);
    MaintenanceClient::new(leader).move_leader(MoveLeaderRequest { target_id }).await.is_ok()
}

fn member((node, peer): (usize, &String)) -> String {
    format!("n{}={peer}", node + 1)
}

/// Whether a node serves a linearizable read.
pub async fn serves(endpoint: &str) -> bool {
    let Some(channel) = connect(endpoint).await else { return false };
    let read = RangeRequest { key: "ready".into(), ..Default::default() };
    matches!(tokio::time::timeout(QUESTION, KvClient::new(channel).range(read)).await, Ok(Ok(_)))
}

/// Whether a node says that it leads.
pub async fn leads(endpoint: &str) -> bool {
    let Some(channel) = connect(endpoint).await else { return false };
    let mut client = MaintenanceClient::new(channel);
    let Ok(Ok(status)) = tokio::time::timeout(QUESTION, client.status(StatusRequest {})).await else { return false };
    let status = status.into_inner();
    status.header.is_some_and(|header| header.member_id == status.leader)
}

//! Clusters of real processes, ended with the test, and clients for them.

mod here;
mod lossy;
pub mod native;
mod raw;
mod small_disk;
mod watching;

pub use here::Here;
pub use lossy::Lossy;
pub use raw::{call, page};
pub use small_disk::SmallDisk;
pub use watching::Watching;

use quorate_etcd::proto::etcdserverpb::cluster_client::ClusterClient;
use quorate_etcd::proto::etcdserverpb::kv_client::KvClient;
use quorate_etcd::proto::etcdserverpb::{MemberListRequest, PutRequest, RangeRequest};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};

/// What anything may take that should take a moment, on a machine that does other things too.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Nodes on loopback, each a process, with their data in a temporary folder.
pub struct Cluster {
    dir: PathBuf,
    /// Removed with the cluster, if it is ours.
    folder: Option<tempfile::TempDir>,
    ports: Vec<(u16, u16)>,
    /// What every node is told besides.
    flags: Vec<String>,
    nodes: Vec<Option<Child>>,
    /// The first so many nodes are the first configuration; the others join.
    first: usize,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().flatten() {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Cluster {
    pub async fn start(nodes: usize) -> Self {
        Self::start_with(nodes, &[]).await
    }

    /// With more flags for every node; in them `{node}` stands for its name.
    pub async fn start_with(nodes: usize, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().to_path_buf();
        let mut cluster = Self::start_flagged(&dir, nodes, flags).await;
        cluster.folder = Some(folder);
        cluster
    }

    /// What every node is told besides, from its next start on.
    pub fn tell(&mut self, flags: &[&str]) {
        self.flags = flags.iter().map(ToString::to_string).collect();
    }

    /// With the data in `dir`, which stays.
    pub async fn start_in(dir: &Path, nodes: usize) -> Self {
        Self::start_flagged(dir, nodes, &[]).await
    }

    /// Does not wait until anybody serves.
    pub fn start_at_once(nodes: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut cluster = Self::unstarted(folder.path(), nodes, &[]);
        cluster.folder = Some(folder);
        (0..nodes).for_each(|node| cluster.restart(node));
        cluster
    }

    async fn start_flagged(dir: &Path, nodes: usize, flags: &[&str]) -> Self {
        let mut cluster = Self::unstarted(dir, nodes, flags);
        (0..nodes).for_each(|node| cluster.restart(node));
        cluster.ready().await;
        cluster
    }

    fn unstarted(dir: &Path, nodes: usize, flags: &[&str]) -> Self {
        let flags = flags.iter().map(ToString::to_string).collect();
        let ports = (0..nodes).map(|_| (free_port(), free_port())).collect();
        Self {
            dir: dir.to_path_buf(),
            folder: None,
            ports,
            flags,
            nodes: (0..nodes).map(|_| None).collect(),
            first: nodes,
        }
    }

    fn args(&self, node: usize) -> Vec<String> {
        let first = self.ports[..self.first].iter().enumerate();
        let members: Vec<String> = first.map(|(n, (_, peer))| format!("n{}=127.0.0.1:{peer}", n + 1)).collect();
        let (client, peer) = self.ports[node];
        let place = match node < self.first {
            true => ("--initial-cluster", members.join(",")),
            false => (
                "--join",
                (0..self.ports.len())
                    .filter(|n| *n != node)
                    .map(|n| self.peer_address(n))
                    .collect::<Vec<_>>()
                    .join(","),
            ),
        };
        [
            ("--name", format!("n{}", node + 1)),
            place,
            ("--data-dir", self.data_dir(node).display().to_string()),
            ("--listen-client", format!("127.0.0.1:{client}")),
            ("--listen-peer", format!("127.0.0.1:{peer}")),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .chain(self.flags.iter().map(|flag| flag.replace("{node}", &format!("n{}", node + 1))))
        .collect()
    }

    /// A node more, which joins. It is started by [`Cluster::restart`].
    pub fn grow(&mut self) -> usize {
        self.ports.push((free_port(), free_port()));
        self.nodes.push(None);
        self.nodes.len() - 1
    }

    /// From its next start on a node listens for peers elsewhere.
    pub fn move_peer(&mut self, node: usize) {
        self.ports[node].1 = free_port();
    }

    /// Whether a node's process runs.
    pub fn runs(&mut self, node: usize) -> bool {
        self.nodes[node].as_mut().is_some_and(|child| child.try_wait().expect("waited").is_none())
    }

    /// Starts a node with some flags changed or added, and returns what it says to standard error before it ends, and how it ends.
    pub fn refused(&self, node: usize, changes: &[(&str, &str)]) -> (ExitStatus, String) {
        let mut args = self.args(node);
        for (flag, value) in changes {
            match args.iter().position(|arg| arg == flag) {
                Some(at) => args[at + 1] = (*value).to_owned(),
                None => args.extend([(*flag).to_owned(), (*value).to_owned()]),
            }
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
        command.arg("start").args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("started");
        let status = wait(&mut child).expect("it does not go on");
        let mut said = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
        (status, said)
    }

    pub fn data_dir(&self, node: usize) -> PathBuf {
        self.dir.join(format!("n{}", node + 1))
    }

    pub fn peer_address(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.ports[node].1)
    }

    /// The process of a node, which runs.
    pub fn process_id(&mut self, node: usize) -> u32 {
        let child = self.nodes[node].as_mut().expect("it was started");
        assert_eq!(child.try_wait().expect("waited"), None, "it runs");
        child.id()
    }

    /// Resident memory of a node's process.
    pub fn resident_bytes(&self, node: usize) -> u64 {
        let pid = self.nodes[node].as_ref().expect("it runs").id();
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = text.lines().find(|line| line.starts_with("VmRSS:")).expect("a process has memory");
        line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("a number") << 10
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.ports.iter().map(|(client, _)| format!("127.0.0.1:{client}")).collect()
    }

    /// SIGKILL.
    pub fn kill(&mut self, node: usize) {
        if let Some(mut child) = self.nodes[node].take() {
            child.kill().expect("killed");
            child.wait().expect("reaped");
        }
    }

    /// SIGTERM: asks a node to stop. [`Cluster::stopped`] waits until it has.
    pub fn terminate(&self, node: usize) {
        let pid = self.nodes[node].as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").arg(pid).status().expect("ran").success());
    }

    pub fn stopped(&mut self, node: usize) -> ExitStatus {
        wait(&mut self.nodes[node].take().expect("it ran")).expect("it stops when it is told to")
    }

    pub fn restart(&mut self, node: usize) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
        command.arg("start").args(self.args(node)).stdin(Stdio::null()).stdout(Stdio::null());
        self.nodes[node] = Some(command.spawn().expect("started"));
    }

    /// Waits until every node serves a linearizable read.
    pub async fn ready(&self) {
        for endpoint in self.endpoints() {
            let deadline = Instant::now() + PATIENCE;
            while let Err(why) = served(&endpoint).await {
                assert!(Instant::now() < deadline, "{endpoint} is not ready in time: {why}");
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        }
    }

    /// Waits until every node knows every other, and its disk: a member that has started is listed with its client URLs.
    pub async fn registered(&self) {
        let deadline = Instant::now() + PATIENCE;
        for endpoint in self.endpoints() {
            let mut client = ClusterClient::new(connect(&endpoint).await.expect("a connection"));
            loop {
                let list =
                    client.member_list(MemberListRequest { linearizable: false }).await.expect("listed").into_inner();
                if list.members.iter().all(|member| !member.client_ur_ls.is_empty()) {
                    break;
                }
                assert!(Instant::now() < deadline, "{endpoint} does not know all members");
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        }
    }
}

/// One linearizable read, or why there was no answer.
async fn served(endpoint: &str) -> Result<(), String> {
    let mut client = kv(endpoint).await.ok_or("it cannot be reached")?;
    let read = client.range(RangeRequest { key: "ready".into(), ..Default::default() });
    match tokio::time::timeout(Duration::from_secs(5), read).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(status)) => Err(format!("{:?}: {}", status.code(), status.message())),
        Err(_) => Err("no answer within 5 s".to_owned()),
    }
}

/// A port that nobody listens at. None is given out twice, since stories run at once, and nodes come to listen at theirs only later.
fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let held = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = held.local_addr().expect("bound").port();
        if GIVEN.lock().expect("nobody panics with it").insert(port) {
            return port;
        }
    }
}

/// Waits for a process' end; kills it if it goes on.
fn wait(child: &mut Child) -> Option<ExitStatus> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match child.try_wait().expect("waited") {
            Some(status) => return Some(status),
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            None => {
                child.kill().expect("killed");
                child.wait().expect("reaped");
                return None;
            }
        }
    }
}

/// A connection, if the server can be reached.
pub async fn connect(endpoint: &str) -> Option<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{endpoint}")).expect("an address");
    endpoint.connect_timeout(Duration::from_secs(1)).connect().await.ok()
}

/// A client, if the server can be reached.
pub async fn kv(endpoint: &str) -> Option<KvClient<Channel>> {
    connect(endpoint).await.map(KvClient::new)
}

pub fn put(key: impl Into<bytes::Bytes>, value: impl Into<bytes::Bytes>) -> PutRequest {
    PutRequest { key: key.into(), value: value.into(), ..Default::default() }
}

/// Writes so many keys, from eight clients at once, through all nodes.
pub async fn fill(endpoints: &[String], keys: usize, key: fn(usize) -> String, value: fn(usize) -> String) {
    let writers = (0..8).map(|writer| {
        let endpoint = endpoints[writer % endpoints.len()].clone();
        tokio::spawn(async move {
            let mut client = kv(&endpoint).await.expect("a connection");
            for n in (writer..keys).step_by(8) {
                client.put(put(key(n), value(n))).await.expect("written");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("a writer ends");
    }
}

/// Writes something and reads it back; returns the revision of the write.
pub async fn serves(endpoint: &str) -> i64 {
    let mut client = kv(endpoint).await.expect("a connection");
    let written = client.put(put("serves", endpoint.to_owned())).await.expect("written").into_inner();
    let range = RangeRequest { key: "serves".into(), ..Default::default() };
    let read = client.range(range).await.expect("read").into_inner();
    assert_eq!(read.kvs[0].value, endpoint);
    written.header.expect("a header").revision
}

/// etcdctl, if it is installed; the first of several.
pub fn etcdctl() -> Option<PathBuf> {
    let listed = std::env::var_os("QUORATE_ETCDCTL").unwrap_or_else(|| "etcdctl".into());
    let path = std::env::split_paths(&listed).next()?;
    Command::new(&path).arg("version").env("ETCDCTL_API", "3").output().ok().map(|_| path)
}

/// A Python with the aetcd package, if there is one.
pub fn python() -> Option<PathBuf> {
    let path = std::env::var_os("QUORATE_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let found = Command::new(&path).args(["-c", "import aetcd"]).output().ok()?;
    found.status.success().then_some(path)
}

/// Runs a client program and returns what it prints.
pub fn run(command: &mut Command, input: &str) -> String {
    command.env("ETCDCTL_API", "3").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("started");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("ended");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

//! Clusters of real processes, ended with the test.

use quorate_etcd::proto::etcdserverpb::kv_client::KvClient;
use quorate_etcd::proto::etcdserverpb::watch_client::WatchClient;
use quorate_etcd::proto::etcdserverpb::watch_request::RequestUnion;
use quorate_etcd::proto::etcdserverpb::{RangeRequest, WatchRequest, WatchResponse};
use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

/// Nodes on loopback, each a process, with their data in a temporary folder.
pub struct Cluster {
    dir: tempfile::TempDir,
    ports: Vec<(u16, u16)>,
    nodes: Vec<Option<Child>>,
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
        // All ports are held until all are known, so that none is given out twice.
        let held: Vec<TcpListener> =
            (0..2 * nodes).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
        let port = |n: usize| held[n].local_addr().expect("bound").port();
        let ports = (0..nodes).map(|n| (port(2 * n), port(2 * n + 1))).collect();
        let dir = tempfile::tempdir().expect("a folder");
        let mut cluster = Self { dir, ports, nodes: (0..nodes).map(|_| None).collect() };
        drop(held);
        (0..nodes).for_each(|node| cluster.restart(node));
        cluster.ready().await;
        cluster
    }

    fn command(&self, node: usize) -> Command {
        let members: Vec<String> =
            self.ports.iter().enumerate().map(|(n, (_, peer))| format!("n{}=127.0.0.1:{peer}", n + 1)).collect();
        let (client, peer) = self.ports[node];
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
        command
            .args(["start", "--name", &format!("n{}", node + 1), "--initial-cluster", &members.join(",")])
            .arg("--data-dir")
            .arg(self.dir.path().join(format!("n{}", node + 1)))
            .args(["--listen-client", &format!("127.0.0.1:{client}"), "--listen-peer", &format!("127.0.0.1:{peer}")])
            .stdin(Stdio::null());
        command
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

    pub fn restart(&mut self, node: usize) {
        let child = self.command(node).stdout(Stdio::null()).spawn().expect("started");
        self.nodes[node] = Some(child);
    }

    /// What a second process on the only node's data directory says before it ends.
    pub fn second_process(&self) -> String {
        let mut command = self.command(0);
        let at = command.get_args().position(|arg| arg == "--listen-client").expect("it listens");
        let args: Vec<_> = command
            .get_args()
            .enumerate()
            .map(|(n, arg)| if n == at + 1 { "127.0.0.1:0".into() } else { arg.to_owned() })
            .collect();
        command = Command::new(env!("CARGO_BIN_EXE_quorate"));
        let output = command.args(args).stdin(Stdio::null()).output().expect("ran");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Waits until every node serves a linearizable read.
    pub async fn ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        for endpoint in self.endpoints() {
            loop {
                if let Some(mut client) = kv(&endpoint).await {
                    let read = client.range(RangeRequest { key: "ready".into(), ..Default::default() });
                    if matches!(tokio::time::timeout(Duration::from_secs(5), read).await, Ok(Ok(_))) {
                        break;
                    }
                }
                assert!(Instant::now() < deadline, "{endpoint} is not ready in time");
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        }
    }
}

/// A client, if the server can be reached.
pub async fn kv(endpoint: &str) -> Option<KvClient<Channel>> {
    let endpoint = Endpoint::from_shared(format!("http://{endpoint}")).expect("an address");
    endpoint.connect_timeout(Duration::from_secs(1)).connect().await.ok().map(KvClient::new)
}

/// A watch stream.
pub struct Watches {
    requests: tokio::sync::mpsc::Sender<WatchRequest>,
    responses: tonic::Streaming<WatchResponse>,
}

impl Watches {
    pub async fn open(endpoint: &str) -> Self {
        let (requests, stream) = tokio::sync::mpsc::channel(1);
        let mut client = WatchClient::connect(format!("http://{endpoint}")).await.expect("a connection");
        let responses = client.watch(ReceiverStream::new(stream)).await.expect("a stream").into_inner();
        Self { requests, responses }
    }

    /// Sends a request and returns the next response.
    pub async fn ask(&mut self, request: RequestUnion) -> WatchResponse {
        self.requests.send(WatchRequest { request_union: Some(request) }).await.expect("sent");
        self.next().await
    }

    pub async fn next(&mut self) -> WatchResponse {
        let next = tokio::time::timeout(Duration::from_secs(10), self.responses.message()).await;
        next.expect("in time").expect("no error").expect("the stream goes on")
    }
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

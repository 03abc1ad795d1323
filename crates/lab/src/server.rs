//! A server under experiment: processes on free loopback ports with their data in a temporary folder, ended with the value.

use crate::failure::Failure;
use quorate_etcd::proto::etcdserverpb::RangeRequest;
use quorate_etcd::proto::etcdserverpb::kv_client::KvClient;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

/// How long a server may take until it serves.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// How long a server may take to stop when it is asked to; then it is killed.
const STOPPED_WITHIN: Duration = Duration::from_secs(8);

/// How long a process that dropped its connections may take to be gone.
const ENDED_WITHIN: Duration = Duration::from_secs(1);

/// Between two looks at something that is awaited.
const POLL: Duration = Duration::from_millis(20);

/// A server, or a cluster of them behind one command.
pub struct Server {
    /// What reports call it.
    pub name: &'static str,
    /// Where clients reach it, host:port.
    pub endpoints: Vec<String>,
    process: Child,
    dir: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Asked first, because `quorate up` takes the nodes that it started with it. It may have ended already.
        if let Some(pid) = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + STOPPED_WITHIN;
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    /// `quorate up` with so many nodes.
    pub async fn quorate(binary: &Path, nodes: usize) -> Result<Self, Failure> {
        let dir = TempDir::new()?;
        let [port] = free_ports()?;
        let mut command = Command::new(binary);
        command.args(["up", "--nodes", &nodes.to_string(), "--port", &port.to_string(), "--data-dir"]);
        command.arg(dir.path().join("data"));
        let mut server = Self::start("quorate", &mut command, dir)?;
        // It may have found other ports than were free a moment ago: it says which.
        let deadline = Instant::now() + READY_WITHIN;
        while server.endpoints.len() < nodes {
            server.still_starting(deadline)?;
            tokio::time::sleep(POLL).await;
            server.endpoints = announced(&server.said());
        }
        server.ready(deadline).await?;
        Ok(server)
    }

    /// One node that others can join, or that joins another by its peer address; and its own peer address.
    pub async fn node(binary: &Path, name: &'static str, join: Option<&str>) -> Result<(Self, String), Failure> {
        let dir = TempDir::new()?;
        let [client, peer] = free_ports()?.map(|port| format!("127.0.0.1:{port}"));
        let mut command = Command::new(binary);
        command.args(["start", "--name", name, "--listen-client", &client, "--listen-peer", &peer, "--data-dir"]);
        command.arg(dir.path().join("data")).args(join.iter().flat_map(|peer| ["--join", peer]));
        let mut server = Self::start(name, &mut command, dir)?;
        server.endpoints.push(client);
        server.ready(Instant::now() + READY_WITHIN).await?;
        Ok((server, peer))
    }

    /// One node of etcd.
    pub async fn etcd(binary: &Path) -> Result<Self, Failure> {
        let dir = TempDir::new()?;
        let [client, peer] = free_ports()?.map(|port| format!("127.0.0.1:{port}"));
        let [client_url, peer_url] = [&client, &peer].map(|address| format!("http://{address}"));
        let mut command = Command::new(binary);
        command.arg("--data-dir").arg(dir.path().join("data")).args(["--name", "n1", "--log-level", "error"]);
        command.args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url]);
        command.args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url]);
        command.args(["--initial-cluster", &format!("n1={peer_url}")]);
        let mut server = Self::start("etcd", &mut command, dir)?;
        server.endpoints.push(client);
        server.ready(Instant::now() + READY_WITHIN).await?;
        Ok(server)
    }

    fn start(name: &'static str, command: &mut Command, dir: TempDir) -> Result<Self, Failure> {
        // To a file, which never fills up as a pipe that nobody reads would.
        let output = File::create(dir.path().join("output"))?;
        command.stdin(Stdio::null()).stderr(output.try_clone()?).stdout(output).current_dir(dir.path());
        let process =
            command.spawn().map_err(|source| Failure::Start { program: command.get_program().into(), source })?;
        Ok(Self { name, endpoints: Vec::new(), process, dir })
    }

    /// Its processes: of `quorate up`, the nodes too.
    fn pids(&self) -> Vec<u32> {
        let own = self.process.id();
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
        std::iter::once(own).chain(children.split_whitespace().filter_map(|pid| pid.parse().ok())).collect()
    }

    /// Processor time that its processes have used, in seconds.
    pub fn cpu_seconds(&self) -> Result<f64, Failure> {
        let mut ticks = 0;
        for pid in self.pids() {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
            // Behind the name, which may hold anything; the times are fields 14 and 15 (man 5 proc).
            let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
            ticks += fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
        }
        // Linux counts in hundredths of a second on every platform that it runs on today.
        Ok(ticks as f64 / 100.0)
    }

    /// Memory of its processes that is resident.
    pub fn resident_bytes(&self) -> Result<u64, Failure> {
        let mut kib = 0;
        for pid in self.pids() {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
            kib += line.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(kib << 10)
    }

    /// What it has printed.
    fn said(&self) -> String {
        fs::read(self.dir.path().join("output"))
            .map_or_else(|e| e.to_string(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn still_starting(&mut self, deadline: Instant) -> Result<(), Failure> {
        if self.process.try_wait()?.is_some() || Instant::now() > deadline {
            return Err(Failure::NotReady { name: self.name, said: self.said() });
        }
        Ok(())
    }

    /// Waits until every node serves a linearizable read.
    async fn ready(&mut self, deadline: Instant) -> Result<(), Failure> {
        for endpoint in self.endpoints.clone() {
            loop {
                if let Ok(channel) = connect(&endpoint).await {
                    let read = RangeRequest { key: "ready".into(), ..Default::default() };
                    if KvClient::new(channel).range(read).await.is_ok() {
                        break;
                    }
                }
                self.still_starting(deadline)?;
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// Whether its process has come to an end, now or in a moment.
    pub async fn has_ended(&mut self) -> bool {
        let deadline = Instant::now() + ENDED_WITHIN;
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
        }
        !matches!(self.process.try_wait(), Ok(None))
    }

    /// A connection to its first node.
    pub async fn channel(&self) -> Result<Channel, Failure> {
        let connected = match self.endpoints.first() {
            Some(endpoint) => connect(endpoint).await.ok(),
            None => None,
        };
        connected.ok_or_else(|| Failure::NotReady { name: self.name, said: self.said() })
    }
}

async fn connect(endpoint: &str) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{endpoint}"))?;
    endpoint.connect_timeout(Duration::from_secs(1)).tcp_nodelay(true).connect().await
}

/// Ports that nobody uses. All are held until all are known, so that none is given out twice.
fn free_ports<const N: usize>() -> Result<[u16; N], Failure> {
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

/// The endpoints in what `quorate up` prints.
fn announced(output: &str) -> Vec<String> {
    let address = |line: &str| {
        let (_, rest) = line.split_once("etcd API")?;
        Some(rest.trim().split([',', ' ']).next()?.to_owned())
    };
    // The last line may still be in the making.
    let complete = output.rsplit_once('\n').map_or("", |(complete, _)| complete);
    complete.lines().filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::announced;

    #[test]
    fn endpoints_are_read_from_what_up_prints() {
        let three =
            "up after 9 ms.\n\n  n1          etcd API 127.0.0.1:1, process 7\n  n2          etcd API 127.0.0.1:2, pro";
        assert_eq!(announced(three), ["127.0.0.1:1"]);
        assert_eq!(announced("  etcd API    127.0.0.1:2379\n"), ["127.0.0.1:2379"]);
        assert!(announced("").is_empty());
    }
}

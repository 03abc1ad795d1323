//! One node: the core on this machine's disk and sockets, with the etcd layer in front.

use crate::failure::Failure;
use quorate_cluster::{BootMember, Timing};
use quorate_env::ClusterId;
use quorate_env::checksum::checksum;
use quorate_kv::Level;
use quorate_runtime::disk::{DiskOptions, ScrubPace};
use quorate_runtime::{
    JoinError, Options, Place, Runtime, StartError, TraceOptions, Wish, come_back, member_id, settle, token_hash,
};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// Everything that a node is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its name.
    pub name: String,
    /// Where its data goes.
    pub data_dir: PathBuf,
    /// Where it listens for clients.
    pub listen_client: String,
    /// The URLs that clients are told.
    pub client_urls: Vec<String>,
    /// Where it listens for peers; `None` if nobody may ever join.
    pub listen_peer: Option<String>,
    /// Where peers reach it.
    pub peer_address: String,
    /// Whether that goes over what the cluster knows of it.
    pub announce_peer: bool,
    /// Names and peer addresses of the first members; `None` if only the data directory knows.
    pub initial_cluster: Option<Vec<(String, String)>>,
    /// Peer addresses of members of the cluster to join.
    pub join: Vec<String>,
    /// Whether the cluster is new for sure.
    pub surely_new: bool,
    /// Makes this cluster another than one of the same names.
    pub token: String,
    /// Operations in one transaction.
    pub max_txn_ops: usize,
    /// Patience.
    pub timing: Timing,
    /// What the node offers the cluster.
    pub level: Level,
    /// What fails together with the node.
    pub zone: String,
    /// How long a silent node is waited for.
    pub evict_after: Duration,
    /// How far clocks may be from true time.
    pub clock_bound: Option<Duration>,
    /// What a shard may hold before it is split, in bytes.
    pub split_bytes: u64,
    /// Operations a second that a shard's leader may have to do before the shard is split.
    pub split_ops: u64,
    /// Bytes up to which a shard may be merged with the one before it; 0 is never.
    pub merge_bytes: u64,
    /// How rot is looked for.
    pub scrub: ScrubPace,
    /// What it does is recorded, if anybody wants to see it.
    pub trace: Option<TraceOptions>,
}

/// MiB of a trace, if nothing is said: some million lines.
const TRACE_MIB: u64 = 256;

/// Where to record, and how much.
#[must_use]
pub fn trace_options(file: PathBuf, limit_mib: Option<u64>) -> TraceOptions {
    TraceOptions { file, bytes_max: limit_mib.unwrap_or(TRACE_MIB).saturating_mul(1 << 20) }
}

/// Time after which a client's request is given up. etcd's own: 5 s and two election timeouts.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(7);

/// The id of a cluster: its token and the names of its first members.
#[must_use]
pub fn cluster_id(token: &str, members: &[(String, String)]) -> ClusterId {
    let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    let id = names.iter().fold(checksum(1, token.as_bytes()), |hash, name| checksum(hash, name.as_bytes()));
    ClusterId(id.max(1))
}

/// A node that runs.
pub struct Running {
    runtime: Runtime,
    server: tokio::task::JoinHandle<std::io::Result<()>>,
    stop_server: tokio::sync::watch::Sender<bool>,
    /// Where clients are served.
    pub client_address: SocketAddr,
}

/// Binds a listener, or says which address was the trouble.
pub async fn listen(address: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|source| Failure::Listen { address: address.to_owned(), source })
}

impl Running {
    /// Starts a node on listeners that are bound already.
    pub async fn start(settings: &Settings, clients: TcpListener, peers: Option<TcpListener>) -> Result<Self, Failure> {
        let first = settings.initial_cluster.as_ref().map(|members| {
            let boot = |(name, address): &(String, String)| BootMember {
                id: member_id(name),
                name: name.clone(),
                peer_address: address.clone(),
            };
            (cluster_id(&settings.token, members), members.iter().map(boot).collect())
        });
        let peers = peers.map(Arc::new);
        let token = token_hash(&settings.token);
        let wish = Wish {
            name: settings.name.clone(),
            data_dir: settings.data_dir.clone(),
            peer_address: settings.peer_address.clone(),
            client_urls: settings.client_urls.clone(),
            token,
            first,
            join: settings.join.clone(),
            surely_new: settings.surely_new,
        };
        let place = match settle(&wish, peers.clone()).await {
            Err(JoinError::Disk(e)) if e.lost_promises() => come_back(&wish, peers.clone(), e).await?,
            place => place?,
        };
        let options = |place: Place| Options {
            cluster: place.cluster,
            node: place.node,
            name: settings.name.clone(),
            data_dir: settings.data_dir.clone(),
            members: place.first,
            known: place.known,
            incarnation: place.incarnation,
            announce_peer: settings.announce_peer.then(|| settings.peer_address.clone()),
            token,
            client_urls: settings.client_urls.clone(),
            timing: settings.timing,
            level: settings.level,
            zone: settings.zone.clone(),
            evict_after: settings.evict_after,
            clock_bound: settings.clock_bound,
            split_bytes: settings.split_bytes,
            split_ops: settings.split_ops,
            merge_bytes: settings.merge_bytes,
            request_timeout: REQUEST_TIMEOUT,
            disk: DiskOptions { scrub: settings.scrub, ..DiskOptions::default() },
            trace: settings.trace.clone(),
        };
        let client_address = clients.local_addr()?;
        let runtime = match Runtime::start(options(place), peers.clone()).await {
            Err(StartError::Disk(e)) if e.lost_promises() => {
                let place = come_back(&wish, peers.clone(), e).await?;
                Runtime::start(options(place), peers).await?
            }
            runtime => runtime?,
        };
        let (stop_server, mut stopped) = tokio::sync::watch::channel(false);
        let native = quorate_native::router(runtime.db(), stopped.clone());
        let etcd = quorate_etcd::Options { max_txn_ops: settings.max_txn_ops, ..Default::default() };
        let server = quorate_etcd::serve(clients, runtime.db(), etcd, native, async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        });
        Ok(Self { runtime, server: tokio::spawn(server), stop_server, client_address })
    }

    /// Runs until Ctrl-C or SIGTERM, then stops cleanly.
    pub async fn until_told_to_stop(self) -> Result<(), Failure> {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let mut server = self.server;
        tokio::select! {
            result = tokio::signal::ctrl_c() => result?,
            _ = terminate.recv() => {}
            ended = &mut server => ended.map_err(std::io::Error::other)??,
        }
        self.stop_server.send_replace(true);
        if tokio::time::timeout(Duration::from_secs(3), &mut server).await.is_err() {
            server.abort();
        }
        self.runtime.stop().await;
        Ok(())
    }
}

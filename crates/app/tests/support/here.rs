//! A node in the test's own process, for what cannot be set from outside.

use quorate_cluster::{BootMember, Timing};
use quorate_env::ClusterId;
use quorate_kv::Level;
use quorate_runtime::disk::DiskOptions;
use quorate_runtime::{Options, Runtime, member_id};
use std::time::Duration;
use tokio::net::TcpListener;

pub struct Here {
    pub endpoint: String,
    _runtime: Runtime,
    _dir: tempfile::TempDir,
}

impl Here {
    /// A cluster of one, served until the test ends.
    pub async fn start(etcd: quorate_etcd::Options) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = listener.local_addr().expect("bound").to_string();
        let node = member_id("n1");
        let alone = BootMember { id: node, name: "n1".into(), peer_address: "127.0.0.1:0".into() };
        let options = Options {
            cluster: ClusterId(7),
            node,
            name: "n1".into(),
            data_dir: dir.path().join("n1"),
            members: vec![alone.clone()],
            known: vec![alone],
            incarnation: None,
            announce_peer: None,
            token: 0,
            client_urls: vec![format!("http://{endpoint}")],
            timing: Timing::default(),
            level: Level::LATEST,
            zone: String::new(),
            evict_after: Duration::from_secs(300),
            clock_bound: None,
            split_bytes: u64::MAX,
            split_ops: u64::MAX,
            merge_bytes: 0,
            request_timeout: Duration::from_secs(7),
            disk: DiskOptions::default(),
            trace: None,
        };
        let runtime = Runtime::start(options, None).await.expect("started");
        tokio::spawn(quorate_etcd::serve(
            listener,
            runtime.db(),
            etcd,
            quorate_native::router(runtime.db(), tokio::sync::watch::channel(false).1),
            std::future::pending(),
        ));
        Self { endpoint, _runtime: runtime, _dir: dir }
    }
}

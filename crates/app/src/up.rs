//! `quorate up`: a node, or a whole cluster, on this machine, without configuration.

use crate::cli::UpArgs;
use crate::failure::Failure;
use crate::node::{Running, Settings, listen, trace_options};
use quorate_cluster::Timing;
use quorate_cluster::bounds::{EVICT_AFTER, MERGE_BYTES, SPLIT_BYTES, SPLIT_OPS};
use quorate_kv::Level;
use quorate_runtime::disk::ScrubPace;
use std::fs;
use std::net::TcpListener as StdListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Ports tried before giving up on finding a free one.
const PORTS_TRIED: u16 = 200;

pub fn run(args: &UpArgs) -> Result<(), Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(async { if args.nodes == 1 { one(args).await } else { several(args).await } })
}

/// The first free port from `first` on that is not in `taken`.
fn free_port(first: u16, taken: &[u16]) -> Result<u16, Failure> {
    (first..first.saturating_add(PORTS_TRIED))
        .filter(|port| !taken.contains(port))
        .find(|port| StdListener::bind(("127.0.0.1", *port)).is_ok())
        .ok_or_else(|| Failure::Usage(format!("no free port from {first} on; choose another with --port")))
}

async fn one(args: &UpArgs) -> Result<(), Failure> {
    let began = Instant::now();
    let port = free_port(args.port, &[])?;
    let address = format!("127.0.0.1:{port}");
    let settings = Settings {
        name: "n1".into(),
        data_dir: args.data_dir.clone(),
        listen_client: address.clone(),
        client_urls: vec![format!("http://{address}")],
        listen_peer: None,
        peer_address: "127.0.0.1:0".into(),
        announce_peer: false,
        initial_cluster: Some(vec![("n1".into(), "127.0.0.1:0".into())]),
        join: Vec::new(),
        surely_new: false,
        token: "quorate-up-1".into(),
        max_txn_ops: quorate_etcd::Options::default().max_txn_ops,
        level: Level::LATEST,
        zone: String::new(),
        evict_after: EVICT_AFTER,
        clock_bound: None,
        split_bytes: SPLIT_BYTES,
        split_ops: SPLIT_OPS,
        merge_bytes: MERGE_BYTES,
        timing: Timing::default(),
        scrub: ScrubPace::default(),
        trace: trace_file(args, "n1")?.map(|file| trace_options(file, args.trace_limit)),
    };
    refuse_other_size(&args.data_dir, 1)?;
    let clients = listen(&address).await?;
    let running = Running::start(&settings, clients, None).await?;
    remember_size(&args.data_dir, 1)?;
    println!("Quorate {} is up after {} ms.", env!("CARGO_PKG_VERSION"), began.elapsed().as_millis());
    println!();
    println!("  etcd API    {address}");
    println!("    try       etcdctl --endpoints={address} put hello world");
    println!("  status      quorate status --endpoints {address}");
    println!("  metrics     http://{address}/metrics");
    println!("  data        {}", args.data_dir.display());
    if port != args.port {
        println!("  note        port {} is in use, so {port} was taken", args.port);
    }
    println!();
    println!("1 node: survives 0 failures. For more: quorate up --nodes 3. Ctrl-C stops it.");
    running.until_told_to_stop().await
}

/// A cluster's nodes, ended with it.
struct Cluster {
    nodes: Vec<(String, Child)>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (_, child) in &mut self.nodes {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

async fn several(args: &UpArgs) -> Result<(), Failure> {
    let began = Instant::now();
    refuse_other_size(&args.data_dir, args.nodes)?;
    let mut taken = Vec::new();
    let mut ports = Vec::new();
    for _ in 0..args.nodes {
        let client = free_port(args.port, &taken)?;
        taken.push(client);
        let peer = free_port(client.saturating_add(1), &taken)?;
        taken.push(peer);
        ports.push((client, peer));
    }
    fs::create_dir_all(&args.data_dir)?;
    remember_size(&args.data_dir, args.nodes)?;
    let cluster: Vec<String> =
        ports.iter().enumerate().map(|(i, (_, peer))| format!("n{}=127.0.0.1:{peer}", i + 1)).collect();
    let cluster = cluster.join(",");
    let binary = std::env::current_exe()?;
    let mut children = Cluster { nodes: Vec::new() };
    for (i, (client, peer)) in ports.iter().enumerate() {
        let name = format!("n{}", i + 1);
        let child = start(&binary, &name, &cluster, args, (*client, *peer))?;
        children.nodes.push((name, child));
    }
    let endpoints: Vec<String> = ports.iter().map(|(client, _)| format!("127.0.0.1:{client}")).collect();
    wait_until_ready(&mut children, &endpoints).await?;
    println!("Quorate {} is up after {} ms.", env!("CARGO_PKG_VERSION"), began.elapsed().as_millis());
    println!();
    for ((name, child), endpoint) in children.nodes.iter().zip(&endpoints) {
        println!("  {name}          etcd API {endpoint}, process {}", child.id());
    }
    println!("  try         etcdctl --endpoints={} put hello world", endpoints.join(","));
    println!("  status      quorate status --endpoints {}", endpoints.join(","));
    println!("  data        {}", args.data_dir.display());
    if let Some(folder) = &args.trace {
        let folder = folder.display();
        println!("  picture     quorate diagram {folder}/*.trace --out picture.html");
    }
    println!();
    let survives = (args.nodes - 1) / 2;
    println!(
        "{} nodes: survives {survives} of them. Kill one and see; it is started again. Ctrl-C stops all.",
        args.nodes
    );
    watch_over(children, &binary, &cluster, args, &ports).await
}

/// Starts one node's process.
fn start(binary: &Path, name: &str, cluster: &str, args: &UpArgs, ports: (u16, u16)) -> Result<Child, Failure> {
    let (client, peer) = ports;
    let mut command = Command::new(binary);
    command
        .args(["start", "--name", name, "--initial-cluster", cluster, "--initial-cluster-token"])
        .arg(format!("quorate-up-{}", args.nodes))
        .arg("--data-dir")
        .arg(args.data_dir.join(name))
        .args(["--listen-client", &format!("127.0.0.1:{client}"), "--listen-peer", &format!("127.0.0.1:{peer}")]);
    // Each process has a file of its own, whatever the environment says of all of them.
    command.env_remove("QUORATE_TRACE");
    if let Some(file) = trace_file(args, name)? {
        command.arg("--trace").arg(file);
    }
    if let Some(limit) = args.trace_limit {
        command.args(["--trace-limit", &limit.to_string()]);
    }
    Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?)
}

/// Where a node's process records what it does, if it is to.
fn trace_file(args: &UpArgs, name: &str) -> Result<Option<PathBuf>, Failure> {
    let Some(folder) = &args.trace else { return Ok(None) };
    fs::create_dir_all(folder)?;
    Ok(Some(folder.join(format!("{name}.trace"))))
}

async fn wait_until_ready(children: &mut Cluster, endpoints: &[String]) -> Result<(), Failure> {
    let deadline = Instant::now() + Duration::from_secs(20);
    for endpoint in endpoints {
        loop {
            for (name, child) in &mut children.nodes {
                if let Some(status) = child.try_wait()? {
                    return Err(Failure::Server(format!("node {name} ended at once ({status}); its reason is above")));
                }
            }
            if crate::status::is_ready(endpoint).await {
                break;
            }
            if Instant::now() > deadline {
                return Err(Failure::Server(format!("{endpoint} was not ready in time")));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}

/// Starts again what ends, until told to stop.
async fn watch_over(
    mut children: Cluster,
    binary: &Path,
    cluster: &str,
    args: &UpArgs,
    ports: &[(u16, u16)],
) -> Result<(), Failure> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    loop {
        tokio::select! {
            result = tokio::signal::ctrl_c() => { result?; break; }
            _ = terminate.recv() => break,
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
        for (i, (name, child)) in children.nodes.iter_mut().enumerate() {
            if let Some(status) = child.try_wait()? {
                *child = start(binary, name, cluster, args, ports[i])?;
                println!("{name} ended ({status}) and was started again as process {}", child.id());
            }
        }
    }
    // Ask all to stop cleanly; whoever does not is killed when `children` goes.
    for (_, child) in &children.nodes {
        let _ = Command::new("kill").arg(child.id().to_string()).status();
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    for (_, child) in &mut children.nodes {
        while child.try_wait()?.is_none() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    Ok(())
}

/// A data directory belongs to a cluster of one size; another size would be another cluster.
fn refuse_other_size(dir: &Path, nodes: u16) -> Result<(), Failure> {
    match fs::read_to_string(dir.join("NODES")) {
        Ok(text) if text.trim() != nodes.to_string() => Err(Failure::Usage(format!(
            "{} holds a cluster of {} node(s); start it with --nodes {}, or choose another --data-dir",
            dir.display(),
            text.trim(),
            text.trim()
        ))),
        _ => Ok(()),
    }
}

fn remember_size(dir: &Path, nodes: u16) -> Result<(), Failure> {
    Ok(fs::write(dir.join("NODES"), format!("{nodes}\n"))?)
}

//! `quorate start`: one node of a cluster, from flags, environment and a file.

use crate::cli::{ClusterState, StartArgs};
use crate::failure::Failure;
use crate::node::{Running, Settings, listen, trace_options};
use quorate_cluster::Timing;
use quorate_cluster::bounds::{CLOCK_BOUND_MAX, EVICT_AFTER, MERGE_BYTES, SPLIT_BYTES, SPLIT_OPS};
use quorate_kv::Level;
use quorate_runtime::disk::ScrubPace;
use serde::Deserialize;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

/// Bytes of a zone's name: it is in a row of the system keyspace.
const ZONE_BYTES_MAX: usize = 64;

/// The file's keys: the flags' names.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: Option<String>,
    #[serde(alias = "data-dir")]
    data_dir: Option<PathBuf>,
    #[serde(alias = "listen-client")]
    listen_client: Option<String>,
    #[serde(alias = "advertise-client")]
    advertise_client: Option<String>,
    #[serde(alias = "listen-peer")]
    listen_peer: Option<String>,
    #[serde(alias = "advertise-peer")]
    advertise_peer: Option<String>,
    #[serde(alias = "initial-cluster")]
    initial_cluster: Option<String>,
    join: Option<Vec<String>>,
    #[serde(alias = "initial-cluster-token", alias = "token")]
    initial_cluster_token: Option<String>,
    #[serde(alias = "max-txn-ops")]
    max_txn_ops: Option<usize>,
    #[serde(alias = "heartbeat-interval")]
    heartbeat_interval: Option<u64>,
    #[serde(alias = "election-timeout")]
    election_timeout: Option<u64>,
    #[serde(alias = "scrub-rate")]
    scrub_rate: Option<u64>,
    #[serde(alias = "scrub-rest")]
    scrub_rest: Option<u64>,
    #[serde(alias = "feature-level")]
    feature_level: Option<u16>,
    trace: Option<PathBuf>,
    #[serde(alias = "trace-limit")]
    trace_limit: Option<u64>,
    zone: Option<String>,
    #[serde(alias = "evict-after")]
    evict_after: Option<u64>,
    #[serde(alias = "clock-bound")]
    clock_bound: Option<String>,
    #[serde(alias = "split-bytes")]
    split_bytes: Option<u64>,
    #[serde(alias = "split-ops")]
    split_ops: Option<u64>,
    merge_bytes: Option<u64>,
    insecure: Option<bool>,
}

pub fn run(args: &StartArgs) -> Result<(), Failure> {
    let settings = resolve(args)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let clients = listen(&settings.listen_client).await?;
        let peers = match &settings.listen_peer {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let running = Running::start(&settings, clients, peers).await?;
        println!(
            "Quorate {} runs as {}: etcd API {}",
            env!("CARGO_PKG_VERSION"),
            settings.name,
            running.client_address
        );
        running.until_told_to_stop().await
    })
}

fn usage(text: impl Into<String>) -> Failure {
    Failure::Usage(text.into())
}

fn resolve(args: &StartArgs) -> Result<Settings, Failure> {
    let file = match &args.config {
        Some(path) => {
            let text =
                std::fs::read_to_string(path).map_err(|e| usage(format!("cannot read {}: {e}", path.display())))?;
            toml::from_str(&text).map_err(|e| usage(format!("{}: {e}", path.display())))?
        }
        None => File::default(),
    };
    let pick = |flag: &Option<String>, file: &Option<String>| flag.clone().or_else(|| file.clone());
    let name = pick(&args.name, &file.name).unwrap_or_else(|| "n1".into());
    let listen_client = pick(&args.listen_client, &file.listen_client).unwrap_or_else(|| "127.0.0.1:2379".into());
    let listen_peer = pick(&args.listen_peer, &file.listen_peer).unwrap_or_else(|| "127.0.0.1:2380".into());
    let join = if args.join.is_empty() { file.join.clone().unwrap_or_default() } else { args.join.clone() };
    let named = pick(&args.initial_cluster, &file.initial_cluster);
    let advertised = pick(&args.advertise_peer, &file.advertise_peer);
    let data_dir = args.data_dir.clone().or(file.data_dir.clone()).unwrap_or_else(|| format!("{name}.quorate").into());
    let own = advertised.clone().unwrap_or_else(|| listen_peer.clone());
    let (initial_cluster, peer_address) = match &named {
        Some(text) => {
            let members = parse_cluster(text)?;
            let Some((_, own)) = members.iter().find(|(member, _)| *member == name).cloned() else {
                return Err(usage(format!(
                    "--initial-cluster does not name {name}; add {name}=host:port, or choose another --name"
                )));
            };
            if let Some(advertised) = advertised
                && advertised != own
            {
                return Err(usage(format!(
                    "--advertise-peer {advertised} is not what --initial-cluster says of {name}: {own}"
                )));
            }
            (Some(members), own)
        }
        // A directory that is somebody's knows; an empty one begins a cluster of one.
        None if !join.is_empty() || data_dir.join("MEMBERS").exists() => (None, own),
        None => (Some(vec![(name.clone(), own.clone())]), own),
    };
    let insecure = args.insecure || file.insecure.unwrap_or(false);
    for (what, address) in [("--listen-client", &listen_client), ("--listen-peer", &listen_peer)] {
        refuse_exposure(what, address, insecure)?;
    }
    let advertised = pick(&args.advertise_client, &file.advertise_client).unwrap_or_else(|| listen_client.clone());
    let client_urls = advertised.split(',').map(|address| match address.contains("://") {
        true => address.to_owned(),
        false => format!("http://{address}"),
    });
    Ok(Settings {
        client_urls: client_urls.collect(),
        data_dir,
        listen_client,
        listen_peer: Some(listen_peer),
        peer_address,
        announce_peer: true,
        join,
        surely_new: args.initial_cluster_state == ClusterState::New,
        token: pick(&args.initial_cluster_token, &file.initial_cluster_token).unwrap_or_else(|| "quorate".into()),
        max_txn_ops: args.max_txn_ops.or(file.max_txn_ops).unwrap_or(quorate_etcd::Options::default().max_txn_ops),
        timing: timing(
            args.heartbeat_interval.or(file.heartbeat_interval),
            args.election_timeout.or(file.election_timeout),
        )?,
        zone: zone(pick(&args.zone, &file.zone))?,
        evict_after: args.evict_after.or(file.evict_after).map_or(EVICT_AFTER, Duration::from_secs),
        clock_bound: clock_bound(pick(&args.clock_bound, &file.clock_bound))?,
        split_bytes: match args.split_bytes.or(file.split_bytes) {
            None => SPLIT_BYTES,
            Some(0) => u64::MAX,
            Some(bytes) => bytes,
        },
        merge_bytes: args.merge_bytes.or(file.merge_bytes).unwrap_or(MERGE_BYTES),
        split_ops: match args.split_ops.or(file.split_ops) {
            None => SPLIT_OPS,
            Some(0) => u64::MAX,
            Some(operations) => operations,
        },
        level: level(args.feature_level.or(file.feature_level))?,
        scrub: scrub_pace(args.scrub_rate.or(file.scrub_rate), args.scrub_rest.or(file.scrub_rest)),
        trace: args.trace.clone().or(file.trace).map(|to| trace_options(to, args.trace_limit.or(file.trace_limit))),
        name,
        initial_cluster,
    })
}

fn clock_bound(told: Option<String>) -> Result<Option<Duration>, Failure> {
    let Some(told) = told else { return Ok(None) };
    let units = [("us", 1), ("ms", 1_000), ("s", 1_000_000)];
    let read = units.into_iter().find_map(|(unit, us)| told.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(us));
    let bound = read.map(Duration::from_micros).filter(|bound| *bound <= CLOCK_BOUND_MAX);
    let what = "is how far any node's clock may be from true time: 500us or 10ms, and at most";
    bound.map(Some).ok_or_else(|| usage(format!("--clock-bound {what} {} s, not {told:?}", CLOCK_BOUND_MAX.as_secs())))
}

fn zone(told: Option<String>) -> Result<String, Failure> {
    let zone = told.unwrap_or_default();
    if zone.len() > ZONE_BYTES_MAX {
        return Err(usage(format!("--zone: a name has at most {ZONE_BYTES_MAX} bytes, this one {}", zone.len())));
    }
    Ok(zone)
}

fn parse_cluster(text: &str) -> Result<Vec<(String, String)>, Failure> {
    let mut members: Vec<(String, String)> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, address) = part
            .split_once('=')
            .ok_or_else(|| usage(format!("--initial-cluster: {part:?} is not of the form name=host:port")))?;
        let address = address.trim_start_matches("http://");
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if name.is_empty() || port.is_none() {
            return Err(usage(format!("--initial-cluster: {part:?} is not of the form name=host:port")));
        }
        if members.iter().any(|(known, at)| known == name || at == address) {
            return Err(usage(format!("--initial-cluster names {name} or {address} twice")));
        }
        members.push((name.to_owned(), address.to_owned()));
    }
    if members.is_empty() {
        return Err(usage("--initial-cluster names nobody; write n1=host:port,n2=host:port,..."));
    }
    Ok(members)
}

/// Without encryption and authentication nobody but this machine may reach a port, unless the operator says so by name.
fn refuse_exposure(what: &str, address: &str, insecure: bool) -> Result<(), Failure> {
    let resolved = address.to_socket_addrs().map_err(|e| usage(format!("{what} {address}: {e}; write host:port")))?;
    let exposed = resolved.map(|address| address.ip()).any(|ip: IpAddr| !ip.is_loopback());
    if exposed && !insecure {
        return Err(usage(format!(
            "{what} {address} can be reached from other machines, and this release has neither encryption nor authentication: \
             listen on 127.0.0.1, or accept that with --insecure"
        )));
    }
    Ok(())
}

fn scrub_pace(mib_per_s: Option<u64>, rest_s: Option<u64>) -> ScrubPace {
    let default = ScrubPace::default();
    ScrubPace {
        bytes_per_s: mib_per_s.map_or(default.bytes_per_s, |mib| mib.saturating_mul(1 << 20)),
        rest: rest_s.map_or(default.rest, Duration::from_secs),
    }
}

fn level(offered: Option<u16>) -> Result<Level, Failure> {
    let level = offered.map_or(Level::LATEST, Level);
    if (Level::FIRST..=Level::LATEST).contains(&level) {
        return Ok(level);
    }
    Err(usage(format!("--feature-level {level}: this release knows {} to {}", Level::FIRST, Level::LATEST)))
}

fn timing(heartbeat_ms: Option<u64>, election_ms: Option<u64>) -> Result<Timing, Failure> {
    let default = Timing::default();
    let tick_ms = default.tick.as_millis() as u64;
    let heartbeat_ms = heartbeat_ms.unwrap_or(u64::from(default.heartbeat_ticks) * tick_ms);
    let election_ms = election_ms.unwrap_or((u64::from(default.election_ticks) * tick_ms).max(heartbeat_ms * 5));
    if heartbeat_ms < 10 || election_ms < heartbeat_ms * 5 || election_ms > 60_000 {
        return Err(usage(format!(
            "a heartbeat of {heartbeat_ms} ms and an election timeout of {election_ms} ms do not fit: the heartbeat is at least \
             10 ms, the timeout at least 5 heartbeats and at most 60000 ms"
        )));
    }
    let tick_ms = tick_ms.min(heartbeat_ms);
    Ok(Timing {
        tick: Duration::from_millis(tick_ms),
        heartbeat_ticks: u32::try_from(heartbeat_ms / tick_ms).unwrap_or(u32::MAX),
        election_ticks: u32::try_from(election_ms / tick_ms).unwrap_or(u32::MAX),
        recall_ticks: default.recall_ticks,
        prefer_ticks: default.prefer_ticks,
        sleep_ticks: default.sleep_ticks,
    })
}

//! `quorate bench`: a load against any server that speaks etcd's API, measured from outside.
//!
//! The load generator shares the machine with the servers more often than not, so beside operations per second it can tell operations per
//! second of the *servers'* CPU time: give it their process ids.

use crate::cli::{BenchArgs, Workload};
use crate::endpoint::connect;
use crate::failure::Failure;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use quorate_env::Rng;
use quorate_etcd::proto::etcdserverpb::compare::{CompareTarget, TargetUnion};
use quorate_etcd::proto::etcdserverpb::kv_client::KvClient;
use quorate_etcd::proto::etcdserverpb::lease_client::LeaseClient;
use quorate_etcd::proto::etcdserverpb::request_op::Request;
use quorate_etcd::proto::etcdserverpb::watch_client::WatchClient;
use quorate_etcd::proto::etcdserverpb::watch_request::RequestUnion;
use quorate_etcd::proto::etcdserverpb::{
    Compare, LeaseGrantRequest, LeaseKeepAliveRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    WatchCreateRequest, WatchRequest,
};
use serde::Serialize;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tonic::transport::Channel;

/// What came of a run.
#[derive(Debug, Serialize)]
struct Report {
    workload: String,
    clients: usize,
    connections: usize,
    value_size: usize,
    seconds: f64,
    operations: u64,
    errors: u64,
    ops_per_second: f64,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
    /// The longest time during which no operation at all succeeded.
    longest_gap_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_cpu_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ops_per_server_cpu_second: Option<f64>,
}

/// What all clients share.
struct Shared {
    args: BenchArgs,
    began: Instant,
    deadline: Instant,
    next: AtomicU64,
    done: AtomicU64,
    errors: AtomicU64,
    events: AtomicU64,
    /// When the last operation succeeded, and the longest time between two, in microseconds since `began`.
    last_success: AtomicU64,
    longest_gap: AtomicU64,
}

impl Shared {
    /// The next operation's number, or `None` when it is enough.
    fn next(&self) -> Option<u64> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let enough = match self.args.total {
            Some(total) => n >= total,
            None => Instant::now() >= self.deadline,
        };
        (!enough).then_some(n)
    }

    fn succeeded(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
        let now = self.began.elapsed().as_micros() as u64;
        let last = self.last_success.fetch_max(now, Ordering::Relaxed);
        self.longest_gap.fetch_max(now.saturating_sub(last), Ordering::Relaxed);
    }
}

pub async fn run(args: BenchArgs) -> Result<(), Failure> {
    if args.clients == 0 || args.connections == 0 || args.endpoints.is_empty() || args.keys == 0 {
        return Err(Failure::Usage("a benchmark needs at least one client, connection, endpoint and key".into()));
    }
    let mut channels = Vec::new();
    for n in 0..args.connections {
        channels.push(connect(&args.endpoints[n % args.endpoints.len()]).await?);
    }
    if matches!(args.workload, Workload::Range | Workload::SerializableRange | Workload::Txn) {
        prepare(&args, &channels).await?;
    }
    let began = Instant::now();
    let shared = Arc::new(Shared {
        began,
        deadline: began + Duration::from_secs(args.duration),
        next: AtomicU64::new(0),
        done: AtomicU64::new(0),
        errors: AtomicU64::new(0),
        events: AtomicU64::new(0),
        last_success: AtomicU64::new(0),
        longest_gap: AtomicU64::new(0),
        args,
    });
    let watchers =
        if shared.args.workload == Workload::Watch { watch_all(&shared, &channels).await? } else { Vec::new() };
    let cpu_before = cpu_seconds(&shared.args.server_pids);
    let bar = tokio::spawn(show_progress(shared.clone()));
    let clients: Vec<_> = (0..shared.args.clients)
        .map(|n| tokio::spawn(client(shared.clone(), channels[n % channels.len()].clone(), n as u64)))
        .collect();
    let mut latencies = histogram();
    for client in clients {
        latencies.add(client.await.map_err(std::io::Error::other)?).map_err(std::io::Error::other)?;
    }
    let seconds = began.elapsed().as_secs_f64();
    if shared.args.workload == Workload::Watch {
        // Let the last events arrive.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    bar.abort();
    watchers.iter().for_each(tokio::task::JoinHandle::abort);
    let cpu = cpu_seconds(&shared.args.server_pids).zip(cpu_before).map(|(after, before)| after - before);
    print(&report(&shared, &latencies, seconds, cpu), shared.args.json)
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 120_000_000, 3).expect("constant bounds")
}

fn report(shared: &Shared, latencies: &Histogram<u64>, seconds: f64, cpu: Option<f64>) -> Report {
    let ms = |quantile: f64| latencies.value_at_quantile(quantile) as f64 / 1000.0;
    let args = &shared.args;
    let operations = shared.done.load(Ordering::Relaxed);
    let events = (args.workload == Workload::Watch).then(|| shared.events.load(Ordering::Relaxed));
    Report {
        workload: format!("{:?}", args.workload).to_lowercase(),
        clients: args.clients,
        connections: args.connections,
        value_size: args.value_size,
        seconds,
        operations,
        errors: shared.errors.load(Ordering::Relaxed),
        ops_per_second: operations as f64 / seconds,
        p50_ms: ms(0.5),
        p90_ms: ms(0.9),
        p99_ms: ms(0.99),
        p999_ms: ms(0.999),
        max_ms: latencies.max() as f64 / 1000.0,
        longest_gap_ms: shared.longest_gap.load(Ordering::Relaxed) as f64 / 1000.0,
        events,
        server_cpu_seconds: cpu,
        ops_per_server_cpu_second: cpu.filter(|cpu| *cpu > 0.0).map(|cpu| events.unwrap_or(operations) as f64 / cpu),
    }
}

fn print(report: &Report, json: bool) -> Result<(), Failure> {
    if json {
        println!("{}", serde_json::to_string_pretty(report).map_err(std::io::Error::other)?);
    } else {
        println!(
            "{}: {:.0} ops/s ({} in {:.1} s, {} errors), {} clients on {} connections, {} B values",
            report.workload,
            report.ops_per_second,
            report.operations,
            report.seconds,
            report.errors,
            report.clients,
            report.connections,
            report.value_size
        );
        println!(
            "latency ms: p50 {:.2}  p90 {:.2}  p99 {:.2}  p99.9 {:.2}  max {:.2}   longest gap {:.0}",
            report.p50_ms, report.p90_ms, report.p99_ms, report.p999_ms, report.max_ms, report.longest_gap_ms
        );
        if let Some(events) = report.events {
            println!("events: {events} ({:.0} per second)", events as f64 / report.seconds);
        }
        if let (Some(cpu), Some(per)) = (report.server_cpu_seconds, report.ops_per_server_cpu_second) {
            println!("server CPU: {cpu:.2} s, {per:.0} per CPU second");
        }
    }
    if report.operations == 0 { Err(Failure::Server("no operation succeeded".into())) } else { Ok(()) }
}

async fn show_progress(shared: Arc<Shared>) {
    if !std::io::stderr().is_terminal() || shared.args.json {
        return;
    }
    let len = shared.args.total.unwrap_or(shared.args.duration * 10);
    let style =
        ProgressStyle::with_template("{bar:40} {percent:>3}%  {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(len).with_style(style);
    loop {
        let done = shared.done.load(Ordering::Relaxed);
        let elapsed = shared.began.elapsed().as_secs_f64();
        bar.set_position(shared.args.total.map_or((elapsed * 10.0) as u64, |_| done).min(len));
        bar.set_message(format!("{:.0} ops/s", done as f64 / elapsed.max(0.001)));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn key(n: u64) -> bytes::Bytes {
    format!("bench/key/{n:020}").into()
}

/// Writes every key once, for workloads that read.
async fn prepare(args: &BenchArgs, channels: &[Channel]) -> Result<(), Failure> {
    let next = Arc::new(AtomicU64::new(0));
    let mut writers = Vec::new();
    for n in 0..64 {
        let (mut kv, next, keys) = (KvClient::new(channels[n % channels.len()].clone()), next.clone(), args.keys);
        let value = bytes::Bytes::from(vec![b'v'; args.value_size]);
        writers.push(tokio::spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= keys {
                    return Ok(());
                }
                kv.put(PutRequest { key: key(n), value: value.clone(), ..Default::default() }).await?;
            }
        }));
    }
    for writer in writers {
        let written: Result<(), tonic::Status> = writer.await.map_err(std::io::Error::other)?;
        written.map_err(|e| Failure::Server(format!("cannot write the keys to read: {}", e.message())))?;
    }
    Ok(())
}

async fn client(shared: Arc<Shared>, channel: Channel, n: u64) -> Histogram<u64> {
    let mut rng = Rng::new(n + 1);
    let mut latencies = histogram();
    let mut kv = KvClient::new(channel.clone());
    let mut lease = LeaseClient::new(channel);
    let args = &shared.args;
    let value = bytes::Bytes::from(vec![b'v'; args.value_size]);
    while let Some(number) = shared.next() {
        let key = key(if args.total.is_some() { number } else { rng.below(args.keys) });
        let began = Instant::now();
        let result = match args.workload {
            Workload::Put | Workload::Watch => {
                kv.put(PutRequest { key, value: value.clone(), ..Default::default() }).await.map(|_| ())
            }
            Workload::Range => kv.range(RangeRequest { key, ..Default::default() }).await.map(|_| ()),
            Workload::SerializableRange => {
                kv.range(RangeRequest { key, serializable: true, ..Default::default() }).await.map(|_| ())
            }
            Workload::Txn => compare_and_swap(&mut kv, key, value.clone()).await,
            Workload::Lease => grant_and_renew(&mut lease).await,
        };
        match result {
            Ok(()) => {
                shared.succeeded();
                latencies.saturating_record((began.elapsed().as_micros() as u64).max(1));
            }
            Err(_) => {
                shared.errors.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    latencies
}

async fn compare_and_swap(
    kv: &mut KvClient<Channel>,
    key: bytes::Bytes,
    value: bytes::Bytes,
) -> Result<(), tonic::Status> {
    let compare = Compare {
        target: CompareTarget::Version as i32,
        result: quorate_etcd::proto::etcdserverpb::compare::CompareResult::Greater as i32,
        key: key.clone(),
        target_union: Some(TargetUnion::Version(0)),
        ..Default::default()
    };
    let put = Request::RequestPut(PutRequest { key: key.clone(), value, ..Default::default() });
    let get = Request::RequestRange(RangeRequest { key, ..Default::default() });
    let op = |request| RequestOp { request: Some(request) };
    let txn = TxnRequest { compare: vec![compare], success: vec![op(put)], failure: vec![op(get)] };
    kv.txn(txn).await.map(|_| ())
}

async fn grant_and_renew(lease: &mut LeaseClient<Channel>) -> Result<(), tonic::Status> {
    let granted = lease.lease_grant(LeaseGrantRequest { ttl: 60, id: 0 }).await?.into_inner();
    let asks = tokio_stream::once(LeaseKeepAliveRequest { id: granted.id });
    let mut answers = lease.lease_keep_alive(asks).await?.into_inner();
    answers.message().await.map(|_| ())
}

/// Opens the watches and counts what they see.
async fn watch_all(shared: &Arc<Shared>, channels: &[Channel]) -> Result<Vec<tokio::task::JoinHandle<()>>, Failure> {
    let mut tasks = Vec::new();
    for n in 0..shared.args.watchers {
        let create = WatchCreateRequest { key: "bench/".into(), range_end: "bench0".into(), ..Default::default() };
        let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let requests = tokio_stream::StreamExt::chain(tokio_stream::once(request), tokio_stream::pending());
        let failed = |e: tonic::Status| Failure::Server(format!("cannot watch: {}", e.message()));
        let mut watch = WatchClient::new(channels[n % channels.len()].clone()).max_decoding_message_size(usize::MAX);
        let mut responses = watch.watch(requests).await.map_err(failed)?.into_inner();
        responses.message().await.map_err(failed)?;
        let shared = shared.clone();
        tasks.push(tokio::spawn(async move {
            while let Ok(Some(response)) = responses.message().await {
                shared.events.fetch_add(response.events.len() as u64, Ordering::Relaxed);
            }
        }));
    }
    Ok(tasks)
}

/// User and system time of processes, in seconds; `None` if there are none or one is gone.
fn cpu_seconds(pids: &[u32]) -> Option<f64> {
    if pids.is_empty() {
        return None;
    }
    let mut ticks = 0.0;
    for pid in pids {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command's name may hold anything; fields are counted after its closing parenthesis.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split_whitespace().collect();
        ticks += fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    }
    // Linux counts in hundredths of a second on every platform that it runs on today.
    Some(ticks / 100.0)
}

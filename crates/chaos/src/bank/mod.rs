//! A bank over many shards, under everything at once: nodes are killed, stand still, are told to stop, join, are drained and removed, while shards split and
//! move; and money is conserved.
//!
//! ```text
//!   harm     kills, pauses, stops, hands over ─┐
//!   churn    three nodes, five, three          ├──> nodes (yard) <── transfers ── tellers ───┐
//!   reshape  splits, counts moves ─────────────┘         └────── audits ───────── auditors ──┴─> ledger: judges
//! ```
//!
//! The other nemeses do one kind of harm to one shard and judge every revision; this one does all kinds to many shards, where there is no one order of revisions,
//! and judges by what a bank must keep.

mod churn;
mod harm;
mod ledger;
mod money;
mod people;
mod report;
mod reshape;
mod yard;

pub use ledger::Judged;
pub use report::Report;

use crate::cluster::{self, Cluster};
use crate::failure::Failure;
use ledger::{History, Told, judge};
use money::{ACCOUNTS, BANK, Row, START, TELLERS, cuts, numbers};
use people::{Notes, Town, auditor, look_at_all, open, teller};
use quorate_client::{Client, Error, Kind, Range, Request};
use quorate_env::Rng;
use report::Errors;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinSet;
use yard::Yard;

/// What the run is called.
pub const NAME: &str = "bank";

/// What it does.
pub const ABOUT: &str = "1,000 accounts over 16 shards and more; kills, pauses, splits, moves, 3 to 5 to 3 nodes";

/// How long, if nobody says otherwise.
pub const SECONDS: u64 = 600;

/// For so long a client asks again; what is not done by then is an error.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Nodes at first, and at most.
const FOUNDERS: usize = 3;
const NODES: usize = 5;

/// Shards at first, and at most.
const SHARDS: usize = 16;
const SHARDS_MAX: usize = 40;

const AUDITORS: usize = 4;

/// Nodes register within this, and clients end within as much more than their patience after everything has healed.
const END_WITHIN: Duration = Duration::from_secs(30);

/// Shards live where they are to within this after that.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);

/// What must have happened.
const KINDS: &[&str] = &[
    harm::KILLED,
    harm::PAUSED,
    harm::STOPPED,
    harm::HANDED,
    churn::JOINED,
    churn::DRAINED,
    churn::REMOVED,
    churn::CYCLES,
    reshape::SPLIT,
    reshape::MOVED,
];

fn stuck(what: &'static str) -> impl Fn(Error) -> Failure {
    move |error| Failure::Stuck(format!("{what}: {error}"))
}

/// Runs it. What nodes said and had on their disks is kept if it fails.
///
/// # Errors
/// If anything was not as it must be, or something did not happen.
pub async fn run(binary: &Path, seconds: u64, patience: Duration, seed: u64) -> Result<Report, Failure> {
    let mut folder = TempDir::new()?;
    let places = cluster::loopback(NODES, folder.path())?;
    let mut cluster = Cluster::with_founders(binary, places, FOUNDERS)?;
    let said = cluster.keep_outputs();
    let outcome = Box::pin(campaign(cluster, binary, seconds, patience, seed)).await;
    match &outcome {
        Ok(_) => std::fs::remove_dir_all(said)?,
        Err(_) => {
            folder.disable_cleanup(true);
            eprintln!("what the nodes said is in {}, what they had in {}", said.display(), folder.path().display());
        }
    }
    outcome
}

async fn campaign(
    mut cluster: Cluster,
    binary: &Path,
    seconds: u64,
    patience: Duration,
    seed: u64,
) -> Result<Report, Failure> {
    let founders: Vec<usize> = (0..FOUNDERS).collect();
    founders.iter().try_for_each(|node| cluster.start(*node))?;
    cluster.these_ready(&founders).await?;
    let endpoints = cluster.endpoints();
    let town = Town { endpoints, began: Instant::now(), stop: AtomicBool::new(false), patience };
    let town = Arc::new(town);
    let admin = town.client(0).map_err(stuck("a client"))?;
    let yard = Yard::new((cluster, FOUNDERS), admin.clone(), (town.began, seconds), KINDS);
    // Until then a cluster may not know yet that all its nodes know how to have shards on some of them.
    let registered = async || {
        let members = yard.members().await.unwrap_or_default();
        members.len() == FOUNDERS && members.iter().all(|member| !member.client_ur_ls.is_empty())
    };
    yard.until("all nodes have registered", END_WITHIN, registered).await?;
    let made = admin.create_keyspace(BANK, Kind::Ranged, &cuts(), Some(FOUNDERS as u32)).await;
    let made = made.map_err(stuck("the bank cannot be made"))?;
    if made.replicas != Some(FOUNDERS) {
        let text = format!("the bank was to have {FOUNDERS} replicas of each shard, and has {:?}", made.replicas);
        return Err(Failure::NotAsPromised(text));
    }
    open(&admin).await.map_err(stuck("the bank cannot be opened"))?;

    let rng = Rng::new(seed);
    let mut people: JoinSet<Notes> = JoinSet::new();
    for n in 0..TELLERS {
        people.spawn(teller(town.clone(), town.client(n).map_err(stuck("a client"))?, n, rng.split(100 + n as u64)));
    }
    for n in 0..AUDITORS {
        // Of each pair, one has little patience with a node.
        let client = town.client(n + n / 2).map_err(stuck("a client"))?;
        people.spawn(auditor(town.clone(), client, n, rng.split(200 + n as u64)));
    }

    let survived = tokio::try_join!(
        harm::hand(&yard, rng.split(1)),
        harm::hand(&yard, rng.split(2)),
        harm::leaders(&yard, rng.split(3)),
        churn::cycle(&yard, binary, rng.split(4)),
        reshape::split(&yard, seconds, rng.split(5)),
        reshape::survey(&yard),
    );
    town.stop.store(true, Ordering::Relaxed);
    let harmed_seconds = town.began.elapsed().as_secs_f64();
    // What clients saw is told also where nodes did not do as they must.
    let notes = tokio::time::timeout(patience + END_WITHIN, people.join_all()).await;
    let notes = notes.map_err(|_| Failure::Stuck("clients do not come to an end".into()));
    if let Err(failure) = survived {
        let errors: Vec<String> = notes.unwrap_or_default().into_iter().flat_map(|notes| notes.errors).collect();
        return Err(Failure::NotAsPromised(format!("{failure}\n{}", Errors(&errors))));
    }
    settle(&yard).await?;
    let (bites, diary) = (yard.bites(), yard.diary());
    let mut nodes = yard.into_nodes();
    let present: Vec<usize> = nodes.present.iter().copied().collect();
    nodes.cluster.these_ready(&present).await?;
    let ends: Vec<String> = present.iter().map(|node| town.endpoints[*node].clone()).collect();

    let (history, errors, slowest) = gather(notes?, &admin, &ends).await?;
    let shards = yard_shards(&admin).await?;
    let judged = judge(&history).map_err(|violation| Failure::Broken { seed, violation })?;
    if let Some((what, _)) = bites.iter().find(|(_, times)| **times == 0) {
        return Err(Failure::NoBite(format!("{what}: 0")));
    }
    let gap = report::longest_gap(&history);
    let around = report::around(gap, diary);
    let (errors_seen, nodes) = (errors.len(), ends.len());
    let seconds = harmed_seconds;
    let report = Report { seed, seconds, bites, judged, gap, around, errors: errors_seen, slowest, shards, nodes };
    if errors.is_empty() {
        Ok(report)
    } else {
        Err(Failure::NotAsPromised(format!("clients that retry saw errors\n{}\n{report}", Errors(&errors))))
    }
}

/// Waits until each shard lives on three nodes, as it is to.
async fn settle(yard: &Yard) -> Result<(), Failure> {
    let settled = async || {
        let fits = |shard: &quorate_client::Shard| shard.nodes.len() == FOUNDERS && shard.nodes == shard.voters;
        yard.bank().await.is_some_and(|bank| bank.shards.iter().all(fits))
    };
    yard.until("each shard lives where it is to", SETTLED_WITHIN, settled).await
}

async fn yard_shards(admin: &Client) -> Result<usize, Failure> {
    let all = admin.keyspaces().await.map_err(stuck("keyspaces"))?;
    Ok(all.iter().find(|keyspace| keyspace.name == BANK).map_or(0, |bank| bank.shards.len()))
}

/// Puts all notes together, asks what became of what is unknown, and reads everything once more, at each node.
async fn gather(
    notes: Vec<Notes>,
    admin: &Client,
    endpoints: &[String],
) -> Result<(History, Vec<String>, Duration), Failure> {
    let mut history = History { accounts: ACCOUNTS, start: START, tellers: TELLERS, ..History::default() };
    let (mut errors, mut slowest) = (Vec::new(), Duration::ZERO);
    for mut notes in notes {
        for (at, id) in &notes.unknown {
            // It speaks of one try alone: that it was done is for good, that it was not says nothing of the other tries.
            let said = admin.ask(&Request::get(format!("/v1/status/{id}"))).await;
            if said.is_ok_and(|said| said["outcome"] == "done") {
                notes.transfers[*at].told = Told::Done;
            }
        }
        slowest = slowest.max(notes.slowest);
        history.transfers.append(&mut notes.transfers);
        history.audits.append(&mut notes.audits);
        errors.append(&mut notes.errors);
    }
    for endpoint in endpoints {
        let one = Client::new([endpoint]).map_err(stuck("a client"))?;
        let (balances, _) = look_at_all(&one).await.map_err(stuck("the last audit"))?;
        history.closing.push(balances.iter().map(|balance| balance.holds).collect());
    }
    let rows = admin.scan(BANK, &Range::prefix("t/"), 1_000).all().await.map_err(stuck("the journals"))?;
    let mut journal = BTreeMap::new();
    for kv in rows {
        let row = numbers(&kv.key.0).zip(Row::read(&kv.value.0));
        let (key, row) =
            row.ok_or_else(|| Failure::NotAsPromised(format!("a journal has a row that is none: {kv:?}")))?;
        journal.insert(key, row);
    }
    history.journal = journal;
    Ok((history, errors, slowest))
}

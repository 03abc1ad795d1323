//! Disks that lose what was written to them: bits flip on one node and on all of them; a store is damaged beyond what it can mend by itself, while
//! its node is down and while it runs. Nothing is lost, and nobody has to do anything.

use crate::support::{Cluster, PATIENCE, fill, kv, put};
use quorate_etcd::proto::etcdserverpb::RangeRequest;
use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Enough for the store to be flushed, and for the log to begin after it.
const KEYS: usize = 3_200;
const VALUE_BYTES: usize = 16 << 10;

fn key(n: usize) -> String {
    format!("rows/{n:05}")
}

fn value(n: usize) -> String {
    format!("{n:05}").repeat(VALUE_BYTES / 5)
}

/// The store's largest table, if there is a store, and it has tables.
fn largest_table(data_dir: &Path) -> Option<(PathBuf, u64)> {
    let tables = fs::read_dir(data_dir.join("store/tables")).ok()?;
    let sized = tables.filter_map(|table| Some(table.ok()?.path())).map(|path| {
        let bytes = fs::metadata(&path).map_or(0, |found| found.len());
        (path, bytes)
    });
    sized.max_by_key(|(_, bytes)| *bytes)
}

/// Turns half of the store's largest table into zeros, in place.
fn damage(data_dir: &Path) {
    let (path, bytes) = largest_table(data_dir).expect("a table");
    assert!(bytes > 1 << 20, "{} has {bytes} bytes", path.display());
    let mut table = OpenOptions::new().write(true).open(path).expect("a table");
    table.seek(SeekFrom::Start(bytes / 4)).expect("sought");
    table.write_all(&vec![0; (bytes / 2) as usize]).expect("written");
    table.sync_all().expect("synced");
}

/// Looks at some of the keys at this node alone. It may be about to start anew, and is asked again then.
async fn whole(endpoint: &str) {
    let deadline = Instant::now() + PATIENCE;
    for n in (0..KEYS).step_by(41) {
        let found = loop {
            let range = RangeRequest { key: key(n).into(), serializable: true, ..Default::default() };
            if let Some(mut client) = kv(endpoint).await
                && let Ok(found) = client.range(range).await
            {
                break found.into_inner();
            }
            assert!(Instant::now() < deadline, "{endpoint} does not answer");
            tokio::time::sleep(Duration::from_millis(30)).await;
        };
        assert_eq!(found.kvs.first().map(|kv| kv.value.clone()), Some(value(n).into()), "{}", key(n));
    }
}

/// Waits until `done`, and says for how long.
async fn wait_until(what: &str, mut done: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    began.elapsed()
}

/// Three nodes with all keys, which look for rot all the time.
async fn filled() -> Cluster {
    let cluster = Cluster::start_with(3, &["--scrub-rest", "1", "--scrub-rate", "200"]).await;
    let endpoints = cluster.endpoints();
    fill(&endpoints, KEYS, key, value).await;
    cluster
}

/// Flips one bit in one of `every` pages of each file of a node, each time elsewhere. Returns how many.
fn flip_bits(folder: &Path, every: usize, salt: usize) -> usize {
    let mut flipped = 0;
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            flipped += flip_bits(&entry, every, salt);
            continue;
        }
        let file = OpenOptions::new().read(true).write(true).open(&entry).expect("a file");
        let bytes = file.metadata().expect("a file").len();
        for page in (0..bytes.div_ceil(4096)).skip(salt % every).step_by(every) {
            let at = page * 4096 + (page * 7919 + salt as u64 * 104_729) % (bytes - page * 4096).min(4096);
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).expect("read");
            byte[0] ^= 1 << ((page + salt as u64) % 8);
            file.write_all_at(&byte, at).expect("written");
            flipped += 1;
        }
    }
    flipped
}

/// Until all nodes have the same rows, and all of them.
async fn settled(cluster: &Cluster) {
    cluster.ready().await;
    for endpoint in cluster.endpoints() {
        whole(&endpoint).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flipped_bits_everywhere_lose_nothing() {
    let mut cluster = filled().await;

    // One node, a bit in each page of every file, the log and the identity too. It comes back by itself, as another member if it must.
    cluster.kill(2);
    println!("one node at rest: {} bits", flip_bits(&cluster.data_dir(2), 1, 1));
    cluster.restart(2);
    settled(&cluster).await;

    // All nodes at different places, while they run.
    let flipped: Vec<usize> = (0..3).map(|node| flip_bits(&cluster.data_dir(node), 1_000, 300 * node + 7)).collect();
    println!("all nodes while they run: {flipped:?} bits");
    // Long enough for everything to be read.
    tokio::time::sleep(Duration::from_secs(6)).await;
    settled(&cluster).await;

    // And at rest.
    (0..3).for_each(|node| cluster.kill(node));
    let flipped: Vec<usize> = (0..3).map(|node| flip_bits(&cluster.data_dir(node), 1_000, 300 * node + 100)).collect();
    println!("all nodes at rest: {flipped:?} bits");
    (0..3).for_each(|node| cluster.restart(node));
    settled(&cluster).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    settled(&cluster).await;
    for node in 0..3 {
        // It still runs.
        cluster.process_id(node);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store_is_rebuilt_from_the_other_nodes() {
    let mut cluster = filled().await;
    let endpoints = cluster.endpoints();

    // At rest.
    cluster.kill(2);
    let third = cluster.data_dir(2);
    damage(&third);
    cluster.restart(2);
    cluster.ready().await;
    let damaged = third.join("store.damaged");
    let rebuilt = |path: PathBuf| {
        let large = move |path: &Path| largest_table(path).is_some_and(|(_, bytes)| bytes > 1 << 20);
        move || large(&path) && !path.join("store.damaged").exists()
    };
    wait_until("it is found and put aside", || damaged.exists()).await;
    let took = wait_until("it is rebuilt", rebuilt(third.clone())).await;
    println!("damaged at rest: rebuilt in {:.1} s", took.as_secs_f64());
    cluster.ready().await;

    // While it runs; the process stays what it is.
    let (first, id) = (cluster.data_dir(0), cluster.process_id(0));
    damage(&first);
    let damaged = first.join("store.damaged");
    wait_until("it is found and put aside", || damaged.exists()).await;
    let took = wait_until("it is rebuilt", rebuilt(first.clone())).await;
    println!("damaged while it ran: rebuilt in {:.1} s", took.as_secs_f64());
    cluster.ready().await;
    assert_eq!(cluster.process_id(0), id);

    // They are whole: without the second they are needed for every answer, and each has every row.
    cluster.kill(1);
    kv(&endpoints[0]).await.expect("a connection").put(put("rows/last", "x")).await.expect("written");
    whole(&endpoints[0]).await;
    whole(&endpoints[2]).await;
}

//! A shard that has too much to do is split where its load is halved, while clients write; one that is all about one key is left alone.

use crate::support::{Cluster, PATIENCE};
use quorate_client::{Client, Kind, Range, Shard, Transaction, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const WRITERS: u64 = 6;

/// Keys of each that are written; as many others are not.
const BUSY: u64 = 100;

async fn shards_of(client: &Client, name: &str) -> Vec<Shard> {
    let all = client.keyspaces().await.expect("listed");
    all.into_iter().find(|keyspace| keyspace.name == name).expect("made").shards
}

/// Writes keys, one after the other, until it is told to stop; each value is how often the writer has written it.
async fn write(client: Client, writer: u64, (stop, done): (Arc<AtomicBool>, Arc<AtomicU64>)) -> u64 {
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        rounds += 1;
        for n in 0..BUSY {
            // All over the place.
            let key = format!("k/{:03}/{writer}", n * 37 % BUSY);
            client.put("busy", key, rounds.to_string()).await.expect("written");
            client.put("stubborn", "k", rounds.to_string()).await.expect("written");
            done.fetch_add(1, Ordering::Relaxed);
        }
    }
    rounds
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_shard_is_split_while_clients_write_and_one_busy_key_is_not() {
    let cluster = Cluster::start_with(3, &["--split-ops", "20"]).await;
    let client = Client::new(cluster.endpoints()).expect("addresses");
    for name in ["busy", "stubborn"] {
        client.create_keyspace(name, Kind::Ranged, &[], None).await.expect("made");
    }
    let asleep =
        (0..100).fold(Transaction::new(), |all, n| all.write("busy", &Write::put(format!("z/{n:03}"), "asleep")));
    assert!(client.transact(&asleep, None).await.expect("written").succeeded);
    let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let client = Client::new(cluster.endpoints()).expect("addresses");
            tokio::spawn(write(client, writer, (stop.clone(), done.clone())))
        })
        .collect();
    let deadline = Instant::now() + 2 * PATIENCE;
    let shards = loop {
        let shards = shards_of(&client, "busy").await;
        if shards.len() > 1 {
            break shards;
        }
        assert!(Instant::now() < deadline, "nothing is split in time; {} were written", done.load(Ordering::Relaxed));
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    // They go on where it is split.
    let before = done.load(Ordering::Relaxed);
    while done.load(Ordering::Relaxed) < before + 2 * BUSY * WRITERS {
        assert!(Instant::now() < deadline, "writers stand still");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut rounds = Vec::new();
    for writer in writers {
        rounds.push(writer.await.expect("no writer objects"));
    }
    let start = String::from_utf8_lossy(&shards[1].from.0).into_owned();
    assert!(("k/015".."k/085").contains(&start.as_str()), "what is busy is halved, and not all keys: {start}");
    assert_eq!(shards_of(&client, "stubborn").await.len(), 1, "no key halves what is about one");
    let kept = client.scan("busy", &Range::prefix("k/"), 1_000).all().await.expect("read");
    assert_eq!(kept.len() as u64, BUSY * WRITERS);
    for kv in kept {
        let key = String::from_utf8_lossy(&kv.key.0).into_owned();
        let writer: usize = key.rsplit('/').next().and_then(|writer| writer.parse().ok()).expect("a writer");
        assert_eq!(kv.text(), Some(rounds[writer].to_string().as_str()), "{key}");
    }
}

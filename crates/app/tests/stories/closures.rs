//! The Rust client against real processes: transactions as closures, watches that go on, and answers that get lost.

use crate::support::{Cluster, Lossy, PATIENCE};
use quorate_client::{Change, Client, Error, Kind, Options, Range, Transaction, Tx, WatchEvent, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub(super) const ACCOUNTS: u64 = 8;
pub(super) const START: u64 = 100;
pub(super) const TELLERS: u64 = 4;

pub(super) fn account(n: u64) -> String {
    format!("a/{n}")
}

async fn number(tx: &Tx, key: &str) -> Result<u64, Error> {
    let value = tx.get("bank", key).await?;
    Ok(value.map_or(0, |value| String::from_utf8_lossy(&value).parse().expect("a number")))
}

/// Moves money, if there is enough, and counts that it did so, in one step.
async fn transfer(bank: &Client, teller: u64, from: u64, to: u64, amount: u64) -> Result<bool, Error> {
    bank.transaction(|tx| async move {
        let (from, to, count) = (account(from), account(to), format!("t/{teller}"));
        let (has, gets) = (number(&tx, &from).await?, number(&tx, &to).await?);
        let Some(left) = has.checked_sub(amount) else { return Ok(false) };
        tx.put("bank", from, left.to_string());
        tx.put("bank", to, (gets + amount).to_string());
        tx.put("bank", &count, (number(&tx, &count).await? + 1).to_string());
        Ok(true)
    })
    .await
}

/// Gives every account what it begins with.
pub(super) async fn open(bank: &Client) {
    let open = (0..ACCOUNTS)
        .fold(Transaction::new(), |open, n| open.write("bank", &Write::put(account(n), START.to_string())));
    assert!(bank.transact(&open, None).await.expect("opened").succeeded);
}

/// All the money, as of one moment.
pub(super) async fn total(bank: &Client) -> Result<u64, Error> {
    bank.transaction(|tx| async move {
        let mut total = 0;
        for n in 0..ACCOUNTS {
            total += number(&tx, &account(n)).await?;
        }
        Ok(total)
    })
    .await
}

/// Moves money and looks at all of it until it is told to stop; returns how often it moved some.
pub(super) async fn work(bank: Client, teller: u64, stop: Arc<AtomicBool>, done: Arc<AtomicU64>) -> u64 {
    let (mut moved, mut n) = (0, teller);
    while !stop.load(Ordering::Relaxed) {
        n += TELLERS;
        let (from, to) = (n * 7 % ACCOUNTS, (n * 3 + 1) % ACCOUNTS);
        if from != to {
            match transfer(&bank, teller, from, to, n % 9 + 1).await {
                Ok(did) => moved += u64::from(did),
                // Nothing was written.
                Err(Error::Conflict { .. }) => {}
                Err(error) => panic!("teller {teller}: {error}"),
            }
        }
        match total(&bank).await {
            Ok(total) => assert_eq!(total, ACCOUNTS * START, "an audit saw what never was"),
            Err(Error::Conflict { .. }) => {}
            Err(error) => panic!("auditor {teller}: {error}"),
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    moved
}

#[tokio::test(flavor = "multi_thread")]
async fn closures_move_money_over_shards_while_nodes_are_killed_and_answers_get_lost() {
    let mut cluster = Cluster::start(3).await;
    let bank = Client::new(cluster.endpoints()).expect("addresses");
    bank.create_keyspace("bank", Kind::Ranged, &["a/3".into(), "a/6".into(), "t".into()], None).await.expect("made");
    open(&bank).await;
    let ways: Vec<Lossy> = cluster.endpoints().iter().map(|to| Lossy::new(to)).collect();
    let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let tellers: Vec<_> = (0..TELLERS)
        .map(|teller| {
            // Each has connections of its own, to another node first.
            let mut endpoints: Vec<&str> = ways.iter().map(|way| way.endpoint.as_str()).collect();
            endpoints.rotate_left(teller as usize % 3);
            let bank = Client::new(endpoints).expect("addresses");
            tokio::spawn(work(bank, teller, stop.clone(), done.clone()))
        })
        .collect();
    for round in 0..6 {
        ways.iter().for_each(|way| way.lose(3));
        tokio::time::sleep(Duration::from_millis(900)).await;
        cluster.kill(round % 3);
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.restart(round % 3);
    }
    let (before, deadline) = (done.load(Ordering::Relaxed), Instant::now() + PATIENCE);
    while done.load(Ordering::Relaxed) < before + 20 {
        assert!(Instant::now() < deadline, "tellers stand still");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut moved = Vec::new();
    for teller in tellers {
        moved.push(teller.await.expect("no teller objects"));
    }
    assert_eq!(total(&bank).await, Ok(ACCOUNTS * START));
    // What was reported was done, and was done once.
    let counts = bank.scan("bank", &Range::prefix("t/"), 100).all().await.expect("counted");
    let counts: Vec<u64> = counts.iter().map(|kv| kv.text().expect("text").parse().expect("a number")).collect();
    assert_eq!(counts, moved);
    assert!(moved.iter().sum::<u64>() > 20, "{moved:?} transfers are too few");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_the_client_goes_on_while_nodes_are_killed() {
    const ENTRIES: u64 = 60;
    let mut cluster = Cluster::start(3).await;
    let client = Client::new(cluster.endpoints()).expect("addresses");
    client.create_keyspace("ledger", Kind::Ordered, &[], None).await.expect("made");
    let mut watch = client.watch("ledger", &Range::prefix("e/")).with_prev();
    let created = tokio::time::timeout(PATIENCE, watch.next()).await.expect("in time").expect("it stands");
    let WatchEvent::Created { revision: first } = created else { panic!("{created:?}") };
    let writer = tokio::spawn(async move {
        for n in 0..ENTRIES {
            client.put("ledger", format!("e/{}", n % 5), n.to_string()).await.expect("written");
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    });
    let (mut told, mut kills) = (0, 0);
    while told < ENTRIES {
        let event = tokio::time::timeout(PATIENCE, watch.next()).await.expect("in time").expect("it goes on");
        let WatchEvent::Changed { revision, changes } = event else { continue };
        // Each entry was one revision, and each revision comes once.
        assert_eq!(revision, first + 1 + told);
        let [Change::Put { kv, prev }] = &changes[..] else { panic!("{changes:?}") };
        let prev: Option<u64> = prev.as_ref().and_then(|kv| kv.text()?.parse().ok());
        assert_eq!((kv.text(), prev), (Some(told.to_string().as_str()), told.checked_sub(5)));
        told += 1;
        if told.is_multiple_of(15) && told < ENTRIES {
            // The one that tells it, as the first in the list is asked first and the next one then.
            cluster.kill(kills % 3);
            tokio::time::sleep(Duration::from_millis(200)).await;
            cluster.restart(kills % 3);
            kills += 1;
        }
    }
    writer.await.expect("the writer ends");
    assert_eq!((kills, watch.seen()), (3, Some(first + ENTRIES)));
}

fn name_of(request: &str) -> &str {
    request.lines().find_map(|line| line.strip_prefix("idempotency-key: ")).expect("each has a name")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_asked_for_under_the_same_name_and_the_write_is_done_once() {
    let cluster = Cluster::start(3).await;
    let direct = Client::new(cluster.endpoints()).expect("addresses");
    direct.create_keyspace("bank", Kind::Ranged, &["m".into()], None).await.expect("made");
    let ways: Vec<Lossy> = cluster.endpoints().iter().map(|to| Lossy::new(to)).collect();
    let client = Client::new(ways.iter().map(|way| &way.endpoint)).expect("addresses");
    // Over both shards, and in one, where the decision is the only step.
    for keys in [&["a", "z"][..], &["b"]] {
        ways.iter().for_each(|way| way.lose(1));
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = client.transaction(|tx| {
            let runs = runs.clone();
            async move {
                runs.fetch_add(1, Ordering::Relaxed);
                for key in keys {
                    tx.put("bank", key, (number(&tx, key).await? + 1).to_string());
                }
                Ok::<_, Error>(())
            }
        });
        assert_eq!(counted.await, Ok(()));
        assert_eq!(runs.load(Ordering::Relaxed), 1, "what is done is not judged as somebody else's change");
        let sent: Vec<String> = ways.iter().flat_map(Lossy::transactions).collect();
        assert!(sent.len() >= 4, "three answers were lost: {sent:?}");
        assert!(sent.iter().all(|request| name_of(request) == name_of(&sent[0])), "{sent:?}");
        for key in keys {
            let kv = direct.get("bank", key).await.expect("read").expect("it is there");
            assert_eq!((kv.text(), kv.version), (Some("1"), 1), "{key}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hears_nothing_is_told_the_name_under_which_to_ask_in_the_end() {
    let cluster = Cluster::start(3).await;
    let direct = Client::new(cluster.endpoints()).expect("addresses");
    direct.create_keyspace("bank", Kind::Ranged, &[], None).await.expect("made");
    let way = Lossy::new(&cluster.endpoints()[0]);
    way.lose(usize::MAX);
    let mut options = Options::default();
    (options.rounds, options.deadline) = (3, PATIENCE);
    let client = Client::with([&way.endpoint], options).expect("an address");
    let open = Transaction::new().write("bank", &Write::put("a", "1"));
    let Err(Error::Unknown { name: Some(name), .. }) = client.transact(&open, None).await else {
        panic!("nobody told it");
    };
    assert_eq!(way.transactions().len(), 3, "once in each round");
    // Somebody else writes meanwhile, which a second try must not undo.
    direct.put("bank", "a", "2").await.expect("written");
    let again = direct.transact(&open, Some(name)).await.expect("done");
    assert!(again.succeeded && again.repeated, "{again:?}");
    let kv = direct.get("bank", "a").await.expect("read").expect("it is there");
    assert_eq!((kv.text(), kv.version), (Some("2"), 2));
}

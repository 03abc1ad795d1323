//! A bank on four shards: money moves in transactions over all of them while processes are killed, and none is made or lost.

use crate::support::native::request;
use crate::support::{Cluster, PATIENCE, kv, put};
use quorate_etcd::proto::etcdserverpb::RangeRequest;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub(super) const ACCOUNTS: usize = 40;
const START: i64 = 100;
/// All of it.
pub(super) const MONEY: i64 = START * ACCOUNTS as i64;

pub(super) fn account(n: usize) -> String {
    format!("a/{n:02}")
}

/// Makes the keyspace, cut at some accounts, and opens all of them.
pub(super) fn open(endpoint: &str, cuts: &[usize]) {
    let split_at: Vec<String> = cuts.iter().copied().map(account).collect();
    let wish = json!({ "name": "bank", "kind": "ranged", "split_at": split_at });
    let (code, made) = request(endpoint, "POST", "/v1/keyspaces", None, &wish).expect("an answer");
    assert_eq!((code, made["shards"].as_array().map(Vec::len)), (201, Some(cuts.len() + 1)), "{made}");
    let put = |n| json!({ "keyspace": "bank", "put": account(n), "value": START.to_string() });
    let writes: Vec<Value> = (0..ACCOUNTS).map(put).collect();
    let (code, opened) =
        request(endpoint, "POST", "/v1/tx", Some("open"), &json!({ "write": writes })).expect("an answer");
    assert_eq!((code, &opened["outcome"]), (200, &json!("done")), "{opened}");
}

/// Reads accounts in one transaction: their amounts and revisions.
fn read(endpoint: &str, reads: Value) -> Option<Vec<(i64, u64)>> {
    let (code, found) = request(endpoint, "POST", "/v1/tx", None, &json!({ "read": reads }))?;
    let kv = |kv: &Value| Some((kv["value"].as_str()?.parse().ok()?, kv["mod_revision"].as_u64()?));
    let all = found["reads"].as_array()?.iter().flat_map(|read| read["kvs"].as_array().cloned().unwrap_or_default());
    (code == 200).then(|| all.map(|found| kv(&found).expect("an account")).collect())
}

pub(super) fn total(endpoint: &str) -> Option<i64> {
    let accounts = read(endpoint, json!([{ "keyspace": "bank", "prefix": "a/" }]))?;
    assert_eq!(accounts.len(), ACCOUNTS);
    Some(accounts.iter().map(|(amount, _)| amount).sum())
}

/// Moves money once, whatever it takes; returns whether it was moved.
fn transfer(endpoints: &[String], name: &str, from: usize, to: usize, amount: i64) -> bool {
    let both = json!([{ "keyspace": "bank", "key": account(from) }, { "keyspace": "bank", "key": account(to) }]);
    let Some(found) = read(&endpoints[amount as usize % endpoints.len()], both) else { return false };
    let [(has, at), (gets, then)] = found[..] else { panic!("two accounts were asked for: {found:?}") };
    let compare = |n, revision: u64| json!({ "keyspace": "bank", "key": account(n), "mod_revision": revision });
    let put = |n, amount: i64| json!({ "keyspace": "bank", "put": account(n), "value": amount.to_string() });
    let tx = json!({
        "compare": [compare(from, at), compare(to, then)],
        "write": [put(from, has - amount), put(to, gets + amount)],
    });
    // Under its name it happens at most once, so whoever gets no answer asks again, elsewhere.
    for endpoint in endpoints.iter().cycle().take(60) {
        if let Some((200, done)) = request(endpoint, "POST", "/v1/tx", Some(name), &tx) {
            return done["succeeded"] == json!(true);
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("transfer {name} found nobody in six seconds");
}

/// Clients that move money and look at all of it, until they are told to stop.
pub(super) struct Tellers {
    threads: Vec<thread::JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    moved: Arc<AtomicU64>,
    audits: Arc<AtomicU64>,
}

impl Tellers {
    pub fn begin(endpoints: &[String]) -> Self {
        let (stop, moved, audits) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default(), Arc::default());
        let work = |teller: usize| {
            let (endpoints, stop) = (endpoints.to_vec(), stop.clone());
            let (moved, audits): (Arc<AtomicU64>, Arc<AtomicU64>) = (moved.clone(), Arc::clone(&audits));
            thread::spawn(move || {
                let mut n = teller;
                while !stop.load(Ordering::Relaxed) {
                    n += 4;
                    let (from, to) = (n * 7 % ACCOUNTS, (n * 11 + 3) % ACCOUNTS);
                    if from != to && transfer(&endpoints, &format!("t-{n}"), from, to, (n % 9) as i64 + 1) {
                        moved.fetch_add(1, Ordering::Relaxed);
                    }
                    if let Some(total) = total(&endpoints[n % endpoints.len()]) {
                        assert_eq!(total, MONEY, "an audit saw a transaction half done");
                        audits.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        };
        let threads = (0..4usize).map(work).collect();
        Self { threads, stop, moved, audits }
    }

    /// Waits until they have done more since this was asked, each kind of work at least so many times, however slow the machine is.
    pub async fn go_on(&self, times: u64) {
        let counts = || (self.moved.load(Ordering::Relaxed), self.audits.load(Ordering::Relaxed));
        let (before, deadline) = (counts(), Instant::now() + PATIENCE);
        while counts().0 < before.0 + times || counts().1 < before.1 + times {
            assert!(Instant::now() < deadline, "tellers stand still: {before:?}, then {:?}", counts());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// They stop; returns how often money was moved, and how often all of it was looked at.
    pub fn end(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        for teller in self.threads {
            teller.join().expect("no teller objects");
        }
        (self.moved.load(Ordering::Relaxed), self.audits.load(Ordering::Relaxed))
    }
}

/// Whatever was left behind by a killed coordinator is settled within seconds, and nothing is locked any more.
pub(super) fn is_all_there(endpoints: &[String]) {
    for endpoint in endpoints {
        let deadline = Instant::now() + Duration::from_secs(5);
        let total = loop {
            match total(endpoint) {
                Some(total) => break total,
                None => assert!(Instant::now() < deadline, "{endpoint} does not answer"),
            }
        };
        assert_eq!(total, MONEY);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn money_is_neither_made_nor_lost_while_processes_are_killed() {
    let mut cluster = Cluster::start(3).await;
    let endpoints = cluster.endpoints();
    open(&endpoints[0], &[10, 20, 30]);
    let tellers = Tellers::begin(&endpoints);
    let began = Instant::now();
    let mut kills = 0;
    while began.elapsed() < Duration::from_secs(9) {
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        let node = kills % 3;
        cluster.kill(node);
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.restart(node);
        kills += 1;
    }
    tellers.go_on(10).await;
    let (moved, audits) = tellers.end();
    cluster.ready().await;
    is_all_there(&endpoints);
    assert!(moved > 20 && audits > 20, "{moved} transfers and {audits} audits in {kills} kills are too few");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_transaction_reaches_etcds_keys_and_others() {
    let cluster = Cluster::start(1).await;
    let endpoint = &cluster.endpoints()[0];
    let wish = json!({ "name": "stock", "kind": "ranged", "split_at": ["m"] });
    assert_eq!(request(endpoint, "POST", "/v1/keyspaces", None, &wish).expect("an answer").0, 201);
    let (code, again) = request(endpoint, "POST", "/v1/keyspaces", None, &wish).expect("an answer");
    assert_eq!((code, &again["reason"]), (409, &json!("keyspace_exists")));
    let mut etcd = kv(endpoint).await.expect("a connection");
    etcd.put(put("order/1", "new")).await.expect("written");
    let tx = json!({
        "compare": [{ "keyspace": "default", "key": "order/1", "value": "new" }],
        "read": [{ "keyspace": "stock", "prefix": "" }],
        "write": [
            { "keyspace": "default", "put": "order/1", "value": "reserved" },
            { "keyspace": "stock", "put": "apples", "value": "4" },
            { "keyspace": "stock", "put": "pears", "value": "9" },
        ],
        "else": [{ "keyspace": "default", "put": "order/1", "value": "refused" }],
    });
    for (succeeded, repeated) in [(true, false), (true, true)] {
        let (code, done) = request(endpoint, "POST", "/v1/tx", Some("order-1"), &tx).expect("an answer");
        assert_eq!((code, &done["succeeded"], &done["repeated"]), (200, &json!(succeeded), &json!(repeated)), "{done}");
    }
    let found =
        etcd.range(RangeRequest { key: "order/1".into(), ..Default::default() }).await.expect("read").into_inner();
    assert_eq!((&found.kvs[0].value[..], found.kvs[0].version), (&b"reserved"[..], 2));
    for (tx, code, reason) in [
        (json!({ "read": [{ "keyspace": "nowhere", "key": "k" }] }), 404, "no_such_keyspace"),
        (json!({ "write": [{ "keyspace": "stock", "put": "", "value": "v" }] }), 400, "bad_request"),
        (json!({}), 400, "bad_request"),
        (json!({ "reads": [] }), 400, "bad_request"),
    ] {
        let (got, answer) = request(endpoint, "POST", "/v1/tx", None, &tx).expect("an answer");
        assert_eq!((got, &answer["reason"]), (code, &json!(reason)), "{answer}");
    }
    let status = request(endpoint, "GET", "/v1/status/2-00000000000000000000000000000009", None, &Value::Null);
    let (code, status) = status.expect("an answer");
    assert_eq!((code, &status["outcome"]), (200, &json!("refused")), "{status}");
    // The system keyspace's shard, and one that there is not, decide nothing.
    for home in ["1", "fff"] {
        let path = format!("/v1/status/{home}-00000000000000000000000000000009");
        let (code, status) = request(endpoint, "GET", &path, None, &Value::Null).expect("an answer");
        assert_eq!((code, &status["reason"]), (404, &json!("no_such_keyspace")), "{status}");
    }
}

//! What real processes record becomes one picture: three nodes, a leader that is killed and comes back, and the writes of clients all the while.

use super::handing_over::leader;
use crate::support::{Cluster, fill};
use quorate_trace::{Lane, MessageId, Outcome, Part, Trace, TraceEvent};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The shard of etcd's keys.
const SHARD: u64 = 2;

/// Writes between two blows.
const KEYS: usize = 60;

/// Three nodes that record, a kill of the leader, a restart, a planned stop; returns which node was killed.
async fn live(folder: &Path) -> usize {
    let file = folder.join("{node}.trace").display().to_string();
    let mut cluster = Cluster::start_with(3, &["--trace", &file]).await;
    let endpoints = cluster.endpoints();
    fill(&endpoints, KEYS, |n| format!("first/{n}"), |n| n.to_string()).await;
    let leads = leader(&cluster, &[0, 1, 2]).await;
    cluster.kill(leads);
    let others: Vec<String> = (1..3).map(|n| endpoints[(leads + n) % 3].clone()).collect();
    fill(&others, KEYS, |n| format!("second/{n}"), |n| n.to_string()).await;
    cluster.restart(leads);
    cluster.ready().await;
    fill(&endpoints, KEYS, |n| format!("third/{n}"), |n| n.to_string()).await;
    (0..3).for_each(|node| cluster.terminate(node));
    for node in 0..3 {
        assert!(cluster.stopped(node).success());
    }
    leads
}

fn quorate(dir: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_quorate")).args(args).current_dir(dir).output().expect("it starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn three_processes_and_a_killed_leader_are_one_picture() {
    let dir = tempfile::tempdir().expect("a folder");
    let killed = live(dir.path()).await;
    let files = ["n1.trace", "n2.trace", "n3.trace"];
    // A picture that was not named costs no trace.
    let (code, said) = quorate(dir.path(), &[&["diagram"][..], &files].concat());
    assert!(code == Some(64) && said.contains("name the picture with --out"), "{said}");
    let to = ["--out", "picture.html", "--merged", "all.trace"];
    assert_eq!(quorate(dir.path(), &[&["diagram"][..], &files, &to].concat()), (Some(0), String::new()));
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).expect("it was written");
    let trace = Trace::read_json(&read("all.trace")).expect("a trace like any other");

    messages_are_tied(&trace);
    leaders_change(&trace, Lane::Node(killed as u64 + 1));
    commits_go_up(&trace);
    lives_are_told(&trace, Lane::Node(killed as u64 + 1));
    questions_are_answered(&trace);
    let html = read("picture.html");
    stands_alone(&html);
    is_shown(&html, trace.records.len());
}

/// Of the messages from each node to each other at least 95 of 100 have both ends; the kill may take some with it.
fn messages_are_tied(trace: &Trace) {
    let mut sent: BTreeMap<MessageId, (Lane, Lane)> = BTreeMap::new();
    let mut counts: BTreeMap<(Lane, Lane), (u64, u64)> = BTreeMap::new();
    for record in &trace.records {
        match &record.event {
            TraceEvent::Send { message, from, to, .. } => {
                sent.insert(*message, (*from, *to));
                counts.entry((*from, *to)).or_default().0 += 1;
            }
            TraceEvent::Deliver { message } => counts.get_mut(&sent[message]).expect("it was sent").1 += 1,
            _ => {}
        }
    }
    assert_eq!(counts.len(), 6, "each sends to each other: {counts:?}");
    for ((from, to), (sent, arrived)) in counts {
        assert!(sent > 20 && arrived * 100 >= sent * 95, "{from} to {to}: {arrived} of {sent}");
    }
}

fn leaders_change(trace: &Trace, killed: Lane) {
    let led = trace.records.iter().filter_map(|record| match record.event {
        TraceEvent::Role { node, shard: SHARD, term, part: Part::Leader, .. } => Some((term, node)),
        _ => None,
    });
    let led: Vec<(u64, Lane)> = led.collect();
    let terms: BTreeMap<u64, Lane> = led.iter().copied().collect();
    assert!(led.iter().all(|(term, node)| terms[term] == *node), "one leader in each term: {led:?}");
    let before = terms.values().position(|node| *node == killed).expect("it was killed because it led");
    assert!(terms.values().skip(before).any(|node| *node != killed), "another led after it: {terms:?}");
}

fn commits_go_up(trace: &Trace) {
    let mut reached: BTreeMap<(Lane, u64), u64> = BTreeMap::new();
    for record in &trace.records {
        match record.event {
            // What a life knew to be committed, the next may have to learn.
            TraceEvent::Start { node, .. } => reached.retain(|(lane, _), _| *lane != node),
            TraceEvent::Commit { node, shard, index } => {
                let before = reached.insert((node, shard), index).unwrap_or(0);
                assert!(before < index, "{node} s{shard}: @{index} after @{before}");
            }
            _ => {}
        }
    }
    assert!(reached.values().filter(|index| **index as usize > KEYS).count() >= 3, "{reached:?}");
}

fn lives_are_told(trace: &Trace, killed: Lane) {
    let told = |lane: Lane| {
        let of = trace.records.iter().filter_map(move |record| match &record.event {
            TraceEvent::Start { node, life } if *node == lane => Some(format!("starts, life {life}")),
            TraceEvent::Crash { node, cause } if *node == lane => Some(cause.clone()),
            _ => None,
        });
        of.collect::<Vec<_>>()
    };
    for node in (1..=3).map(Lane::Node) {
        let expected: &[&str] = match node == killed {
            true => &["starts, life 1", "its record ends here", "starts, life 2", "told to stop"],
            false => &["starts, life 1", "told to stop"],
        };
        assert_eq!(told(node), expected, "{node}");
    }
}

/// Every write was asked at a node and answered; every question has one end.
fn questions_are_answered(trace: &Trace) {
    let mut open: BTreeMap<u64, &str> = BTreeMap::new();
    let mut written: BTreeSet<&str> = BTreeSet::new();
    for record in &trace.records {
        match &record.event {
            TraceEvent::Ask { operation, text, .. } => assert_eq!(open.insert(*operation, text), None),
            TraceEvent::Answer { operation, outcome, revision, .. } => {
                let text = open.remove(operation).expect("it was asked");
                if let (Some(key), Outcome::Done) = (text.strip_prefix("put "), outcome) {
                    assert!(*revision > 1, "a write has a revision");
                    written.insert(key);
                }
            }
            TraceEvent::GiveUp { operation, .. } => drop(open.remove(operation).expect("it was asked")),
            _ => {}
        }
    }
    assert_eq!(open, BTreeMap::new());
    for key in ["first", "second", "third"].iter().flat_map(|part| (0..KEYS).map(move |n| format!("{part}/{n}"))) {
        assert!(written.contains(key.as_str()), "the write of {key} is not in the trace");
    }
}

fn stands_alone(html: &str) {
    for reference in ["http:", "https:", "src=", "href=", "url(", "@import", "fetch(", "import(", "WebSocket"] {
        assert!(!html.contains(reference), "the page refers to something outside: {reference}");
    }
}

/// As the test of the simulator's pictures does (crates/sim/src/diagram/tests.rs).
fn is_shown(html: &str, events: usize) {
    let names = ["chromium", "chromium-browser", "google-chrome", "chrome"];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).flat_map(|dir| names.map(|name| dir.join(name))).find(|file| file.is_file());
    let Some(browser) = std::env::var_os("QUORATE_BROWSER").map(PathBuf::from).or(found) else {
        eprintln!("skipped: no Chromium on the PATH; name one with QUORATE_BROWSER");
        return;
    };
    let dir = tempfile::tempdir().expect("a folder");
    let (page, dom) = (dir.path().join("page.html"), dir.path().join("dom.html"));
    fs::write(&page, html).expect("a file");
    let mut child = Command::new(browser)
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000", "--dump-dom"])
        .arg("--virtual-time-budget=10000")
        .arg(format!("--user-data-dir={}", dir.path().join("profile").display()))
        .arg(format!("file://{}#selftest", page.display()))
        .stdout(fs::File::create(&dom).expect("a file"))
        .stderr(Stdio::null())
        .spawn()
        .expect("the browser starts");
    let began = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if began.elapsed() > Duration::from_secs(90) {
            let _ = child.kill();
            panic!("the page was not rendered within 90 s");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let dom = fs::read_to_string(&dom).expect("what it printed");
    assert!(dom.contains("Recorded by real processes"), "it does not claim that anything was checked");
    let (_, rest) = dom.split_once("<pre id=\"selftest\">").expect("the script ran to its end");
    let result: Value = serde_json::from_str(rest.split_once("</pre>").expect("an end").0).expect("JSON");
    assert_eq!(result["events"], events);
    assert!(result["colours"].as_u64().is_some_and(|n| n > 20), "the canvas is not blank: {result}");
    assert_eq!(result["failed"], serde_json::json!([]), "what the page found wrong with itself");
}

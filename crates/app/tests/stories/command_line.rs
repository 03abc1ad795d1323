//! Keys and keyspaces from the command line, as somebody at a terminal uses them.

use crate::support::Cluster;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

/// What a command said, and how it ended.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

fn command(endpoints: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    command.args(args).env("QUORATE_ENDPOINTS", endpoints);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run_with(endpoints: &str, args: &[&str], input: &[u8]) -> Said {
    let mut child = command(endpoints, args).spawn().expect("started");
    child.stdin.take().expect("piped").write_all(input).expect("written");
    let output = child.wait_with_output().expect("ended");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: output.status.code().expect("an exit code"), out: text(&output.stdout), err: text(&output.stderr) }
}

fn run(endpoints: &str, args: &[&str]) -> Said {
    run_with(endpoints, args, b"")
}

/// What it prints when it does what it was asked to.
fn done(endpoints: &str, args: &[&str]) -> String {
    let said = run(endpoints, args);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{args:?}: {said:?}");
    said.out
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_keyspaces_from_the_command_line() {
    let cluster = Cluster::start(1).await;
    let at = &cluster.endpoints()[0];
    let made = done(at, &["keyspace", "create", "stock", "--kind", "ranged", "--split-at", "m"]);
    assert!(made.contains("stock") && made.contains("ranged"), "{made}");
    assert!(done(at, &["keyspace", "split", "stock", "--at", "p"]).contains("m p"));
    let list = done(at, &["keyspace", "list"]);
    assert_eq!(list.lines().count(), 3, "{list}");
    let again = run(at, &["keyspace", "create", "stock"]);
    assert!(again.code == 64 && again.err.contains("quorate keyspace list"), "{again:?}");

    for (key, value) in [("apples", "4"), ("nuts", "7"), ("pears", "9"), ("a key/with %", "spaces too")] {
        assert_eq!(done(at, &["kv", "put", key, value, "--keyspace", "stock"]), "done\n");
    }
    assert_eq!(run_with(at, &["kv", "--keyspace", "stock", "put", "quinces", "-"], b"from a pipe").code, 0);
    assert_eq!(done(at, &["kv", "--keyspace", "stock", "get", "quinces"]), "from a pipe\n");
    assert_eq!(
        done(at, &["kv", "--keyspace", "stock", "scan"]),
        "a key/with %\tspaces too\napples\t4\nnuts\t7\npears\t9\nquinces\tfrom a pipe\n"
    );
    assert_eq!(done(at, &["kv", "--keyspace", "stock", "scan", "--from", "n", "--limit", "2"]), "nuts\t7\npears\t9\n");
    assert!(done(at, &["kv", "--keyspace", "stock", "get", "nuts", "--json"]).contains(r#""value":"7""#));

    let absent = run(at, &["kv", "get", "nothing"]);
    assert_eq!((absent.code, absent.out.as_str(), absent.err.as_str()), (1, "", "quorate: there is no such key\n"));
    let refused = run(at, &["kv", "--keyspace", "stock", "put", "nuts", "8", "--if-value", "6"]);
    assert!(refused.code == 1 && refused.err.contains(r#""value":"7""#), "{refused:?}");
    assert_eq!(done(at, &["kv", "--keyspace", "stock", "put", "nuts", "8", "--if-version", "1"]), "done\n");
    assert_eq!(done(at, &["kv", "--keyspace", "stock", "delete", "nuts"]), "deleted\n");
    assert_eq!(done(at, &["kv", "--keyspace", "stock", "delete", "nuts"]), "it was not there\n");
    let nowhere = run(at, &["kv", "--keyspace", "nowhere", "get", "k"]);
    assert!(nowhere.code == 64 && nowhere.err.contains("quorate keyspace create"), "{nowhere:?}");
    let ranged = run(at, &["kv", "--keyspace", "stock", "watch"]);
    assert!(ranged.code == 64 && ranged.err.contains("ordered keyspace"), "{ranged:?}");

    let tx = br#"{"compare": [{"keyspace": "stock", "key": "apples", "value": "4"}],
                  "read": [{"keyspace": "stock", "prefix": "p"}],
                  "write": [{"keyspace": "stock", "put": "apples", "value": "3"}, {"keyspace": "default", "put": "sold", "value": "1"}]}"#;
    let sold = run_with(at, &["kv", "tx", "-"], tx);
    assert_eq!((sold.code, sold.out.as_str()), (0, "pears\t9\n"), "{sold:?}");
    let again = run_with(at, &["kv", "tx", "-"], tx);
    assert!(again.code == 1 && again.err.contains("compare"), "{again:?}");
    assert_eq!(done(at, &["kv", "get", "sold"]), "1\n");
    assert_eq!(run_with(at, &["kv", "tx", "-"], b"{").code, 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_from_the_command_line() {
    let cluster = Cluster::start(1).await;
    let at = &cluster.endpoints()[0];
    done(at, &["keyspace", "create", "feed", "--kind", "log"]);
    assert_eq!(done(at, &["log", "append", "feed", "apples sold", "--key", "apples"]), "0\n");
    let piped = run_with(at, &["log", "append", "feed", "-"], b"from a pipe");
    assert_eq!((piped.code, piped.out.as_str()), (0, "1\n"), "{piped:?}");
    for _ in 0..2 {
        assert_eq!(done(at, &["log", "append", "feed", "once", "--idempotency-key", "order-17"]), "2\n");
    }
    assert_eq!(done(at, &["log", "fetch", "feed"]), "0\tapples\tapples sold\n1\t\tfrom a pipe\n2\t\tonce\n");
    assert_eq!(done(at, &["log", "fetch", "feed", "--from", "1", "--max", "1"]), "1\t\tfrom a pipe\n");
    assert!(done(at, &["log", "fetch", "feed", "--from", "2", "--json"]).contains(r#""value":"once""#));
    assert_eq!(done(at, &["log", "fetch", "feed", "--from", "end"]), "");

    // A follower waits for what is not there yet.
    let follow = ["log", "fetch", "feed", "--from", "3", "--follow", "--max", "1"];
    let mut follows = Ended(command(at, &follow).spawn().expect("started"));
    let mut out = BufReader::new(follows.0.stdout.take().expect("piped"));
    assert_eq!(done(at, &["log", "append", "feed", "next"]), "3\n");
    let mut line = String::new();
    out.read_line(&mut line).expect("a line");
    assert_eq!(line, "3\t\tnext\n");
    assert!(follows.0.wait().expect("it ends when it has as many as it wants").success());

    assert_eq!(done(at, &["log", "trim", "feed", "--before", "2"]), "2\n");
    let gone = run(at, &["log", "fetch", "feed", "--from", "0"]);
    assert!(gone.code == 1 && gone.err.contains("--from 2"), "{gone:?}");
    assert_eq!(done(at, &["log", "fetch", "feed", "--max", "1"]), "2\t\tonce\n", "from the first that is kept");
    let wrong = run(at, &["kv", "--keyspace", "feed", "put", "k", "v"]);
    assert!(wrong.code == 64 && wrong.err.contains("log"), "{wrong:?}");
    let nowhere = run(at, &["log", "append", "nowhere", "x"]);
    assert!(nowhere.code == 64 && nowhere.err.contains("quorate keyspace create"), "{nowhere:?}");
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_server_is_asked_and_a_watch_goes_on_there() {
    let mut cluster = Cluster::start(3).await;
    let all = cluster.endpoints().join(",");
    assert!(done(&all, &["keyspace", "create", "ledger", "--kind", "ordered"]).contains("ordered"));
    let mut watch =
        Ended(command(&all, &["kv", "--keyspace", "ledger", "watch", "--revision", "1"]).spawn().expect("started"));
    let mut lines = BufReader::new(watch.0.stdout.take().expect("piped")).lines();
    let mut next = || lines.next().expect("the watch goes on").expect("text");
    let put = |n: usize| done(&all, &["kv", "--keyspace", "ledger", "put", &format!("e/{n}"), &n.to_string()]);
    put(0);
    let first = next();
    let (revision, rest) = first.split_once('\t').expect("columns");
    assert_eq!(rest, "put\te/0\t0");
    let revision: u64 = revision.parse().expect("a revision");
    cluster.kill(0);
    for n in 1..6 {
        put(n);
        assert_eq!(next(), format!("{}\tput\te/{n}\t{n}", revision + n as u64));
    }
    assert_eq!(done(&all, &["kv", "--keyspace", "ledger", "delete", "e/3"]), "deleted\n");
    assert_eq!(next(), format!("{}\tdelete\te/3", revision + 6));
    // Nobody is there: what to do is said, with the name under which it may be sent again.
    let down = run(&cluster.endpoints()[0], &["kv", "get", "k"]);
    assert!(down.code == 69 && down.err.contains("is a server running there?"), "{down:?}");
}

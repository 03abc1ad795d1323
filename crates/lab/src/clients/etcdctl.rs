//! etcd's own command line client, in as many versions as there are.

use super::{Client, output};
use crate::programs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is said to it, what it reads, and what its answer begins with.
const SESSION: &[(&[&str], &str, &str)] = &[
    (&["put", "a", "1"], "", "OK\n"),
    (&["put", "a", "2", "--prev-kv"], "", "OK\na\n1\n"),
    (&["get", "a"], "", "a\n2\n"),
    (&["get", "a", "--rev", "2"], "", "a\n1\n"),
    (&["get", "a", "--consistency", "s", "--print-value-only"], "", "2\n"),
    (&["txn"], "value(\"a\") = \"2\"\n\nput b yes\n\nput b no\n\n", "SUCCESS\n\nOK\n"),
    (&["get", "", "--prefix", "--keys-only"], "", "a\n\nb\n\n"),
    (&["del", "a", "b"], "", "1\n"),
    (&["compaction", "3", "--physical"], "", "compacted revision 3\n"),
    (&["lease", "grant", "100"], "", "lease "),
    (&["lease", "list"], "", "found 1 leases\n"),
    (&["endpoint", "health"], "", ""),
    (&["endpoint", "status"], "", "127.0.0.1:"),
    (&["endpoint", "hashkv"], "", "127.0.0.1:"),
    (&["alarm", "list"], "", ""),
    (&["member", "list"], "", ""),
    (&["defrag"], "", ""),
];

/// Those that `QUORATE_ETCDCTL` lists, with colons between, or the one on the PATH.
pub fn found() -> Vec<Client> {
    let listed = std::env::var_os("QUORATE_ETCDCTL").unwrap_or_else(|| "etcdctl".into());
    let (there, missing): (Vec<_>, Vec<_>) =
        std::env::split_paths(&listed).partition(|path| programs::runs(path, "version"));
    for path in missing {
        let path = path.display();
        println!(
            "etcdctl: SKIPPED: {path} does not run. Install it (Debian: etcd-client) or set QUORATE_ETCDCTL to one or more, a:b."
        );
    }
    there.into_iter().map(client).collect()
}

fn client(program: PathBuf) -> Client {
    let said = output(Command::new(&program).arg("version"), "").unwrap_or_default();
    let version = said.lines().next().and_then(|line| line.rsplit(' ').next()).unwrap_or("of unknown version");
    Client { name: format!("etcdctl {version}"), work: Box::new(move |endpoints| work(&program, endpoints)) }
}

fn work(program: &Path, endpoints: &[String]) -> Result<(), String> {
    let endpoints = endpoints.join(",");
    for (args, input, expected) in SESSION {
        let answer = output(Command::new(program).args(["--endpoints", &endpoints]).args(*args), input)?;
        if !answer.starts_with(expected) {
            return Err(format!("{}: {answer:?} instead of {expected:?}", args.join(" ")));
        }
    }
    Ok(())
}

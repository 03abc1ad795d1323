//! Wall clocks that are wrong by an hour, run at double speed or stand still, each node's its own, and jump from one to the other.
//!
//! libfaketime sits between the process and its clocks and reads from a file what to pretend. Monotonic clocks are left alone: the kernel
//! waits by the true one, and a process that computes its deadlines by another would only wait wrongly.

use super::Rounds;
use crate::arena::Arena;
use crate::failure::Failure;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const LASTS: Duration = Duration::from_secs(2);

/// Where distributions put it.
const LIBRARIES: &[&str] = &[
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// What clocks pretend, in libfaketime's words: right, an hour ahead, an hour behind, at double speed, standing still long ago.
const PRETENCES: &[&str] = &["+0", "+3600", "-3600", "+0 x2", "2001-02-03 04:05:06"];

/// The year that a clock shows which stands still.
const LONG_AGO: &str = "2001";

pub async fn wrong(arena: &mut Arena, mut rounds: Rounds) -> Result<(), Failure> {
    let unable = |why: &str| Failure::Unable { what: "make clocks wrong", why: why.into() };
    let named = std::env::var_os("QUORATE_FAKETIME").map(PathBuf::from);
    let library = named.or_else(|| LIBRARIES.iter().map(PathBuf::from).find(|path| path.exists()));
    let library =
        library.ok_or_else(|| unable("libfaketime is not installed, or QUORATE_FAKETIME does not name it"))?;
    let folder = tempfile::TempDir::new()?;
    let environment = |node: usize| -> Vec<(String, String)> {
        let pretence = folder.path().join(format!("n{}", node + 1));
        [
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", pretence.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("DONT_FAKE_MONOTONIC", "1".into()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    };
    for node in 0..arena.cluster.len() {
        pretend(folder.path(), node, LONG_AGO_PRETENCE)?;
        if !shows_long_ago(&environment(node)) {
            return Err(unable("a process that was given another clock shows the true one"));
        }
        arena.cluster.set_environment(node, environment(node));
        arena.cluster.kill(node);
        arena.cluster.start(node)?;
        arena.cluster.ready().await?;
        arena.bit("processes with another clock", u64::from(arena.cluster.uses(node, "libfaketime")));
    }
    while rounds.next() {
        arena.fault();
        for node in 0..arena.cluster.len() {
            let pretence = *arena.rng.pick(PRETENCES).unwrap_or(&LONG_AGO_PRETENCE);
            pretend(folder.path(), node, pretence)?;
            arena.bit("clocks set", 1);
        }
        if rounds.done().is_multiple_of(3) {
            let victim = arena.leader().await?;
            arena.cluster.kill(victim);
            arena.cluster.start(victim)?;
        }
        tokio::time::sleep(LASTS).await;
    }
    for node in 0..arena.cluster.len() {
        pretend(folder.path(), node, "+0")?;
    }
    arena.keep(folder);
    Ok(())
}

const LONG_AGO_PRETENCE: &str = PRETENCES[4];

/// In one step, so that nobody reads half of it.
fn pretend(folder: &Path, node: usize, pretence: &str) -> Result<(), Failure> {
    let draft = folder.join("draft");
    fs::write(&draft, format!("{pretence}\n"))?;
    Ok(fs::rename(draft, folder.join(format!("n{}", node + 1)))?)
}

fn shows_long_ago(environment: &[(String, String)]) -> bool {
    let shown = Command::new("date").arg("+%Y").envs(environment.iter().map(|(k, v)| (k, v))).output();
    shown.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == LONG_AGO)
}

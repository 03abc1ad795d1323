//! Chaos in short: what `cargo xtask chaos` does at length, on the binary of this build.

use crate::support;
use quorate_chaos::{Failure, Length, bank, nemesis};
use std::path::Path;
use std::time::Duration;

/// Of the bank's clients: longer than elsewhere, since all stories run at once, on what may be a debug build.
const PATIENCE: Duration = support::PATIENCE.saturating_mul(3);

async fn harm(name: &str, times: u64) {
    let listed = nemesis::find(name).expect("it is on the list");
    match nemesis::run(Path::new(env!("CARGO_BIN_EXE_quorate")), listed, Some(Length::Times(times)), 1).await {
        Ok(report) => println!("{report}"),
        Err(failure @ Failure::Unable { .. }) => println!("skipped: {failure}"),
        Err(failure) => panic!("{failure}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_loses_power_loses_nothing_else() {
    harm("power", 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_fails_ends_and_says_so_and_the_others_go_on() {
    harm("disk-error", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_nobody_hears_is_replaced() {
    harm("cut-one-way", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bank_conserves_money_while_everything_happens_to_its_nodes_and_shards() {
    let binary = Path::new(env!("CARGO_BIN_EXE_quorate"));
    match Box::pin(bank::run(binary, 10, PATIENCE, 1)).await {
        Ok(report) => println!("{report}"),
        Err(failure) => panic!("{failure}"),
    }
}

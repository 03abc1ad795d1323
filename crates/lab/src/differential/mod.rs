//! One stream of random requests, two servers, answers that must be equal.
//!
//! ```text
//!   seed ──> Stream ──Step──┬──> quorate ──Answer──┐
//!               ^           └──> etcd    ──Answer──┴──> equal? ──> revision, open watches
//!               └──────────────────────────────────────────────────────────┘
//! ```
//!
//! Both servers start empty and get the same steps, one at a time, so their revisions stay equal and every answer is determined. What a
//! watch delivers arrives when it likes; it is compared whenever both are quiet, and always before something that would cut it short: a
//! compaction or a cancellation.

mod answer;
mod generate;
mod pair;
mod report;
mod request;
mod watched;

use crate::failure::Failure;
use crate::programs::{self, Profile};
use crate::server::Server;
use generate::Stream;
use pair::Pair;
use std::path::Path;
use std::time::Instant;

/// What can be chosen.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run so many seeds, from 1 on.
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    /// Steps of each.
    #[arg(long, default_value_t = 1500)]
    ops: u64,
    /// Run this one seed.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
}

/// Runs the seeds; fails when one of them found a difference.
pub async fn run(args: &Args) -> Result<(), Failure> {
    let Some(etcd) = programs::find("QUORATE_ETCD", "etcd", "--version") else {
        println!(
            "SKIPPED: there is no etcd to compare with. Install etcd 3.5 (Debian: etcd-server) or set QUORATE_ETCD to its path."
        );
        return Ok(());
    };
    let quorate = programs::quorate(None, Profile::Release)?;
    let seeds = args.seed.map_or(1..=args.seeds, |seed| seed..=seed);
    let mut different = 0;
    for seed in seeds {
        different += usize::from(!same(&quorate, &etcd, seed, args.ops).await?);
    }
    if different == 0 { Ok(()) } else { Err(Failure::Different(different)) }
}

/// Whether a seed finds no difference; the first one is printed.
async fn same(quorate: &Path, etcd: &Path, seed: u64, ops: u64) -> Result<bool, Failure> {
    let began = Instant::now();
    // One after the other: a port that was free a moment ago would sometimes be given to both.
    let mut etcd = Server::etcd(etcd).await?;
    let quorate = Server::quorate(quorate, 1).await?;
    let mut pair = Pair::new(&quorate, &etcd).await?;
    let found = first_difference(&mut pair, seed, ops).await;
    match found {
        Ok(None) => {}
        // Nobody is to crash as etcd does. What it was asked last is no difference, but what follows cannot be compared.
        _ if etcd.has_ended().await => {
            println!("seed {seed}: {} in {:.1} s; then etcd crashed", pair.summary(), began.elapsed().as_secs_f64());
            return Ok(true);
        }
        Ok(Some(page)) => {
            println!("{page}");
            return Ok(false);
        }
        Err(failure) => return Err(failure),
    }
    println!("seed {seed}: {} in {:.1} s", pair.summary(), began.elapsed().as_secs_f64());
    Ok(true)
}

/// Has the pair do what a seed draws; returns the page about the first difference.
async fn first_difference(pair: &mut Pair, seed: u64, ops: u64) -> Result<Option<String>, Failure> {
    let mut stream = Stream::new(seed);
    for op in 0..ops {
        let step = stream.next();
        if let Some(difference) = pair.step(&step).await? {
            return Ok(Some(report::page(&step, &difference, seed, op)));
        }
        stream.learn(pair.revision(), pair.watches());
    }
    let difference = pair.finish().await?;
    Ok(difference.map(|difference| report::page("the end of the run", &difference, seed, ops)))
}

//! Looks at Quorate from outside, as its users do: real processes, real sockets, and beside them what Quorate is measured against.
//!
//! `cargo xtask differential` sends one stream of random requests to Quorate and to etcd and compares the answers; `cargo xtask clients`
//! lets clients that others wrote work against clusters; `cargo xtask transactions` measures what transactions over shards cost,
//! `cargo xtask idle` what shards cost that nobody uses, and `cargo xtask adding` what writers notice of a node that is added. None knows anything of
//! Quorate but its port and its command line.

mod adding;
mod clients;
mod differential;
mod failure;
mod idle;
mod native;
mod programs;
mod server;
mod times;
mod transactions;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Experiments on running servers.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Measure writes while a node is added and gets its share of the shards.
    Adding(adding::Args),
    /// Send the same random requests to Quorate and to etcd, and compare the answers.
    Differential(differential::Args),
    /// Let clients that others wrote work against clusters of three.
    Clients,
    /// Measure what many shards cost that nobody asks for anything.
    Idle(idle::Args),
    /// Measure transactions over one shard and over two, and a split under load.
    Transactions(transactions::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Adding(args) => adding::run(&args).await,
        Verb::Differential(args) => differential::run(&args).await,
        Verb::Clients => clients::run().await,
        Verb::Idle(args) => idle::run(&args).await,
        Verb::Transactions(args) => transactions::run(&args).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

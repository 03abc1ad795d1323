//! Looks at Quorate from outside, as its users do: real processes, real sockets, and beside them what Quorate is measured against.
//!
//! `cargo xtask differential` sends one stream of random requests to Quorate and to etcd and compares the answers. It knows nothing of
//! Quorate but its port and its command line.

mod differential;
mod failure;
mod programs;
mod server;

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
    /// Send the same random requests to Quorate and to etcd, and compare the answers.
    Differential(differential::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Differential(args) => differential::run(&args).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

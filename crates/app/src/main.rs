//! The `quorate` binary: the composition root, the only crate that knows all the others.

mod bench;
mod cli;
mod diagram;
mod doctor;
mod endpoint;
mod explain;
mod failure;
mod members;
mod mutants;
mod native;
mod node;
mod scale;
mod scenario;
mod simulate;
mod start;
mod status;
mod up;

use clap::Parser;
use cli::{Cli, Verb};
use failure::Failure;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_new(&cli.log).unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(cli.verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("quorate: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

fn run(verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Up(args) => up::run(&args),
        Verb::Start(args) => start::run(&args),
        Verb::Status(args) => block_on(status::run(args)),
        Verb::Doctor(args) => block_on(doctor::run(args)),
        Verb::Explain(args) => block_on(explain::run(args)),
        Verb::Node(args) => block_on(members::run(args)),
        Verb::Kv(args) => block_on(native::keys::run(args)),
        Verb::Keyspace(args) => block_on(native::keyspaces::run(args)),
        Verb::Log(args) => block_on(native::logs::run(args)),
        Verb::Bench(args) => block_on(bench::run(args)),
        Verb::Sim(args) => simulate::run(&args),
        Verb::Diagram(args) => diagram::run(&args),
    }
}

/// Runs a client verb.
fn block_on(future: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(future)
}

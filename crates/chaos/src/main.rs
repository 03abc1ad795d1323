//! `cargo xtask chaos`: one nemesis, or all of them, on release processes.

use clap::Parser;
use quorate_chaos::nemesis::{self, ALL, Listed};
use quorate_chaos::{Failure, Length, bank};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use tokio::signal::unix::{SignalKind, signal};

/// Harm to real processes, and a look at whether anything was lost.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask chaos")]
struct Args {
    /// Which nemesis; `list` names them, `all` runs them one after the other.
    name: String,
    /// For so long.
    #[arg(long)]
    seconds: Option<u64>,
    /// So often.
    #[arg(long, conflicts_with = "seconds")]
    times: Option<u64>,
    /// What the run is drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The `quorate` to run; otherwise this workspace's, built for release.
    #[arg(long)]
    binary: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let (Ok(mut terminate), ctrl_c) = (signal(SignalKind::terminate()), tokio::signal::ctrl_c()) else {
        eprintln!("signals cannot be received");
        return ExitCode::FAILURE;
    };
    // Whoever is told to stop drops what it holds: processes end, disks are unmounted, networks go.
    let outcome = tokio::select! {
        outcome = run(&args) => outcome,
        _ = terminate.recv() => Err(Failure::Stuck("told to stop".into())),
        _ = ctrl_c => Err(Failure::Stuck("told to stop".into())),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<(), Failure> {
    if args.name == "list" {
        for Listed { name, about, .. } in ALL {
            println!("{name:16} {about}");
        }
        println!("{:16} {}", bank::NAME, bank::ABOUT);
        return Ok(());
    }
    let chosen: Vec<&Listed> = match args.name.as_str() {
        "all" => ALL.iter().collect(),
        name => nemesis::find(name).into_iter().collect(),
    };
    let with_bank = [bank::NAME, "all"].contains(&args.name.as_str());
    if args.name == bank::NAME && args.times.is_some() {
        return Err(Failure::Stuck("the bank goes on for a time: --seconds N".into()));
    }
    if chosen.is_empty() && !with_bank {
        return Err(Failure::Stuck(format!("there is no nemesis called {:?}; `list` names them", args.name)));
    }
    let binary = match &args.binary {
        Some(binary) => binary.clone(),
        None => build()?,
    };
    let length = args.seconds.map(Length::Seconds).or(args.times.map(Length::Times));
    let mut failed = Vec::new();
    for listed in &chosen {
        match nemesis::run(&binary, listed, length, args.seed).await {
            Ok(report) => println!("{report}\n"),
            Err(failure @ Failure::Unable { .. }) => println!("{}: SKIPPED: {failure}\n", listed.name),
            Err(failure) => {
                println!("{} (seed {}): FAILED: {failure}\n", listed.name, args.seed);
                failed.push(listed.name);
            }
        }
    }
    if with_bank {
        let seconds = args.seconds.unwrap_or(bank::SECONDS);
        match Box::pin(bank::run(&binary, seconds, bank::PATIENCE, args.seed)).await {
            Ok(report) => println!("{report}\n"),
            Err(failure) => {
                println!("{} (seed {}): FAILED: {failure}\n", bank::NAME, args.seed);
                failed.push(bank::NAME);
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::Stuck(format!("failed: {}", failed.join(", ")))) }
}

/// Builds the release binary of this workspace, unless it is built already. This program lies in <target>/debug or <target>/release.
fn build() -> Result<PathBuf, Failure> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let built = Command::new(cargo)
        .current_dir(root)
        .args(["build", "--release", "--locked", "--quiet", "--package", "quorate", "--bin", "quorate"])
        .status()?;
    if !built.success() {
        return Err(Failure::Stuck("cargo could not build quorate; its reason is above".into()));
    }
    let me = std::env::current_exe()?;
    let target = me.parent().and_then(Path::parent).unwrap_or(Path::new("target"));
    Ok(target.join("release/quorate"))
}

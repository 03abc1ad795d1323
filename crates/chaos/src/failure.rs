//! How an experiment fails: what happened, in words for whoever started it.

use quorate_sim::Violation;
use std::path::PathBuf;
use thiserror::Error;

/// Why an experiment did not end well.
#[derive(Debug, Error)]
pub enum Failure {
    /// A rule was broken: a bug of Quorate's.
    #[error("VIOLATION after seed {seed}: {violation}")]
    Broken {
        /// What drew the run.
        seed: u64,
        /// Which rule.
        violation: Violation,
    },
    /// Something that must hold does not.
    #[error("NOT AS PROMISED: {0}")]
    NotAsPromised(String),
    /// The fault did not happen: the run proves nothing.
    #[error("the fault did not bite, so this run proves nothing: {0}")]
    NoBite(String),
    /// This machine cannot do it.
    #[error("this machine does not let the experiment {what}: {why}")]
    Unable {
        /// What it would have to do.
        what: &'static str,
        /// Why it cannot.
        why: String,
    },
    /// A program cannot be started.
    #[error("{} cannot be started: {source}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Nodes did not get ready, or clients could not end.
    #[error("{0}")]
    Stuck(String),
    /// The operating system refused.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

//! How an experiment fails: what happened, in words for whoever started it.

use std::path::PathBuf;
use thiserror::Error;

/// Why an experiment did not end well.
#[derive(Debug, Error)]
pub enum Failure {
    /// Something that was to be built is not.
    #[error("cargo could not build {what}; its reason is above")]
    Build {
        /// The package.
        what: &'static str,
    },
    /// A program cannot be started.
    #[error("{} cannot be started: {source}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A server ended or was not ready in time.
    #[error("{name} did not become ready:\n{said}")]
    NotReady {
        /// The server.
        name: &'static str,
        /// Its output.
        said: String,
    },
    /// A server left a request without an answer.
    #[error("{name} did not answer within {seconds} s: {request}")]
    Silent {
        /// The server.
        name: &'static str,
        /// How long it had.
        seconds: u64,
        /// What it was asked.
        request: String,
    },
    /// A watch stream ended although nobody had ended it.
    #[error("{name} ended a watch stream: {why}")]
    StreamEnded {
        /// The server.
        name: &'static str,
        /// Its reason.
        why: String,
    },
    /// Two servers answered differently; the difference was printed.
    #[error("{0} of the seeds found a difference")]
    Different(usize),
    /// Clients were not content; what they said was printed.
    #[error("not content: {}", .0.join(", "))]
    NotContent(Vec<String>),
    /// The native API did not do what it was asked for.
    #[error("over HTTP: {0}")]
    Http(String),
    /// The operating system refused.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

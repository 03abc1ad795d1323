//! How a verb fails: what happened, and what to do next. The exit codes are sysexits'.

use quorate_runtime::{JoinError, StartError};
use thiserror::Error;

/// Why a verb ended without doing what it was asked to.
#[derive(Debug, Error)]
pub enum Failure {
    /// The flags or the configuration file contradict themselves.
    #[error("{0}")]
    Usage(String),
    /// The node could not start.
    #[error("{0}")]
    Start(#[from] StartError),
    /// The node has no place in a cluster.
    #[error("{0}")]
    Join(#[from] JoinError),
    /// An address is taken.
    #[error("cannot listen on {address}: {source}; stop what uses it, or choose another address")]
    Listen {
        /// The address.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The operating system refused.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A server could not be reached, or refused.
    #[error("{0}")]
    Server(String),
    /// What was checked is not so.
    #[error("{0}")]
    Violation(String),
}

impl Failure {
    /// The process' exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 64,
            Self::Server(_) => 69,
            Self::Violation(_) => 1,
            // What the members said no to, a running node would have ended with.
            Self::Join(JoinError::Refused { .. } | JoinError::Removed { .. }) => 70,
            Self::Join(JoinError::MembersUnknown(_)) => 64,
            Self::Join(_) | Self::Start(_) | Self::Listen { .. } | Self::Io(_) => 74,
        }
    }
}

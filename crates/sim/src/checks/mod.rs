//! The checks, one file per promise. Each takes what it is shown and objects with the rule that was broken.

pub(crate) mod dial;
pub(crate) mod leases;
pub(crate) mod logs;
pub(crate) mod members;
pub(crate) mod order;
pub(crate) mod raft;
pub(crate) mod recall;
pub(crate) mod serial;
pub(crate) mod watch;

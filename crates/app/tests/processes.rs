//! Real processes over real sockets and files: what a user does, and what happens to machines.

mod stories;
mod support;

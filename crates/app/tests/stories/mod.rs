//! One file per story.

mod bad_requests;
mod bank;
mod chaos;
mod clients;
mod command_line;
mod connections;
mod diagrams;
mod directories;
mod full_disk;
mod growing;
mod handing_over;
mod hashes;
mod keys;
mod killing;
mod leases;
mod lost_rows;
mod metrics;
mod peers;
mod releases;
mod rot;
mod slow_watcher;
mod splitting;
mod stopping;
mod traces;
mod watching;
mod watching_natively;

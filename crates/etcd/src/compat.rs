//! What of etcd's API is there: the table from which docs/compat/etcd.md is generated.

/// How far a call is supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As etcd does it.
    Full,
    /// With a difference that the note names.
    Partly,
    /// Answers UNIMPLEMENTED.
    Absent,
}

/// Every call: service, method, state, note.
pub const CALLS: &[(&str, &str, State, &str)] = &[
    ("KV", "Range", State::Full, "keys up to 32,000 bytes"),
    ("KV", "Put", State::Full, "requests up to 8 MiB (etcd: 1.5 MiB by default)"),
    ("KV", "DeleteRange", State::Full, ""),
    ("KV", "Txn", State::Full, "nested up to 32 deep (etcd: 127), 65,536 operations and compares in all"),
    ("KV", "Compact", State::Full, "physical waits until this node has collected the history"),
    ("Watch", "Watch", State::Full, ""),
    ("Lease", "LeaseGrant", State::Full, ""),
    ("Lease", "LeaseRevoke", State::Full, ""),
    ("Lease", "LeaseKeepAlive", State::Full, "answered after leadership was confirmed"),
    ("Lease", "LeaseTimeToLive", State::Full, ""),
    ("Lease", "LeaseLeases", State::Full, ""),
    ("Cluster", "MemberList", State::Full, ""),
    ("Cluster", "MemberAdd", State::Absent, ""),
    ("Cluster", "MemberRemove", State::Absent, ""),
    ("Cluster", "MemberUpdate", State::Absent, ""),
    ("Cluster", "MemberPromote", State::Absent, ""),
    ("Maintenance", "Alarm", State::Partly, "lists; alarms follow the disk and cannot be set or cleared by hand"),
    ("Maintenance", "Status", State::Full, ""),
    ("Maintenance", "Defragment", State::Partly, "succeeds and does nothing: the store gives space back by itself"),
    ("Maintenance", "Hash", State::Partly, "comparable between Quorate's members, not with etcd's"),
    ("Maintenance", "HashKV", State::Partly, "comparable between Quorate's members, not with etcd's"),
    ("Maintenance", "Snapshot", State::Absent, ""),
    ("Maintenance", "MoveLeader", State::Absent, ""),
    ("Maintenance", "Downgrade", State::Absent, ""),
    ("Auth", "AuthStatus", State::Partly, "always says that authentication is off"),
    ("Auth", "Authenticate", State::Partly, "answers that authentication is not enabled"),
    ("Auth", "all others", State::Absent, ""),
    ("Lock, Election", "all", State::Absent, "clients' own recipes over KV and Lease work"),
];

/// The page.
#[must_use]
pub fn page() -> String {
    let mut page = String::from(
        "# etcd's v3 API\n\nGenerated from `crates/etcd/src/compat.rs`; a test compares the two.\n\n\
         | service | call | state | note |\n|---|---|---|---|\n",
    );
    for (service, method, state, note) in CALLS {
        let state = match state {
            State::Full => "as etcd",
            State::Partly => "partly",
            State::Absent => "not yet",
        };
        page.push_str(&format!("| {service} | {method} | {state} | {note} |\n"));
    }
    page
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_is_what_the_table_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/compat/etcd.md");
        if std::env::var_os("QUORATE_REGENERATE").is_some() {
            std::fs::write(path, super::page()).expect("the page is writable");
        }
        let page = std::fs::read_to_string(path).expect("the page exists");
        assert_eq!(page, super::page(), "run the test once with QUORATE_REGENERATE=1 and read the difference");
    }
}

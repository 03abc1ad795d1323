//! What of etcd's API is there: the table from which docs/compat/etcd.md is generated.

/// How far a call is supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As etcd does it.
    Full,
    /// With a difference that the note names.
    Partly,
    /// Answers UNIMPLEMENTED, by name.
    Absent,
}

/// Every call of etcd's: service, method, state, note.
pub const CALLS: &[(&str, &str, State, &str)] = &[
    ("etcdserverpb.KV", "Range", State::Full, "keys up to 32,000 bytes"),
    ("etcdserverpb.KV", "Put", State::Full, "requests up to 8 MiB (etcd: 1.5 MiB by default)"),
    ("etcdserverpb.KV", "DeleteRange", State::Full, ""),
    ("etcdserverpb.KV", "Txn", State::Full, "nested up to 32 deep (etcd: 127), 65,536 operations and compares in all"),
    ("etcdserverpb.KV", "Compact", State::Full, "physical waits until this node has collected the history"),
    ("etcdserverpb.Watch", "Watch", State::Full, ""),
    ("etcdserverpb.Lease", "LeaseGrant", State::Full, ""),
    ("etcdserverpb.Lease", "LeaseRevoke", State::Full, ""),
    ("etcdserverpb.Lease", "LeaseKeepAlive", State::Full, "answered after leadership was confirmed"),
    ("etcdserverpb.Lease", "LeaseTimeToLive", State::Full, ""),
    ("etcdserverpb.Lease", "LeaseLeases", State::Full, ""),
    ("etcdserverpb.Cluster", "MemberList", State::Full, ""),
    (
        "etcdserverpb.Cluster",
        "MemberAdd",
        State::Full,
        "the node then starts with --join; it votes when it has caught up, and is listed as a learner until then",
    ),
    ("etcdserverpb.Cluster", "MemberRemove", State::Full, "answered when no group has the member any more"),
    ("etcdserverpb.Cluster", "MemberUpdate", State::Full, ""),
    ("etcdserverpb.Cluster", "MemberPromote", State::Full, ""),
    (
        "etcdserverpb.Maintenance",
        "Alarm",
        State::Partly,
        "lists; alarms follow the disk and cannot be set or cleared by hand",
    ),
    ("etcdserverpb.Maintenance", "Status", State::Full, ""),
    (
        "etcdserverpb.Maintenance",
        "Defragment",
        State::Partly,
        "succeeds and does nothing: the store gives space back by itself",
    ),
    ("etcdserverpb.Maintenance", "Hash", State::Partly, "comparable between Quorate's members, not with etcd's"),
    ("etcdserverpb.Maintenance", "HashKV", State::Partly, "comparable between Quorate's members, not with etcd's"),
    ("etcdserverpb.Maintenance", "Snapshot", State::Absent, ""),
    ("etcdserverpb.Maintenance", "MoveLeader", State::Full, ""),
    ("etcdserverpb.Maintenance", "Downgrade", State::Absent, ""),
    ("etcdserverpb.Auth", "AuthEnable", State::Absent, ""),
    ("etcdserverpb.Auth", "AuthDisable", State::Absent, ""),
    ("etcdserverpb.Auth", "AuthStatus", State::Partly, "always says that authentication is off"),
    ("etcdserverpb.Auth", "Authenticate", State::Partly, "answers that authentication is not enabled"),
    ("etcdserverpb.Auth", "UserAdd", State::Absent, ""),
    ("etcdserverpb.Auth", "UserGet", State::Absent, ""),
    ("etcdserverpb.Auth", "UserList", State::Absent, ""),
    ("etcdserverpb.Auth", "UserDelete", State::Absent, ""),
    ("etcdserverpb.Auth", "UserChangePassword", State::Absent, ""),
    ("etcdserverpb.Auth", "UserGrantRole", State::Absent, ""),
    ("etcdserverpb.Auth", "UserRevokeRole", State::Absent, ""),
    ("etcdserverpb.Auth", "RoleAdd", State::Absent, ""),
    ("etcdserverpb.Auth", "RoleGet", State::Absent, ""),
    ("etcdserverpb.Auth", "RoleList", State::Absent, ""),
    ("etcdserverpb.Auth", "RoleDelete", State::Absent, ""),
    ("etcdserverpb.Auth", "RoleGrantPermission", State::Absent, ""),
    ("etcdserverpb.Auth", "RoleRevokePermission", State::Absent, ""),
    ("v3lockpb.Lock", "Lock", State::Absent, "clients' own recipes over KV and Lease work"),
    ("v3lockpb.Lock", "Unlock", State::Absent, "clients' own recipes over KV and Lease work"),
    ("v3electionpb.Election", "Campaign", State::Absent, "clients' own recipes over KV and Lease work"),
    ("v3electionpb.Election", "Proclaim", State::Absent, "clients' own recipes over KV and Lease work"),
    ("v3electionpb.Election", "Leader", State::Absent, "clients' own recipes over KV and Lease work"),
    ("v3electionpb.Election", "Observe", State::Absent, "clients' own recipes over KV and Lease work"),
    ("v3electionpb.Election", "Resign", State::Absent, "clients' own recipes over KV and Lease work"),
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
        let service = service.rsplit_once('.').map_or(*service, |(_, service)| service);
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

//! Flaws that the simulator plants in a state machine, to see whether its checks notice. A server's machine has none.

/// What a machine does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The commands of some entries are not applied.
    SkipEntry,
    /// Compares are taken to hold.
    IgnoreCompares,
    /// Each write of a command has a revision of its own.
    RevisionPerWrite,
    /// A removed key stays attached to its lease.
    KeepAttached,
    /// A command that comes into the log after its proposer gave it up is applied.
    ForgetFloor,
    /// One revision more than was compacted is collected.
    CollectTooMuch,
    /// A snapshot lacks the session table.
    SessionsLeftBehind,
    /// A snapshot lacks the leases.
    LeasesLeftBehind,
    /// A snapshot lacks former values.
    HistoryLeftBehind,
}

/// Of the entries, one in so many is skipped.
pub(crate) const SKIPPED: u64 = 40;

//! The kinds of things that fail while a run lasts. Each seed draws which of them come, and how often.

/// See [`crate::plan::Plan::faults`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// A node's process ends; what was not synced may be lost.
    Crash,
    /// All of them do.
    PowerCut,
    /// A node's links lose everything, both ways or one way.
    Cut,
    /// A node's links hold everything, both ways or one way, and let it go in the end.
    Clog,
    /// A node stands still; what arrives waits.
    Pause,
    /// A node stands still again and again, for moments.
    Stutter,
    /// A node's wall clock is set.
    Jump,
    /// A node's monotonic clock stands still; the node goes on.
    Freeze,
    /// A node's monotonic clock runs at double or half speed, and its ticks with it.
    Speed,
    /// A node's wall clock does.
    WallSpeed,
    /// A node's syncs and flushes take many times as long.
    SlowDisk,
    /// A node's disk is full, and has room again later.
    FullDisk,
    /// A node's disk fails an operation: its process ends, since nobody knows what the disk holds.
    DiskError,
    /// An image of a node's disk is kept, and is its disk at a later start.
    OldImage,
    /// A node's disk says for a while that it has synced, and has not.
    LyingDisk,
    /// A write to a node's log goes to another place.
    Misdirect,
    /// A node is told to stop, and starts again later.
    PlannedStop,
    /// Whoever leads is asked to let another lead.
    MoveLeader,
    /// This node's process ends, because it is at a delicate moment (as "buggify" in Zhou et al., FoundationDB, SIGMOD 2021).
    Struck(usize),
}

impl Fault {
    /// Those that come by the clock.
    pub const ALL: [Self; 18] = [
        Self::Crash,
        Self::Cut,
        Self::Pause,
        Self::Jump,
        Self::PowerCut,
        Self::Clog,
        Self::Stutter,
        Self::Freeze,
        Self::SlowDisk,
        Self::FullDisk,
        Self::DiskError,
        Self::Speed,
        Self::WallSpeed,
        Self::OldImage,
        Self::LyingDisk,
        Self::Misdirect,
        Self::PlannedStop,
        Self::MoveLeader,
    ];

    /// Whether it needs a second disk, and a model of a store, which can be copied.
    pub const fn needs_twin(self) -> bool {
        matches!(self, Self::OldImage | Self::LyingDisk | Self::Misdirect)
    }

    /// Whether it makes a clock wrong.
    pub const fn is_of_clocks(self) -> bool {
        matches!(self, Self::Jump | Self::Freeze | Self::Speed | Self::WallSpeed)
    }

    /// What is counted when it happens.
    pub const fn mark(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::PowerCut => "power cut",
            Self::Cut => "cut",
            Self::Clog => "clog",
            Self::Pause => "pause",
            Self::Stutter => "stutter",
            Self::Jump => "wall clock jump",
            Self::Freeze => "frozen clock",
            Self::Speed => "clock at a wrong speed",
            Self::WallSpeed => "wall clock at a wrong speed",
            Self::SlowDisk => "slow disk",
            Self::FullDisk => "full disk",
            Self::DiskError => "disk error",
            Self::OldImage => "old disk image",
            Self::LyingDisk => "lying sync",
            Self::Misdirect => "misdirected write",
            Self::PlannedStop => "planned stop",
            Self::MoveLeader => "leader asked to hand over",
            Self::Struck(_) => "crash at a delicate moment",
        }
    }

    /// What is said of it in a picture.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Crash => "a crash",
            Self::PowerCut => "a power cut of all nodes",
            Self::Cut => "a cut",
            Self::Clog => "a clogged link",
            Self::Pause => "a pause",
            Self::Stutter => "a stutter",
            Self::Jump => "a jump of a wall clock",
            Self::Freeze => "a frozen clock",
            Self::Speed => "a clock at a wrong speed",
            Self::WallSpeed => "a wall clock at a wrong speed",
            Self::SlowDisk => "a slow disk",
            Self::FullDisk => "a full disk",
            Self::DiskError => "a disk error",
            Self::OldImage => "an old image of a disk",
            Self::LyingDisk => "a disk that lies about its syncs",
            Self::Misdirect => "a misdirected write",
            Self::PlannedStop => "a planned stop",
            Self::MoveLeader => "a leader that is to hand over",
            Self::Struck(_) => "a crash at a delicate moment",
        }
    }
}

//! What a run played, and what a shorter run plays of it.

use crate::fault::Fault;
use crate::numbers::Numbers;
use quorate_env::Rng;

/// What a run did that a shorter run may leave out: faults in order, each with the randomness that it began with, and operations.
#[derive(Default)]
pub(crate) struct Played {
    pub(super) faults: Vec<(u64, Fault, Rng)>,
    pub asked: Numbers,
}

impl Played {
    /// The numbers of the faults.
    pub fn faults(&self) -> Numbers {
        (1..=self.faults.len() as u64).collect()
    }
}

/// What happens in a run instead of what its seed draws. The rest is drawn as ever.
pub(crate) struct Script<'a> {
    pub played: &'a Played,
    /// Which of the faults come, each at its time.
    pub faults: &'a Numbers,
    /// Whether members come and go as the seed draws it.
    pub churns: bool,
    /// Which operations are asked, if not all.
    pub operations: Option<&'a Numbers>,
    /// When to look no further.
    pub until_us: u64,
}

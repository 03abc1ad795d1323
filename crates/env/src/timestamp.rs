//! Hybrid timestamps: wall clocks that never go back and follow causes (Kulkarni et al., "Logical Physical Clocks", OPODIS 2014).
//!
//! Each entry of a shard's log has one, larger than that of the entry before it, whatever the clocks of the leaders say. What is caused has a larger one than
//! its cause, as far as the system knows of the cause. No promise of consistency among *writes* hangs on them; they name moments that can be read.

use crate::WallMs;
use std::fmt;
use std::str::FromStr;

/// Milliseconds since 1970 in the upper 48 bits, and a count of what happened within one of them in the lower 16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

const COUNT_BITS: u32 = 16;

impl Timestamp {
    /// Before everything: also what has no timestamp is taken to have happened then.
    pub const ZERO: Self = Self(0);

    /// The first of a millisecond.
    #[must_use]
    pub const fn of(wall: WallMs) -> Self {
        Self(if wall.0 >> (64 - COUNT_BITS) == 0 { wall.0 << COUNT_BITS } else { u64::MAX })
    }

    /// Its millisecond.
    #[must_use]
    pub const fn wall(self) -> WallMs {
        WallMs(self.0 >> COUNT_BITS)
    }

    /// The next one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The one before.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// `1795310400123.7`: milliseconds, and the count within.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.wall().0, self.0 & ((1 << COUNT_BITS) - 1))
    }
}

/// What was said is no timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoTimestamp;

/// Milliseconds, and behind a dot, if there is one, the count.
impl FromStr for Timestamp {
    type Err = NoTimestamp;

    fn from_str(text: &str) -> Result<Self, NoTimestamp> {
        let (ms, count) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(ms) || !digits(count) {
            return Err(NoTimestamp);
        }
        let ms: u64 = ms.parse().map_err(|_| NoTimestamp)?;
        let count: u16 = count.parse().map_err(|_| NoTimestamp)?;
        if ms >> (64 - COUNT_BITS) != 0 { Err(NoTimestamp) } else { Ok(Self(ms << COUNT_BITS | u64::from(count))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_nothing_else_is() {
        for stamp in
            [Timestamp::ZERO, Timestamp(1), Timestamp::of(WallMs(1_795_310_400_123)).next(), Timestamp(u64::MAX)]
        {
            assert_eq!(stamp.to_string().parse(), Ok(stamp));
        }
        assert_eq!("12".parse(), Ok(Timestamp::of(WallMs(12))));
        for no in ["", ".", "1.", ".1", "-1", "+1", "1.65536", "281474976710656", "1.2.3", "x"] {
            assert_eq!(no.parse::<Timestamp>(), Err(NoTimestamp), "{no}");
        }
    }

    #[test]
    fn a_millisecond_that_is_full_runs_over_into_the_next() {
        let last = Timestamp(Timestamp::of(WallMs(8)).0 - 1);
        assert_eq!((last.wall(), last.next()), (WallMs(7), Timestamp::of(WallMs(8))));
        assert_eq!(last.next().previous(), last);
        assert_eq!(Timestamp::of(WallMs(u64::MAX)), Timestamp(u64::MAX));
    }
}

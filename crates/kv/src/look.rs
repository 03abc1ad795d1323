//! Reads that are no transactions, and how fresh they are to be: the dial between consistency, latency and availability (docs/design/consistency.md).

use crate::RangeResult;
use quorate_env::{DecodeError, Reader, Timestamp, Writer};
use std::time::Duration;

/// How fresh a read must be. From the one that gives up most of latency and availability to the one that gives up most of consistency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Freshness {
    /// It sees all that was acknowledged before it began; several keys are seen at one moment. Needs a majority of each shard.
    Strict,
    /// It sees what had happened at a moment, in all shards alike, and nothing that happened later. Needs a majority only where the moment is not closed yet.
    At(Timestamp),
    /// It sees all that was acknowledged longer ago than this; each key for itself. Needs a majority only now and then.
    Within(Duration),
    /// It sees all that had happened at a moment, and maybe more; each key for itself. With the token of what a client has seen before, the client
    /// finds that again. Needs a majority only where the moment is not closed yet.
    After(Timestamp),
    /// It sees what the nearest replica has, which was true once; each shard for itself. Needs one replica.
    Any,
}

/// What came of a read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// One answer for each look.
    pub looks: Vec<RangeResult>,
    /// Nothing of what was seen happened later: the token for [`Freshness::After`]. [`Timestamp::ZERO`] if the cluster keeps no timestamps yet.
    pub token: Timestamp,
}

const STRICT: u8 = 0;
const AT: u8 = 1;
const WITHIN: u8 = 2;
const AFTER: u8 = 3;
const ANY: u8 = 4;

impl Freshness {
    /// Appends the encoding.
    pub fn encode(self, w: &mut Writer) {
        match self {
            Self::Strict => w.u8(STRICT),
            Self::At(at) => {
                w.u8(AT);
                w.u64(at.0);
            }
            Self::Within(age) => {
                w.u8(WITHIN);
                w.varint(u64::try_from(age.as_micros()).unwrap_or(u64::MAX));
            }
            Self::After(at) => {
                w.u8(AFTER);
                w.u64(at.0);
            }
            Self::Any => w.u8(ANY),
        }
    }

    /// Reads one.
    pub fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match r.u8("freshness")? {
            STRICT => Self::Strict,
            AT => Self::At(Timestamp(r.u64("moment")?)),
            WITHIN => Self::Within(Duration::from_micros(r.varint("age")?)),
            AFTER => Self::After(Timestamp(r.u64("moment")?)),
            ANY => Self::Any,
            _ => return Err(r.error("freshness")),
        })
    }

    /// The moment that it names, if it does.
    #[must_use]
    pub fn moment(self) -> Option<Timestamp> {
        match self {
            Self::At(at) | Self::After(at) => Some(at),
            Self::Strict | Self::Within(_) | Self::Any => None,
        }
    }

    /// Whether a lock on what is read must be waited for: under it may be something that was acknowledged, and that must be seen.
    #[must_use]
    pub fn minds_locks(self) -> bool {
        matches!(self, Self::Strict | Self::Within(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_freshness_survives_and_cuts_do_not() {
        let all = [
            Freshness::Strict,
            Freshness::At(Timestamp(7)),
            Freshness::Within(Duration::from_millis(300)),
            Freshness::After(Timestamp(8)),
            Freshness::Any,
        ];
        for freshness in all {
            let mut w = Writer::new();
            freshness.encode(&mut w);
            let bytes = bytes::Bytes::from(w.finish());
            assert_eq!(Freshness::decode(&mut Reader::new(bytes.clone())), Ok(freshness));
            (0..bytes.len()).for_each(|len| assert!(Freshness::decode(&mut Reader::new(bytes.slice(..len))).is_err()));
        }
        assert!(Freshness::decode(&mut Reader::new(bytes::Bytes::from_static(&[5]))).is_err());
    }
}

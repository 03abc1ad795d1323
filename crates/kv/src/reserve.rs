//! Reservations: what an interactive transaction has read to write it, nobody else writes until it commits (docs/design/transactions.md).
//!
//! ```text
//!   Reserve ──> nobody has the key, or who has it is younger: it is reserved, and what is there is told. The younger one has lost it
//!           └─> who has it is older: wait
//!   commit  ──> is all that was reserved still reserved, since the same entry? Then nobody has written it since it was read
//!   Release, Lapse ──> others may have it: the transaction is given up, or its time is up
//! ```
//!
//! Only the younger ever waits for the older one, or who has nothing for anybody, so nobody waits in a circle (wound-wait: Rosenkrantz, Stearns, Lewis, "System level concurrency
//! control for distributed database systems", TODS 1978). A transaction that begins anew keeps its age, so in the end it is the oldest.
//!
//! **A reservation is told from another by the entry that made it.** Who has lost one and got it again does not take the second for the first, under which it has
//! read something else.

use crate::across::TxId;
use crate::{KeyValue, KeyspaceId};
use bytes::Bytes;
use quorate_env::{DecodeError, LogIndex, Reader, Timestamp, Writer};

/// Who reserves. The lesser one is older, and has its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// When it first wanted something. Only compared: whatever it is, nobody sees anything but what is so.
    pub age: Timestamp,
    /// Its name, the same however often it begins anew.
    pub by: TxId,
}

/// A key that somebody takes to be reserved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The key.
    pub key: Bytes,
    /// The entry that reserved it.
    pub since: LogIndex,
}

/// What a part of a transaction rests on: all of this is still reserved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// By whom.
    pub holder: Holder,
    /// The keys.
    pub held: Vec<Hold>,
}

/// The same of a whole transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// By whom.
    pub holder: Holder,
    /// The keys.
    pub held: Vec<(KeyspaceId, Hold)>,
}

/// What is asked of one shard for somebody who reserves keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReserveStep {
    /// Reserve these keys, all or none, and tell what is there.
    Reserve {
        /// How old it is.
        age: Timestamp,
        /// It has never had anything, so nobody waits for it: it lets those be that are younger by a little.
        patient: bool,
        /// The keys. One that it has already stays reserved since when it was.
        keys: Vec<Bytes>,
        /// What it has here, as far as it knows. If that is not so any more, it had better begin anew.
        held: Vec<Hold>,
    },
    /// It is given up: others may have all that it has here.
    Release,
    /// Its time is up for what was reserved up to this entry.
    Lapse {
        /// The entry.
        until: LogIndex,
    },
}

/// What a client wants to reserve, wherever it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The transaction.
    pub by: TxId,
    /// How old it is; none if this is the first that it wants.
    pub age: Option<Timestamp>,
    /// The keys.
    pub keys: Vec<(KeyspaceId, Bytes)>,
    /// What it has, as far as it knows.
    pub held: Vec<(KeyspaceId, Hold)>,
}

/// A key that is reserved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The entry that reserved it.
    pub since: LogIndex,
    /// What is there; none if nothing is.
    pub kv: Option<KeyValue>,
}

/// The answer to a [`ReserveStep::Reserve`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    /// The keys, in the order in which they were asked for.
    pub keys: Vec<Held>,
    /// When.
    pub at: Timestamp,
}

/// The answer to a [`Wish`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Granted {
    /// How old the transaction is: to be named from now on, also when it begins anew.
    pub age: Timestamp,
    /// The keys, in the order in which they were asked for.
    pub keys: Vec<Held>,
    /// When the last of them was reserved.
    pub at: Timestamp,
}

const RESERVE: u8 = 1;
const RELEASE: u8 = 2;
const LAPSE: u8 = 3;

/// By so much, in milliseconds of the clocks, somebody may be younger than who is [patient](ReserveStep::Reserve::patient) and keep what it has. Many times what a closure takes: where
/// many begin at once, each waits for its turn and none is wounded; and whoever has waited for this long goes before all that begin later.
pub const PATIENCE_MS: u64 = 100;

impl Holder {
    /// Whether another one keeps what it has.
    #[must_use]
    pub fn waits_for(self, other: Self, patient: bool) -> bool {
        let soon = self.age.wall().0.saturating_add(PATIENCE_MS);
        self.by != other.by && (self > other || patient && other.age.wall().0 <= soon)
    }
}

impl Hold {
    fn encode(&self, w: &mut Writer) {
        w.bytes(&self.key);
        w.varint(self.since.0);
    }

    fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self { key: r.bytes("reserved key")?, since: LogIndex(r.varint("reserved since")?) })
    }
}

fn encode_held(held: &[Hold], w: &mut Writer) {
    w.varint(held.len() as u64);
    held.iter().for_each(|hold| hold.encode(w));
}

fn decode_held(r: &mut Reader) -> Result<Vec<Hold>, DecodeError> {
    (0..r.count("reserved keys")?).map(|_| Hold::decode(r)).collect()
}

fn held_size(held: &[Hold]) -> usize {
    held.iter().map(|hold| hold.key.len() + 16).sum()
}

impl Claim {
    /// Appends the encoding (docs/design/wire-format.md).
    pub fn encode(&self, w: &mut Writer) {
        w.u64(self.holder.age.0);
        self.holder.by.encode(w);
        encode_held(&self.held, w);
    }

    /// Reads one.
    pub fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
        let holder = Holder { age: Timestamp(r.u64("age")?), by: TxId::decode(r)? };
        Ok(Self { holder, held: decode_held(r)? })
    }

    pub(crate) fn size_estimate(&self) -> usize {
        32 + held_size(&self.held)
    }
}

impl ReserveStep {
    pub(crate) fn encode(&self, w: &mut Writer) {
        match self {
            Self::Reserve { age, patient, keys, held } => {
                w.u8(RESERVE);
                w.u64(age.0);
                w.bool(*patient);
                w.varint(keys.len() as u64);
                keys.iter().for_each(|key| w.bytes(key));
                encode_held(held, w);
            }
            Self::Release => w.u8(RELEASE),
            Self::Lapse { until } => {
                w.u8(LAPSE);
                w.varint(until.0);
            }
        }
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match r.u8("step of a reservation")? {
            RESERVE => {
                let (age, patient) = (Timestamp(r.u64("age")?), r.bool("patient")?);
                let keys = (0..r.count("keys")?).map(|_| r.bytes("key")).collect::<Result<_, _>>()?;
                Self::Reserve { age, patient, keys, held: decode_held(r)? }
            }
            RELEASE => Self::Release,
            LAPSE => Self::Lapse { until: LogIndex(r.varint("lapses until")?) },
            _ => return Err(r.error("step of a reservation")),
        })
    }

    pub(crate) fn size_estimate(&self) -> usize {
        48 + match self {
            Self::Reserve { keys, held, .. } => keys.iter().map(|key| key.len() + 8).sum::<usize>() + held_size(held),
            Self::Release | Self::Lapse { .. } => 0,
        }
    }
}

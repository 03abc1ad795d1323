//! What a log entry holds: a batch of commands with the proposer's clock. Its first byte is the format's version.

use bytes::Bytes;
use quorate_env::{DecodeError, Reader, Timestamp, WallMs, Writer};
use quorate_kv::Envelope;

/// With the proposer's wall clock, as in clusters below level 5.
const UNTIMED: u8 = 1;
/// With a timestamp.
const TIMED: u8 = 2;

/// The commands of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryPayload {
    /// The proposer's wall clock, for history only.
    pub wall: WallMs,
    /// It happens no earlier than this; [`Timestamp::ZERO`] if the cluster keeps no timestamps yet.
    pub at: Timestamp,
    /// In the order in which they are applied.
    pub commands: Vec<Envelope>,
}

/// Encodes a batch of commands as one entry, which may be none: it says that time has passed.
#[must_use]
pub fn encode_entry<'a>(wall: WallMs, at: Timestamp, commands: impl ExactSizeIterator<Item = &'a Envelope>) -> Vec<u8> {
    let mut w = Writer::new();
    w.u8(if at == Timestamp::ZERO { UNTIMED } else { TIMED });
    w.u64(wall.0);
    if at != Timestamp::ZERO {
        w.u64(at.0);
    }
    w.varint(commands.len() as u64);
    for command in commands {
        command.encode(&mut w);
    }
    w.finish()
}

impl EntryPayload {
    /// Reads an entry. Keys and values are slices of `data`.
    pub fn decode(data: Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(data);
        let version = r.u8("entry version")?;
        if !(UNTIMED..=TIMED).contains(&version) {
            return Err(r.error("entry version"));
        }
        let wall = WallMs(r.u64("wall clock")?);
        let at = if version == TIMED { Timestamp(r.u64("timestamp")?) } else { Timestamp::ZERO };
        let mut commands = Vec::new();
        for _ in 0..r.count("commands")? {
            commands.push(Envelope::decode(&mut r)?);
        }
        r.end("entry")?;
        Ok(Self { wall, at, commands })
    }
}

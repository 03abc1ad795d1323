//! What a log entry holds: a batch of commands with the proposer's wall clock. Its first byte is the format's version.

use bytes::Bytes;
use quorate_env::{DecodeError, Reader, WallMs, Writer};
use quorate_kv::Envelope;

const VERSION: u8 = 1;

/// The commands of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryPayload {
    /// The proposer's wall clock, for history only.
    pub wall: WallMs,
    /// In the order in which they are applied.
    pub commands: Vec<Envelope>,
}

/// Encodes a batch of commands as one entry.
#[must_use]
pub fn encode_entry<'a>(wall: WallMs, commands: impl ExactSizeIterator<Item = &'a Envelope>) -> Vec<u8> {
    let mut w = Writer::new();
    w.u8(VERSION);
    w.u64(wall.0);
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
        if r.u8("entry version")? != VERSION {
            return Err(r.error("entry version"));
        }
        let wall = WallMs(r.u64("wall clock")?);
        let mut commands = Vec::new();
        for _ in 0..r.count("commands")? {
            commands.push(Envelope::decode(&mut r)?);
        }
        r.end("entry")?;
        Ok(Self { wall, commands })
    }
}

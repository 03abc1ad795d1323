//! How a node finds its place before it starts: what a node without an identity asks, and what members answer.
//!
//! ```text
//!   identity present ───────────────────────────────────────────────> that
//!   --join ──────────────> Join ──> a member writes a row ──────────> a new id
//!   --initial-cluster ──> Look ──┬─ the name has another disk ──────> Join under that name: a new id
//!                                ├─ a quorum knows nobody so called ─> as the first configuration says
//!                                └─ all answer, nobody has begun ────> as the first configuration says
//! ```
//!
//! A node that lost its disk no longer knows what it promised, so it never comes back as who it was: it gets an id that nobody had
//! (docs/design/membership.md). The questions travel on the peers' port, one to a connection; the bytes are in
//! docs/design/wire-format.md.

mod admission;
mod answering;
mod asking;

pub(crate) use answering::{Gate, answer_fresh};
pub use asking::{JoinError, Place, Wish, come_back, settle};

use crate::disk::beside::{decode_list, encode_list};
use bytes::Bytes;
use quorate_cluster::BootMember;
use quorate_env::checksum::checksum;
use quorate_env::{ClusterId, DecodeError, Incarnation, NodeId, Reader, Writer};

/// The first bytes of a question's frame, where a peer's would be those of its hello.
pub(crate) const MAGIC: u32 = u32::from_le_bytes(*b"QRTJ");
const VERSION: u8 = 1;

/// What a cluster's token becomes before it travels or is stored.
#[must_use]
pub fn token_hash(token: &str) -> u64 {
    checksum(0x746F_6B65_6E31, token.as_bytes())
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// Does a cluster exist in which my name has started?
    Look = 1,
    /// Let me join.
    Join = 2,
}

/// A question, and who asks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub question: Question,
    /// Of a first configuration; 0 if the asker does not know the cluster.
    pub cluster: ClusterId,
    pub token: u64,
    /// Of the asker's new directory.
    pub incarnation: Incarnation,
    pub name: String,
    /// Where peers can reach it.
    pub peer_address: String,
    pub client_urls: Vec<String>,
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The one who answers has no place itself yet; this is its new directory.
    Fresh(Incarnation),
    /// Nobody so called has started here, as far as the one who answers knows: all of them, if `certain`.
    Unknown { certain: bool },
    /// Somebody so called has started, with another disk.
    OtherDisk,
    /// The asker is a member.
    Joined { cluster: ClusterId, node: NodeId, first: Vec<BootMember>, known: Vec<BootMember> },
    /// Not now.
    Later(String),
    /// Never, unless somebody changes something.
    Refused(String),
}

impl Ask {
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u32(MAGIC);
        w.u8(VERSION);
        w.u8(self.question as u8);
        for n in [self.cluster.0, self.token, self.incarnation.0] {
            w.u64(n);
        }
        w.bytes(self.name.as_bytes());
        w.bytes(self.peer_address.as_bytes());
        w.varint(self.client_urls.len() as u64);
        self.client_urls.iter().for_each(|url| w.bytes(url.as_bytes()));
        w.finish()
    }

    pub fn decode(frame: Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(frame);
        begin(&mut r)?;
        let question = match r.u8("question")? {
            1 => Question::Look,
            2 => Question::Join,
            _ => return Err(r.error("question")),
        };
        let (cluster, token, incarnation) =
            (ClusterId(r.u64("cluster")?), r.u64("token")?, Incarnation(r.u64("incarnation")?));
        let (name, peer_address) = (text(&mut r)?, text(&mut r)?);
        let mut client_urls = Vec::new();
        for _ in 0..r.count("client urls")? {
            client_urls.push(text(&mut r)?);
        }
        r.end("question")?;
        Ok(Self { question, cluster, token, incarnation, name, peer_address, client_urls })
    }
}

impl Answer {
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u32(MAGIC);
        w.u8(VERSION);
        match self {
            Self::Fresh(incarnation) => {
                w.u8(0);
                w.u64(incarnation.0);
            }
            Self::Unknown { certain } => {
                w.u8(1);
                w.bool(*certain);
            }
            Self::OtherDisk => w.u8(2),
            Self::Joined { cluster, node, first, known } => {
                w.u8(3);
                w.u64(cluster.0);
                w.u64(node.0);
                encode_list(first, &mut w);
                encode_list(known, &mut w);
            }
            Self::Later(why) => {
                w.u8(4);
                w.bytes(why.as_bytes());
            }
            Self::Refused(why) => {
                w.u8(5);
                w.bytes(why.as_bytes());
            }
        }
        w.finish()
    }

    pub fn decode(frame: Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(frame);
        begin(&mut r)?;
        let answer = match r.u8("answer")? {
            0 => Self::Fresh(Incarnation(r.u64("incarnation")?)),
            1 => Self::Unknown { certain: r.bool("certain")? },
            2 => Self::OtherDisk,
            3 => Self::Joined {
                cluster: ClusterId(r.u64("cluster")?),
                node: NodeId(r.u64("node")?),
                first: decode_list(&mut r)?,
                known: decode_list(&mut r)?,
            },
            4 => Self::Later(text(&mut r)?),
            5 => Self::Refused(text(&mut r)?),
            _ => return Err(r.error("answer")),
        };
        r.end("answer")?;
        Ok(answer)
    }
}

fn begin(r: &mut Reader) -> Result<(), DecodeError> {
    if r.u32("magic")? != MAGIC || r.u8("version")? != VERSION {
        return Err(r.error("version"));
    }
    Ok(())
}

fn text(r: &mut Reader) -> Result<String, DecodeError> {
    Ok(String::from_utf8_lossy(&r.bytes("text")?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_survive_the_wire_and_cuts_do_not() {
        let ask = Ask {
            question: Question::Join,
            cluster: ClusterId(1),
            token: token_hash("quorate"),
            incarnation: Incarnation(7),
            name: "n4".into(),
            peer_address: "127.0.0.1:2380".into(),
            client_urls: vec!["http://127.0.0.1:2379".into()],
        };
        let bytes = Bytes::from(ask.encode());
        assert_eq!(Ask::decode(bytes.clone()), Ok(ask));
        (0..bytes.len()).for_each(|len| assert!(Ask::decode(bytes.slice(..len)).is_err()));
        let list = vec![BootMember { id: NodeId(3), name: "n3".into(), peer_address: "h:1".into() }];
        for answer in [
            Answer::Fresh(Incarnation(4)),
            Answer::Unknown { certain: true },
            Answer::OtherDisk,
            Answer::Joined { cluster: ClusterId(1), node: NodeId(9), first: list.clone(), known: list },
            Answer::Later("soon".into()),
            Answer::Refused("never".into()),
        ] {
            let bytes = Bytes::from(answer.encode());
            assert_eq!(Answer::decode(bytes.clone()), Ok(answer));
            (0..bytes.len()).for_each(|len| assert!(Answer::decode(bytes.slice(..len)).is_err()));
        }
        assert_ne!(token_hash("a"), token_hash("b"));
    }
}

//! Whose data directory this is.
//!
//! The identity is written once, when the directory is made, and read at every start. It is small and nothing works without it, so it
//! is kept in several copies, each in a block of its own with its own checksum: any one of them is enough. It is written last, when
//! the log and the store exist: a directory without it was never finished and holds nothing that anybody was promised.
//!
//! The bytes are drawn in docs/design/store-format.md.

use bytes::Bytes;
use quorate_env::checksum::checksum;
use quorate_env::{ClusterId, Incarnation, NodeId, Reader, Writer};
use thiserror::Error;

/// The version of the data directory that this release writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// The longest node name, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

const MAGIC: u64 = u64::from_le_bytes(*b"QUORNODE");
const COPY_BYTES: usize = 4096;
const COPIES: usize = 3;
const HEAD: usize = 16;

/// What a data directory says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster that the node belongs to.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The node's name, at most [`NAME_BYTES_MAX`] bytes.
    pub name: String,
    /// Drawn when the directory was made: the same node on another disk is another incarnation.
    pub incarnation: Incarnation,
}

/// Why a data directory cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// It is another node's.
    #[error(
        "the data directory belongs to node {} ({}) of {}, not to node {} of {}: choose another --data-dir, or start the node with the \
         --name, --initial-cluster and --initial-cluster-token with which it was made",
        found.name, found.node, found.cluster, wanted.0, wanted.1
    )]
    Foreign {
        /// Whose it is.
        found: Identity,
        /// Who wants it.
        wanted: (NodeId, ClusterId),
    },
    /// It was made by a newer release.
    #[error(
        "the data directory has format version {found}, and this release knows only {FORMAT_VERSION}: use a newer release"
    )]
    NewerFormat {
        /// The version found.
        found: u32,
    },
    /// No copy can be read. The replicas that live here must come back as new learners, in a new directory.
    #[error(
        "every copy of the data directory's identity is damaged: put IDENTITY back from a copy of this very directory, or replace this node \
         by a new member with an empty --data-dir; the other nodes have its data"
    )]
    Damaged,
}

/// An identity as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The identity.
    pub identity: Identity,
    /// Copies that are damaged or missing, and should be written again.
    pub bad_copies: usize,
}

impl Identity {
    /// All copies, one after the other.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.name.len() <= NAME_BYTES_MAX, "a node's name is bounded where it is configured");
        let mut file = Vec::with_capacity(COPIES * COPY_BYTES);
        for copy in 0..COPIES {
            let mut body = Writer::new();
            body.u64(self.cluster.0);
            body.u64(self.node.0);
            body.u64(self.incarnation.0);
            body.bytes(self.name.as_bytes());
            let mut w = Writer::appending(file);
            let start = w.len();
            w.u64(MAGIC);
            w.u32(FORMAT_VERSION);
            w.u32(body.len() as u32);
            w.raw(body.as_slice());
            w.u64(checksum(copy as u64, &w.as_slice()[start..]));
            file = w.finish();
            file.resize((copy + 1) * COPY_BYTES, 0);
        }
        file
    }

    /// Reads the first copy that is whole.
    pub fn decode(file: &Bytes) -> Result<Decoded, IdentityError> {
        let mut decoded = None;
        let mut bad_copies = 0;
        for copy in 0..COPIES {
            let at = (copy * COPY_BYTES).min(file.len());
            match decode_copy(&file.slice(at..file.len().min(at + COPY_BYTES)), copy) {
                Some(Ok(identity)) => decoded = decoded.or(Some(identity)),
                Some(Err(newer)) => return Err(newer),
                None => bad_copies += 1,
            }
        }
        decoded.map(|identity| Decoded { identity, bad_copies }).ok_or(IdentityError::Damaged)
    }

    /// Fails unless the directory is that of `node` in `cluster`.
    pub fn check(&self, cluster: ClusterId, node: NodeId) -> Result<(), IdentityError> {
        if (self.cluster, self.node) == (cluster, node) {
            Ok(())
        } else {
            Err(IdentityError::Foreign { found: self.clone(), wanted: (node, cluster) })
        }
    }
}

/// `None` if the copy is damaged. The checksum is verified before the version is believed, and it lies where every version has it.
fn decode_copy(block: &Bytes, copy: usize) -> Option<Result<Identity, IdentityError>> {
    let mut r = Reader::new(block.clone());
    let magic = r.u64("magic").ok()?;
    let version = r.u32("version").ok()?;
    let len = r.u32("length").ok()? as usize;
    let body = r.raw(len, "identity").ok()?;
    if magic != MAGIC || r.u64("checksum").ok()? != checksum(copy as u64, &block[..HEAD + len]) {
        return None;
    }
    if version > FORMAT_VERSION {
        return Some(Err(IdentityError::NewerFormat { found: version }));
    }
    let mut r = Reader::new(body);
    let identity = Identity {
        cluster: ClusterId(r.u64("cluster").ok()?),
        node: NodeId(r.u64("node").ok()?),
        incarnation: Incarnation(r.u64("incarnation").ok()?),
        name: String::from_utf8(r.bytes("name").ok()?.to_vec()).ok()?,
    };
    r.end("identity").ok()?;
    Some(Ok(identity))
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_env::Rng;

    fn sample() -> Identity {
        Identity { cluster: ClusterId(5), node: NodeId(2), name: String::from("n2"), incarnation: Incarnation(99) }
    }

    /// Bytes of a copy that mean something.
    fn used() -> usize {
        let file = sample().encode();
        HEAD + u32::from_le_bytes([file[12], file[13], file[14], file[15]]) as usize + 8
    }

    #[test]
    fn one_whole_copy_is_enough_whichever_bytes_of_the_others_are_hit() {
        for whole in 0..COPIES {
            for at in 0..used() {
                for flip in [1 << (at % 8), 0xFF] {
                    let mut file = sample().encode();
                    for copy in (0..COPIES).filter(|copy| *copy != whole) {
                        file[copy * COPY_BYTES + at] ^= flip;
                    }
                    let decoded = Identity::decode(&file.into());
                    assert_eq!(decoded, Ok(Decoded { identity: sample(), bad_copies: COPIES - 1 }), "byte {at}");
                }
            }
        }
    }

    #[test]
    fn without_a_whole_copy_nothing_is_guessed_and_the_error_says_what_to_do() {
        for at in 0..used() {
            // Not the same byte: what is whole in one copy does not make up for what is not in another.
            let mut file = sample().encode();
            for copy in 0..COPIES {
                file[copy * COPY_BYTES + (at + copy * 7) % used()] ^= 1 << (at % 8);
            }
            let refused = Identity::decode(&file.into()).expect_err("no copy is whole");
            assert_eq!(refused, IdentityError::Damaged, "byte {at}");
            assert!(refused.to_string().contains("put IDENTITY back"), "{refused}");
        }
    }

    #[test]
    fn a_file_that_ends_early_loses_the_copies_behind_its_end() {
        let whole = sample().encode();
        for len in (0..=whole.len()).step_by(128) {
            let lost = (0..COPIES).filter(|copy| copy * COPY_BYTES + used() > len).count();
            match Identity::decode(&Bytes::copy_from_slice(&whole[..len])) {
                Ok(decoded) => assert_eq!((decoded.identity, decoded.bad_copies), (sample(), lost), "{len} bytes"),
                Err(e) => assert_eq!((e, lost), (IdentityError::Damaged, COPIES), "{len} bytes"),
            }
        }
    }

    #[test]
    fn a_copy_in_the_wrong_place_does_not_count() {
        let mut file = sample().encode();
        file.copy_within(0..COPY_BYTES, COPY_BYTES);
        assert_eq!(Identity::decode(&file.into()).unwrap().bad_copies, 1);
    }

    #[test]
    fn damage_is_never_read_as_an_identity() {
        let mut rng = Rng::new(8);
        let whole = sample().encode();
        for _ in 0..500 {
            let mut file = whole.clone();
            file.truncate(rng.below(whole.len() as u64 + 1) as usize);
            for _ in 0..rng.below(40) {
                if let Some(byte) = rng.pick(&(0..file.len()).collect::<Vec<_>>()) {
                    file[*byte] ^= rng.next_u64() as u8;
                }
            }
            match Identity::decode(&file.into()) {
                Ok(decoded) => assert_eq!(decoded.identity, sample()),
                Err(e) => assert_eq!(e, IdentityError::Damaged),
            }
        }
        assert_eq!(Identity::decode(&Bytes::new()), Err(IdentityError::Damaged));
    }

    #[test]
    fn other_owners_and_newer_formats_are_refused() {
        assert!(sample().check(ClusterId(5), NodeId(2)).is_ok());
        assert!(matches!(sample().check(ClusterId(5), NodeId(3)), Err(IdentityError::Foreign { .. })));
        assert!(matches!(sample().check(ClusterId(6), NodeId(2)), Err(IdentityError::Foreign { .. })));
        let mut file = sample().encode();
        let body = u32::from_le_bytes([file[12], file[13], file[14], file[15]]) as usize;
        file[8] = 2;
        let sum = checksum(0, &file[..HEAD + body]);
        file[HEAD + body..HEAD + body + 8].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(Identity::decode(&file.into()), Err(IdentityError::NewerFormat { found: 2 }));
    }
}

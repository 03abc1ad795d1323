//! Two small files beside the identity: whom this node last knew, and that it was removed.
//!
//! `MEMBERS` holds the members of the first configuration, with which every replica's log begins, and the members that were known last,
//! so that a node that starts again knows whom to talk to before its log has told it. `REMOVED` says that the cluster has let the node go:
//! nothing starts from such a directory again. The bytes are drawn in docs/design/store-format.md.

use super::{DiskError, io_error, sync_dir, write_durably};
use bytes::Bytes;
use quorate_cluster::BootMember;
use quorate_env::checksum::checksum;
use quorate_env::{DecodeError, NodeId, Reader, Writer};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

const MAGIC: u64 = u64::from_le_bytes(*b"QUORMEMB");
const VERSION: u32 = 1;

/// Whom a node knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownMembers {
    /// A hash of the cluster's token, for those that want to join.
    pub token: u64,
    /// The first configuration.
    pub first: Vec<BootMember>,
    /// The members known last.
    pub known: Vec<BootMember>,
}

/// Appends members' names and addresses.
pub(crate) fn encode_list(members: &[BootMember], w: &mut Writer) {
    w.varint(members.len() as u64);
    for member in members {
        w.u64(member.id.0);
        w.bytes(member.name.as_bytes());
        w.bytes(member.peer_address.as_bytes());
    }
}

/// Reads them.
pub(crate) fn decode_list(r: &mut Reader) -> Result<Vec<BootMember>, DecodeError> {
    let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
    let mut members = Vec::new();
    for _ in 0..r.count("members")? {
        let id = NodeId(r.u64("member")?);
        let (name, peer_address) = (text(r.bytes("name")?), text(r.bytes("address")?));
        members.push(BootMember { id, name, peer_address });
    }
    Ok(members)
}

impl KnownMembers {
    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u64(MAGIC);
        w.u32(VERSION);
        w.u64(self.token);
        encode_list(&self.first, &mut w);
        encode_list(&self.known, &mut w);
        let sum = checksum(u64::from(VERSION), w.as_slice());
        w.u64(sum);
        w.finish()
    }

    fn decode(file: &Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(file.clone());
        if r.u64("magic")? != MAGIC || r.u32("version")? != VERSION {
            return Err(r.error("version"));
        }
        let members = Self { token: r.u64("token")?, first: decode_list(&mut r)?, known: decode_list(&mut r)? };
        let at = file.len() - r.remaining();
        let sum = r.u64("checksum")?;
        r.end("members")?;
        let matches = sum == checksum(u64::from(VERSION), &file[..at]);
        if matches { Ok(members) } else { Err(Reader::new(file.clone()).error("checksum")) }
    }

    /// Reads the file. `None` if there is none; one that is damaged is as good as none, since the flags or the log may still tell.
    pub fn read(dir: &Path) -> Result<Option<Self>, DiskError> {
        let path = dir.join("MEMBERS");
        match fs::read(&path) {
            Ok(file) => Ok(Self::decode(&file.into())
                .map_err(|e| tracing::warn!("{} cannot be read: {e}", path.display()))
                .ok()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(io_error("read", &path)(e)),
        }
    }

    /// Replaces the file.
    pub fn write(&self, dir: &Path) -> Result<(), DiskError> {
        fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        let draft = dir.join("MEMBERS.new");
        write_durably(&draft, &self.encode())?;
        fs::rename(&draft, dir.join("MEMBERS")).map_err(io_error("rename", &draft))?;
        sync_dir(dir)
    }
}

/// Why the cluster let the directory's node go, if it has.
pub fn removal(dir: &Path) -> Option<String> {
    fs::read(dir.join("REMOVED")).ok().map(|text| String::from_utf8_lossy(&text).into_owned())
}

/// Remembers that the cluster has let this node go. If that fails, its peers say it again. Several of them may say it at one time, and each
/// ends the process: the file is there with all it says, or not at all.
pub fn remember_removal(dir: &Path, why: &str) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let draft = dir.join("REMOVED.new");
    let written = write_durably(&draft, why.as_bytes())
        .and_then(|()| fs::rename(&draft, dir.join("REMOVED")).map_err(io_error("rename", &draft)))
        .and_then(|()| sync_dir(dir));
    if let Err(e) = written {
        tracing::warn!("{e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_survive_and_damage_is_never_read_as_members() {
        let member = |id, name: &str| BootMember { id: NodeId(id), name: name.into(), peer_address: "h:1".into() };
        let known =
            KnownMembers { token: 9, first: vec![member(1, "n1")], known: vec![member(1, "n1"), member(2, "n2")] };
        let bytes = known.encode();
        assert_eq!(KnownMembers::decode(&bytes.clone().into()), Ok(known.clone()));
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            assert!(KnownMembers::decode(&bytes.into()).is_err(), "byte {at}");
        }
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(KnownMembers::read(dir.path()).expect("read"), None);
        known.write(dir.path()).expect("written");
        assert_eq!(KnownMembers::read(dir.path()).expect("read"), Some(known));
    }

    #[test]
    fn a_removal_is_remembered() {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(removal(dir.path()), None);
        remember_removal(dir.path(), "gone");
        assert_eq!(removal(dir.path()).as_deref(), Some("gone"));
        // Whoever looks while it is said again sees it whole.
        std::thread::scope(|scope| {
            let again = scope.spawn(|| (0..200).for_each(|_| remember_removal(dir.path(), "gone")));
            while !again.is_finished() {
                assert_eq!(removal(dir.path()).as_deref(), Some("gone"));
            }
        });
    }
}

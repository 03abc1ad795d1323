//! The store's files against the checksums that their parents keep of them: a table's is in the version file that names it, that one's in `current`.
//!
//! Blocks have checksums of their own, which reads check. Those say nothing of a block that was written to another place, of a whole file
//! that is another's, or of a version file that names the wrong tables: the parents' do.

use super::StoreError;
use super::heal::{Healer, Known};
use rustix::fs::{Advice, fadvise};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// `current`: the number of the version in force, its file's checksum, and which checksum that is (0: XXH3-128).
const CURRENT_BYTES: usize = 8 + 16 + 1;

/// Bytes of a table read at one time.
const PIECE: usize = 256 << 10;

/// `current`, and the version file that it names.
pub(super) type CurrentAndVersion = (Vec<u8>, Vec<u8>);

/// Checks the version file in force of the store in `folder`, and returns `current` and it; `None` if there is no store yet. The crate keeps the
/// checksum and does not look at it.
pub(super) fn check_version(folder: &Path) -> Result<Option<CurrentAndVersion>, StoreError> {
    let current = match fs::read(folder.join(lsm_tree::file::CURRENT_VERSION_FILE)) {
        Ok(current) => current,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return check_empty(folder).map(|()| None),
        Err(e) => return Err(io_error(e)),
    };
    let damaged = |what: &str| StoreError::Damaged(format!("{}: {what}", folder.display()));
    let Some((number, checksum)) = parse_current(&current) else {
        return Err(damaged("the file current makes no sense"));
    };
    match fs::read(folder.join(format!("v{number}"))) {
        Ok(file) if xxh3_128(&file) == checksum => Ok(Some((current, file))),
        Ok(_) => Err(damaged(&format!("v{number} has changed"))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(damaged(&format!("v{number} is missing"))),
        Err(e) => Err(io_error(e)),
    }
}

/// The number of the version that `current` names, if `version` is its file.
pub(super) fn version_of(current: &[u8], version: &[u8]) -> Option<u64> {
    parse_current(current).filter(|(_, checksum)| *checksum == xxh3_128(version)).map(|(number, _)| number)
}

fn parse_current(current: &[u8]) -> Option<(u64, u128)> {
    let current: &[u8; CURRENT_BYTES] = current.try_into().ok()?;
    let number = u64::from_le_bytes(current[..8].try_into().ok()?);
    let checksum = u128::from_le_bytes(current[8..24].try_into().ok()?);
    (current[24] == 0).then_some((number, checksum))
}

/// What an error of the disk means for the store.
pub(super) fn io_error(e: io::Error) -> StoreError {
    match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::NoSpace,
        // A file that ends too early, or even before the place where its end is looked for, is damage and not a failing disk.
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            StoreError::Damaged(e.to_string())
        }
        _ => StoreError::Io(e),
    }
}

/// A store without a version in force is one that was never opened: it has no tables.
fn check_empty(folder: &Path) -> Result<(), StoreError> {
    match fs::read_dir(folder.join(lsm_tree::file::TABLES_FOLDER)).map(|mut tables| tables.next().is_none()) {
        Ok(false) => Err(StoreError::Damaged(format!("{}: the file current is missing", folder.display()))),
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error(e)),
        _ => Ok(()),
    }
}

/// A table that is being checked, piece by piece.
pub struct TableCheck {
    /// Its number.
    pub id: u64,
    expected: u128,
    file: File,
    hasher: Box<Xxh3>,
    piece: Vec<u8>,
    healer: Arc<Healer>,
}

/// How far a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// So many bytes more were read.
    Some(usize),
    /// The table is as it was written, if need be again.
    Whole,
}

impl TableCheck {
    /// Begins; `None` if there is no such file.
    pub(super) fn begin(folder: &Path, (id, expected): Known, healer: Arc<Healer>) -> Result<Option<Self>, StoreError> {
        let path = folder.join(lsm_tree::file::TABLES_FOLDER).join(id.to_string());
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(StoreError::Io(e)),
        };
        // What is asked of is the disk, not the memory in front of it. Advice may be declined.
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
        Ok(Some(Self { id, expected, file, hasher: Box::default(), piece: vec![0; PIECE], healer }))
    }

    /// Reads on. At the end a table that has changed is healed, and what is kept to heal it is checked, too.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the table has changed since it was written, and cannot be healed.
    pub fn step(&mut self) -> Result<Checked, StoreError> {
        let read = self.file.read(&mut self.piece).map_err(StoreError::Io)?;
        if read > 0 {
            self.hasher.update(&self.piece[..read]);
            return Ok(Checked::Some(read));
        }
        let _ = fadvise(&self.file, 0, None, Advice::DontNeed);
        let known = (self.id, self.expected);
        if self.hasher.digest128() != self.expected {
            self.healer.table(known)?;
        }
        self.healer.check_sums(known)?;
        Ok(Checked::Whole)
    }
}

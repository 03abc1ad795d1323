//! A damaged table heals itself from what lies beside it, without a peer: bit rot on all replicas at once loses nothing.
//!
//! ```text
//!   tables/7  ── damaged? ──> a copy in memory ── sums/7: flip bits back, make pages from parity ──> is it, as a whole, what was written?
//!      ^                                                                                                yes │        │ no: Damaged
//!      └──────────────── the pages that changed, in place, synced, read again ─────────────────────────────┘
//! ```
//!
//! What was not proven twice (each page by its own sum, the table by the checksum that its version file keeps) is never written. In place,
//! because readers hold the file open; what they have read of it in the meantime did not pass the checksums of its blocks, and is read again.
//! A crash while pages are written leaves pages bad that were bad before. A file of sums that is damaged is made again from its table.
//!
//! Locks: one healer at a time. Nobody who holds this lock takes another one.

mod hamming;
mod page;
mod sums;
mod version;

use super::StoreError;
use super::files;
use rustix::fs::{Advice, fadvise};
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use sums::{Header, Sums};
use version::VersionFiles;

/// The folder beside `tables`.
pub(super) const SUMS_FOLDER: &str = "sums";

/// The copy of the version files, among the sums.
const VERSION_COPY: &str = "version";

/// A table and the XXH3-128 that its version file keeps of it.
pub(super) type Known = (u64, u128);

/// What has been healed since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Healed {
    /// Pages of tables in which one bit was flipped back.
    pub bits: u64,
    /// Pages of tables that were made from the others of their group.
    pub pages: u64,
    /// Times that the version files were restored from their copy.
    pub versions: u64,
    /// Files of sums, and copies of the version files, that were made again.
    pub sums: u64,
    /// Times that a table or the version files were damaged and could not be healed.
    pub failures: u64,
}

#[derive(Default)]
struct Counters {
    bits: AtomicU64,
    pages: AtomicU64,
    versions: AtomicU64,
    sums: AtomicU64,
    failures: AtomicU64,
}

/// See the top of this file.
pub(super) struct Healer {
    store: PathBuf,
    one: Mutex<()>,
    counters: Counters,
}

impl Healer {
    pub fn new(store: &Path) -> Self {
        Self { store: store.to_path_buf(), one: Mutex::default(), counters: Counters::default() }
    }

    pub fn healed(&self) -> Healed {
        let Counters { bits, pages, versions, sums, failures } = &self.counters;
        let [bits, pages, versions, sums, failures] =
            [bits, pages, versions, sums, failures].map(|counter| counter.load(Ordering::Relaxed));
        Healed { bits, pages, versions, sums, failures }
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.one.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn table_path(&self, id: u64) -> PathBuf {
        self.store.join(lsm_tree::file::TABLES_FOLDER).join(id.to_string())
    }

    fn sums(&self) -> PathBuf {
        self.store.join(SUMS_FOLDER)
    }

    fn failed(&self, why: String) -> StoreError {
        self.counters.failures.fetch_add(1, Ordering::Relaxed);
        StoreError::Damaged(why)
    }

    /// Makes sure that a table is what it was when it was written. Whether it had to be healed.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it cannot be healed.
    pub fn table(&self, known: Known) -> Result<bool, StoreError> {
        let _one = self.lock();
        self.heal(known.0, Some(known.1))
    }

    /// Heals whatever tables there are. For a store that cannot be opened, of which nobody knows what tables it has: their sums say what
    /// they were. What cannot be healed may not even be in use. Whether anything was healed.
    pub fn all_tables(&self) -> Result<bool, StoreError> {
        let _one = self.lock();
        let mut any = false;
        let ids: Vec<u64> = self.names()?.iter().filter_map(|name| name.parse().ok()).collect();
        for id in ids.into_iter().filter(|id| self.table_path(*id).exists()) {
            match self.heal(id, None) {
                Ok(healed) => any |= healed,
                Err(StoreError::Damaged(why)) => tracing::warn!("{why}"),
                Err(e) => return Err(e),
            }
        }
        Ok(any)
    }

    fn heal(&self, id: u64, checksum: Option<u128>) -> Result<bool, StoreError> {
        let path = self.table_path(id);
        let found = match fs::read(&path) {
            Ok(found) => found,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(self.failed(format!("table {id} is missing"))),
            Err(e) => return Err(files::io_error(e)),
        };
        let sums = read_if_there(&self.sums().join(id.to_string()))?.and_then(|file| Sums::read(&file, id));
        let sums = sums.filter(|sums| checksum.is_none_or(|checksum| checksum == sums.header.checksum));
        let Some(sums) = sums else {
            return match checksum {
                Some(checksum) if xxhash_rust::xxh3::xxh3_128(&found) == checksum => {
                    self.sums_again((id, checksum))?;
                    Ok(false)
                }
                _ => Err(self.failed(format!("{} has changed, and there are no sums to heal it", path.display()))),
            };
        };
        let mut table = found.clone();
        let healing = sums.heal(&mut table);
        if !sums.proves(&table) {
            let left = if healing.bad.is_empty() { String::new() } else { format!(": pages {:?}", healing.bad) };
            return Err(self.failed(format!("{} has changed more than can be healed{left}", path.display())));
        }
        let damaged = table != found;
        if damaged {
            self.write_back(&path, &table, &found, &healing.changed)?;
            self.counters.bits.fetch_add(healing.bits, Ordering::Relaxed);
            self.counters.pages.fetch_add(healing.pages, Ordering::Relaxed);
            let (bits, pages) = (healing.bits, healing.pages);
            tracing::warn!(
                "table {id} had changed on the disk and was healed: {bits} pages by a bit, {pages} as a whole"
            );
        }
        if !sums.clean {
            self.sums_again((id, sums.header.checksum))?;
        }
        Ok(damaged)
    }

    /// Writes the pages that were healed, and looks whether the disk has taken them.
    fn write_back(&self, path: &Path, table: &[u8], found: &[u8], changed: &[usize]) -> Result<(), StoreError> {
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(files::io_error)?;
        for number in changed {
            let (at, page) = sums::page_of(table, *number);
            file.write_all_at(page, at).map_err(files::io_error)?;
        }
        if found.len() != table.len() {
            file.set_len(table.len() as u64).map_err(files::io_error)?;
        }
        file.sync_all().map_err(files::io_error)?;
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
        let again = fs::read(path).map_err(files::io_error)?;
        let kept = |number: &usize| {
            let (at, page) = sums::page_of(table, *number);
            again.get(at as usize..).is_some_and(|again| again.starts_with(page))
        };
        // Other pages may have changed just now: that is found when they are read.
        match again.len() == table.len() && changed.iter().all(kept) {
            true => Ok(()),
            false => Err(self.failed(format!("{} does not keep what is written to it", path.display()))),
        }
    }

    /// Makes the sums of a table that is whole. Nothing happens if the table is gone.
    fn sums_again(&self, known: Known) -> Result<(), StoreError> {
        tracing::warn!("the sums of table {} are missing or had changed; they are made again", known.0);
        self.make_sums(known)?;
        self.counters.sums.fetch_add(1, Ordering::Relaxed);
        sync(&self.sums())
    }

    /// Writes the sums of a table; the directory is to be synced by the caller.
    fn make_sums(&self, (id, checksum): Known) -> Result<(), StoreError> {
        let mut table = match File::open(self.table_path(id)) {
            Ok(table) => table,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(files::io_error(e)),
        };
        let length = table.metadata().map_err(files::io_error)?.len();
        let (header, file) = sums::build(&mut table, id, length).map_err(files::io_error)?;
        if header.checksum != checksum {
            return Err(StoreError::Damaged(format!("{} has changed", self.table_path(id).display())));
        }
        self.replace(&self.sums().join(id.to_string()), &file)
    }

    /// Replaces a file by a rename; the directory is to be synced by the caller.
    fn replace(&self, path: &Path, content: &[u8]) -> Result<(), StoreError> {
        let draft = self.sums().join("new");
        let write = || {
            fs::write(&draft, content)?;
            File::open(&draft)?.sync_all()?;
            fs::rename(&draft, path)
        };
        write().map_err(|e| {
            // What a full disk left of it takes up room.
            let _ = fs::remove_file(&draft);
            files::io_error(e)
        })
    }

    /// Makes the sums of new tables, durably.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if a table is not what it should be, as far as the disk is concerned.
    pub fn new_tables(&self, tables: impl IntoIterator<Item = Known>) -> Result<(), StoreError> {
        let _one = self.lock();
        tables.into_iter().try_for_each(|known| self.make_sums(known))?;
        sync(&self.sums())
    }

    /// Makes the sums that are missing, or that are those of another table, for tables that have been there before. A table that is damaged
    /// and cannot be healed is left to those who need it; a full disk leaves tables without.
    pub fn complete(&self, tables: impl IntoIterator<Item = Known>) -> Result<(), StoreError> {
        let _one = self.lock();
        for known in tables.into_iter().filter(|known| !self.has_sums(*known)) {
            match self.make_sums(known) {
                Ok(()) => {}
                Err(StoreError::Damaged(_)) => match self.heal(known.0, Some(known.1)) {
                    Ok(_) => {}
                    Err(StoreError::Damaged(why)) => tracing::error!("{why}"),
                    Err(e) => return Err(e),
                },
                Err(StoreError::NoSpace) => {
                    tracing::warn!("no space left for the sums of table {}; they are made later", known.0);
                    break;
                }
                Err(e) => return Err(e),
            }
        }
        sync(&self.sums())
    }

    /// Whether the sums of a table are there, by their header and length.
    fn has_sums(&self, (id, checksum): Known) -> bool {
        let mut first = [0; page::PAGE];
        let header = File::open(self.sums().join(id.to_string())).and_then(|mut file| {
            file.read_exact(&mut first)?;
            Ok(Header::of_file(&first, file.metadata()?.len(), id))
        });
        matches!(header, Ok(Some(header)) if header.checksum == checksum)
    }

    /// Makes sure that the sums of a table that is whole can be relied on.
    pub fn check_sums(&self, known: Known) -> Result<(), StoreError> {
        let _one = self.lock();
        let sums = read_if_there(&self.sums().join(known.0.to_string()))?.and_then(|file| Sums::read(&file, known.0));
        match sums {
            Some(sums) if sums.clean && sums.header.checksum == known.1 => Ok(()),
            _ => match self.sums_again(known) {
                Err(StoreError::NoSpace) => Ok(()),
                made => made,
            },
        }
    }

    /// Removes the sums of tables that are gone.
    pub fn sweep(&self) -> Result<(), StoreError> {
        let _one = self.lock();
        for name in self.names()? {
            let of_table = name.parse().is_ok_and(|id| self.table_path(id).exists());
            if !of_table && name != VERSION_COPY {
                match fs::remove_file(self.sums().join(&name)) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(files::io_error(e)),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn names(&self) -> Result<BTreeSet<String>, StoreError> {
        let entries = match fs::read_dir(self.sums()) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            Err(e) => return Err(files::io_error(e)),
        };
        entries.map(|entry| Ok(entry.map_err(files::io_error)?.file_name().to_string_lossy().into_owned())).collect()
    }

    /// Makes the folder, durably.
    pub fn prepare(&self) -> Result<(), StoreError> {
        match fs::create_dir(self.sums()) {
            Ok(()) => sync(&self.store),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(e) => Err(files::io_error(e)),
        }
    }

    /// Checks the version files, and restores them from their copy if they have changed. The copy may be one version behind after a crash: no
    /// flush was reported done in between, and the tables that it names are there, since they are removed only after it was replaced.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if there is no good copy either.
    pub fn version(&self) -> Result<(), StoreError> {
        let _one = self.lock();
        let copy = read_if_there(&self.sums().join(VERSION_COPY))?.and_then(|copy| VersionFiles::decode(&copy));
        let checked = files::check_version(&self.store);
        match (checked, copy) {
            (Ok(Some(_)), _) | (Ok(None), None) => Ok(()),
            (Ok(None), Some(copy)) => self.restore(&copy, "the file current is missing"),
            (Err(StoreError::Damaged(why)), Some(copy)) => self.restore(&copy, &why),
            (Err(StoreError::Damaged(why)), None) => Err(self.failed(why)),
            (Err(e), _) => Err(e),
        }
    }

    fn restore(&self, copy: &VersionFiles, why: &str) -> Result<(), StoreError> {
        let Some(number) = files::version_of(&copy.current, &copy.version) else {
            return Err(self.failed(format!("{why}, and its copy makes no sense")));
        };
        tracing::warn!("{why}: it is restored from its copy");
        self.replace(&self.store.join(format!("v{number}")), &copy.version)?;
        sync(&self.store)?;
        self.replace(&self.store.join(lsm_tree::file::CURRENT_VERSION_FILE), &copy.current)?;
        sync(&self.store)?;
        files::check_version(&self.store)?;
        self.counters.versions.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Replaces the copy of the version files, if it is not that of the version in force. After an error there is none: an old one would bring
    /// back rows that were overwritten.
    pub fn copy_version(&self) -> Result<(), StoreError> {
        let _one = self.lock();
        let path = self.sums().join(VERSION_COPY);
        let copied = files::check_version(&self.store).and_then(|files| {
            let Some((current, version)) = files else { return Ok(()) };
            let copy = VersionFiles { current, version }.encode();
            if fs::read(&path).is_ok_and(|there| there == copy) {
                return Ok(());
            }
            self.replace(&path, &copy)?;
            sync(&self.sums())
        });
        if copied.is_err() {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(files::io_error(e)),
                _ => sync(&self.sums())?,
            }
        }
        match copied {
            Err(StoreError::NoSpace) => {
                tracing::warn!("no space left for a copy of the version files");
                Ok(())
            }
            copied => copied,
        }
    }
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(files::io_error(e)),
    }
}

fn sync(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(files::io_error)
}

//! The store on disk: a log-structured merge tree (the `lsm-tree` crate), without a journal of its own.
//!
//! The crate keeps tables, versions and compaction; the memtables are ours. The reason is where the crate waits: it writes and
//! syncs a version file while it holds the lock that every one of its reads and inserts takes, tens to hundreds of milliseconds on
//! a busy disk. So nothing on the hot path takes that lock. A [`View`] pairs our memtables with one immutable version of the tree,
//! readers clone an `Arc` of it, and a flush or compaction installs the next view when its files are durable.
//!
//! A memtable is the crate's skip list with a hash table in front ([`Layer`]): most reads want the newest version of a key, or learn that
//! this memtable does not know it, and a walk down a skip list costs a dozen cache misses.
//!
//! Sequence numbers order the versions of a key inside a memtable. A table is written from a sealed memtable with only the newest
//! version of each key, and compaction always keeps only the newest: a snapshot needs no old versions in new tables, because
//! it holds the view (memtables and table files) it was taken on.
//!
//! Whoever finds a block damaged (a read, a merge, the opening of the store) has its table [healed](super::heal) and tries again.

use super::files::{self, TableCheck};
use super::heal::{Healed, Healer, Known};
use super::{FlushJob, Rows, Snapshot, Store, StoreError, WriteBatch, bounds_are_empty};
use bytes::Bytes;
use lsm_tree::compaction::Leveled;
use lsm_tree::config::{CompressionPolicy, PinningPolicy};
use lsm_tree::table::filter::standard_bloom::Builder as BloomBuilder;
use lsm_tree::{
    AbstractTree, AnyTree, Cache, Config, DescriptorTable, InternalValue, Memtable, SequenceNumberCounter, Table, Tree,
    UserKey, ValueType,
};
use std::collections::HashMap;
use std::fs::{self, File};
use std::ops::Bound;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// Compactions at most per flush, so that one job comes to an end even when much is due.
const COMPACTIONS_PER_FLUSH_MAX: usize = 8;

/// Every older version of a key may go when tables are written; see the top of this file.
const KEEP_NEWEST_ONLY: u64 = 1 << 62;

/// What can be tuned.
#[derive(Clone, Copy, Debug)]
pub struct LsmOptions {
    /// Bytes of table blocks kept in memory.
    pub cache_bytes: u64,
    /// Table files kept open.
    pub open_files: usize,
    /// Bytes per table file that compaction aims at.
    pub table_bytes: u64,
}

impl Default for LsmOptions {
    fn default() -> Self {
        Self { cache_bytes: 64 << 20, open_files: 256, table_bytes: 16 << 20 }
    }
}

/// Times that a read is tried without getting any further, while what it reads is being healed.
const TRIES_MAX: u32 = 4;

type LookUp = Box<dyn Fn(&[u8], u64) -> Result<Option<InternalValue>, StoreError> + Send + Sync>;
type KeyValueIter = Box<dyn DoubleEndedIterator<Item = lsm_tree::Result<InternalValue>> + Send>;
type Range = Box<dyn Fn(&View, Bounds, u64) -> KeyValueIter + Send + Sync>;
type Mend = Box<dyn Fn(&Bounds, bool) -> Result<(), StoreError> + Send + Sync>;
type Bounds = (Bound<Bytes>, Bound<Bytes>);

/// One immutable version of the tree. The crate's own type for it has no public name, so it lives inside closures.
struct Tables {
    look_up: LookUp,
    range: Range,
    /// Heals the tables in which a scan of these bounds, in this direction, fails first.
    mend: Mend,
    disk_bytes: u64,
}

impl Tables {
    /// The tree's present version. Takes the tree's lock: for opening and for flush jobs only.
    fn of(tree: &Tree, healer: &Arc<Healer>) -> Self {
        let version = tree.current_version();
        let super_version = tree.get_version_history_lock().latest_version();
        let disk_bytes = tree.disk_space();
        let mending = version.clone();
        let (healer, mender) = (Arc::clone(healer), Arc::clone(healer));
        let look_up = move |key: &[u8], seq: u64| {
            let hash = BloomBuilder::get_hash(key);
            for run in version.iter_levels().flat_map(|level| level.iter()) {
                if let Some(table) = run.get_for_key(key)
                    && let Some(found) = look_up_in(table, key, seq, hash, &healer)?
                {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        };
        let range = move |view: &View, bounds: Bounds, seq: u64| -> KeyValueIter {
            let mut over = super_version.clone();
            over.active_memtable = Arc::clone(&view.active.ordered);
            let sealed = view.sealed.as_ref().map(|sealed| (Arc::clone(&sealed.ordered), seq));
            Box::new(Tree::create_internal_range(over, &bounds, seq, sealed))
        };
        let mend = move |bounds: &Bounds, reverse: bool| {
            let keys = || {
                let key = |key: &Bytes| UserKey::from(key.clone());
                (bounds.0.as_ref().map(key), bounds.1.as_ref().map(key))
            };
            let overlaps = |table: &Table| {
                let range = &table.metadata.key_range;
                range
                    .overlaps_with_bounds(&(bounds.0.as_ref().map(AsRef::as_ref), bounds.1.as_ref().map(AsRef::as_ref)))
            };
            let tables: Vec<&Table> = mending.iter_tables().filter(|table| overlaps(table)).collect();
            // The scan failed at one of the first rows of a table, unless it was passing over deletes.
            let fails = |table: &&&Table| {
                let mut rows = table.range(keys());
                (0..3).any(|_| matches!(if reverse { rows.next_back() } else { rows.next() }, Some(Err(_))))
            };
            let failing: Vec<&Table> = tables.iter().filter(fails).copied().collect();
            let healed = if failing.is_empty() { tables } else { failing };
            healed.into_iter().try_for_each(|table| mender.table(known(table)).map(drop))
        };
        Self { look_up: Box::new(look_up), range: Box::new(range), mend: Box::new(mend), disk_bytes }
    }
}

/// What the version file knows of a table.
fn known(table: &Table) -> Known {
    (table.id(), table.checksum().into_u128())
}

/// All tables of the tree's present version.
fn known_tables(tree: &Tree) -> Vec<Known> {
    tree.current_version().iter_tables().map(known).collect()
}

fn look_up_in(
    table: &Table,
    key: &[u8],
    seq: u64,
    hash: u64,
    healer: &Healer,
) -> Result<Option<InternalValue>, StoreError> {
    let mut tries = 1;
    loop {
        match table.get(key, seq, hash).map_err(error) {
            Err(StoreError::Damaged(_)) if tries < TRIES_MAX => healer.table(known(table)).map(drop)?,
            found => return found,
        }
        tries += 1;
    }
}

/// The newest version of a key in one memtable: its sequence number, and its value unless it was a delete.
type Newest = (u64, Option<Bytes>);

/// One memtable: all its versions in order, and the newest of each key by hash.
struct Layer {
    ordered: Arc<Memtable>,
    newest: RwLock<HashMap<Bytes, Newest>>,
}

impl Layer {
    fn new(id: u64) -> Arc<Self> {
        Arc::new(Self { ordered: Arc::new(Memtable::new(id)), newest: RwLock::default() })
    }

    /// Takes a batch, whose rows get the sequence numbers from `next` on.
    fn write(&self, batch: &mut WriteBatch, next: &mut u64) {
        let mut newest = self.newest.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in batch.drain() {
            let row = match &value {
                Some(value) => InternalValue::from_components(key.clone(), value.clone(), *next, ValueType::Value),
                None => InternalValue::new_tombstone(key.clone(), *next),
            };
            self.ordered.insert(row);
            newest.insert(key, (*next, value));
            *next += 1;
        }
    }

    /// The version of a key that a reader below `seq` sees: `None` if this memtable has none, `Some(None)` if it was deleted.
    fn get(&self, key: &[u8], seq: u64) -> Option<Option<Bytes>> {
        let (written, value) = self.newest.read().unwrap_or_else(PoisonError::into_inner).get(key)?.clone();
        if written < seq {
            return Some(value);
        }
        let older = self.ordered.get(key, seq)?;
        Some((!older.is_tombstone()).then(|| older.value.into()))
    }

    /// Bytes that it takes up, without the hash table.
    fn bytes(&self) -> u64 {
        self.ordered.size()
    }
}

/// Everything a reader needs, frozen except that the active memtable still takes rows with higher sequence numbers.
#[derive(Clone)]
struct View {
    active: Arc<Layer>,
    sealed: Option<Arc<Layer>>,
    tables: Arc<Tables>,
}

impl View {
    fn get(&self, key: &[u8], seq: u64) -> Result<Option<Bytes>, StoreError> {
        let layers = [Some(&self.active), self.sealed.as_ref()];
        if let Some(found) = layers.into_iter().flatten().find_map(|layer| layer.get(key, seq)) {
            return Ok(found);
        }
        let found = (self.tables.look_up)(key, seq)?;
        Ok(found.filter(|row| !row.is_tombstone()).map(|row| row.value.into()))
    }

    fn scan(&self, from: Bound<Bytes>, to: Bound<Bytes>, reverse: bool, seq: u64) -> Rows {
        if bounds_are_empty(&from, &to) {
            return Box::new(std::iter::empty());
        }
        let rows = (self.tables.range)(self, (from.clone(), to.clone()), seq);
        Box::new(Scan { view: self.clone(), bounds: (from, to), reverse, seq, rows, last: None, tries: 1 })
    }
}

/// A scan that goes on behind its last row when a table that it reads was damaged and has been healed.
struct Scan {
    view: View,
    bounds: Bounds,
    reverse: bool,
    seq: u64,
    rows: KeyValueIter,
    last: Option<UserKey>,
    /// Since the last row.
    tries: u32,
}

impl Scan {
    /// Heals what it failed at, and begins again behind the last row.
    fn again(&mut self) -> Result<(), StoreError> {
        if let Some(last) = self.last.take() {
            let behind = Bound::Excluded(last.into());
            if self.reverse {
                self.bounds.1 = behind;
            } else {
                self.bounds.0 = behind;
            }
        }
        if bounds_are_empty(&self.bounds.0, &self.bounds.1) {
            self.rows = Box::new(std::iter::empty());
            return Ok(());
        }
        (self.view.tables.mend)(&self.bounds, self.reverse)?;
        self.rows = (self.view.tables.range)(&self.view, self.bounds.clone(), self.seq);
        Ok(())
    }
}

impl Iterator for Scan {
    type Item = Result<(Bytes, Bytes), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let row = if self.reverse { self.rows.next_back() } else { self.rows.next() };
            match row?.map_err(error) {
                Ok(row) => {
                    self.last = Some(row.key.user_key.clone());
                    self.tries = 1;
                    return Some(Ok((row.key.user_key.into(), row.value.into())));
                }
                Err(StoreError::Damaged(_)) if self.tries < TRIES_MAX => {
                    self.tries += 1;
                    if let Err(e) = self.again() {
                        self.tries = TRIES_MAX;
                        return Some(Err(e));
                    }
                }
                Err(e) => return Some(Err(e)),
            }
        }
    }
}

struct Shared {
    path: PathBuf,
    tree: Tree,
    options: LsmOptions,
    healer: Arc<Healer>,
    view: RwLock<Arc<View>>,
    /// One writer at a time; holds the next sequence number.
    writer: Mutex<u64>,
    /// Reads of the newest rows see sequence numbers below this.
    written: AtomicU64,
    /// New snapshots see sequence numbers below this.
    published: AtomicU64,
    /// Names of memtables, for the crate's bookkeeping.
    memtables: AtomicU64,
    /// A flush job was handed out and not yet dropped or done.
    flushing: AtomicBool,
    /// Only one job touches the tree at a time.
    job: Mutex<()>,
}

/// A store in a directory. See the top of this file.
pub struct LsmStore {
    shared: Arc<Shared>,
}

impl LsmStore {
    /// Opens the store in `path`, creating it (and the directory entry, durably) if there is none. Rows are those of the last
    /// completed flush. The directory must not be open twice.
    pub fn open(path: &Path, options: LsmOptions) -> Result<Self, StoreError> {
        let healer = Arc::new(Healer::new(path));
        healer.version()?;
        let tree = match open_tree(path, options) {
            Err(StoreError::Damaged(why)) => {
                tracing::warn!("the store cannot be opened ({why}): its tables are looked through");
                if !healer.all_tables()? {
                    return Err(StoreError::Damaged(why));
                }
                open_tree(path, options)?
            }
            opened => opened?,
        };
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            // The crate syncs the directories that it makes, but not the entry of the topmost one.
            File::open(parent).and_then(|parent| parent.sync_all()).map_err(StoreError::Io)?;
        }
        // Sequence number 0 is never visible, and must lie below every reader.
        let next = tree.get_highest_persisted_seqno().unwrap_or(0) + 1;
        healer.prepare()?;
        healer.complete(known_tables(&tree))?;
        healer.sweep()?;
        healer.copy_version()?;
        let view = View { active: Layer::new(0), sealed: None, tables: Arc::new(Tables::of(&tree, &healer)) };
        Ok(Self {
            shared: Arc::new(Shared {
                path: path.to_path_buf(),
                tree,
                options,
                healer,
                view: RwLock::new(Arc::new(view)),
                writer: Mutex::new(next),
                written: AtomicU64::new(next),
                published: AtomicU64::new(next),
                memtables: AtomicU64::new(1),
                flushing: AtomicBool::new(false),
                job: Mutex::new(()),
            }),
        })
    }
}

impl LsmStore {
    /// The numbers of all tables, to be [checked](Self::check_table).
    #[must_use]
    pub fn tables(&self) -> Vec<u64> {
        self.shared.tree.current_version().iter_tables().map(Table::id).collect()
    }

    /// What was healed since the store was opened.
    #[must_use]
    pub fn healed(&self) -> Healed {
        self.shared.healer.healed()
    }

    /// Begins to check a table against the checksum that its version file keeps; `None` if it was merged away meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if its file is missing.
    pub fn check_table(&self, id: u64) -> Result<Option<TableCheck>, StoreError> {
        let expected = || known_tables(&self.shared.tree).into_iter().find(|(table, _)| *table == id);
        let Some(known) = expected() else { return Ok(None) };
        match TableCheck::begin(&self.shared.path, known, Arc::clone(&self.shared.healer))? {
            None if expected().is_some() => Err(StoreError::Damaged(format!("table {id} is missing"))),
            check => Ok(check),
        }
    }

    /// Checks the version file in force and its copy, and restores the one that has changed from the other.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if both have.
    pub fn check_version(&self) -> Result<(), StoreError> {
        // While a job runs, another version may come into force between two looks.
        let _job = lock(&self.shared.job);
        self.shared.healer.version()?;
        self.shared.healer.copy_version()
    }
}

/// Lets the crate open the tree. It panics when files hold what it never writes.
fn open_tree(path: &Path, options: LsmOptions) -> Result<Tree, StoreError> {
    let counter = SequenceNumberCounter::default();
    let config = Config::new(path, counter.clone(), counter)
        .use_cache(Arc::new(Cache::with_capacity_bytes(options.cache_bytes)))
        .use_descriptor_table(Some(Arc::new(DescriptorTable::new(options.open_files))))
        // While the crate merges, the keys of the table in the making hold on to the blocks that they were read from. So a table
        // must not stand for much more memory than it has bytes: it would if values were compressed, by as much as they can be.
        .data_block_compression_policy(CompressionPolicy::disabled())
        // A look-up of a key that does not exist costs a probe of each filter, so filters stay in memory.
        .filter_block_pinning_policy(PinningPolicy::all(true))
        .index_block_pinning_policy(PinningPolicy::new([true, true, true, false]));
    let opened = panic::catch_unwind(AssertUnwindSafe(|| config.open()))
        .map_err(|_| StoreError::Damaged(format!("{}: it makes the engine panic", path.display())))?;
    let AnyTree::Standard(tree) = opened.map_err(error)? else {
        return Err(StoreError::Damaged(String::from("the tree keeps values apart from keys, which is not in use")));
    };
    // A table says itself which one it is, and the crate believes it.
    match tree.current_version().iter_tables().find(|table| !table.path.ends_with(table.id().to_string())) {
        Some(other) => Err(StoreError::Damaged(format!("{} is table {}", other.path.display(), other.id()))),
        None => Ok(tree),
    }
}

impl Shared {
    fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change_view(&self, change: impl FnOnce(&mut View)) {
        let mut current = self.view.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = View::clone(&current);
        change(&mut next);
        *current = Arc::new(next);
    }

    /// The newest view, then the newest sequence number: in this order the view can only miss what is being written right now.
    fn newest(&self) -> (Arc<View>, u64) {
        let view = self.view();
        (view, self.written.load(Ordering::Acquire))
    }

    fn flush(&self, sealed: &Memtable) -> Result<(), StoreError> {
        let first_table = self.tree.next_table_id();
        let written = self.tree.flush_to_tables(newest_of_each_key(sealed)).map_err(error).and_then(|tables| {
            let tables = tables.map(|(tables, _)| tables).unwrap_or_default();
            self.healer.new_tables(tables.iter().map(known))?;
            self.tree.register_tables(&tables, None, None, &[], KEEP_NEWEST_ONLY).map_err(error)
        });
        if written.is_err() {
            self.remove_unregistered_tables(first_table);
        }
        written?;
        self.healer.copy_version()
    }

    /// Merges what the strategy chooses.
    fn merge(&self, strategy: &Arc<Leveled>) -> Result<(), StoreError> {
        let first_table = self.tree.next_table_id();
        let merged = self.tree.compact(Arc::clone(strategy) as _, KEEP_NEWEST_ONLY).map_err(error);
        if merged.is_err() {
            self.remove_unregistered_tables(first_table);
        }
        merged
    }

    fn compact(&self) -> Result<(), StoreError> {
        let strategy = Arc::new(Leveled::default().with_table_target_size(self.options.table_bytes));
        for done in 0..COMPACTIONS_PER_FLUSH_MAX {
            // One at least, or tables would pile up under a load that keeps the disk busy.
            if done > 0 && self.flushing.load(Ordering::Acquire) {
                break;
            }
            let before = self.tree.current_version().id();
            match self.merge(&strategy) {
                Err(StoreError::Damaged(why)) => {
                    // Nobody says which tables were to be merged.
                    tracing::warn!("tables cannot be merged ({why}): all are looked through");
                    known_tables(&self.tree).into_iter().try_for_each(|known| self.healer.table(known).map(drop))?;
                    self.merge(&strategy)?;
                }
                merged => merged?,
            }
            if self.tree.current_version().id() == before {
                break;
            }
            // The old view keeps the tables that were merged: until the copy names the new ones, it may be needed.
            self.healer.complete(known_tables(&self.tree))?;
            self.healer.copy_version()?;
            let tables = Arc::new(Tables::of(&self.tree, &self.healer));
            self.change_view(|view| view.tables = tables);
        }
        self.healer.sweep()
    }

    /// After a full disk stopped a flush: gives back the room that its half-written tables take, so that retries do not fill the disk
    /// further. Nothing is removed if the version that names them may already be the current one.
    fn remove_unregistered_tables(&self, first: u64) {
        let version = self.tree.current_version();
        let current = fs::read(self.path.join(lsm_tree::file::CURRENT_VERSION_FILE)).unwrap_or_default();
        if current.get(..8) != Some(&version.id().to_le_bytes()[..]) {
            return;
        }
        for id in first..self.tree.next_table_id() {
            if version.iter_tables().all(|table| table.id() != id) {
                // A file that was never created cannot be removed; a file that stays is removed when the store is next opened.
                let _ = fs::remove_file(self.path.join(lsm_tree::file::TABLES_FOLDER).join(id.to_string()));
            }
        }
        let _ = self.healer.sweep();
    }
}

/// A memtable's rows as a table wants them: in key order, one version of each, tombstones included.
fn newest_of_each_key(memtable: &Memtable) -> impl Iterator<Item = lsm_tree::Result<InternalValue>> + '_ {
    let mut last: Option<UserKey> = None;
    memtable.iter().filter_map(move |row| {
        if last.as_ref() == Some(&row.key.user_key) {
            return None;
        }
        last = Some(row.key.user_key.clone());
        Some(Ok(row))
    })
}

impl Store for LsmStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let (view, seq) = self.shared.newest();
        view.get(key, seq)
    }

    fn scan(&self, from: Bound<Bytes>, to: Bound<Bytes>, reverse: bool) -> Rows {
        let (view, seq) = self.shared.newest();
        view.scan(from, to, reverse, seq)
    }

    fn write(&self, batch: &mut WriteBatch) -> Result<(), StoreError> {
        batch.check()?;
        let mut next = lock(&self.shared.writer);
        // The view cannot lose its active memtable while the writer's lock is held: seal takes that lock too.
        self.shared.view().active.write(batch, &mut next);
        self.shared.written.store(*next, Ordering::Release);
        Ok(())
    }

    fn publish(&self) {
        self.shared.published.fetch_max(self.shared.written.load(Ordering::Acquire), Ordering::AcqRel);
    }

    fn snapshot(&self) -> Arc<dyn Snapshot> {
        let view = self.shared.view();
        let seq = self.shared.published.load(Ordering::Acquire);
        Arc::new(LsmSnapshot { view, seq })
    }

    fn memory_bytes(&self) -> u64 {
        let view = self.shared.view();
        view.active.bytes() + view.sealed.as_ref().map_or(0, |sealed| sealed.bytes())
    }

    fn seal(&self) -> Option<Box<dyn FlushJob>> {
        let _writer = lock(&self.shared.writer);
        self.publish();
        let view = self.shared.view();
        if view.sealed.is_none() && view.active.ordered.is_empty() {
            return None;
        }
        if self.shared.flushing.swap(true, Ordering::AcqRel) {
            return None;
        }
        let sealed = if let Some(sealed) = self.shared.view().sealed.clone() {
            // An earlier job was given up; its rows come first.
            sealed
        } else {
            let fresh = Layer::new(self.shared.memtables.fetch_add(1, Ordering::Relaxed));
            let sealed = Arc::clone(&view.active);
            self.shared.change_view(|view| view.sealed = Some(std::mem::replace(&mut view.active, fresh)));
            sealed
        };
        let held = Flushing { shared: Arc::clone(&self.shared) };
        Some(Box::new(LsmFlush { shared: Arc::clone(&self.shared), work: Mutex::new(Some((sealed, held))) }))
    }

    fn disk_bytes(&self) -> u64 {
        self.shared.view().tables.disk_bytes
    }
}

struct LsmSnapshot {
    view: Arc<View>,
    seq: u64,
}

impl Snapshot for LsmSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.view.get(key, self.seq)
    }

    fn scan(&self, from: Bound<Bytes>, to: Bound<Bytes>, reverse: bool) -> Rows {
        self.view.scan(from, to, reverse, self.seq)
    }
}

/// The right to flush; dropping it lets the next seal hand out a job.
struct Flushing {
    shared: Arc<Shared>,
}

impl Drop for Flushing {
    fn drop(&mut self) {
        self.shared.flushing.store(false, Ordering::Release);
    }
}

struct LsmFlush {
    shared: Arc<Shared>,
    work: Mutex<Option<(Arc<Layer>, Flushing)>>,
}

impl FlushJob for LsmFlush {
    fn run(&self) -> Result<(), StoreError> {
        let _job = lock(&self.shared.job);
        let mut work = lock(&self.work);
        if let Some((sealed, _)) = &*work {
            self.shared.flush(&sealed.ordered)?;
            let tables = Arc::new(Tables::of(&self.shared.tree, &self.shared.healer));
            self.shared.change_view(|view| {
                view.tables = tables;
                view.sealed = None;
            });
        }
        // The memory is given back here and not by a reader or writer that happens to let go of it last: that takes milliseconds.
        drop(work.take());
        Ok(())
    }

    fn compact(&self) -> Result<(), StoreError> {
        let _job = lock(&self.shared.job);
        match self.shared.compact() {
            // The rows are durable, and compaction is tried again after the next flush.
            Err(StoreError::NoSpace) => {
                tracing::warn!("no space left to compact the store; it will be tried again after the next flush");
                Ok(())
            }
            compacted => compacted,
        }
    }
}

/// A panic while one of these locks was held leaves nothing half done that a later holder could trip over.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn error(e: lsm_tree::Error) -> StoreError {
    match e {
        lsm_tree::Error::Io(e) => files::io_error(e),
        lsm_tree::Error::InvalidVersion(found) if found > 3 => {
            StoreError::NewerFormat { found: u32::from(found), known: 3 }
        }
        e => StoreError::Damaged(e.to_string()),
    }
}

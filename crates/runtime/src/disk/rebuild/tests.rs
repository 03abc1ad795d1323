//! A store that is found damaged, at each step of putting it aside.

use super::{Stores, finish, open, want};
use crate::disk::DiskError;
use bytes::Bytes;
use quorate_storage::store::{LsmOptions, LsmStore, Store, StoreError, WriteBatch};
use std::fs;
use std::path::Path;
use std::sync::Arc;

fn found(store: &dyn Store) -> Option<Bytes> {
    store.get(b"k").expect("readable")
}

/// A folder with a store that holds one row.
fn with_a_row() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let store = LsmStore::open(&dir.path().join("store"), LsmOptions::default()).expect("opened");
    let mut batch = WriteBatch::new();
    batch.put("k", "v");
    store.write(&mut batch).expect("written");
    store.seal().expect("rows").run().expect("flushed");
    dir
}

/// Makes the version files unreadable, and what could heal them.
fn damage(dir: &Path) {
    fs::write(dir.join("store/current"), b"?").expect("written");
    fs::remove_dir_all(dir.join("store/sums")).expect("removed");
}

fn opened(dir: &Path) -> (Arc<LsmStore>, Option<Arc<dyn Store>>) {
    let Stores { store, remains } = open(dir, LsmOptions::default(), false).expect("opened");
    (store, remains)
}

#[test]
fn a_whole_store_stays_where_it_is() {
    let dir = with_a_row();
    let (store, remains) = opened(dir.path());
    assert!(found(&*store).is_some() && remains.is_none());
}

#[test]
fn a_damaged_store_is_put_aside_and_stays_there_until_its_rows_are_back() {
    let dir = with_a_row();
    damage(dir.path());
    let aside = dir.path().join("store.damaged");
    let (store, remains) = opened(dir.path());
    assert!(found(&*store).is_none() && remains.is_none() && aside.exists(), "nothing of it can be read");
    drop(store);
    // The next start finds it as it was left.
    drop(opened(dir.path()));
    assert!(aside.exists());
    finish(dir.path());
    assert!(!aside.exists());
}

#[test]
fn a_store_that_is_wanted_aside_leaves_its_rows_for_comparison() {
    let dir = with_a_row();
    want(dir.path(), "a table has changed").expect("written down");
    let (store, remains) = opened(dir.path());
    assert!(found(&*store).is_none());
    assert_eq!(found(&*remains.expect("it can be read")), Some("v".into()));
    drop(store);
    // Asked for once, done once; a second time what was never whole goes, and the first stays.
    want(dir.path(), "again").expect("written down");
    let (_, remains) = opened(dir.path());
    assert_eq!(found(&*remains.expect("it can be read")), Some("v".into()));
}

#[test]
fn the_only_copy_is_never_put_aside() {
    let dir = with_a_row();
    damage(dir.path());
    let refused = open(dir.path(), LsmOptions::default(), true).err();
    assert!(matches!(refused, Some(DiskError::Store { source: StoreError::Damaged(_), .. })), "{refused:?}");
    assert!(dir.path().join("store").exists() && !dir.path().join("store.damaged").exists());
}

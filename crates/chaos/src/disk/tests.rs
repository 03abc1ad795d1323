//! What a power cut leaves, and that the mounted disk is the model.

use super::model::{Ino, Leaves, Model, ROOT, Refusal};
use super::*;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

fn name(text: &str) -> &OsStr {
    OsStr::new(text)
}

/// A file of `bytes`, synced, and so is its name.
fn durable(model: &mut Model, path: &str, bytes: &[u8]) -> Ino {
    let ino = model.make(ROOT, name(path), false).unwrap();
    model.write(ino, 0, bytes).unwrap();
    model.sync(ino).unwrap();
    model.sync_dir(ROOT).unwrap();
    ino
}

fn whole(model: &Model, ino: Ino) -> Vec<u8> {
    model.read(ino, 0, 1 << 20).unwrap()
}

#[test]
fn a_power_cut_takes_what_was_not_synced_and_nothing_else() {
    let mut model = Model::new();
    let file = durable(&mut model, "log", b"synced");
    model.write(file, 3, b"not this").unwrap();
    assert_eq!(whole(&model, file), b"synnot this");
    let lost = model.cut_power(&mut Leaves::Nothing);
    assert_eq!(whole(&model, file), b"synced");
    assert_eq!((lost.sectors, lost.names), (1, 0));
}

#[test]
fn a_synced_file_without_a_synced_name_is_gone() {
    let mut model = Model::new();
    let file = model.make(ROOT, name("new"), false).unwrap();
    model.write(file, 0, b"bytes").unwrap();
    model.sync(file).unwrap();
    assert_eq!(model.cut_power(&mut Leaves::Nothing).names, 1);
    assert_eq!(model.look_up(ROOT, name("new")), Err(Refusal::NotFound));
    assert_eq!(model.stat(file), Err(Refusal::NotFound), "nobody keeps it");
}

#[test]
fn renames_and_removals_are_undone_until_the_folder_is_synced() {
    let mut model = Model::new();
    let (old, new) = (durable(&mut model, "current", b"old"), durable(&mut model, "draft", b"new"));
    model.rename((ROOT, name("draft")), (ROOT, name("current")), true).unwrap();
    assert_eq!(model.look_up(ROOT, name("current")), Ok(new));
    model.cut_power(&mut Leaves::Nothing);
    assert_eq!(model.look_up(ROOT, name("current")), Ok(old));
    assert_eq!(model.look_up(ROOT, name("draft")), Ok(new));
    model.rename((ROOT, name("draft")), (ROOT, name("current")), true).unwrap();
    model.sync_dir(ROOT).unwrap();
    model.remove(ROOT, name("current"), false).unwrap();
    model.cut_power(&mut Leaves::Nothing);
    assert_eq!(model.look_up(ROOT, name("current")), Ok(new));
    assert_eq!(model.look_up(ROOT, name("draft")), Err(Refusal::NotFound));
}

#[test]
fn lengths_come_back_too() {
    let mut model = Model::new();
    let file = durable(&mut model, "f", &[7; 9000]);
    model.resize(file, 100).unwrap();
    model.write(file, 5000, &[8; 10]).unwrap();
    assert_eq!(whole(&model, file)[100..5000], [0; 4900]);
    model.cut_power(&mut Leaves::Nothing);
    assert_eq!(whole(&model, file), [7; 9000]);
    model.resize(file, 100).unwrap();
    model.sync(file).unwrap();
    model.write(file, 200, &[9]).unwrap();
    model.sync(file).unwrap();
    model.cut_power(&mut Leaves::Nothing);
    let mut expected = vec![0; 201];
    expected[..100].fill(7);
    expected[200] = 9;
    assert_eq!(whole(&model, file), expected);
}

#[test]
fn a_cut_may_keep_any_sectors_and_a_seed_says_which() {
    let torn = |seed| {
        let mut model = Model::new();
        let file = durable(&mut model, "f", &[1; 4096]);
        model.write(file, 0, &[2; 4096]).unwrap();
        let lost = model.cut_power(&mut Leaves::Some(Rng::new(seed)));
        assert_eq!(lost.sectors + lost.sectors_kept, 8);
        let bytes = whole(&model, file);
        let kept: Vec<u8> = bytes.chunks(512).map(|sector| sector[0]).collect();
        assert!(bytes.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])), "a sector is torn");
        assert_eq!(kept.iter().filter(|byte| **byte == 2).count() as u64, lost.sectors_kept);
        kept
    };
    let mut outcomes: Vec<Vec<u8>> = (0..60).map(torn).collect();
    assert_eq!(torn(5), outcomes[5]);
    outcomes.sort();
    outcomes.dedup();
    assert!(outcomes.len() > 20, "{} outcomes", outcomes.len());
}

#[test]
fn after_a_failed_sync_the_bytes_are_seen_and_never_reach_the_platter() {
    let mut model = Model::new();
    let file = durable(&mut model, "f", b"old");
    model.write(file, 0, b"new").unwrap();
    model.fail_sync(file);
    assert_eq!(whole(&model, file), b"new");
    model.sync(file).unwrap();
    model.cut_power(&mut Leaves::Some(Rng::new(1)));
    assert_eq!(whole(&model, file), b"old");
}

#[test]
fn a_full_disk_takes_what_has_its_place_already() {
    let mut model = Model::new();
    let file = durable(&mut model, "f", &[1; 4096]);
    model.full = true;
    model.write(file, 10, b"in place").unwrap();
    assert_eq!(model.write(file, 4096, b"more"), Err(Refusal::NoSpace));
    assert_eq!(model.make(ROOT, name("g"), false), Err(Refusal::NoSpace));
}

/// The disk, or a word about why there is none.
fn disk() -> Option<CruelDisk> {
    CruelDisk::mount().map_err(|failure| println!("skipped: {failure}")).ok()
}

#[test]
fn a_mounted_disk_behaves_like_one_until_the_power_is_cut() {
    let Some(disk) = disk() else { return };
    let folder = disk.path().join("a");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("f"), vec![3; 300_000]).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(folder.join("f")).unwrap();
    file.sync_all().unwrap();
    File::open(&folder).unwrap().sync_all().unwrap();
    File::open(disk.path()).unwrap().sync_all().unwrap();
    file.write_all_at(b"unsynced", 100).unwrap();
    fs::rename(folder.join("f"), folder.join("g")).unwrap();
    fs::write(folder.join("h"), b"x").unwrap();
    let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["g", "h"]);
    assert_eq!(fs::read(folder.join("g")).unwrap()[100..108], *b"unsynced");
    drop(file);
    disk.power_off();
    assert_eq!(fs::read(folder.join("g")).unwrap_err().raw_os_error(), Some(5), "EIO");
    let lost = disk.power_on(&mut Leaves::Nothing);
    assert!(lost.sectors >= 1 && lost.names == 2, "{lost:?}");
    assert_eq!(fs::read(folder.join("f")).unwrap(), vec![3; 300_000]);
    assert!(!folder.join("g").exists() && !folder.join("h").exists());
}

#[test]
fn faults_happen_to_the_files_that_they_name_and_are_counted() {
    let Some(disk) = disk() else { return };
    let mut file = File::create(disk.path().join("log")).unwrap();
    let id = disk.set(Fault { action: Action::Sync, path: "log".into(), effect: Effect::Fail, times: 1 });
    file.write_all(b"x").unwrap();
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5), "EIO");
    file.sync_data().unwrap();
    assert_eq!(disk.lift(id), 1);
    let slow = Effect::Take(Duration::from_millis(60));
    let id = disk.set(Fault { action: Action::Sync, path: String::new(), effect: slow, times: u64::MAX });
    let began = Instant::now();
    file.sync_data().unwrap();
    assert!(began.elapsed() >= Duration::from_millis(60));
    assert_eq!(disk.lift(id), 1);
    disk.set_full(true);
    assert_eq!(file.write_all(&[0; 8192]).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(disk.no_space(), 1);
}

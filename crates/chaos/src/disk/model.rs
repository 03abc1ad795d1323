//! A file system as a pure value, with two versions of everything: what processes see, and what is on the platter.
//!
//! A write changes what is seen. `sync` of a file puts its bytes and its length on the platter, `sync_dir` of a folder its names, and
//! nothing else does: a file that was synced is gone after a power cut if nobody synced the folder it is named in. That is what
//! POSIX promises, and less than most file systems keep.

use super::content::{BLOCK, Content, SECTOR, sectors};
use quorate_env::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

/// Names a file or a folder for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ino(pub u64);

/// The top folder.
pub const ROOT: Ino = Ino(1);

/// Why something cannot be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    NotFound,
    Exists,
    NotAFolder,
    IsAFolder,
    NotEmpty,
    NoSpace,
}

/// What a power cut leaves of what was not synced.
#[derive(Clone, Debug)]
pub enum Leaves {
    /// Nothing.
    Nothing,
    /// Any sectors and any names, drawn from a seed.
    Some(Rng),
}

/// What a power cut took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Sectors written and not synced that are gone.
    pub sectors: u64,
    /// Of these sectors, how many stayed.
    pub sectors_kept: u64,
    /// Names made, moved or removed and not synced, where that is undone.
    pub names: u64,
}

impl std::ops::AddAssign for Lost {
    fn add_assign(&mut self, other: Self) {
        self.sectors += other.sectors;
        self.sectors_kept += other.sectors_kept;
        self.names += other.names;
    }
}

#[derive(Debug, Default)]
struct File {
    seen: Content,
    platter: Content,
    /// A bit for each sector written since the last sync.
    dirty: BTreeMap<usize, u8>,
}

/// One change of a folder. A rename within it is one change: both halves survive, or none.
#[derive(Debug)]
struct Change {
    without: Option<OsString>,
    with: Option<(OsString, Ino)>,
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<OsString, Ino>) {
        if let Some(name) = &self.without {
            names.remove(name);
        }
        if let Some((name, ino)) = &self.with {
            names.insert(name.clone(), *ino);
        }
    }
}

#[derive(Debug, Default)]
struct Folder {
    seen: BTreeMap<OsString, Ino>,
    platter: BTreeMap<OsString, Ino>,
    /// Since the last sync, in order.
    changes: Vec<Change>,
}

impl Folder {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.seen);
        self.changes.push(change);
    }
}

#[derive(Debug)]
enum Body {
    File(File),
    Folder(Folder),
}

#[derive(Debug)]
struct Node {
    body: Body,
    /// Where it was last seen, for people and for faults that choose files by name.
    path: String,
    /// Handles that the kernel has. Nobody is forgotten while it is known.
    known: u64,
}

/// What `stat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub ino: Ino,
    pub is_folder: bool,
    pub bytes: u64,
}

/// The file system.
#[derive(Debug)]
pub struct Model {
    nodes: BTreeMap<Ino, Node>,
    next: u64,
    /// Whether there is no room for more. What has a place already can still be overwritten.
    pub full: bool,
}

impl Model {
    /// With nothing but its top folder.
    pub fn new() -> Self {
        let root = Node { body: Body::Folder(Folder::default()), path: String::new(), known: 1 };
        Self { nodes: BTreeMap::from([(ROOT, root)]), next: ROOT.0 + 1, full: false }
    }

    pub fn stat(&self, ino: Ino) -> Result<Stat, Refusal> {
        let (is_folder, bytes) = match &self.node(ino)?.body {
            Body::File(file) => (false, file.seen.bytes()),
            Body::Folder(_) => (true, 0),
        };
        Ok(Stat { ino, is_folder, bytes })
    }

    /// The path from the top, without a leading slash.
    pub fn path(&self, ino: Ino) -> &str {
        self.nodes.get(&ino).map_or("", |node| &node.path)
    }

    pub fn look_up(&self, folder: Ino, name: &OsStr) -> Result<Ino, Refusal> {
        self.folder(folder)?.seen.get(name).copied().ok_or(Refusal::NotFound)
    }

    /// What a folder holds.
    pub fn list(&self, folder: Ino) -> Result<Vec<(OsString, Stat)>, Refusal> {
        let names = &self.folder(folder)?.seen;
        names.iter().map(|(name, ino)| Ok((name.clone(), self.stat(*ino)?))).collect()
    }

    /// Makes an empty file or folder.
    pub fn make(&mut self, folder: Ino, name: &OsStr, is_folder: bool) -> Result<Ino, Refusal> {
        if self.look_up(folder, name).is_ok() {
            return Err(Refusal::Exists);
        }
        if self.full {
            return Err(Refusal::NoSpace);
        }
        let ino = Ino(self.next);
        let path = self.path_in(folder, name);
        self.folder_mut(folder)?.change(Change { without: None, with: Some((name.to_owned(), ino)) });
        self.next += 1;
        let body = if is_folder { Body::Folder(Folder::default()) } else { Body::File(File::default()) };
        self.nodes.insert(ino, Node { body, path, known: 0 });
        Ok(ino)
    }

    /// Removes a name. Who has the file open keeps it.
    pub fn remove(&mut self, folder: Ino, name: &OsStr, is_folder: bool) -> Result<(), Refusal> {
        let ino = self.look_up(folder, name)?;
        match &self.node(ino)?.body {
            Body::Folder(_) if !is_folder => return Err(Refusal::IsAFolder),
            Body::File(_) if is_folder => return Err(Refusal::NotAFolder),
            Body::Folder(inner) if !inner.seen.is_empty() => return Err(Refusal::NotEmpty),
            _ => {}
        }
        self.folder_mut(folder)?.change(Change { without: Some(name.to_owned()), with: None });
        Ok(())
    }

    /// Moves a name; what had the new name loses it, unless it is to be kept.
    pub fn rename(&mut self, from: (Ino, &OsStr), to: (Ino, &OsStr), replace: bool) -> Result<(), Refusal> {
        let ino = self.look_up(from.0, from.1)?;
        if !replace && self.look_up(to.0, to.1).is_ok() {
            return Err(Refusal::Exists);
        }
        let path = self.path_in(to.0, to.1);
        let (without, with) = (Some(from.1.to_owned()), Some((to.1.to_owned(), ino)));
        if from.0 == to.0 {
            self.folder_mut(from.0)?.change(Change { without, with });
        } else {
            self.folder_mut(to.0)?.change(Change { without: None, with });
            self.folder_mut(from.0)?.change(Change { without, with: None });
        }
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.path = path;
        }
        Ok(())
    }

    pub fn read(&self, ino: Ino, offset: u64, length: usize) -> Result<Vec<u8>, Refusal> {
        Ok(self.file(ino)?.seen.read(offset, length))
    }

    pub fn write(&mut self, ino: Ino, offset: u64, bytes: &[u8]) -> Result<(), Refusal> {
        let full = self.full;
        let file = self.file_mut(ino)?;
        if full && file.seen.missing(offset, bytes.len()) > 0 {
            return Err(Refusal::NoSpace);
        }
        file.seen.write(offset, bytes);
        for (block, mask) in sectors(offset, bytes.len()) {
            *file.dirty.entry(block).or_default() |= mask;
        }
        Ok(())
    }

    pub fn resize(&mut self, ino: Ino, bytes: u64) -> Result<(), Refusal> {
        let file = self.file_mut(ino)?;
        let before = file.seen.bytes();
        file.seen.resize(bytes);
        for (block, mask) in sectors(bytes, before.saturating_sub(bytes) as usize) {
            *file.dirty.entry(block).or_default() |= mask;
        }
        Ok(())
    }

    /// Puts a file's bytes and its length on the platter; its name is its folder's business.
    pub fn sync(&mut self, ino: Ino) -> Result<(), Refusal> {
        let file = self.file_mut(ino)?;
        for block in std::mem::take(&mut file.dirty).into_keys() {
            file.platter.take_block(&file.seen, block);
        }
        file.platter.resize(file.seen.bytes());
        Ok(())
    }

    /// A sync that failed, as kernels do it: what was to be written counts as clean from now on, and is not on the platter.
    pub fn fail_sync(&mut self, ino: Ino) {
        if let Ok(file) = self.file_mut(ino) {
            file.dirty.clear();
        }
    }

    /// Puts a folder's names on the platter.
    pub fn sync_dir(&mut self, ino: Ino) -> Result<(), Refusal> {
        let folder = self.folder_mut(ino)?;
        for change in std::mem::take(&mut folder.changes) {
            change.apply(&mut folder.platter);
        }
        self.collect();
        Ok(())
    }

    /// The power is cut. Afterwards everybody sees what the platter has. Nobody may have anything open any more.
    pub fn cut_power(&mut self, leaves: &mut Leaves) -> Lost {
        let mut lost = Lost::default();
        for node in self.nodes.values_mut() {
            match &mut node.body {
                Body::File(file) => cut_file(file, leaves, &mut lost),
                Body::Folder(folder) => cut_folder(folder, leaves, &mut lost),
            }
        }
        self.collect();
        lost
    }

    /// Turns over one bit, drawn from what a file holds that is not zero, seen and on the platter alike. Returns where.
    pub fn flip(&mut self, path: &str, rng: &mut Rng) -> Option<(u64, u8)> {
        let node = self.nodes.values_mut().find(|node| node.path == path)?;
        let Body::File(file) = &mut node.body else { return None };
        let bytes = file.platter.read(0, file.platter.bytes() as usize);
        let written: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        let (offset, bit) = (*rng.pick(&written)? as u64, rng.below(8) as u8);
        file.platter.flip(offset, bit);
        file.seen.flip(offset, bit);
        Some((offset, bit))
    }

    /// Every file's path and length on the platter.
    pub fn files(&self) -> Vec<(String, u64)> {
        let file = |node: &Node| match &node.body {
            Body::File(file) => Some((node.path.clone(), file.platter.bytes())),
            Body::Folder(_) => None,
        };
        self.nodes.values().filter_map(file).collect()
    }

    /// The kernel learned of a node.
    pub fn known(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.known += 1;
        }
    }

    /// The kernel forgot a node as often as it says.
    pub fn forgotten(&mut self, ino: Ino, times: u64) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.known = node.known.saturating_sub(times);
        }
    }

    /// Forgets what has no name in any version and is not known to the kernel.
    fn collect(&mut self) {
        let mut reached = BTreeSet::new();
        let mut next = vec![ROOT];
        while let Some(ino) = next.pop() {
            if reached.insert(ino)
                && let Some(Node { body: Body::Folder(folder), .. }) = self.nodes.get(&ino)
            {
                let changed = folder.changes.iter().filter_map(|change| change.with.as_ref().map(|(_, ino)| ino));
                next.extend(folder.seen.values().chain(folder.platter.values()).chain(changed));
            }
        }
        self.nodes.retain(|ino, node| node.known > 0 || reached.contains(ino));
    }

    fn path_in(&self, folder: Ino, name: &OsStr) -> String {
        let name = name.to_string_lossy();
        match self.path(folder) {
            "" => name.into_owned(),
            above => format!("{above}/{name}"),
        }
    }

    fn node(&self, ino: Ino) -> Result<&Node, Refusal> {
        self.nodes.get(&ino).ok_or(Refusal::NotFound)
    }

    fn file(&self, ino: Ino) -> Result<&File, Refusal> {
        match &self.node(ino)?.body {
            Body::File(file) => Ok(file),
            Body::Folder(_) => Err(Refusal::IsAFolder),
        }
    }

    fn file_mut(&mut self, ino: Ino) -> Result<&mut File, Refusal> {
        match self.nodes.get_mut(&ino).map(|node| &mut node.body) {
            Some(Body::File(file)) => Ok(file),
            Some(Body::Folder(_)) => Err(Refusal::IsAFolder),
            None => Err(Refusal::NotFound),
        }
    }

    fn folder(&self, ino: Ino) -> Result<&Folder, Refusal> {
        match &self.node(ino)?.body {
            Body::Folder(folder) => Ok(folder),
            Body::File(_) => Err(Refusal::NotAFolder),
        }
    }

    fn folder_mut(&mut self, ino: Ino) -> Result<&mut Folder, Refusal> {
        match self.nodes.get_mut(&ino).map(|node| &mut node.body) {
            Some(Body::Folder(folder)) => Ok(folder),
            Some(Body::File(_)) => Err(Refusal::NotAFolder),
            None => Err(Refusal::NotFound),
        }
    }
}

/// How many of 1000 unsynced things stay, drawn anew for each file and folder: nothing, all and every mixture have their turn.
fn share(leaves: &mut Leaves) -> u64 {
    match leaves {
        Leaves::Nothing => 0,
        Leaves::Some(rng) => rng.between(0, 1000),
    }
}

fn stays(leaves: &mut Leaves, share: u64) -> bool {
    match leaves {
        Leaves::Nothing => false,
        Leaves::Some(rng) => rng.chance(share),
    }
}

fn cut_file(file: &mut File, leaves: &mut Leaves, lost: &mut Lost) {
    let share = share(leaves);
    for (block, mask) in std::mem::take(&mut file.dirty) {
        for sector in (0..BLOCK / SECTOR).filter(|sector| mask & 1 << sector != 0) {
            if stays(leaves, share) {
                lost.sectors_kept += 1;
                file.platter.take_sector(&file.seen, block, sector);
            } else {
                lost.sectors += 1;
            }
        }
    }
    if stays(leaves, share) {
        file.platter.resize(file.seen.bytes());
    }
    // Sectors beyond the end stay where nobody reads them; a later write may not find them there.
    let bytes = file.platter.bytes();
    file.platter.resize(bytes + 1);
    file.platter.resize(bytes);
    file.seen = file.platter.clone();
}

fn cut_folder(folder: &mut Folder, leaves: &mut Leaves, lost: &mut Lost) {
    let share = share(leaves);
    for change in std::mem::take(&mut folder.changes) {
        if stays(leaves, share) {
            change.apply(&mut folder.platter);
        } else {
            lost.names += 1;
        }
    }
    folder.seen = folder.platter.clone();
}

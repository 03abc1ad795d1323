//! The model as a mounted file system: each request of the kernel is one call of the model, after the faults had their say.
//!
//! The kernel is told to keep nothing: names and attributes are valid for no time, and files are read and written past the page cache.
//! What it does not remember cannot survive a power cut by mistake.

use super::faults::{Action, Effect};
use super::model::{Ino, Model, Refusal, Stat};
use super::{Counts, Shared};
use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long the kernel may believe what it was told.
const VALID_FOR: Duration = Duration::ZERO;

/// Between two looks at whether a stall was lifted.
const POLL: Duration = Duration::from_millis(2);

/// Room that is reported while the disk is not full.
const BLOCKS_FREE: u64 = 1 << 24;

pub(super) struct Adapter {
    pub(super) shared: Arc<Shared>,
}

fn errno(refusal: Refusal) -> Errno {
    match refusal {
        Refusal::NotFound => Errno::ENOENT,
        Refusal::Exists => Errno::EEXIST,
        Refusal::NotAFolder => Errno::ENOTDIR,
        Refusal::IsAFolder => Errno::EISDIR,
        Refusal::NotEmpty => Errno::ENOTEMPTY,
        Refusal::NoSpace => Errno::ENOSPC,
    }
}

fn attributes(stat: Stat) -> FileAttr {
    let kind = if stat.is_folder { FileType::Directory } else { FileType::RegularFile };
    FileAttr {
        ino: INodeNo(stat.ino.0),
        size: stat.bytes,
        blocks: stat.bytes.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: if stat.is_folder { 0o755 } else { 0o644 },
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Adapter {
    fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    fn is_off(&self) -> bool {
        self.shared.off.load(Ordering::Acquire)
    }

    /// One call of the model. What it refuses for want of room is counted.
    fn with<T>(&self, call: impl FnOnce(&mut Model) -> Result<T, Refusal>) -> Result<T, Errno> {
        let mut model = self.shared.model();
        if self.is_off() {
            return Err(Errno::EIO);
        }
        let result = call(&mut model);
        if matches!(result, Err(Refusal::NoSpace)) {
            count(&self.counts().no_space);
        }
        result.map_err(errno)
    }

    /// Has a fault happen, if one is set for this.
    fn suffer(&self, action: Action, ino: Ino) -> Result<(), Errno> {
        let path = self.shared.model().path(ino).to_owned();
        match self.shared.faults.meet(action, &path) {
            None => Ok(()),
            Some((_, Effect::Fail)) => {
                if action == Action::Sync {
                    self.shared.model().fail_sync(ino);
                }
                Err(Errno::EIO)
            }
            Some((id, Effect::Take(time))) => {
                let until = Instant::now() + time;
                while Instant::now() < until && !self.shared.faults.is_lifted(id) && !self.is_off() {
                    std::thread::sleep(POLL.min(time));
                }
                Ok(())
            }
        }
    }

    fn entry(&self, made: Result<Ino, Errno>, reply: ReplyEntry) {
        let found = made.and_then(|ino| {
            self.with(|model| {
                model.known(ino);
                model.stat(ino)
            })
        });
        match found {
            Ok(stat) => reply.entry(&VALID_FOR, &attributes(stat), Generation(0)),
            Err(e) => reply.error(e),
        }
    }
}

fn answer(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(e),
    }
}

impl Filesystem for Adapter {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.with(|model| model.look_up(Ino(parent.0), name));
        self.entry(found, reply);
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.shared.model().forgotten(Ino(ino.0), nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.with(|model| model.stat(Ino(ino.0))) {
            Ok(stat) => reply.attr(&VALID_FOR, &attributes(stat)),
            Err(e) => reply.error(e),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let ino = Ino(ino.0);
        let changed = self.with(|model| {
            if let Some(bytes) = size {
                model.resize(ino, bytes)?;
            }
            model.stat(ino)
        });
        match changed {
            Ok(stat) => reply.attr(&VALID_FOR, &attributes(stat)),
            Err(e) => reply.error(e),
        }
    }

    fn mkdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, _mode: u32, _umask: u32, reply: ReplyEntry) {
        let made = self.with(|model| model.make(Ino(parent.0), name, true));
        self.entry(made, reply);
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(self.with(|model| model.remove(Ino(parent.0), name, false)), reply);
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(self.with(|model| model.remove(Ino(parent.0), name, true)), reply);
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let replace = !flags.contains(RenameFlags::RENAME_NOREPLACE);
        answer(self.with(|model| model.rename((Ino(parent.0), name), (Ino(newparent.0), newname), replace)), reply);
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn create(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let made = self.with(|model| {
            let ino = model.make(Ino(parent.0), name, false)?;
            model.known(ino);
            model.stat(ino)
        });
        match made {
            Ok(stat) => {
                reply.created(&VALID_FOR, &attributes(stat), Generation(0), FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
            }
            Err(e) => reply.error(e),
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let ino = Ino(ino.0);
        count(&self.counts().reads);
        let read = self.suffer(Action::Read, ino);
        match read.and_then(|()| self.with(|model| model.read(ino, offset, size as usize))) {
            Ok(bytes) => reply.data(&bytes),
            Err(e) => reply.error(e),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let ino = Ino(ino.0);
        count(&self.counts().writes);
        let written = self.suffer(Action::Write, ino);
        match written.and_then(|()| self.with(|model| model.write(ino, offset, data))) {
            Ok(()) => reply.written(data.len() as u32),
            Err(e) => reply.error(e),
        }
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let ino = Ino(ino.0);
        count(&self.counts().syncs);
        let synced = self.suffer(Action::Sync, ino);
        answer(synced.and_then(|()| self.with(|model| model.sync(ino))), reply);
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        match self.with(|model| model.list(Ino(ino.0))) {
            Ok(names) => {
                for (at, (name, stat)) in names.into_iter().enumerate().skip(offset as usize) {
                    let kind = if stat.is_folder { FileType::Directory } else { FileType::RegularFile };
                    if reply.add(INodeNo(stat.ino.0), at as u64 + 1, kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(e) => reply.error(e),
        }
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let ino = Ino(ino.0);
        count(&self.counts().syncs);
        let synced = self.suffer(Action::Sync, ino);
        answer(synced.and_then(|()| self.with(|model| model.sync_dir(ino))), reply);
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let free = if self.shared.model().full { 0 } else { BLOCKS_FREE };
        reply.statfs(2 * BLOCKS_FREE, free, free, 1 << 20, 1 << 20, 4096, 255, 4096);
    }
}

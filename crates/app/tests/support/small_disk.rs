//! A disk that is soon full.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system in memory, of a size that is known. Anything that uses it must end before it is dropped.
pub struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    /// `None`, and says so, where this process may not mount anything.
    pub fn mount(mib: u32) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a folder");
        let size = format!("size={mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "quorate-test"]).arg(dir.path()).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self { dir });
        }
        println!("skipped: mounting a small file system needs root");
        None
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }

    /// Somebody else takes all the room there is.
    pub fn fill(&self) {
        let mut file = std::fs::File::create(self.filler()).expect("created");
        for bytes in [1 << 20, 1 << 12] {
            let piece = vec![1; bytes];
            let full = std::iter::repeat_with(|| std::io::Write::write_all(&mut file, &piece)).find_map(Result::err);
            assert_eq!(full.map(|e| e.kind()), Some(ErrorKind::StorageFull));
        }
    }

    /// And gives it back.
    pub fn free(&self) {
        std::fs::remove_file(self.filler()).expect("removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that was killed a moment ago may still hold a file.
        let unmounted = Command::new("umount").arg("--lazy").arg(self.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking(), "unmounted");
    }
}

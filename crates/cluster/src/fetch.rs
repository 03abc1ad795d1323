//! Rows that a mending replica fetches: chunk by chunk, each verified, and only those that are not the same here already.
//!
//! ```text
//!   what a chunk hashes to? ──> the peer's digest ──┬── the remains here hash to it ──> kept
//!                                                   └── they do not, or cannot be read ──> the chunk itself is asked for
//! ```
//!
//! Without remains every chunk is asked for.

use crate::wire::PeerBody;
use bytes::Bytes;
use quorate_shard::{Chunk, Import, ImportError, Remains, Slot};
use std::sync::Arc;

/// How much larger than a chunk of rows its remains may be before they are not even hashed.
const REMAINS_PER_CHUNK: usize = 4;

/// One transfer. See the top of this file.
pub(crate) struct Fetch {
    transfer: u64,
    import: Import,
    remains: Option<Arc<Remains>>,
    /// Whether the remains of the next chunk were found to differ.
    differs: bool,
    /// Bytes of rows that came from the peer, and that were here.
    pub fetched_bytes: u64,
    pub kept_bytes: u64,
}

impl Fetch {
    pub fn new(transfer: u64, import: Import, remains: Option<Arc<Remains>>) -> Self {
        Self { transfer, import, remains, differs: false, fetched_bytes: 0, kept_bytes: 0 }
    }

    pub fn is(&self, transfer: u64) -> bool {
        self.transfer == transfer
    }

    pub fn slot(&self) -> Slot {
        self.import.slot()
    }

    pub fn is_done(&self) -> bool {
        self.import.is_done()
    }

    /// What to ask for next.
    pub fn ask(&self) -> PeerBody {
        let (transfer, cursor) = (self.transfer, self.import.cursor().clone());
        match self.remains.is_some() && !self.differs {
            true => PeerBody::DigestAsk { transfer, cursor },
            false => PeerBody::ChunkAsk { transfer, cursor },
        }
    }

    /// Takes the next chunk from the remains if they come to `hash`. What does not is asked for. With `blindly`, a planted bug, they are
    /// believed. Says whether it was about the next chunk: an answer that comes twice must not be followed by two questions.
    pub fn digest(
        &mut self,
        cursor: &Bytes,
        next: Option<&Bytes>,
        hash: u64,
        chunk_bytes: usize,
        blindly: bool,
    ) -> Result<bool, ImportError> {
        if self.differs || cursor != self.import.cursor() {
            return Ok(false);
        }
        let limit = chunk_bytes.saturating_mul(REMAINS_PER_CHUNK);
        let found = self.remains.as_ref().and_then(|remains| remains.chunk(cursor, next, hash, limit));
        let Some(mut chunk) = found else {
            self.differs = true;
            return Ok(true);
        };
        if blindly {
            chunk.hash = self.import.chain(&chunk);
        }
        match self.import.accept(cursor, &chunk) {
            Ok(()) => self.kept_bytes += chunk.bytes(),
            Err(ImportError::Damaged) => self.differs = true,
            Err(e) => return Err(e),
        }
        Ok(true)
    }

    /// Takes a chunk as it came.
    pub fn chunk(&mut self, cursor: &Bytes, chunk: &Chunk) -> Result<bool, ImportError> {
        if cursor != self.import.cursor() {
            return Ok(false);
        }
        self.import.accept(cursor, chunk)?;
        self.fetched_bytes += chunk.bytes();
        self.differs = false;
        Ok(true)
    }
}

//! The thread that owns the write-ahead log.
//!
//! All lanes of a node hand their records to one writer. Whatever has queued up while one flush was on its way becomes the next flush:
//! group commit without a timer. A second thread gets the next segment ready, so that a flush never waits for zeros to be written
//! unless the disk is full or the log fills segments faster than the disk can make them.

use super::files::{describe, is_full};
use super::{LogFiles, NO_SPACE_PAUSE_MAX, NO_SPACE_PAUSE_MIN, Space, die};
use quorate_storage::wal::{DiskOp, LogRecord, Preparation, Wal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use thiserror::Error;

/// Batches that may wait for the writer; then [`LogWriter::append`] blocks. Lanes bound what they have in flight themselves, well below.
const QUEUE_MAX: usize = 4096;

/// Payload bytes that are merged into one flush, unless one batch is larger: the flush that everybody waits for should stay short.
const MERGE_BYTES_MAX: usize = 4 << 20;

/// After this long without work the tail of the log is put below a durable mark.
const IDLE: Duration = Duration::from_millis(100);

/// Flushes after which live records are written forward, if it is due, even though the queue is never empty.
const FLUSHES_PER_REWRITE: u32 = 32;

/// The writer has been told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the log's writer has stopped")]
pub struct Stopped;

struct Batch {
    records: Vec<LogRecord>,
    ticket: u64,
}

/// A handle to the writer. Dropping it flushes what was accepted and ends the threads; if the disk is full it gives that up.
pub struct LogWriter {
    queue: Option<SyncSender<Batch>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl LogWriter {
    /// Starts the threads. `on_flush(ticket, records)` is called before so many records are written, the last of them that ticket's, and
    /// `on_durable(ticket)`, in order, when the batch of that ticket and all before it are durable; tickets in between may be skipped. `on_space` is called when the log finds the disk full and when it goes on. All run on
    /// the log's threads and must return quickly.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn spawn(
        wal: Wal,
        files: Arc<LogFiles>,
        on_flush: impl Fn(u64, usize) + Send + 'static,
        on_durable: impl Fn(u64) + Send + 'static,
        on_space: impl Fn(Space) + Send + 'static,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (queue, batches) = sync_channel(QUEUE_MAX);
        let (to_prepare, preparations) = channel();
        let (prepared, finished) = channel();
        let preparer = Preparer { files: Arc::clone(&files), stop: Arc::clone(&stop), on_space: Box::new(on_space) };
        let writer = Writer {
            wal,
            files,
            stop: Arc::clone(&stop),
            to_prepare,
            finished,
            on_flush: Box::new(on_flush),
            on_durable: Box::new(on_durable),
        };
        let mut log = Self { queue: Some(queue), stop, threads: Vec::new() };
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| thread::Builder::new().name(name.into()).spawn(run);
        log.threads.push(spawn("wal", Box::new(move || writer.run(&batches)))?);
        log.threads.push(spawn("wal-prepare", Box::new(move || preparer.run(&preparations, &prepared)))?);
        Ok(log)
    }

    /// Hands over a batch. Tickets never go down. Blocks while the queue is full.
    pub fn append(&self, records: Vec<LogRecord>, ticket: u64) -> Result<(), Stopped> {
        let queue = self.queue.as_ref().ok_or(Stopped)?;
        queue.send(Batch { records, ticket }).map_err(|_| Stopped)
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.queue = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the log ended with a panic");
            }
        }
    }
}

struct Writer {
    wal: Wal,
    files: Arc<LogFiles>,
    stop: Arc<AtomicBool>,
    to_prepare: Sender<Preparation>,
    finished: Receiver<Preparation>,
    on_flush: Box<dyn Fn(u64, usize) + Send>,
    on_durable: Box<dyn Fn(u64) + Send>,
}

impl Writer {
    fn run(mut self, batches: &Receiver<Batch>) {
        let mut left_over = None;
        let mut since_rewrite = 0;
        self.prepare();
        loop {
            let next = match left_over.take() {
                Some(batch) => Ok(batch),
                None => batches.recv_timeout(IDLE),
            };
            let first = match next {
                Ok(batch) => batch,
                Err(RecvTimeoutError::Timeout) => {
                    self.rewrite();
                    self.execute(Wal::mark_durable);
                    self.prepare();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let (merged, rest) = merge(first, batches);
            left_over = rest;
            (self.on_flush)(merged.ticket, merged.records.len());
            if !self.append(&merged.records) {
                break;
            }
            (self.on_durable)(merged.ticket);
            since_rewrite += 1;
            if since_rewrite >= FLUSHES_PER_REWRITE {
                since_rewrite = 0;
                self.rewrite();
            }
        }
        // A clean end leaves nothing that could be mistaken for a torn write.
        self.execute(Wal::mark_durable);
    }

    /// Collects what the log wants done, and does it.
    fn execute(&mut self, step: impl FnOnce(&mut Wal, &mut Vec<DiskOp>)) {
        let mut ops = Vec::new();
        step(&mut self.wal, &mut ops);
        for op in &ops {
            if let Err(e) = self.files.run(op) {
                die(&describe(op), &e);
            }
        }
    }

    fn rewrite(&mut self) {
        self.execute(|wal, ops| {
            wal.rewrite(ops);
        });
    }

    /// Takes note of a segment that became ready, and asks for the next.
    fn prepare(&mut self) {
        while let Ok(preparation) = self.finished.try_recv() {
            self.wal.finish_preparation(&preparation);
        }
        if let Some(preparation) = self.wal.prepare() {
            // If the preparer is gone, the process is stopping; the queue's end says so.
            let _ = self.to_prepare.send(preparation);
        }
    }

    /// Makes records durable, in one flush if they fit into the segments that are ready. False: told to stop while the disk is full.
    fn append(&mut self, mut records: &[LogRecord]) -> bool {
        while !records.is_empty() {
            let Some(count) = self.wait_for_room(records) else { return false };
            let (now, later) = records.split_at(count);
            self.execute(|wal, ops| wal.append(now, ops));
            self.prepare();
            records = later;
        }
        true
    }

    /// Waits until at least one record fits, and says how many do.
    fn wait_for_room(&mut self, records: &[LogRecord]) -> Option<usize> {
        loop {
            self.prepare();
            let count = self.wal.fitting(records);
            if count > 0 {
                return Some(count);
            }
            match self.finished.recv_timeout(IDLE) {
                Ok(preparation) => self.wal.finish_preparation(&preparation),
                Err(RecvTimeoutError::Timeout) if self.stop.load(Ordering::Acquire) => return None,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }
}

/// Everything that is waiting, up to a bound, as one batch; and a batch that would have gone beyond it.
fn merge(mut merged: Batch, batches: &Receiver<Batch>) -> (Batch, Option<Batch>) {
    let bytes = |batch: &Batch| batch.records.iter().map(payload_bytes).sum::<usize>();
    let mut total = bytes(&merged);
    while let Ok(batch) = batches.try_recv() {
        total += bytes(&batch);
        if total > MERGE_BYTES_MAX {
            return (merged, Some(batch));
        }
        merged.records.extend(batch.records);
        merged.ticket = batch.ticket;
    }
    (merged, None)
}

fn payload_bytes(record: &LogRecord) -> usize {
    match record {
        LogRecord::Entry(entry) | LogRecord::Repair(entry) => entry.payload.len(),
        LogRecord::HardState(_) | LogRecord::Start { .. } => 0,
    }
}

/// Gets segments ready, one at a time, and waits out a full disk.
struct Preparer {
    files: Arc<LogFiles>,
    stop: Arc<AtomicBool>,
    on_space: Box<dyn Fn(Space) + Send>,
}

impl Preparer {
    fn run(self, preparations: &Receiver<Preparation>, prepared: &Sender<Preparation>) {
        while let Ok(preparation) = preparations.recv() {
            if !self.execute(&preparation) || prepared.send(preparation).is_err() {
                return;
            }
        }
    }

    /// False: told to stop while the disk is full. What is half done is recovered at the next start.
    fn execute(&self, preparation: &Preparation) -> bool {
        let mut pause = NO_SPACE_PAUSE_MIN;
        let mut full = false;
        for op in &preparation.ops {
            while let Err(e) = self.files.run(op) {
                if !matches!(op, DiskOp::Create { .. }) || !is_full(&e) {
                    die(&describe(op), &e);
                }
                if !full {
                    full = true;
                    tracing::warn!("no space left for the log's next segment; trying again");
                    (self.on_space)(Space::Full);
                }
                if self.stop.load(Ordering::Acquire) {
                    return false;
                }
                thread::sleep(pause);
                pause = (pause * 2).min(NO_SPACE_PAUSE_MAX);
            }
        }
        if full {
            tracing::info!("the log has room again");
            (self.on_space)(Space::Enough);
        }
        true
    }
}

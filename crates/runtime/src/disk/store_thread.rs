//! The thread that flushes the store, and merges its tables in between.

use super::{NO_SPACE_PAUSE_MAX, NO_SPACE_PAUSE_MIN, Space, Stopped, die};
use quorate_storage::store::{FlushJob, StoreError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

/// Jobs that may wait. A store hands out one at a time, and the next while the last one compacts.
const QUEUE_MAX: usize = 16;

type Job = (Box<dyn FlushJob>, u64);

/// A handle to the thread. Dropping it finishes the jobs that were accepted; if the disk is full it gives them up, and the log
/// is replayed over the older rows at the next start.
pub struct StoreThread {
    queue: Option<SyncSender<Job>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl StoreThread {
    /// Starts the thread. `on_flush(ticket)` is called before the job of that ticket is run, `on_flushed(ticket)` when it is done, `on_space` when a job finds the disk full and when
    /// it goes on, `on_damage` when a merge finds that a table has changed. All run on this thread and must return quickly.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn spawn(
        on_flush: impl Fn(u64) + Send + 'static,
        on_flushed: impl Fn(u64) + Send + 'static,
        on_space: impl Fn(Space) + Send + 'static,
        on_damage: impl Fn(&str) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (queue, jobs) = sync_channel(QUEUE_MAX);
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("store".into())
            .spawn(move || run(&jobs, &stopping, &on_flush, &on_flushed, &on_space, &on_damage))?;
        Ok(Self { queue: Some(queue), stop, thread: Some(thread) })
    }

    /// Hands over a job. Blocks while too many wait.
    pub fn flush(&self, job: Box<dyn FlushJob>, ticket: u64) -> Result<(), Stopped> {
        let queue = self.queue.as_ref().ok_or(Stopped)?;
        queue.send((job, ticket)).map_err(|_| Stopped)
    }
}

impl Drop for StoreThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.queue = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the store's thread ended with a panic");
        }
    }
}

fn run(
    jobs: &Receiver<Job>,
    stop: &AtomicBool,
    on_flush: &dyn Fn(u64),
    on_flushed: &dyn Fn(u64),
    on_space: &dyn Fn(Space),
    on_damage: &dyn Fn(&str),
) {
    while let Ok((job, ticket)) = jobs.recv() {
        on_flush(ticket);
        let mut pause = NO_SPACE_PAUSE_MIN;
        let mut full = false;
        loop {
            match job.run() {
                Ok(()) => break,
                Err(StoreError::NoSpace) => {}
                Err(e) => die("flushing the store", &e),
            }
            if !full {
                full = true;
                tracing::warn!("no space left to flush the store; trying again");
                on_space(Space::Full);
            }
            if stop.load(Ordering::Acquire) {
                return;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(NO_SPACE_PAUSE_MAX);
        }
        if full {
            tracing::info!("the store has room again");
            on_space(Space::Enough);
        }
        on_flushed(ticket);
        // Nobody waits for a merge; a node that stops does not begin one.
        if !stop.load(Ordering::Acquire)
            && let Err(e) = job.compact()
        {
            if let StoreError::Damaged(why) = &e {
                on_damage(why);
            }
            die("compacting the store", &e);
        }
    }
}

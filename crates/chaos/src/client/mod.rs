//! Clients as actors: each has one operation in flight, through whichever node it likes, and writes down what it asked and what it was told.
//!
//! ```text
//!   writers ──┐
//!   readers ──┼── numbered operations ──> nodes        each keeps its own notes; [`Crowd::end`] puts them together
//!   leases  ──┘
//!   watchers <── everything, from revision 1 ── nodes
//! ```

mod lease;
mod reader;
mod session;
mod watcher;
mod writer;

pub use session::connect;

use crate::failure::Failure;
use quorate_env::Rng;
use quorate_kv::Event;
use quorate_sim::witness::{History, Notice, Operation, Renewal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// How many of each.
const WRITERS: u64 = 8;
const LINEARIZABLE_READERS: u64 = 3;
const SERIALIZABLE_READERS: u64 = 1;
const KEEPERS: u64 = 2;

/// How long clients and watches may take to come to an end after everything has healed.
const END_WITHIN: Duration = Duration::from_secs(40);

/// What all clients share.
pub struct Shared {
    endpoints: Vec<String>,
    began: Instant,
    next: AtomicU64,
    stop: AtomicBool,
    /// Watches end when they have told everything up to here; 0 while nobody knows.
    last_revision: AtomicU64,
}

impl Shared {
    fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// One client's notes.
#[derive(Default)]
struct Notes {
    operations: Vec<Operation>,
    renewals: Vec<Renewal>,
}

/// All clients of a run.
pub struct Crowd {
    shared: Arc<Shared>,
    actors: Vec<JoinHandle<Notes>>,
    watchers: Vec<JoinHandle<Vec<Notice>>>,
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.actors.iter().for_each(JoinHandle::abort);
        self.watchers.iter().for_each(JoinHandle::abort);
    }
}

impl Crowd {
    /// Sends them out.
    #[must_use]
    pub fn start(endpoints: Vec<String>, seed: u64, value_bytes_max: u64) -> Self {
        let rng = Rng::new(seed).split(1);
        let nodes = endpoints.len();
        let shared = Arc::new(Shared {
            endpoints,
            began: Instant::now(),
            next: AtomicU64::new(1),
            stop: AtomicBool::new(false),
            last_revision: AtomicU64::new(0),
        });
        let of = |client: u64| (Arc::clone(&shared), client, rng.split(client));
        let mut actors = Vec::new();
        let mut client = 0;
        let mut next = || {
            client += 1;
            of(client)
        };
        for _ in 0..WRITERS {
            let (shared, client, rng) = next();
            actors.push(tokio::spawn(writer::run(shared, client, rng, value_bytes_max)));
        }
        for reader in 0..LINEARIZABLE_READERS + SERIALIZABLE_READERS {
            let (shared, client, rng) = next();
            actors.push(tokio::spawn(reader::run(shared, client, rng, reader < LINEARIZABLE_READERS)));
        }
        for _ in 0..KEEPERS {
            let (shared, client, rng) = next();
            actors.push(tokio::spawn(lease::keep(shared, client, rng)));
        }
        let (abandoner, client, rng) = next();
        actors.push(tokio::spawn(lease::abandon(abandoner, client, rng)));
        let watchers = (0..nodes).map(|node| tokio::spawn(watcher::follow(Arc::clone(&shared), node))).collect();
        Self { shared, actors, watchers }
    }

    /// Without anybody.
    #[must_use]
    pub fn nobody() -> Self {
        let shared = Shared {
            endpoints: Vec::new(),
            began: Instant::now(),
            next: AtomicU64::new(1),
            stop: AtomicBool::new(true),
            last_revision: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared), actors: Vec::new(), watchers: Vec::new() }
    }

    /// The observer's clock.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        self.shared.now_us()
    }

    /// Calls everybody in. All nodes must serve again.
    ///
    /// # Errors
    /// If somebody does not come.
    pub async fn end(mut self) -> Result<History, Failure> {
        let deadline = tokio::time::Instant::now() + END_WITHIN;
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut history = History::default();
        for actor in &mut self.actors {
            let notes = tokio::time::timeout_at(deadline, &mut *actor).await.map_err(|_| stuck("a client"))?;
            let notes = notes.map_err(|e| Failure::Stuck(e.to_string()))?;
            history.operations.extend(notes.operations);
            history.renewals.extend(notes.renewals);
        }
        history.committed = self.everything().await?;
        let last = history.committed.last().map_or(1, |event| event.kv.mod_revision.0);
        self.shared.last_revision.store(last, Ordering::Relaxed);
        for watcher in &mut self.watchers {
            let notices = tokio::time::timeout_at(deadline, watcher).await.map_err(|_| stuck("a watch"))?;
            history.watches.push(notices.map_err(|e| Failure::Stuck(e.to_string()))?);
        }
        Ok(history)
    }

    /// What a new watch from the first revision is told, up to a write of our own that nobody else follows.
    async fn everything(&self) -> Result<Vec<Event>, Failure> {
        let revision = session::revision(&self.shared.endpoints).await.ok_or_else(|| stuck("the last read"))?;
        // Leases may still end: what they remove comes later and is nobody's business any more.
        let everything = watcher::up_to(&self.shared.endpoints[0], revision);
        tokio::time::timeout(END_WITHIN, everything).await.ok().flatten().ok_or_else(|| stuck("the last watch"))
    }
}

fn stuck(who: &str) -> Failure {
    Failure::Stuck(format!("{who} did not come to an end after everything had healed"))
}

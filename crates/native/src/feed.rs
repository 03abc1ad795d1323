//! A watch, between a session of the core and a client, in whatever words the client is told.
//!
//! ```text
//!   core's session ──notices──> feed ──a few chunks──> HTTP body, or stream of gRPC ──> client
//! ```
//!
//! All that happened at one revision is told at once, with that revision: so a client that comes back with the last one it was told, to any node,
//! misses nothing and sees nothing twice. A client that does not take its chunks lets the feed wait: the session's own queue fills, and the core has
//! it read the rest from history later.

use crate::answers::Failure;
use quorate_kv::{
    Db, Error, Event, KeyRange, KeyspaceId, Revision, Unavailable, WatchControl, WatchEvents, WatchId, WatchNotice,
    WatchSpec,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// The one watch of a session.
pub(crate) const WATCH: WatchId = WatchId(1);

/// Between two marks of progress.
const PROGRESS_PERIOD: Duration = Duration::from_secs(10);

/// Chunks that wait for a slow client; the rest stays in the session's queue, and behind that in history.
pub(crate) const CHUNKS_QUEUED_MAX: usize = 4;

/// Small events go together in a chunk of about this size. What happened at one revision is never cut, and may be larger.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;

/// What a client is told.
#[derive(Debug)]
pub(crate) enum Told<'a> {
    /// The watch stands, and everything up to `told` is told, or not wanted.
    Created { told: Revision, revision: Revision },
    /// All that happened at one revision.
    Changed { revision: Revision, changes: &'a [Event] },
    /// Everything up to this revision is told.
    Progress { revision: Revision },
    /// The end: what was wanted is gone, and this is the oldest that is left.
    Compacted { oldest: Revision },
    /// The end: this node serves no watch any more.
    Stopping,
}

/// How it is said.
pub(crate) trait Tongue: Send + Sync + 'static {
    /// What goes to the client in one piece.
    type Chunk: Default + Send;

    /// Says it at the end of a chunk.
    fn say(&self, told: &Told<'_>, chunk: &mut Self::Chunk);

    /// How large a chunk is; 0 if nothing was said in it.
    fn bytes(chunk: &Self::Chunk) -> usize;
}

/// What was wanted is gone: what to do.
pub(crate) fn compacted_message(oldest: Revision) -> String {
    format!(
        "what was wanted is gone: read the keys anew, then watch from there; the oldest revision left is {}",
        oldest.0
    )
}

/// What a client wants to be told: from the first revision that is named on, or behind the last that it has seen.
pub(crate) fn spec(
    range: KeyRange,
    first: Option<u64>,
    seen: Option<u64>,
    prev_kv: bool,
) -> Result<WatchSpec, Failure> {
    if range.is_empty() {
        return Err(Failure::Bad("no key can lie in that range: from is below to".into()));
    }
    if first == Some(0) {
        let message = "revisions count from 1; without one, a watch begins with what happens next";
        return Err(Failure::Bad(message.into()));
    }
    // Who comes back asks as before: what it has seen since says more.
    let start = seen.map(|seen| seen.saturating_add(1)).or(first);
    Ok(WatchSpec { range, start: start.map(Revision), no_put: false, no_delete: false, prev_kv })
}

/// Whether the server has been told to stop: then watches end, which otherwise never would.
#[derive(Clone)]
pub(crate) struct Stop(pub tokio::sync::watch::Receiver<bool>);

impl Stop {
    pub async fn wait(&mut self) {
        if self.0.wait_for(|stop| *stop).await.is_err() {
            // Nobody is left who could say so.
            std::future::pending::<()>().await;
        }
    }
}

/// Where to watch what cannot be watched here; `page` is what it is called there.
fn elsewhere(error: Error, db: &Arc<dyn Db>, keyspace: KeyspaceId, page: &str) -> Failure {
    let homes = if error == Error::Unavailable(Unavailable::NotHere) { db.homes(keyspace) } else { Vec::new() };
    let nodes = homes.iter().flat_map(|home| home.voters.iter().chain(&home.wanted));
    let own = db.identity().node;
    let url = nodes.filter(|node| node.id != own).find_map(|node| node.client_urls.first());
    url.map_or(Failure::Core(error), |url| Failure::Elsewhere(format!("{}{page}", url.trim_end_matches('/'))))
}

/// Begins a watch; returns where its chunks come.
pub(crate) fn open<T: Tongue>(
    db: &Arc<dyn Db>,
    keyspace: KeyspaceId,
    spec: WatchSpec,
    tongue: T,
    stop: Stop,
    page: &str,
) -> Result<mpsc::Receiver<T::Chunk>, Failure> {
    let (control, events) = db.watch(keyspace).map_err(|error| elsewhere(error, db, keyspace, page))?;
    let (teller, taken) = Teller::new(tongue, &spec);
    tokio::spawn(Feed { control, events, teller, stop }.run(spec));
    Ok(taken)
}

/// The client has gone, or needs no more.
pub(crate) struct End;

/// What stands between a session of the core and a client.
struct Feed<T: Tongue> {
    control: Box<dyn WatchControl>,
    events: Box<dyn WatchEvents>,
    teller: Teller<T>,
    stop: Stop,
}

impl<T: Tongue> Feed<T> {
    async fn run(mut self, spec: WatchSpec) {
        self.control.open(WATCH, spec);
        let mut period = interval_at(Instant::now() + PROGRESS_PERIOD, PROGRESS_PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let step = tokio::select! {
                notice = self.events.next() => self.teller.tell(notice).await,
                _ = period.tick() => {
                    self.control.progress(WATCH);
                    Ok(())
                }
                () = self.stop.wait() => self.teller.tell(WatchNotice::Closed).await,
                () = self.teller.chunks.closed() => Err(End),
            };
            if step.is_err() {
                return;
            }
        }
    }
}

/// Says notices in the words of clients.
pub(crate) struct Teller<T: Tongue> {
    tongue: T,
    /// The first revision that is wanted.
    start: Option<Revision>,
    chunks: mpsc::Sender<T::Chunk>,
}

impl<T: Tongue> Teller<T> {
    pub fn new(tongue: T, spec: &WatchSpec) -> (Self, mpsc::Receiver<T::Chunk>) {
        let (chunks, taken) = mpsc::channel(CHUNKS_QUEUED_MAX);
        (Self { tongue, start: spec.start, chunks }, taken)
    }

    async fn send(&self, chunk: &mut T::Chunk) -> Result<(), End> {
        self.chunks.send(std::mem::take(chunk)).await.map_err(|_| End)
    }

    async fn end(&self, told: Told<'_>) -> Result<(), End> {
        let mut chunk = T::Chunk::default();
        self.tongue.say(&told, &mut chunk);
        self.send(&mut chunk).await?;
        Err(End)
    }

    pub async fn tell(&self, notice: WatchNotice) -> Result<(), End> {
        let mut chunk = T::Chunk::default();
        match notice {
            WatchNotice::Created { revision, .. } => {
                // Nothing before the first revision wanted is owed, and nothing from there on has been told.
                let told = self.start.map_or(revision, |start| Revision(start.0.saturating_sub(1)));
                self.tongue.say(&Told::Created { told, revision }, &mut chunk);
            }
            WatchNotice::Events { events, .. } => {
                for changes in events.chunk_by(|a, b| a.kv.mod_revision == b.kv.mod_revision) {
                    let revision = changes[0].kv.mod_revision;
                    self.tongue.say(&Told::Changed { revision, changes }, &mut chunk);
                    if T::bytes(&chunk) >= CHUNK_BYTES {
                        self.send(&mut chunk).await?;
                    }
                }
            }
            WatchNotice::Progress { revision, .. } => self.tongue.say(&Told::Progress { revision }, &mut chunk),
            WatchNotice::Compacted { compacted, .. } => return self.end(Told::Compacted { oldest: compacted }).await,
            WatchNotice::Closed => return self.end(Told::Stopping).await,
        }
        if T::bytes(&chunk) == 0 { Ok(()) } else { self.send(&mut chunk).await }
    }
}

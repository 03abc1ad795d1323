//! What this process does, written down for `quorate diagram` while it does it (docs/design/trace-format.md).
//!
//! ```text
//!   lane, connections, disk threads, handlers ──> bounded queue ──> writer thread (words, JSON) ──> file
//! ```
//!
//! Whoever does something hands over what it has at hand and goes on: words for messages are found by the writer. What does not fit into the queue is not recorded, but
//! counted, and the file says so. Where nothing is recorded there is no [`Recorder`], and nothing is done.

pub(crate) mod questions;
mod writer;

use crate::clock::Clock;
use quorate_cluster::{Inspection, Node, PeerMessage};
use quorate_env::{NodeId, ShardId};
use quorate_kv::Error;
use quorate_trace::{Lane, LifeHead, Looks, MessageId, PROCESS_VERSION, TraceEvent, words};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};
use writer::Writer;

/// Things that may wait for the writer; what comes then is not recorded.
const QUEUE_MAX: usize = 16 << 10;

/// Bytes of messages that may wait for it.
const WAITING_BYTES_MAX: usize = 32 << 20;

/// What a node records, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceOptions {
    /// The file; what is in it stays, and this life follows.
    pub file: PathBuf,
    /// Its largest size in bytes: then the record ends, and the node goes on.
    pub bytes_max: u64,
}

/// Who records.
pub(crate) struct Recorded {
    pub cluster: u64,
    pub node: NodeId,
    pub name: String,
    /// The members that it knows.
    pub members: Vec<(u64, String)>,
}

/// Something that happened.
struct Seen {
    /// Microseconds since the life began.
    at: u64,
    what: What,
    /// Bytes of messages that it holds.
    bytes: usize,
}

enum What {
    Event(TraceEvent),
    /// A frame leaves; its messages have ids from `first` on.
    Sent {
        to: NodeId,
        first: u64,
        messages: Vec<PeerMessage>,
    },
    /// A frame arrived.
    Delivered {
        first: u64,
        count: u64,
    },
    /// The last of all.
    Stop(String),
}

impl What {
    fn events(&self) -> u64 {
        match self {
            Self::Sent { messages, .. } => messages.len() as u64,
            Self::Delivered { count, .. } => *count,
            Self::Event(_) | Self::Stop(_) => 1,
        }
    }
}

/// What the threads that record share with the one that writes.
struct Shared {
    node: Lane,
    clock: Clock,
    /// Bytes of messages in the queue.
    waiting_bytes: AtomicUsize,
    /// Events that found the queue full, and were not yet told of.
    unrecorded: AtomicU64,
    /// The writer takes nothing any more.
    ended: AtomicBool,
    operations: AtomicU64,
    /// One bit for each lane of clients that is busy.
    busy: AtomicU64,
}

/// A handle to the record; see the module.
#[derive(Clone)]
pub(crate) struct Recorder {
    shared: Arc<Shared>,
    queue: SyncSender<Seen>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Recorder {
    /// Begins a life in the file.
    pub fn open(options: &TraceOptions, of: Recorded) -> io::Result<Self> {
        let node = Lane::Node(of.node.0);
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let shared = Arc::new(Shared {
            node,
            clock: Clock::start(),
            waiting_bytes: AtomicUsize::new(0),
            unrecorded: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            operations: AtomicU64::new(1),
            busy: AtomicU64::new(0),
        });
        let head = LifeHead {
            quorate_process: PROCESS_VERSION,
            cluster: of.cluster,
            node: of.node.0,
            name: of.name,
            wall: u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX),
            members: of.members,
        };
        let writer = Writer::open(options, &head, shared.clone())?;
        let (queue, seen) = sync_channel(QUEUE_MAX);
        let thread = std::thread::Builder::new().name("trace".into()).spawn(move || writer.run(&seen))?;
        Ok(Self { shared, queue, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    /// Microseconds since the life began.
    pub fn now(&self) -> u64 {
        self.shared.clock.now().0
    }

    /// The node's lane.
    pub fn node(&self) -> Lane {
        self.shared.node
    }

    pub fn event(&self, event: TraceEvent) {
        self.put(What::Event(event), 0);
    }

    /// Something that has no event of its own, in words.
    pub fn note(&self, text: String) {
        self.event(TraceEvent::Note { node: self.node(), text });
    }

    /// A frame of so many bytes is about to leave. Its messages' ids begin with `first`.
    pub fn sent(&self, to: NodeId, first: u64, messages: Vec<PeerMessage>, bytes: usize) {
        self.put(What::Sent { to, first, messages }, bytes);
    }

    /// A frame has arrived.
    pub fn delivered(&self, first: u64, count: usize) {
        self.put(What::Delivered { first, count: count as u64 }, 0);
    }

    /// A client asks. None if too many do at once: then its operation is not recorded.
    pub fn asked(&self, text: String) -> Option<Asked<'_>> {
        let Some(slot) = self.take_slot() else {
            self.count_unrecorded(1);
            return None;
        };
        let operation = self.shared.operations.fetch_add(1, Ordering::Relaxed);
        let asked = Asked { recorder: self, slot, operation, answered: false };
        self.event(TraceEvent::Ask { client: asked.client(), node: self.node(), operation, text });
        Some(asked)
    }

    /// Ends the record, with a cause.
    pub fn stop(&self, cause: &str) {
        // A full queue is emptied in a moment; a writer that has ended takes nothing, and has nothing to say.
        let stop = Seen { at: self.now(), what: What::Stop(cause.into()), bytes: 0 };
        let _ = self.queue.send(stop);
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes the trace ended with a panic");
        }
    }

    /// Never waits.
    fn put(&self, what: What, bytes: usize) {
        let Shared { waiting_bytes, ended, .. } = &*self.shared;
        if ended.load(Ordering::Relaxed) {
            return;
        }
        let events = what.events();
        if waiting_bytes.fetch_add(bytes, Ordering::Relaxed) > WAITING_BYTES_MAX {
            waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return self.count_unrecorded(events);
        }
        if self.queue.try_send(Seen { at: self.now(), what, bytes }).is_err() {
            waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.count_unrecorded(events);
        }
    }

    fn count_unrecorded(&self, events: u64) {
        self.shared.unrecorded.fetch_add(events, Ordering::Relaxed);
    }

    /// The first lane of clients that is free.
    fn take_slot(&self) -> Option<u32> {
        let free = |busy: u64| (busy != u64::MAX).then(|| busy | (busy + 1));
        let before = self.shared.busy.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free).ok()?;
        Some(before.trailing_ones())
    }
}

/// Where something is recorded, this is.
pub(crate) fn tell(recorder: &Option<Recorder>, event: impl FnOnce(Lane) -> TraceEvent) {
    if let Some(recorder) = recorder {
        recorder.event(event(recorder.node()));
    }
}

/// A question that is not yet answered. Dropped without an answer, its client waits no longer.
pub(crate) struct Asked<'a> {
    recorder: &'a Recorder,
    slot: u32,
    operation: u64,
    answered: bool,
}

impl Asked<'_> {
    fn client(&self) -> Lane {
        Lane::Client(self.slot.into())
    }

    /// It is answered, at a revision or at none (0).
    pub fn answered(mut self, answer: Result<u64, &Error>) {
        let (outcome, revision, text) = words::outcome(answer);
        let (client, node, operation) = (self.client(), self.recorder.node(), self.operation);
        self.recorder.event(TraceEvent::Answer { client, node, operation, outcome, revision, text });
        self.answered = true;
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.recorder.event(TraceEvent::GiveUp { client: self.client(), operation: self.operation });
        }
        self.recorder.shared.busy.fetch_and(!(1 << self.slot), Ordering::Relaxed);
    }
}

/// The lane's eyes: what its replicas look like after each step.
pub(crate) struct Eyes {
    recorder: Recorder,
    looks: Looks,
}

impl Eyes {
    pub fn of(recorder: Recorder) -> Self {
        Self { recorder, looks: Looks::default() }
    }

    pub fn look(&mut self, node: &Node) {
        let look = |shard: ShardId| Some((shard, node.inspect(shard)?));
        for (shard, look) in node.shards().into_iter().filter_map(look) {
            self.see(shard, &look);
        }
    }

    fn see(&mut self, shard: ShardId, look: &Inspection) {
        let Self { recorder, looks } = self;
        looks.look(recorder.node(), shard, look, |event| recorder.event(event));
    }
}

/// The id of the first message on a new connection; the others follow. Another connection's are far away.
pub(crate) fn draw_connection() -> io::Result<MessageId> {
    crate::disk::random_u64().map(MessageId)
}

#[cfg(test)]
mod tests;

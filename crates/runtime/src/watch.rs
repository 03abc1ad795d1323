//! Watch sessions: from the lane's notices, through history where a watch is behind, to one ordered stream.
//!
//! ```text
//!   Attaching ──Attached──> Live ──queue full, or replica replaced──> Attaching (behind the last revision delivered)
//!       └──Behind(view)──> CatchingUp ──history read──> Attaching (behind the view)
//! ```
//!
//! The lane delivers into a bounded queue and never waits. A watch that finds the queue full is detached, and when its client has
//! taken what was queued it reads what it missed from history: a slow client costs memory for one queue, and time only to itself.

use crate::driver::{LaneInput, stop_process};
use quorate_cluster::{WatchOutput, WatchRequest};
use quorate_env::ShardId;
use quorate_kv::{BoxFuture, Event, KeyValue, Revision, WatchControl, WatchEvents, WatchId, WatchNotice, WatchSpec};
use quorate_shard::{View, WatcherKey};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, mpsc};

/// Notices queued for one session.
const QUEUE_MAX: usize = 1024;

/// Bytes of events queued for one session. A single larger notice is queued alone. What is queued may be shared with other sessions and
/// with the tail that the shard keeps, but for a stalled client nobody else keeps it.
const QUEUE_BYTES_MAX: usize = 8 << 20;

/// Bytes of an event beside its keys and values.
const EVENT_BYTES: usize = 128;

/// Bytes of events read from history at a time.
const PAGE_BYTES: usize = 256 << 10;

/// Watcher keys are unique in the process.
static NEXT_KEY: AtomicU64 = AtomicU64::new(1);

/// Where the lane puts a session's notices.
pub(crate) struct Sink {
    queue: mpsc::Sender<(WatcherKey, WatchOutput)>,
    shared: Arc<Shared>,
}

impl Sink {
    /// Returns whether the watch may stay attached.
    pub fn deliver(&self, key: WatcherKey, output: WatchOutput) -> bool {
        let bytes = cost(&output);
        // Only the lane adds, so that what is seen here can only shrink before it is added to.
        let queued = self.shared.queued_bytes.load(Ordering::Relaxed);
        let mut rejected = output;
        if bytes == 0 || queued == 0 || queued + bytes <= QUEUE_BYTES_MAX {
            self.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
            match self.queue.try_send((key, rejected)) {
                Ok(()) => return true,
                Err(e) => (_, rejected) = e.into_inner(),
            }
            self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        // Somebody waits for a progress: it is asked for again when the watch is attached again.
        let progress_wanted = matches!(rejected, WatchOutput::Progress { .. });
        self.shared.lock().lagging.push(Lagging { key, progress_wanted });
        self.shared.wake.notify_one();
        false
    }
}

/// Bytes that a notice keeps in memory.
fn cost(output: &WatchOutput) -> usize {
    let of = |kv: &KeyValue| kv.key.len() + kv.value.len();
    let events = |events: &[Event]| -> usize {
        events.iter().map(|event| EVENT_BYTES + of(&event.kv) + event.prev.as_ref().map_or(0, of)).sum()
    };
    match output {
        WatchOutput::Attached { backlog, .. } => backlog.iter().map(|list| events(list)).sum(),
        WatchOutput::Events { events: list, .. } => events(list),
        WatchOutput::Behind { .. }
        | WatchOutput::Compacted { .. }
        | WatchOutput::Progress { .. }
        | WatchOutput::Detached
        | WatchOutput::Gone => 0,
    }
}

#[derive(Default)]
struct Shared {
    /// Of [`cost`], in the queue.
    queued_bytes: AtomicUsize,
    state: Mutex<State>,
    wake: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct State {
    by_id: BTreeMap<WatchId, WatcherKey>,
    watches: BTreeMap<WatcherKey, Watch>,
    /// Detached by the lane because the queue was full.
    lagging: Vec<Lagging>,
}

struct Lagging {
    key: WatcherKey,
    progress_wanted: bool,
}

struct Watch {
    id: WatchId,
    spec: WatchSpec,
    created: bool,
    /// Everything below has been delivered; `None` until it is known where the watch begins.
    next: Option<Revision>,
    progress_wanted: bool,
    mode: Mode,
}

enum Mode {
    Attaching,
    Live,
    CatchingUp(View),
}

struct Control {
    shard: ShardId,
    lane: Sender<LaneInput>,
    sink: Arc<Sink>,
    shared: Arc<Shared>,
}

impl Control {
    fn tell(&self, key: WatcherKey, request: WatchRequest) {
        let sink = matches!(request, WatchRequest::Attach { .. }).then(|| self.sink.clone());
        // When the lane has stopped, the session's queue closes and the other end says so.
        let _ = self.lane.send(LaneInput::Watch { key, shard: self.shard, request, sink });
    }

    fn attach(&self, key: WatcherKey, watch: &mut Watch) {
        watch.mode = Mode::Attaching;
        self.tell(key, WatchRequest::Attach { spec: watch.spec.clone(), from: watch.next });
    }
}

/// The caller's end of a session.
struct Handle(Arc<Control>);

impl WatchControl for Handle {
    fn open(&self, id: WatchId, spec: WatchSpec) {
        self.close(id);
        let control = &self.0;
        let key = NEXT_KEY.fetch_add(1, Ordering::Relaxed);
        let next = spec.start;
        let mut watch = Watch { id, spec, created: false, next, progress_wanted: false, mode: Mode::Attaching };
        let mut state = self.0.shared.lock();
        control.attach(key, &mut watch);
        state.by_id.insert(id, key);
        state.watches.insert(key, watch);
    }

    fn close(&self, id: WatchId) {
        let mut state = self.0.shared.lock();
        if let Some(key) = state.by_id.remove(&id) {
            state.watches.remove(&key);
            self.0.tell(key, WatchRequest::Detach);
        }
    }

    fn progress(&self, id: WatchId) {
        let mut state = self.0.shared.lock();
        let Some(key) = state.by_id.get(&id).copied() else { return };
        let Some(watch) = state.watches.get_mut(&key) else { return };
        if matches!(watch.mode, Mode::Live) {
            self.0.tell(key, WatchRequest::Progress);
        } else {
            watch.progress_wanted = true;
        }
    }
}

struct Stream {
    control: Arc<Control>,
    queue: mpsc::Receiver<(WatcherKey, WatchOutput)>,
    ready: VecDeque<WatchNotice>,
    /// Watches that read history, and the one that read last.
    behind: BTreeSet<WatcherKey>,
    last_read: WatcherKey,
    /// Lagging watches, with the number of queued notices that were there before they fell behind.
    draining: Vec<(Lagging, usize)>,
    closed: bool,
}

/// Opens a session on a shard.
pub(crate) fn session(shard: ShardId, lane: Sender<LaneInput>) -> (Box<dyn WatchControl>, Box<dyn WatchEvents>) {
    let (queue, receiver) = mpsc::channel(QUEUE_MAX);
    let shared = Arc::new(Shared::default());
    let sink = Arc::new(Sink { queue, shared: shared.clone() });
    let control = Arc::new(Control { shard, lane, sink, shared });
    let stream = Stream {
        control: control.clone(),
        queue: receiver,
        ready: VecDeque::new(),
        behind: BTreeSet::new(),
        last_read: 0,
        draining: Vec::new(),
        closed: false,
    };
    (Box::new(Handle(control)), Box::new(stream))
}

impl Drop for Stream {
    fn drop(&mut self) {
        let keys: Vec<WatcherKey> = self.control.shared.lock().watches.keys().copied().collect();
        for key in keys {
            self.control.tell(key, WatchRequest::Detach);
        }
    }
}

impl WatchEvents for Stream {
    fn next(&mut self) -> BoxFuture<'_, WatchNotice> {
        Box::pin(async move {
            loop {
                if let Some(notice) = self.ready.pop_front() {
                    return notice;
                }
                if self.closed {
                    std::future::pending::<()>().await;
                }
                self.resume_lagging();
                if self.catch_up() {
                    // History may be long: let others run between its pages.
                    tokio::task::yield_now().await;
                    if let Ok((key, output)) = self.queue.try_recv() {
                        self.take(key, output);
                    }
                    continue;
                }
                let shared = self.control.shared.clone();
                tokio::select! {
                    received = self.queue.recv() => match received {
                        Some((key, output)) => self.take(key, output),
                        None => {
                            self.closed = true;
                            self.ready.push_back(WatchNotice::Closed);
                        }
                    },
                    () = shared.wake.notified() => {}
                }
            }
        })
    }
}

impl Stream {
    fn take(&mut self, key: WatcherKey, output: WatchOutput) {
        self.control.shared.queued_bytes.fetch_sub(cost(&output), Ordering::Relaxed);
        for (_, queued) in &mut self.draining {
            *queued = queued.saturating_sub(1);
        }
        let control = self.control.clone();
        let mut state = control.shared.lock();
        let Some(watch) = state.watches.get_mut(&key) else { return };
        let id = watch.id;
        match output {
            WatchOutput::Attached { revision, backlog } => {
                watch.mode = Mode::Live;
                watch.next.get_or_insert(Revision(revision.0 + 1));
                if !std::mem::replace(&mut watch.created, true) {
                    self.ready.push_back(WatchNotice::Created { id, revision });
                }
                for events in backlog {
                    deliver(&mut self.ready, watch, revision, events);
                }
                advance(watch, revision);
                if std::mem::take(&mut watch.progress_wanted) {
                    control.tell(key, WatchRequest::Progress);
                }
            }
            WatchOutput::Behind { view, from } => {
                watch.next = Some(from);
                if !std::mem::replace(&mut watch.created, true) {
                    self.ready.push_back(WatchNotice::Created { id, revision: view.revision() });
                }
                watch.mode = Mode::CatchingUp(view);
                self.behind.insert(key);
            }
            WatchOutput::Compacted { revision, compacted } => {
                if !watch.created {
                    self.ready.push_back(WatchNotice::Created { id, revision });
                }
                self.ready.push_back(WatchNotice::Compacted { id, revision, compacted });
                state.by_id.remove(&id);
                state.watches.remove(&key);
            }
            WatchOutput::Events { revision, events } => {
                deliver(&mut self.ready, watch, revision, events);
                advance(watch, revision);
            }
            WatchOutput::Progress { revision } => self.ready.push_back(WatchNotice::Progress { id, revision }),
            WatchOutput::Detached => control.attach(key, watch),
            // All watches of a session are of one shard: whoever watches finds another node.
            WatchOutput::Gone => self.closed = true,
        }
    }

    /// Reads one page of history for one of the watches that are behind, each in turn. Returns whether there was one.
    fn catch_up(&mut self) -> bool {
        let after = (Bound::Excluded(self.last_read), Bound::Unbounded);
        let Some(key) = self.behind.range(after).next().or_else(|| self.behind.first()).copied() else { return false };
        self.last_read = key;
        let control = self.control.clone();
        let (view, spec, next) = match control.shared.lock().watches.get(&key) {
            Some(Watch { mode: Mode::CatchingUp(view), spec, next: Some(next), .. }) => {
                (view.clone(), spec.clone(), *next)
            }
            // Closed in the meantime.
            _ => return self.behind.remove(&key),
        };
        // Without the lock, which the lane takes: a read may have to wait for the disk.
        let page = match view.events(&spec.range, next, spec.prev_kv, PAGE_BYTES) {
            Ok(page) => page,
            Err(e) => stop_process(&format!("history cannot be read: {e}")),
        };
        let wanted = |event: &Event| match event.kind {
            quorate_kv::EventKind::Put => !spec.no_put,
            quorate_kv::EventKind::Delete => !spec.no_delete,
        };
        let events: Arc<[Event]> = page.events.into_iter().filter(wanted).collect();
        let mut state = control.shared.lock();
        let Some(watch) = state.watches.get_mut(&key) else { return self.behind.remove(&key) };
        if !events.is_empty() {
            self.ready.push_back(WatchNotice::Events { id: watch.id, revision: view.revision(), events });
        }
        watch.next = Some(page.next);
        if page.next > view.revision() {
            self.behind.remove(&key);
            control.attach(key, watch);
        }
        true
    }

    /// Attaches lagging watches anew, each once everything that was queued for it has been taken.
    fn resume_lagging(&mut self) {
        let control = self.control.clone();
        let mut state = control.shared.lock();
        let queued = self.queue.len();
        self.draining.extend(state.lagging.drain(..).map(|lagging| (lagging, queued)));
        for (Lagging { key, progress_wanted }, _) in self.draining.extract_if(.., |(_, queued)| *queued == 0) {
            let Some(watch) = state.watches.get_mut(&key) else { continue };
            watch.progress_wanted |= progress_wanted;
            if matches!(watch.mode, Mode::Live | Mode::Attaching) {
                control.attach(key, watch);
            }
        }
    }
}

fn deliver(ready: &mut VecDeque<WatchNotice>, watch: &Watch, revision: Revision, events: Arc<[Event]>) {
    // What a watch saw before it lagged may come again with its backlog.
    let next = watch.next.unwrap_or_default();
    let fresh: Arc<[Event]> = match events.first() {
        Some(first) if first.kv.mod_revision >= next => events,
        _ => events.iter().filter(|event| event.kv.mod_revision >= next).cloned().collect(),
    };
    if !fresh.is_empty() {
        ready.push_back(WatchNotice::Events { id: watch.id, revision, events: fresh });
    }
}

/// Everything up to `revision` has been delivered.
fn advance(watch: &mut Watch, revision: Revision) {
    let next = Revision(revision.0 + 1);
    watch.next = Some(watch.next.map_or(next, |known| known.max(next)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_kv::{EventKind, KeyRange, LeaseId};
    use std::sync::mpsc::{Receiver, channel};

    /// A lane's end of a session with one watch: what it is told, and where it delivers.
    struct Lane {
        inputs: Receiver<LaneInput>,
        key: WatcherKey,
        sink: Arc<Sink>,
    }

    fn begin() -> (Lane, Box<dyn WatchControl>, Box<dyn WatchEvents>) {
        let (lane, inputs) = channel();
        let (control, events) = session(ShardId(2), lane);
        let spec = WatchSpec { range: KeyRange::all(), start: None, no_put: false, no_delete: false, prev_kv: false };
        control.open(WatchId(7), spec);
        let Ok(LaneInput::Watch { key, sink: Some(sink), .. }) = inputs.try_recv() else { panic!("a watch attaches") };
        let lane = Lane { inputs, key, sink };
        assert!(lane.deliver(WatchOutput::Attached { revision: Revision(1), backlog: Vec::new() }));
        (lane, control, events)
    }

    impl Lane {
        fn deliver(&self, output: WatchOutput) -> bool {
            self.sink.deliver(self.key, output)
        }

        fn write(&self, revision: u64, bytes: usize) -> bool {
            let revision = Revision(revision);
            let kv = KeyValue {
                key: "k".into(),
                value: vec![0; bytes].into(),
                create_revision: revision,
                mod_revision: revision,
                version: 1,
                lease: LeaseId::NONE,
            };
            let events = [Event { kind: EventKind::Put, kv, prev: None }].into();
            self.deliver(WatchOutput::Events { revision, events })
        }

        /// From where the watch asked to be attached again, and whether it asked for its progress.
        fn asked(&self) -> (Option<Revision>, bool) {
            let (mut from, mut progress) = (None, false);
            while let Ok(LaneInput::Watch { request, .. }) = self.inputs.try_recv() {
                match request {
                    WatchRequest::Attach { from: asked, .. } => from = asked,
                    WatchRequest::Progress => progress = true,
                    WatchRequest::Detach => {}
                }
            }
            (from, progress)
        }
    }

    /// Takes everything that is ready; returns the revisions of the events.
    async fn take(events: &mut Box<dyn WatchEvents>) -> Vec<u64> {
        let mut seen = Vec::new();
        while let Ok(notice) = tokio::time::timeout(std::time::Duration::from_millis(50), events.next()).await {
            if let WatchNotice::Events { events, .. } = notice {
                seen.extend(events.iter().map(|event| event.kv.mod_revision.0));
            }
        }
        seen
    }

    #[tokio::test]
    async fn a_stalled_session_holds_so_many_bytes_and_reads_the_rest_later() {
        let (lane, _control, mut events) = begin();
        let taken = (2..).take_while(|revision| lane.write(*revision, 1 << 20)).count();
        assert_eq!(taken, QUEUE_BYTES_MAX / (1 << 20) - 1, "what is around the values counts too");
        assert_eq!(take(&mut events).await, (2..2 + taken as u64).collect::<Vec<_>>());
        assert_eq!(lane.asked().0, Some(Revision(2 + taken as u64)), "it goes on behind what it was given");
        assert_eq!(lane.sink.shared.queued_bytes.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_large_notice_is_queued_alone() {
        let (lane, _control, mut events) = begin();
        assert!(lane.write(2, QUEUE_BYTES_MAX * 2));
        assert!(!lane.write(3, 1));
        assert_eq!(take(&mut events).await, [2]);
    }

    #[tokio::test]
    async fn a_progress_that_finds_no_place_is_asked_for_again() {
        let (lane, _control, mut events) = begin();
        while lane.deliver(WatchOutput::Progress { revision: Revision(1) }) {}
        take(&mut events).await;
        assert_eq!(lane.asked(), (Some(Revision(2)), false));
        lane.deliver(WatchOutput::Attached { revision: Revision(5), backlog: Vec::new() });
        take(&mut events).await;
        assert!(lane.asked().1);
    }
}

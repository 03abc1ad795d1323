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
use quorate_kv::{BoxFuture, Event, Revision, WatchControl, WatchEvents, WatchId, WatchNotice, WatchSpec};
use quorate_shard::{View, WatcherKey};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, mpsc};

/// Notices queued for one session.
const QUEUE_MAX: usize = 1024;

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
        if self.queue.try_send((key, output)).is_ok() {
            return true;
        }
        self.shared.lock().lagging.push(key);
        self.shared.wake.notify_one();
        false
    }
}

#[derive(Default)]
struct Shared {
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
    lagging: Vec<WatcherKey>,
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
    /// Lagging watches, with the number of queued notices that were there before they fell behind.
    draining: Vec<(WatcherKey, usize)>,
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
        }
    }

    /// Reads one page of history for each watch that is behind. Returns whether there is more to read.
    fn catch_up(&mut self) -> bool {
        let control = self.control.clone();
        let mut state = control.shared.lock();
        let mut more = false;
        for (key, watch) in &mut state.watches {
            let (Mode::CatchingUp(view), Some(next)) = (&watch.mode, watch.next) else { continue };
            let view = view.clone();
            let page = match view.events(&watch.spec.range, next, watch.spec.prev_kv, PAGE_BYTES) {
                Ok(page) => page,
                Err(e) => stop_process(&format!("history cannot be read: {e}")),
            };
            let wanted = |event: &Event| match event.kind {
                quorate_kv::EventKind::Put => !watch.spec.no_put,
                quorate_kv::EventKind::Delete => !watch.spec.no_delete,
            };
            let events: Arc<[Event]> = page.events.into_iter().filter(wanted).collect();
            if !events.is_empty() {
                self.ready.push_back(WatchNotice::Events { id: watch.id, revision: view.revision(), events });
            }
            watch.next = Some(page.next);
            if page.next > view.revision() {
                control.attach(*key, watch);
            } else {
                more = true;
            }
        }
        more || !self.ready.is_empty()
    }

    /// Attaches lagging watches anew, each once everything that was queued for it has been taken.
    fn resume_lagging(&mut self) {
        let control = self.control.clone();
        let mut state = control.shared.lock();
        let queued = self.queue.len();
        self.draining.extend(state.lagging.drain(..).map(|key| (key, queued)));
        for (key, _) in self.draining.extract_if(.., |(_, queued)| *queued == 0) {
            if let Some(watch) = state.watches.get_mut(&key)
                && matches!(watch.mode, Mode::Live | Mode::Attaching)
            {
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

//! The Watch service: one gRPC stream is one watch session of the core.
//!
//! A task per stream takes the client's requests and the session's notices, whichever comes first, and puts responses into the stream's
//! outbox. When the client does not take them the task waits, the session's own queue fills, and the core lets the watch read the rest
//! from history later: a stalled client holds back only itself.

use crate::error::{COMPACTED, STOPPED};
use crate::metrics::{Method, Metrics};
use crate::options::WATCHES_PER_STREAM_MAX;
use crate::outbox::{self, Gone, Outbox, Responses};
use crate::proto::etcdserverpb::watch_create_request::FilterType;
use crate::proto::etcdserverpb::watch_request::RequestUnion;
use crate::proto::etcdserverpb::watch_server::Watch;
use crate::proto::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchRequest, WatchResponse};
use crate::server::Stop;
use crate::{Options, check, error, translate};
use bytes::Bytes;
use prost::Message;
use quorate_kv::{
    Db, Event, Header, KeyspaceId, RangeEnd, Revision, WatchControl, WatchEvents, WatchId, WatchNotice, WatchSession,
    WatchSpec,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::time::{Instant, Interval, interval_at};
use tonic::{Code, Request, Response, Status, Streaming};

const KEYSPACE: KeyspaceId = KeyspaceId::DEFAULT;

/// What is not tied to one watch goes under this id.
const NO_WATCH: i64 = -1;

#[derive(Clone)]
pub(crate) struct WatchService {
    pub db: Arc<dyn Db>,
    pub options: Options,
    pub metrics: Arc<Metrics>,
    pub stop: Stop,
}

struct Opened {
    prev_kv: bool,
    fragment: bool,
    progress_notify: bool,
    /// Something was sent since the last periodic progress.
    busy: bool,
    /// What was answered to be created; a watch is announced before anything else of it is sent.
    created: bool,
}

/// A client's request for the progress of all its watches.
struct ProgressRequest {
    awaited: BTreeSet<WatchId>,
    revision: Revision,
}

struct Session {
    service: WatchService,
    control: Box<dyn WatchControl>,
    watches: BTreeMap<WatchId, Opened>,
    /// Watches that a compaction ended. Their ids stay taken until the client cancels them too.
    overtaken: BTreeSet<WatchId>,
    next_id: i64,
    progress: Option<ProgressRequest>,
    term: quorate_env::Term,
    outbox: Outbox,
}

/// Why a stream ends.
enum End {
    /// The client closed its half. It may want to go on listening, but etcd's ends the stream then.
    Closed,
    Gone,
    Failed(Status),
}

impl From<Gone> for End {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

#[tonic::async_trait]
impl Watch for WatchService {
    type WatchStream = Responses;

    async fn watch(&self, r: Request<Streaming<WatchRequest>>) -> Result<Response<Responses>, Status> {
        let session = self.db.watch(KEYSPACE).map_err(|e| error::status(&e))?;
        let (outbox, responses) = outbox::pair();
        tokio::spawn(Session::run(self.clone(), session, r.into_inner(), outbox));
        Ok(Response::new(responses))
    }
}

impl Session {
    /// Serves one stream.
    async fn run(
        service: WatchService,
        (control, mut notices): WatchSession,
        mut requests: Streaming<WatchRequest>,
        outbox: Outbox,
    ) {
        let (metrics, mut stop) = (service.metrics.clone(), service.stop.clone());
        metrics.watch_streams.fetch_add(1, Ordering::Relaxed);
        let period = service.options.progress_interval;
        let mut periodic = interval_at(Instant::now() + period, period);
        let (watches, progress, term) = (BTreeMap::new(), None, quorate_env::Term(0));
        let overtaken = BTreeSet::new();
        let mut session = Self { service, control, watches, overtaken, next_id: 0, progress, term, outbox };
        session.learn_term().await;
        let end = tokio::select! {
            end = session.serve(&mut requests, notices.as_mut(), &mut periodic) => end,
            // Whatever it is busy with: it ends now.
            () = stop.wait() => End::Failed(STOPPED.into()),
        };
        let code = match end {
            End::Closed => Code::Ok,
            End::Gone => Code::Cancelled,
            End::Failed(status) => {
                let code = status.code();
                session.outbox.fail(status).await;
                code
            }
        };
        metrics.ended(Method::Watch, code);
        metrics.watchers.fetch_sub(session.watches.len() as u64, Ordering::Relaxed);
        metrics.watch_streams.fetch_sub(1, Ordering::Relaxed);
    }

    async fn serve(
        &mut self,
        requests: &mut Streaming<WatchRequest>,
        notices: &mut dyn WatchEvents,
        periodic: &mut Interval,
    ) -> End {
        loop {
            let step = tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(WatchRequest { request_union: Some(request) })) => self.request(request).await.map_err(End::from),
                    Ok(Some(WatchRequest { request_union: None })) => Ok(()),
                    Ok(None) => Err(End::Closed),
                    Err(status) => Err(End::Failed(status)),
                },
                notice = notices.next() => self.notice(notice).await,
                _ = periodic.tick() => {
                    self.learn_term().await;
                    self.periodic_progress();
                    Ok(())
                }
                () = self.outbox.gone() => Err(End::Gone),
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn learn_term(&mut self) {
        if let Ok(status) = self.service.db.status(KEYSPACE).await {
            self.term = status.header.term;
        }
    }

    fn header(&self, revision: Revision) -> Option<ResponseHeader> {
        translate::header(self.service.db.identity(), Header { revision, term: self.term })
    }

    async fn send(&self, response: WatchResponse) -> Result<(), Gone> {
        self.outbox.send(response).await
    }

    async fn present_revision(&mut self) -> Revision {
        match self.service.db.status(KEYSPACE).await {
            Ok(status) => {
                self.term = status.header.term;
                status.header.revision
            }
            Err(_) => Revision(0),
        }
    }

    async fn request(&mut self, request: RequestUnion) -> Result<(), Gone> {
        match request {
            RequestUnion::CreateRequest(r) => self.create(r).await,
            RequestUnion::CancelRequest(r) => {
                let id = WatchId(r.watch_id);
                if self.watches.remove(&id).is_some() {
                    self.control.close(id);
                    self.forget(id).await?;
                } else if !self.overtaken.remove(&id) {
                    return Ok(());
                }
                let revision = self.present_revision().await;
                let header = self.header(revision);
                self.send(WatchResponse { header, watch_id: id.0, canceled: true, ..Default::default() }).await
            }
            RequestUnion::ProgressRequest(_) => {
                let awaited: BTreeSet<WatchId> = self.watches.keys().copied().collect();
                for id in &awaited {
                    self.control.progress(*id);
                }
                if !awaited.is_empty() {
                    self.progress = Some(ProgressRequest { awaited, revision: Revision(u64::MAX) });
                }
                Ok(())
            }
        }
    }

    fn taken(&self, id: WatchId) -> bool {
        self.watches.contains_key(&id) || self.overtaken.contains(&id)
    }

    async fn create(&mut self, r: WatchCreateRequest) -> Result<(), Gone> {
        // The empty key stands for the first one.
        let key = if r.key.is_empty() { Bytes::from_static(&[0]) } else { r.key.clone() };
        let range = check::key_range(&key, &r.range_end);
        let empty = matches!(&range.end, RangeEnd::Before(end) if *end <= range.start);
        let refusal = if r.start_revision < 0 {
            Some(COMPACTED.1)
        } else if empty {
            Some("mvcc: watcher range is empty")
        } else if r.watch_id != 0 && self.taken(WatchId(r.watch_id)) {
            Some("mvcc: duplicate watch ID provided on the WatchStream")
        } else if self.watches.len() + self.overtaken.len() >= WATCHES_PER_STREAM_MAX {
            Some("etcdserver: too many requests")
        } else {
            None
        };
        if let Some(reason) = refusal {
            let revision = self.present_revision().await;
            let header = self.header(revision);
            let cancel_reason = reason.to_owned();
            let refused = WatchResponse {
                header,
                watch_id: NO_WATCH,
                created: true,
                canceled: true,
                cancel_reason,
                ..Default::default()
            };
            return self.send(refused).await;
        }
        let id = if r.watch_id == 0 {
            while self.taken(WatchId(self.next_id)) {
                self.next_id += 1;
            }
            self.next_id += 1;
            WatchId(self.next_id - 1)
        } else {
            WatchId(r.watch_id)
        };
        let filters: Vec<FilterType> = r.filters().collect();
        let spec = WatchSpec {
            range,
            start: u64::try_from(r.start_revision).ok().filter(|revision| *revision > 0).map(Revision),
            no_put: filters.contains(&FilterType::Noput),
            no_delete: filters.contains(&FilterType::Nodelete),
            prev_kv: r.prev_kv,
        };
        let (prev_kv, fragment, progress_notify) = (r.prev_kv, r.fragment, r.progress_notify);
        self.watches.insert(id, Opened { prev_kv, fragment, progress_notify, busy: false, created: false });
        self.service.metrics.watchers.fetch_add(1, Ordering::Relaxed);
        self.control.open(id, spec);
        Ok(())
    }

    async fn notice(&mut self, notice: WatchNotice) -> Result<(), End> {
        match notice {
            WatchNotice::Created { id, revision } => self.created(id, revision).await?,
            WatchNotice::Events { id, revision, events } => self.events(id, revision, &events).await?,
            WatchNotice::Progress { id, revision } => self.progressed(id, revision).await?,
            WatchNotice::Compacted { id, revision, compacted } => self.compacted(id, revision, compacted).await?,
            WatchNotice::Closed => return Err(End::Failed(STOPPED.into())),
        }
        Ok(())
    }

    async fn created(&mut self, id: WatchId, revision: Revision) -> Result<(), Gone> {
        let header = self.header(revision);
        let Some(watch) = self.watches.get_mut(&id) else { return Ok(()) };
        watch.created = true;
        self.send(WatchResponse { header, watch_id: id.0, created: true, ..Default::default() }).await
    }

    async fn compacted(&mut self, id: WatchId, revision: Revision, compacted: Revision) -> Result<(), Gone> {
        if self.watches.remove(&id).is_none() {
            return Ok(());
        }
        self.overtaken.insert(id);
        self.forget(id).await?;
        let (header, compact_revision) = (self.header(revision), compacted.0 as i64);
        let ended = WatchResponse { header, watch_id: id.0, canceled: true, compact_revision, ..Default::default() };
        self.send(ended).await
    }

    async fn events(&mut self, id: WatchId, revision: Revision, events: &[Event]) -> Result<(), Gone> {
        let header = self.header(revision);
        let Some(watch) = self.watches.get_mut(&id) else { return Ok(()) };
        watch.busy = true;
        let (prev_kv, fragment) = (watch.prev_kv, watch.fragment);
        self.service.metrics.events.fetch_add(events.len() as u64, Ordering::Relaxed);
        let limit = if fragment { self.service.options.fragment_bytes } else { usize::MAX };
        let mut response = WatchResponse { header, watch_id: id.0, ..Default::default() };
        response.events.reserve(if fragment { 0 } else { events.len() });
        let mut bytes = 0;
        for event in events {
            let event = translate::event(event, prev_kv);
            if fragment {
                let size = event.encoded_len();
                if bytes + size > limit && !response.events.is_empty() {
                    let rest = WatchResponse { header, watch_id: id.0, ..Default::default() };
                    let mut full = std::mem::replace(&mut response, rest);
                    full.fragment = true;
                    self.send(full).await?;
                    bytes = 0;
                }
                bytes += size;
            }
            response.events.push(event);
        }
        self.send(response).await
    }

    async fn progressed(&mut self, id: WatchId, revision: Revision) -> Result<(), Gone> {
        if let Some(progress) = &mut self.progress
            && progress.awaited.remove(&id)
        {
            progress.revision = progress.revision.min(revision);
            return self.answer_progress().await;
        }
        let header = self.header(revision);
        let Some(watch) = self.watches.get_mut(&id) else { return Ok(()) };
        if !watch.progress_notify || std::mem::take(&mut watch.busy) {
            return Ok(());
        }
        self.send(WatchResponse { header, watch_id: id.0, ..Default::default() }).await
    }

    /// Answers a progress request once every watch has reported.
    async fn answer_progress(&mut self) -> Result<(), Gone> {
        match &self.progress {
            Some(progress) if progress.awaited.is_empty() => {
                let header = self.header(progress.revision);
                self.progress = None;
                self.send(WatchResponse { header, watch_id: NO_WATCH, ..Default::default() }).await
            }
            _ => Ok(()),
        }
    }

    /// A watch has ended: nobody waits for its progress any more.
    async fn forget(&mut self, id: WatchId) -> Result<(), Gone> {
        self.service.metrics.watchers.fetch_sub(1, Ordering::Relaxed);
        let waited = self.progress.as_mut().is_some_and(|progress| progress.awaited.remove(&id));
        match &self.progress {
            Some(progress) if progress.awaited.is_empty() && progress.revision == Revision(u64::MAX) => {
                self.progress = None;
                Ok(())
            }
            Some(_) if waited => self.answer_progress().await,
            _ => Ok(()),
        }
    }

    fn periodic_progress(&mut self) {
        for (id, watch) in &mut self.watches {
            if watch.progress_notify && watch.created && !std::mem::take(&mut watch.busy) {
                self.control.progress(*id);
            }
        }
    }
}

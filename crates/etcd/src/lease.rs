//! The Lease service.

use crate::error::{LEASE_TTL_TOO_LARGE, STOPPED, status};
use crate::metrics::{Method, Metrics};
use crate::options::RESPONSES_QUEUED_MAX;
use crate::proto::etcdserverpb::lease_server::Lease;
use crate::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
};
use crate::server::Stop;
use crate::{Options, translate};
use quorate_env::checksum::checksum;
use quorate_kv::{Command, Db, Error, Header, KeyspaceId, LeaseId, Refusal, limits};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

const KEYSPACE: KeyspaceId = KeyspaceId::DEFAULT;

/// Drawn ids that turn out to be taken before giving up: one is already unlikely.
const DRAWS_MAX: usize = 8;

#[derive(Clone)]
pub(crate) struct LeaseService {
    pub db: Arc<dyn Db>,
    pub options: Options,
    pub metrics: Arc<Metrics>,
    pub drawn: Arc<AtomicU64>,
    pub stop: Stop,
}

impl LeaseService {
    /// A positive id that no other node is likely to draw.
    fn draw(&self) -> LeaseId {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let count = self.drawn.fetch_add(1, Ordering::Relaxed);
        let seed = self.db.identity().node.0 ^ count.rotate_left(40);
        LeaseId(((checksum(seed, &clock.to_le_bytes()) >> 1) as i64).max(1))
    }

    async fn grant(&self, r: LeaseGrantRequest) -> Result<LeaseGrantResponse, Status> {
        let ttl = r.ttl.max(self.options.min_lease_ttl_s);
        if ttl as u64 > limits::LEASE_TTL_S_MAX {
            return Err(LEASE_TTL_TOO_LARGE.into());
        }
        for _ in 0..DRAWS_MAX {
            let id = if r.id == 0 { self.draw() } else { LeaseId(r.id) };
            match self.db.submit(KEYSPACE, Command::LeaseGrant { id, ttl_s: ttl as u64 }).await {
                Ok(applied) => {
                    let header = translate::header(self.db.identity(), applied.header);
                    return Ok(LeaseGrantResponse { header, id: id.0, ttl, error: String::new() });
                }
                Err(Error::Refused(Refusal::LeaseExists)) if r.id == 0 => {}
                Err(e) => return Err(status(&e)),
            }
        }
        Err(Status::internal("no free lease id was found"))
    }

    async fn revoke(&self, r: LeaseRevokeRequest) -> Result<LeaseRevokeResponse, Status> {
        let command = Command::LeaseRevoke { id: LeaseId(r.id) };
        let applied = self.db.submit(KEYSPACE, command).await.map_err(|e| status(&e))?;
        Ok(LeaseRevokeResponse { header: translate::header(self.db.identity(), applied.header) })
    }

    async fn present_header(&self) -> Result<Header, Status> {
        Ok(self.db.status(KEYSPACE).await.map_err(|e| status(&e))?.header)
    }

    async fn time_to_live(&self, r: LeaseTimeToLiveRequest) -> Result<LeaseTimeToLiveResponse, Status> {
        match self.db.lease_info(KEYSPACE, LeaseId(r.id), r.keys).await {
            Ok(read) => Ok(LeaseTimeToLiveResponse {
                header: translate::header(self.db.identity(), read.header),
                id: r.id,
                ttl: read.result.remaining_s as i64,
                granted_ttl: read.result.granted_s as i64,
                keys: read.result.keys,
            }),
            Err(Error::Refused(Refusal::LeaseNotFound)) => Ok(LeaseTimeToLiveResponse {
                header: translate::header(self.db.identity(), self.present_header().await?),
                id: r.id,
                ttl: -1,
                granted_ttl: 0,
                keys: Vec::new(),
            }),
            Err(e) => Err(status(&e)),
        }
    }

    async fn keep_alive(&self, r: LeaseKeepAliveRequest) -> Result<LeaseKeepAliveResponse, Status> {
        let (header, ttl) = match self.db.lease_keep_alive(KEYSPACE, LeaseId(r.id)).await {
            Ok(read) => (read.header, read.result.granted_s as i64),
            // Not an error of the stream: the client learns that this lease is gone.
            Err(Error::Refused(Refusal::LeaseNotFound)) => (self.present_header().await?, 0),
            Err(e) => return Err(status(&e)),
        };
        Ok(LeaseKeepAliveResponse { header: translate::header(self.db.identity(), header), id: r.id, ttl })
    }

    /// Serves one stream. Its renewals are answered in order, one after the other, as etcd's are: clients match answers by their order, and
    /// one that waits for a leader delays only those of its own stream.
    async fn keep_all_alive(
        &self,
        requests: &mut Streaming<LeaseKeepAliveRequest>,
        responses: &mpsc::Sender<Result<LeaseKeepAliveResponse, Status>>,
    ) -> Result<(), Status> {
        let mut stop = self.stop.clone();
        loop {
            let answer = async {
                match requests.message().await? {
                    Some(request) => self.keep_alive(request).await.map(Some),
                    None => Ok(None),
                }
            };
            let answer = tokio::select! {
                answer = answer => answer?,
                () = stop.wait() => return Err(STOPPED.into()),
            };
            let Some(answer) = answer else { return Ok(()) };
            if responses.send(Ok(answer)).await.is_err() {
                return Err(Status::cancelled("the client has gone"));
            }
        }
    }

    async fn list(&self) -> Result<LeaseLeasesResponse, Status> {
        let read = self.db.leases(KEYSPACE).await.map_err(|e| status(&e))?;
        Ok(LeaseLeasesResponse {
            header: translate::header(self.db.identity(), read.header),
            leases: read.result.into_iter().map(|id| LeaseStatus { id: id.0 }).collect(),
        })
    }
}

#[tonic::async_trait]
impl Lease for LeaseService {
    type LeaseKeepAliveStream = ReceiverStream<Result<LeaseKeepAliveResponse, Status>>;

    async fn lease_grant(&self, r: Request<LeaseGrantRequest>) -> Result<Response<LeaseGrantResponse>, Status> {
        self.metrics.count(Method::LeaseGrant, self.grant(r.into_inner()).await)
    }

    async fn lease_revoke(&self, r: Request<LeaseRevokeRequest>) -> Result<Response<LeaseRevokeResponse>, Status> {
        self.metrics.count(Method::LeaseRevoke, self.revoke(r.into_inner()).await)
    }

    async fn lease_keep_alive(
        &self,
        r: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let (responses, stream) = mpsc::channel(RESPONSES_QUEUED_MAX);
        let (service, mut requests) = (self.clone(), r.into_inner());
        tokio::spawn(async move {
            let ended = service.keep_all_alive(&mut requests, &responses).await;
            service.metrics.ended(Method::LeaseKeepAlive, ended.as_ref().map_or_else(Status::code, |()| Code::Ok));
            if let Err(status) = ended {
                // The client may have gone; then nobody needs to know why.
                let _ = responses.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn lease_time_to_live(
        &self,
        r: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        self.metrics.count(Method::LeaseTimeToLive, self.time_to_live(r.into_inner()).await)
    }

    async fn lease_leases(&self, _: Request<LeaseLeasesRequest>) -> Result<Response<LeaseLeasesResponse>, Status> {
        self.metrics.count(Method::LeaseLeases, self.list().await)
    }
}

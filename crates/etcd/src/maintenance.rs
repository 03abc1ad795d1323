//! The Maintenance and Auth services.

use crate::error::{AUTH_NOT_ENABLED, NO_LEADER, status};
use crate::metrics::{Method, Metrics};
use crate::proto::etcdserverpb::auth_server::Auth;
use crate::proto::etcdserverpb::maintenance_server::Maintenance;
use crate::proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, AuthStatusRequest, AuthStatusResponse, AuthenticateRequest,
    AuthenticateResponse, DefragmentRequest, DefragmentResponse, HashKvRequest, HashKvResponse, HashRequest,
    HashResponse, MoveLeaderRequest, MoveLeaderResponse, ResponseHeader, StatusRequest, StatusResponse, alarm_request,
};
use crate::{Options, translate};
use quorate_env::NodeId;
use quorate_kv::{Db, KeyspaceId, Revision};
use std::sync::Arc;
use tonic::{Request, Response, Status};

const KEYSPACE: KeyspaceId = KeyspaceId::DEFAULT;

#[derive(Clone)]
pub(crate) struct MaintenanceService {
    pub db: Arc<dyn Db>,
    pub options: Options,
    pub metrics: Arc<Metrics>,
}

impl MaintenanceService {
    pub(crate) async fn header(&self) -> Result<Option<ResponseHeader>, Status> {
        let status_now = self.db.status(KEYSPACE).await.map_err(|e| status(&e))?;
        Ok(translate::header(self.db.identity(), status_now.header))
    }

    async fn status_page(&self) -> Result<StatusResponse, Status> {
        let now = self.db.status(KEYSPACE).await.map_err(|e| status(&e))?;
        let mut errors = Vec::new();
        if now.leader.is_none() {
            errors.push(NO_LEADER.1.to_owned());
        }
        if now.no_space {
            errors.push(format!("memberID:{} alarm:NOSPACE ", self.db.identity().node.0));
        }
        Ok(StatusResponse {
            header: translate::header(self.db.identity(), now.header),
            version: self.options.version.to_owned(),
            db_size: now.disk_bytes as i64,
            leader: now.leader.map_or(0, |leader| leader.0),
            raft_index: now.committed.0,
            raft_term: now.header.term.0,
            raft_applied_index: now.applied.0,
            errors,
            db_size_in_use: now.disk_bytes_in_use as i64,
            is_learner: now.learner,
        })
    }

    async fn list_alarms(&self, r: AlarmRequest) -> Result<AlarmResponse, Status> {
        if r.action() != alarm_request::AlarmAction::Get {
            return Err(Status::unimplemented(
                "quorate: alarms follow the disk by themselves: they cannot be activated or deactivated",
            ));
        }
        let now = self.db.status(KEYSPACE).await.map_err(|e| status(&e))?;
        let asked = matches!(r.alarm(), AlarmType::None | AlarmType::Nospace);
        let member_id = self.db.identity().node.0;
        let alarm = AlarmMember { member_id, alarm: AlarmType::Nospace as i32 };
        Ok(AlarmResponse {
            header: translate::header(self.db.identity(), now.header),
            alarms: if now.no_space && asked { vec![alarm] } else { Vec::new() },
        })
    }

    async fn hash_of(&self, revision: Option<Revision>) -> Result<HashKvResponse, Status> {
        let read = self.db.hash(KEYSPACE, revision).await.map_err(|e| status(&e))?;
        Ok(HashKvResponse {
            header: translate::header(self.db.identity(), read.header),
            hash: read.result.hash,
            compact_revision: read.result.compacted.0 as i64,
            hash_revision: read.result.revision.0 as i64,
        })
    }
}

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    async fn alarm(&self, r: Request<AlarmRequest>) -> Result<Response<AlarmResponse>, Status> {
        self.metrics.count(Method::Alarm, self.list_alarms(r.into_inner()).await)
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        self.metrics.count(Method::Status, self.status_page().await)
    }

    /// Does nothing: the store gives space back by itself. It answers as etcd does, for the scripts that call it.
    async fn defragment(&self, _: Request<DefragmentRequest>) -> Result<Response<DefragmentResponse>, Status> {
        let answer = self.header().await.map(|header| DefragmentResponse { header });
        self.metrics.count(Method::Defragment, answer)
    }

    async fn hash(&self, _: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        let answer = self.hash_of(None).await.map(|r| HashResponse { header: r.header, hash: r.hash });
        self.metrics.count(Method::Hash, answer)
    }

    /// Moves every group that this node leads: whoever asks for it wants the node free of leadership.
    async fn move_leader(&self, r: Request<MoveLeaderRequest>) -> Result<Response<MoveLeaderResponse>, Status> {
        let to = NodeId(r.into_inner().target_id);
        let moved = self.db.move_leader(KEYSPACE, to).await.map_err(|e| status(&e));
        // As with etcd, the header is empty.
        self.metrics.count(Method::MoveLeader, moved.map(|()| MoveLeaderResponse { header: None }))
    }

    async fn hash_kv(&self, r: Request<HashKvRequest>) -> Result<Response<HashKvResponse>, Status> {
        let revision = u64::try_from(r.into_inner().revision).ok().filter(|revision| *revision > 0).map(Revision);
        self.metrics.count(Method::HashKv, self.hash_of(revision).await)
    }
}

#[tonic::async_trait]
impl Auth for MaintenanceService {
    async fn auth_status(&self, _: Request<AuthStatusRequest>) -> Result<Response<AuthStatusResponse>, Status> {
        let header = self.header().await;
        let answer = header.map(|header| AuthStatusResponse { header, enabled: false, auth_revision: 1 });
        self.metrics.count(Method::AuthStatus, answer)
    }

    async fn authenticate(&self, _: Request<AuthenticateRequest>) -> Result<Response<AuthenticateResponse>, Status> {
        self.metrics.count(Method::Authenticate, Err(AUTH_NOT_ENABLED.into()))
    }
}

//! The KV service.

use crate::error::{COMPACTED, KEY_NOT_FOUND, LEASE_NOT_FOUND, TOO_LARGE, status};
use crate::metrics::{Method, Metrics};
use crate::proto::etcdserverpb::kv_server::Kv;
use crate::proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};
use crate::{Options, check, translate};
use prost::Message;
use quorate_kv::{
    Applied, Command, Consistency, Db, Error, Header, KeyspaceId, LeaseId, Op, OpResult, Outcome, Refusal, Revision,
    Txn, TxnResult,
};
use std::sync::Arc;
use tonic::{Request, Response, Status};

const KEYSPACE: KeyspaceId = KeyspaceId::DEFAULT;

#[derive(Clone)]
pub(crate) struct KvService {
    pub db: Arc<dyn Db>,
    pub options: Options,
    pub metrics: Arc<Metrics>,
}

impl KvService {
    fn check_size(&self, message: &impl Message) -> Result<(), Status> {
        if message.encoded_len() > self.options.max_request_bytes { Err(TOO_LARGE.into()) } else { Ok(()) }
    }

    async fn transact(&self, txn: Txn) -> Result<(Header, TxnResult), Status> {
        let applied = self.db.submit(KEYSPACE, Command::Transact(txn)).await.map_err(|e| status(&e))?;
        match applied {
            Applied { header, outcome: Outcome::Transacted(result) } => Ok((header, result)),
            Applied { .. } => Err(Status::internal("a transaction was answered with something else")),
        }
    }

    async fn one(&self, op: Op) -> Result<(Header, OpResult), Status> {
        let (header, result) = self.transact(Txn::just(op)).await?;
        let result = result.results.into_iter().next();
        result.map(|result| (header, result)).ok_or_else(|| Status::internal("an operation was not answered"))
    }

    async fn do_range(&self, r: RangeRequest) -> Result<RangeResponse, Status> {
        check::range(&r)?;
        let consistency = if r.serializable { Consistency::Serializable } else { Consistency::Linearizable };
        let read = self.db.read(KEYSPACE, translate::range(r), consistency).await.map_err(|e| status(&e))?;
        Ok(translate::range_response(translate::header(self.db.identity(), read.header), read.result))
    }

    async fn do_put(&self, r: PutRequest) -> Result<PutResponse, Status> {
        check::put(&r)?;
        self.check_size(&r)?;
        let lease = LeaseId(r.lease);
        match self.one(Op::Put(translate::put(r))).await {
            // A put that fails for two reasons: alone, unlike within a transaction, etcd names the lease first.
            Err(e) if lease != LeaseId::NONE && e.message() == KEY_NOT_FOUND.1 => {
                match self.db.lease_info(KEYSPACE, lease, false).await {
                    Err(Error::Refused(Refusal::LeaseNotFound)) => Err(LEASE_NOT_FOUND.into()),
                    _ => Err(e),
                }
            }
            Err(e) => Err(e),
            Ok((header, OpResult::Put(result))) => {
                Ok(translate::put_response(translate::header(self.db.identity(), header), result))
            }
            Ok(_) => Err(Status::internal("a put was answered with something else")),
        }
    }

    async fn do_delete(&self, r: DeleteRangeRequest) -> Result<DeleteRangeResponse, Status> {
        check::delete(&r)?;
        self.check_size(&r)?;
        match self.one(Op::Delete(translate::delete(&r))).await? {
            (header, OpResult::Delete(result)) => {
                Ok(translate::delete_response(translate::header(self.db.identity(), header), result))
            }
            _ => Err(Status::internal("a delete was answered with something else")),
        }
    }

    async fn do_txn(&self, r: TxnRequest) -> Result<TxnResponse, Status> {
        check::txn(&r, self.options.max_txn_ops)?;
        self.check_size(&r)?;
        let (header, result) = self.transact(translate::txn(r)).await?;
        Ok(translate::txn_response(translate::header(self.db.identity(), header), result))
    }

    async fn do_compact(&self, r: CompactionRequest) -> Result<CompactionResponse, Status> {
        // etcd's compaction starts at -1, so that 0 is allowed once and anything below never.
        let revision = u64::try_from(r.revision).map(Revision).map_err(|_| Status::from(COMPACTED))?;
        let applied = self.db.submit(KEYSPACE, Command::Compact { revision }).await.map_err(|e| status(&e))?;
        if r.physical {
            self.db.compaction_done(KEYSPACE).await.map_err(|e| status(&e))?;
        }
        Ok(CompactionResponse { header: translate::header(self.db.identity(), applied.header) })
    }
}

#[tonic::async_trait]
impl Kv for KvService {
    async fn range(&self, r: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        self.metrics.count(Method::Range, self.do_range(r.into_inner()).await)
    }

    async fn put(&self, r: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        self.metrics.count(Method::Put, self.do_put(r.into_inner()).await)
    }

    async fn delete_range(&self, r: Request<DeleteRangeRequest>) -> Result<Response<DeleteRangeResponse>, Status> {
        self.metrics.count(Method::DeleteRange, self.do_delete(r.into_inner()).await)
    }

    async fn txn(&self, r: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        self.metrics.count(Method::Txn, self.do_txn(r.into_inner()).await)
    }

    async fn compact(&self, r: Request<CompactionRequest>) -> Result<Response<CompactionResponse>, Status> {
        self.metrics.count(Method::Compact, self.do_compact(r.into_inner()).await)
    }
}

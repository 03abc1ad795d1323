//! The calls.

use super::door::Deadline;
use super::proto::quorate_server::Quorate;
use super::proto::{
    self, AppendRequest, AppendResponse, ChangeKeyspaceRequest, ChangeKeyspaceResponse, CreateKeyspaceRequest,
    CreateKeyspaceResponse, DeleteRequest, DeleteResponse, FetchRequest, FetchResponse, GetRequest, GetResponse,
    ListKeyspacesRequest, ListKeyspacesResponse, Outcome, PutRequest, PutResponse, ReleaseRequest, ReleaseResponse,
    ReserveRequest, ReserveResponse, ReservedKey, ScanRequest, ScanResponse, SplitKeyspaceRequest,
    SplitKeyspaceResponse, StatusRequest, StatusResponse, TransactRequest, TransactResponse, TrimRequest, TrimResponse,
    WatchRequest, fetch_request,
};
use super::watch::{self, Messages, Responses};
use super::{problems, translate};
use crate::answers::Failure;
use crate::feed::{self, Stop};
use crate::logs::{self, Appended, From};
use crate::names::{Names, keyspace_of_keys as keyspace};
use crate::place::Place;
use crate::query::range_or_all;
use crate::reasons::Reason;
use crate::scan::{self, Next, Wish};
use crate::{freshness, locks, policy};
use crate::{keyspaces, transactions};
use bytes::Bytes;
use quorate_kv::across::Decision;
use quorate_kv::log::Fetched;
use quorate_kv::reserve::Held;
use quorate_kv::{Db, Unavailable, limits};
use std::sync::Arc;
use tokio::time::timeout_at;
use tonic::{Request, Response, Status};

/// Answers calls.
pub(super) struct Service {
    pub db: Arc<dyn Db>,
    pub stop: Stop,
}

/// What is left behind when the client's deadline passes.
#[derive(Clone, Copy)]
enum Leaves {
    /// Nothing: it only read.
    Nothing,
    /// Perhaps what it was to write.
    Doubt,
}

fn deadline_of<T>(request: &Request<T>) -> Deadline {
    request.extensions().get().copied().unwrap_or(Deadline(None))
}

/// The answer to a call, or why there is none, by the client's deadline.
async fn answer<T>(
    deadline: Deadline,
    leaves: Leaves,
    work: impl Future<Output = Result<T, Failure>> + Send,
) -> Result<Response<T>, Status> {
    let done = match deadline.0 {
        None => work.await,
        Some(deadline) => timeout_at(deadline, work).await.unwrap_or_else(|_| {
            Err(match leaves {
                Leaves::Nothing => Failure::Core(Unavailable::Timeout.into()),
                Leaves::Doubt => Failure::Overtaken,
            })
        }),
    };
    done.map(Response::new).map_err(|failure| problems::status(&failure))
}

impl Service {
    async fn place(&self, name: &str, key: Bytes) -> Result<Place, Failure> {
        Place::new(keyspace(name, &self.db).await?.id, key)
    }

    async fn transacted(&self, request: TransactRequest) -> Result<TransactResponse, Failure> {
        let names = Names::of(&translate::keyspaces(&request), &self.db).await?;
        let (after, fresh) = (translate::after(request.after.as_deref())?, request.freshness.clone());
        let transaction = translate::transaction(request, &names)?;
        let result = transactions::carry_out(transaction, after, fresh.as_deref(), &self.db).await?;
        let reads = result.looks.iter().map(translate::found).collect();
        let token = freshness::told(result.at);
        let (succeeded, repeated, appended) = (result.succeeded, result.repeated, result.appended);
        Ok(TransactResponse { succeeded, repeated, reads, token, appended })
    }

    async fn got(&self, request: GetRequest) -> Result<GetResponse, Failure> {
        let keyspace = keyspace(&request.keyspace, &self.db).await?;
        let freshness = freshness::parse(request.freshness.as_deref(), keyspace.policy.freshness)?;
        let (kv, token) = Place::new(keyspace.id, request.key)?.get(freshness, &self.db).await?;
        Ok(GetResponse { kv: Some(translate::key_value(&kv)), token: freshness::told(token) })
    }

    async fn scanned(&self, request: ScanRequest) -> Result<ScanResponse, Failure> {
        let ScanRequest { keyspace: name, prefix, from, to, after, limit, freshness: fresh } = request;
        let keyspace = keyspace(&name, &self.db).await?;
        let freshness = freshness::parse(fresh.as_deref(), keyspace.policy.freshness)?;
        let wish = Wish::new(range_or_all(None, prefix, from, to)?, limit, after, freshness)?;
        let (kvs, next, token) = scan::page(&wish, &keyspace, &self.db).await?;
        let next = next.map(|next| {
            let (from, after) = match next {
                Next::From(key) => (Some(key), None),
                Next::After(key) => (None, Some(key)),
            };
            // What `to` says stands for a prefix, too; without it `after` may stand alone.
            let (to, limit) = (wish.to().cloned(), Some(wish.limit));
            ScanRequest { keyspace: name, prefix: None, from, to, after, limit, freshness: fresh }
        });
        let token = freshness::told(token);
        Ok(ScanResponse { kvs: kvs.iter().map(translate::key_value).collect(), next, token })
    }

    async fn written(&self, request: PutRequest) -> Result<PutResponse, Failure> {
        let terms = translate::terms(request.idempotency_key.as_ref(), request.after.as_deref())?;
        let place = self.place(&request.keyspace, request.key).await?;
        let written = place.put(request.value, request.condition.map(translate::facts), terms, &self.db).await?;
        Ok(PutResponse { repeated: written.repeated, token: freshness::told(written.token) })
    }

    async fn removed(&self, request: DeleteRequest) -> Result<DeleteResponse, Failure> {
        let terms = translate::terms(request.idempotency_key.as_ref(), request.after.as_deref())?;
        let place = self.place(&request.keyspace, request.key).await?;
        let written = place.delete(request.condition.map(translate::facts), terms, &self.db).await?;
        let token = freshness::told(written.token);
        Ok(DeleteResponse { repeated: written.repeated, deleted: written.found, token })
    }

    async fn reserved(&self, request: ReserveRequest) -> Result<ReserveResponse, Failure> {
        let (by, keys) = (locks::holder(&request.name)?, translate::lock_keys(request.keys));
        let keys = (keys, translate::held(request.held));
        let granted = locks::reserve_for(by, request.age.as_deref(), keys, &self.db).await?;
        let one = |held: &Held| ReservedKey { since: held.since.0, kv: held.kv.as_ref().map(translate::key_value) };
        let (age, token) = (granted.age.to_string(), freshness::told(granted.at));
        Ok(ReserveResponse { age, keys: granted.keys.iter().map(one).collect(), token })
    }

    async fn released(&self, request: ReleaseRequest) -> Result<ReleaseResponse, Failure> {
        let (by, keys) = (locks::holder(&request.name)?, translate::lock_keys(request.keys));
        locks::release_of(by, keys, &self.db).await?;
        Ok(ReleaseResponse {})
    }

    async fn appended(&self, request: AppendRequest) -> Result<AppendResponse, Failure> {
        let terms = translate::terms(request.idempotency_key.as_ref(), request.after.as_deref())?;
        let log = logs::log(&request.log, &self.db).await?;
        let Appended { repeated, offset, count, token } =
            logs::append_to(&log, translate::records(request.records), terms, &self.db).await?;
        Ok(AppendResponse { repeated, offset, count, token: freshness::told(token) })
    }

    async fn fetched(&self, request: FetchRequest) -> Result<FetchResponse, Failure> {
        let log = logs::log(&request.log, &self.db).await?;
        let freshness = freshness::parse(request.freshness.as_deref(), log.policy.freshness)?;
        let from = match request.start {
            Some(fetch_request::Start::Offset(offset)) => From::Offset(offset),
            Some(fetch_request::Start::End(true)) => From::End,
            Some(fetch_request::Start::End(false)) | None => From::First,
        };
        let wish = logs::Wish::new(from, request.max, request.max_bytes, request.wait_ms, freshness)?;
        let Fetched { entries, next, first, end, token } = logs::fetch_from(&log, wish, &self.db, &self.stop).await?;
        let entries = entries.into_iter().map(translate::entry).collect();
        Ok(FetchResponse { entries, next, first, end, token: freshness::told(token) })
    }

    async fn trimmed(&self, request: TrimRequest) -> Result<TrimResponse, Failure> {
        let log = logs::log(&request.log, &self.db).await?;
        Ok(TrimResponse { first: logs::trim_of(&log, request.before, &self.db).await? })
    }

    async fn settled(&self, request: StatusRequest) -> Result<StatusResponse, Failure> {
        Ok(match transactions::settle(&request.id, &self.db).await? {
            Some(Decision::Committed { succeeded, .. }) => {
                StatusResponse { outcome: Outcome::Done.into(), succeeded, ..StatusResponse::default() }
            }
            Some(Decision::Aborted) => StatusResponse {
                outcome: problems::outcome(Reason::Aborted).into(),
                reason: Reason::Aborted.name().into(),
                message: transactions::NEVER.into(),
                ..StatusResponse::default()
            },
            None => StatusResponse {
                outcome: Outcome::Unknown.into(),
                message: transactions::FORGOTTEN.into(),
                ..StatusResponse::default()
            },
        })
    }

    async fn listed(&self, request: ListKeyspacesRequest) -> Result<ListKeyspacesResponse, Failure> {
        let keyspaces = if request.stale { self.db.known_keyspaces() } else { self.db.keyspaces().await? };
        let keyspaces = keyspaces.iter().map(|keyspace| translate::keyspace(keyspace, &*self.db)).collect();
        Ok(ListKeyspacesResponse { keyspaces })
    }

    async fn created(&self, request: CreateKeyspaceRequest) -> Result<proto::Keyspace, Failure> {
        let replicas = request.replicas.map_or(limits::REPLICAS_DEFAULT, |replicas| replicas as usize);
        let kind = translate::kind(request.kind)?;
        let made = self.db.create_keyspace(request.name, kind, request.split_at, replicas).await?;
        Ok(translate::keyspace(&made, &*self.db))
    }

    async fn changed(&self, request: ChangeKeyspaceRequest) -> Result<proto::Keyspace, Failure> {
        let change = policy::parse(policy::Words {
            history: request.history.as_deref(),
            freshness: request.freshness.as_deref(),
            retain: request.retain.as_deref(),
            retain_bytes: request.retain_bytes.as_deref(),
            replication: request.replication.as_deref(),
            commit_wait: request.commit_wait,
        })?;
        let keyspace = keyspaces::known(&request.name, &self.db).await?;
        let changed = self.db.change_policy(keyspace.id, change).await?;
        Ok(translate::keyspace(&changed, &*self.db))
    }

    async fn split(&self, request: SplitKeyspaceRequest) -> Result<proto::Keyspace, Failure> {
        let split = keyspaces::split_at(&request.name, request.at, &self.db).await?;
        Ok(translate::keyspace(&split, &*self.db))
    }

    async fn watched(&self, request: WatchRequest, deadline: Deadline) -> Result<Responses, Failure> {
        let name = request.keyspace.clone();
        let spec = watch::wish(request)?;
        let (keyspace, tongue) = (keyspace(&name, &self.db).await?, Messages { prev: spec.prev_kv });
        let chunks = feed::open(&self.db, keyspace.id, spec, tongue, self.stop.clone(), "")?;
        Ok(Responses::new(chunks, deadline))
    }
}

#[tonic::async_trait]
impl Quorate for Service {
    async fn transact(&self, r: Request<TransactRequest>) -> Result<Response<TransactResponse>, Status> {
        answer(deadline_of(&r), Leaves::Doubt, self.transacted(r.into_inner())).await
    }

    async fn get(&self, r: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        answer(deadline_of(&r), Leaves::Nothing, self.got(r.into_inner())).await
    }

    async fn scan(&self, r: Request<ScanRequest>) -> Result<Response<ScanResponse>, Status> {
        answer(deadline_of(&r), Leaves::Nothing, self.scanned(r.into_inner())).await
    }

    async fn put(&self, r: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        answer(deadline_of(&r), Leaves::Doubt, self.written(r.into_inner())).await
    }

    async fn delete(&self, r: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        answer(deadline_of(&r), Leaves::Doubt, self.removed(r.into_inner())).await
    }

    async fn reserve(&self, r: Request<ReserveRequest>) -> Result<Response<ReserveResponse>, Status> {
        // What is reserved and not heard of is in nobody's way for long.
        answer(deadline_of(&r), Leaves::Nothing, self.reserved(r.into_inner())).await
    }

    async fn release(&self, r: Request<ReleaseRequest>) -> Result<Response<ReleaseResponse>, Status> {
        answer(deadline_of(&r), Leaves::Nothing, self.released(r.into_inner())).await
    }

    async fn append(&self, r: Request<AppendRequest>) -> Result<Response<AppendResponse>, Status> {
        answer(deadline_of(&r), Leaves::Doubt, self.appended(r.into_inner())).await
    }

    async fn fetch(&self, r: Request<FetchRequest>) -> Result<Response<FetchResponse>, Status> {
        answer(deadline_of(&r), Leaves::Nothing, self.fetched(r.into_inner())).await
    }

    async fn trim(&self, r: Request<TrimRequest>) -> Result<Response<TrimResponse>, Status> {
        answer(deadline_of(&r), Leaves::Doubt, self.trimmed(r.into_inner())).await
    }

    async fn status(&self, r: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        // That it is settled is no harm if nobody hears it.
        answer(deadline_of(&r), Leaves::Nothing, self.settled(r.into_inner())).await
    }

    async fn list_keyspaces(
        &self,
        r: Request<ListKeyspacesRequest>,
    ) -> Result<Response<ListKeyspacesResponse>, Status> {
        answer(deadline_of(&r), Leaves::Nothing, self.listed(r.into_inner())).await
    }

    async fn create_keyspace(
        &self,
        r: Request<CreateKeyspaceRequest>,
    ) -> Result<Response<CreateKeyspaceResponse>, Status> {
        let created = async |r| Ok(CreateKeyspaceResponse { keyspace: Some(self.created(r).await?) });
        answer(deadline_of(&r), Leaves::Doubt, created(r.into_inner())).await
    }

    async fn change_keyspace(
        &self,
        r: Request<ChangeKeyspaceRequest>,
    ) -> Result<Response<ChangeKeyspaceResponse>, Status> {
        let changed = async |r| Ok(ChangeKeyspaceResponse { keyspace: Some(self.changed(r).await?) });
        answer(deadline_of(&r), Leaves::Doubt, changed(r.into_inner())).await
    }

    async fn split_keyspace(
        &self,
        r: Request<SplitKeyspaceRequest>,
    ) -> Result<Response<SplitKeyspaceResponse>, Status> {
        let split = async |r| Ok(SplitKeyspaceResponse { keyspace: Some(self.split(r).await?) });
        answer(deadline_of(&r), Leaves::Doubt, split(r.into_inner())).await
    }

    type WatchStream = Responses;

    async fn watch(&self, r: Request<WatchRequest>) -> Result<Response<Responses>, Status> {
        let deadline = deadline_of(&r);
        answer(deadline, Leaves::Nothing, self.watched(r.into_inner(), deadline)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::problem_of;
    use std::time::Duration;
    use tokio::time::Instant;

    #[tokio::test]
    async fn whose_deadline_passes_is_told_whether_anything_may_have_been_done() {
        let soon = Deadline(Some(Instant::now() + Duration::from_millis(10)));
        let late = async |leaves| {
            let answer = answer::<()>(soon, leaves, std::future::pending()).await;
            problem_of(&answer.expect_err("too late")).expect("a problem")
        };
        assert_eq!(late(Leaves::Doubt).await.outcome(), Outcome::Unknown);
        let read = late(Leaves::Nothing).await;
        assert_eq!((read.outcome(), read.reason.as_str()), (Outcome::Unavailable, "timeout"));
        assert!(answer(Deadline(None), Leaves::Doubt, async { Ok(()) }).await.is_ok());
    }
}

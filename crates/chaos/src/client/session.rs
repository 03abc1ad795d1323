//! A client's connection: to one node, until it disappoints; then to the next.

use super::Shared;
use crate::translate;
use quorate_etcd::proto::etcdserverpb::kv_client::KvClient;
use quorate_etcd::proto::etcdserverpb::lease_client::LeaseClient;
use quorate_etcd::proto::etcdserverpb::{LeaseGrantRequest, LeaseKeepAliveRequest, RangeRequest};
use quorate_kv::{Applied, Command, Header, KeyRange, Op, Outcome, RangeOp, Revision, Txn};
use quorate_sim::witness::{Asked, Operation, Told};
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_millis(1_000);

/// How long it waits for a connection.
const CONNECTED_WITHIN: Duration = Duration::from_millis(500);

/// After a connection that could not be made.
const PAUSE: Duration = Duration::from_millis(10);

/// What a connection that is silent is asked, so that one into nowhere is noticed.
const ALIVE_EVERY: Duration = Duration::from_millis(1_000);

/// A connection, if the node can be reached.
pub async fn connect(endpoint: &str) -> Option<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{endpoint}")).ok()?;
    let endpoint = endpoint
        .connect_timeout(CONNECTED_WITHIN)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(ALIVE_EVERY)
        .keep_alive_timeout(ALIVE_EVERY)
        .keep_alive_while_idle(true);
    tokio::time::timeout(2 * CONNECTED_WITHIN, endpoint.connect()).await.ok()?.ok()
}

pub struct Session {
    shared: Arc<Shared>,
    at: usize,
    /// Nodes that it has left.
    left: usize,
    channel: Option<Channel>,
}

impl Session {
    pub fn new(shared: Arc<Shared>, first: usize) -> Self {
        Self { shared, at: first, left: first, channel: None }
    }

    /// A connection to some node; `None` if the run ends before there is one. Nothing was sent yet.
    async fn channel(&mut self) -> Option<Channel> {
        loop {
            if let Some(channel) = &self.channel {
                return Some(channel.clone());
            }
            if self.shared.stopped() {
                return None;
            }
            let endpoint = &self.shared.endpoints[self.at % self.shared.endpoints.len()];
            self.channel = connect(endpoint).await;
            if self.channel.is_none() {
                self.leave();
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Asks, waits, and says how it went; `None` if the run ended before it was sent.
    pub async fn ask(&mut self, number: u64, asked: Asked) -> Option<Operation> {
        let channel = self.channel().await?;
        let began_us = self.shared.now_us();
        let answer = tokio::time::timeout(PATIENCE, send(channel, &asked)).await;
        let ended_us = self.shared.now_us();
        let told = match answer {
            Ok(Ok(told)) => told,
            Ok(Err(status)) => {
                self.leave();
                judge(&status)
            }
            Err(_) => {
                self.leave();
                Told::Unknown
            }
        };
        Some(Operation { number, began_us, ended_us, asked, told })
    }

    /// Asks for a renewal; `Some(true)` if it was granted, `Some(false)` if there is no such lease.
    pub async fn renew(&mut self, lease: i64) -> Option<bool> {
        let channel = self.channel().await?;
        let renewal = async {
            let requests = tokio_stream::iter([LeaseKeepAliveRequest { id: lease }]);
            let mut answers = LeaseClient::new(channel).lease_keep_alive(requests).await.ok()?.into_inner();
            Some(answers.message().await.ok()??.ttl > 0)
        };
        let renewed = tokio::time::timeout(PATIENCE, renewal).await.ok().flatten();
        if renewed.is_none() {
            self.leave();
        }
        renewed
    }

    /// Goes to another node. Not all go to the same one: gathered at a node that then stands still, they would measure their own patience.
    fn leave(&mut self) {
        self.channel = None;
        self.left += 1;
        let others = self.shared.endpoints.len().saturating_sub(1).max(1);
        self.at += 1 + self.left % others;
    }
}

/// What an error says about what happened. Only these say that nothing did; a transport that broke says nothing at all.
fn judge(status: &Status) -> Told {
    match (status.code(), status.message()) {
        (Code::Unavailable, "etcdserver: no leader" | "etcdserver: server stopped")
        | (Code::ResourceExhausted, "etcdserver: too many requests" | "etcdserver: mvcc: database space exceeded")
        | (Code::NotFound, "etcdserver: requested lease not found") => Told::NotDone,
        _ => Told::Unknown,
    }
}

async fn send(channel: Channel, asked: &Asked) -> Result<Told, Status> {
    let garbled = || Status::internal("an answer of the wrong shape");
    match asked {
        Asked::Write(Command::Transact(txn)) => {
            let mut client = KvClient::new(channel);
            let applied = match lone_put(txn) {
                Some(put) => translate::put_applied(client.put(translate::put_request(put)).await?.into_inner()),
                None => {
                    let response = client.txn(translate::txn_request(txn)).await?.into_inner();
                    translate::txn_applied(txn, response).ok_or_else(garbled)?
                }
            };
            Ok(Told::Done(applied))
        }
        Asked::Write(Command::LeaseGrant { id, ttl_s }) => {
            let request = LeaseGrantRequest { ttl: *ttl_s as i64, id: id.0 };
            let granted = LeaseClient::new(channel).lease_grant(request).await?.into_inner();
            let header = translate::header(granted.header);
            Ok(Told::Done(Applied { header, outcome: Outcome::LeaseGranted }))
        }
        Asked::Write(_) => Err(Status::unimplemented("clients do not ask for that")),
        Asked::Read { op, linearizable } => {
            let request = translate::range_request(op, !linearizable);
            let mut range = KvClient::new(channel).range(request).await?.into_inner();
            let Header { revision: Revision(revision), .. } = translate::header(range.header.take());
            Ok(Told::Read(revision, translate::range_result(range)))
        }
    }
}

/// A put without compares is sent as one, not as a transaction.
fn lone_put(txn: &Txn) -> Option<&quorate_kv::PutOp> {
    match (txn.compares.is_empty() && txn.failure.is_empty(), txn.success.as_slice()) {
        (true, [Op::Put(put)]) => Some(put),
        _ => None,
    }
}

/// The keyspace's revision, from a linearizable read through any node.
pub async fn revision(endpoints: &[String]) -> Option<u64> {
    for endpoint in endpoints {
        let Some(channel) = connect(endpoint).await else { continue };
        let op = RangeOp::of(KeyRange::single("ready"));
        let request: RangeRequest = translate::range_request(&op, false);
        if let Ok(Ok(range)) = tokio::time::timeout(PATIENCE, KvClient::new(channel).range(request)).await {
            return Some(translate::header(range.into_inner().header).revision.0);
        }
    }
    None
}

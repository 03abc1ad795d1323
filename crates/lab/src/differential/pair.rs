//! Two servers that get the same steps.

use super::answer::Answer;
use super::generate::Step;
use super::report::Difference;
use super::request::Request;
use super::watched::{Delivered, Watched};
use crate::failure::Failure;
use crate::server::Server;
use quorate_etcd::proto::etcdserverpb::WatchCreateRequest;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;

/// How long a server has for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Streams on which nothing came for so long are quiet.
const QUIET: Duration = Duration::from_millis(50);

/// The same, when something from the past may be on its way: etcd looks for watches that are behind ten times a second.
const QUIET_AFTER_THE_PAST: Duration = Duration::from_millis(300);

/// How long one server may lag behind the other before that is a difference.
const EQUAL_WITHIN: Duration = Duration::from_secs(5);

struct Side {
    name: &'static str,
    channel: Channel,
    watched: Watched,
}

impl Side {
    async fn new(server: &Server) -> Result<Self, Failure> {
        let channel = server.channel().await?;
        let watched = Watched::open(server.name, channel.clone());
        Ok(Self { name: server.name, channel, watched })
    }

    fn silent(&self, request: String) -> Failure {
        Failure::Silent { name: self.name, seconds: ANSWER_WITHIN.as_secs(), request }
    }

    async fn call(&self, request: &Request) -> Result<Answer, Failure> {
        let answer = timeout(ANSWER_WITHIN, request.send(self.channel.clone())).await;
        answer.map_err(|_| self.silent(format!("{request:?}")))
    }

    async fn create(&self, request: &WatchCreateRequest) -> Result<super::report::Opened, Failure> {
        let answer = timeout(ANSWER_WITHIN, self.watched.create(request.clone())).await;
        answer.map_err(|_| self.silent(format!("{request:?}")))?
    }
}

/// The two, and what they agree on.
pub struct Pair {
    quorate: Side,
    etcd: Side,
    revision: i64,
    /// Watches that were opened and not cancelled by us.
    open: Vec<i64>,
    calls: u64,
    refused: u64,
    events: usize,
}

impl Pair {
    /// Connects to both.
    pub async fn new(quorate: &Server, etcd: &Server) -> Result<Self, Failure> {
        let (quorate, etcd) = tokio::try_join!(Side::new(quorate), Side::new(etcd))?;
        Ok(Self { quorate, etcd, revision: 1, open: Vec::new(), calls: 0, refused: 0, events: 0 })
    }

    /// The revision that both are at.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The watches that both have open; some of them a compaction may have ended.
    pub fn watches(&self) -> Vec<i64> {
        self.open.clone()
    }

    /// What the run did.
    pub fn summary(&self) -> String {
        let Self { calls, refused, events, revision, .. } = self;
        format!("{calls} calls ({refused} refused) to revision {revision}, {events} events: the same")
    }

    /// Has both do a step and returns where they differ.
    pub async fn step(&mut self, step: &Step) -> Result<Option<Difference>, Failure> {
        match step {
            Step::Call(request) => {
                if matches!(request, Request::Compact(_))
                    && let Some(difference) = self.quiet(QUIET).await?
                {
                    return Ok(Some(difference));
                }
                self.call(request).await
            }
            Step::Open(request) => self.create(request).await,
            Step::Cancel(id) => {
                if let Some(difference) = self.quiet(QUIET).await? {
                    return Ok(Some(difference));
                }
                self.open.retain(|open| open != id);
                tokio::try_join!(self.quorate.watched.cancel(*id), self.etcd.watched.cancel(*id))?;
                self.quiet(QUIET).await
            }
        }
    }

    /// Compares what is still on its way.
    pub async fn finish(&mut self) -> Result<Option<Difference>, Failure> {
        self.quiet(QUIET_AFTER_THE_PAST).await
    }

    async fn call(&mut self, request: &Request) -> Result<Option<Difference>, Failure> {
        let (quorate, etcd) = tokio::try_join!(self.quorate.call(request), self.etcd.call(request))?;
        self.calls += 1;
        self.refused += u64::from(matches!(etcd, Answer::Refused(..)));
        self.revision = etcd.revision().unwrap_or(self.revision);
        Ok(Difference::between("the answer", &quorate, &etcd))
    }

    async fn create(&mut self, request: &WatchCreateRequest) -> Result<Option<Difference>, Failure> {
        let (quorate, etcd) = tokio::try_join!(self.quorate.create(request), self.etcd.create(request))?;
        if let Some(difference) = Difference::between("the answer", &quorate, &etcd) {
            return Ok(Some(difference));
        }
        if etcd.canceled {
            return Ok(None);
        }
        self.open.push(etcd.watch_id);
        let past = request.start_revision != 0 && request.start_revision <= self.revision;
        if past { self.quiet(QUIET_AFTER_THE_PAST).await } else { Ok(None) }
    }

    /// Waits until both streams are quiet and have brought the same.
    async fn quiet(&mut self, pause: Duration) -> Result<Option<Difference>, Failure> {
        let deadline = Instant::now() + EQUAL_WITHIN;
        loop {
            let before = self.responses()?;
            sleep(pause).await;
            if self.responses()? != before {
                continue;
            }
            let (quorate, etcd) = (self.quorate.watched.deliveries()?, self.etcd.watched.deliveries()?);
            if quorate == etcd {
                self.events = etcd.values().flatten().filter(|d| matches!(d, Delivered::Event(_))).count();
                return Ok(None);
            }
            if Instant::now() > deadline {
                return Ok(Difference::of_watches(&quorate, &etcd));
            }
        }
    }

    fn responses(&self) -> Result<(u64, u64), Failure> {
        Ok((self.quorate.watched.count()?, self.etcd.watched.count()?))
    }
}

//! What a node answers to those that have no place yet.

use super::admission::{self, Admission};
use super::{Answer, Ask, Question};
use crate::admin;
use crate::db::RuntimeDb;
use crate::disk::random_u64;
use crate::members::MemberTable;
use crate::net::{self, Hello};
use quorate_cluster::BootMember;
use quorate_cluster::members::{MemberRow, MemberState, Roster};
use quorate_env::{Incarnation, NodeId};
use quorate_kv::{Command, Db, KeyspaceId, Op, Outcome, PutOp, Txn};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// A question about the cluster is answered within this, or with "later".
const PATIENCE: Duration = Duration::from_secs(3);

/// What somebody at an address must say within this, to be taken for alive.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

const NO_MAJORITY: &str = "no majority of the members answers, so nobody can be let in: start the other members first";

/// What a running node needs to know to answer.
pub(crate) struct Gate {
    pub hello: Hello,
    pub table: Arc<MemberTable>,
    pub db: Arc<RuntimeDb>,
    pub token: u64,
    pub first: Vec<BootMember>,
}

impl Gate {
    pub async fn answer(&self, ask: &Ask) -> Answer {
        let answer = match ask.question {
            Question::Look => tokio::time::timeout(PATIENCE, self.look(ask)).await,
            Question::Join => tokio::time::timeout(PATIENCE, self.admit(ask)).await,
        };
        answer.unwrap_or_else(|_| Answer::Later(NO_MAJORITY.into()))
    }

    async fn look(&self, ask: &Ask) -> Answer {
        if ask.cluster != self.hello.cluster {
            return Answer::Refused(format!(
                "this is {}, not {}: check --initial-cluster and the addresses",
                self.hello.cluster, ask.cluster
            ));
        }
        if self.table.saw_another_disk(&ask.name, ask.incarnation) {
            return Answer::OtherDisk;
        }
        if self.db.is_virgin().await {
            // It has promised nothing, and was promised nothing.
            return Answer::Unknown { certain: false };
        }
        match admin::roster(&self.db).await {
            Ok(roster) => known_as(&roster, ask),
            Err(_) => Answer::Later(NO_MAJORITY.into()),
        }
    }

    async fn admit(&self, ask: &Ask) -> Answer {
        if ask.token != self.token {
            return Answer::Refused("this cluster has another token: start with the --token of the cluster".into());
        }
        if ask.name.is_empty() {
            return Answer::Refused("a member needs a name: --name".into());
        }
        loop {
            let Ok(roster) = admin::roster(&self.db).await else { return Answer::Later(NO_MAJORITY.into()) };
            let Ok(fresh) = random_u64() else { return Answer::Later("no randomness for an id".into()) };
            let fresh = NodeId(fresh.max(1));
            let (rows, replaces) = match admission::decide(&roster, &self.first, ask, fresh) {
                Admission::Already(node) => return self.joined(node, &roster),
                Admission::Refused(why) => return Answer::Refused(why),
                Admission::Write { rows, replaces } => (rows, replaces),
            };
            if probe(&ask.peer_address).await != Some(Answer::Fresh(ask.incarnation)) {
                return Answer::Refused(format!(
                    "{} cannot be reached at {}: set --listen-peer or --advertise-peer to where peers reach it",
                    ask.name, ask.peer_address
                ));
            }
            if let Some(old) = &replaces
                && let Some(why) = self.lives(old, ask).await
            {
                return why;
            }
            if !self.write(&roster, &rows).await {
                // The rows have changed meanwhile, or nobody knows: looked at again.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Why a member must not be replaced: it is there.
    async fn lives(&self, old: &MemberRow, ask: &Ask) -> Option<Answer> {
        for address in old.peer_addresses.iter().filter(|address| **address != ask.peer_address) {
            if probe(address).await.is_some() {
                return Some(Answer::Refused(format!(
                    "{} is a member and alive at {address}: choose another --name, or remove that member first",
                    ask.name
                )));
            }
        }
        for shard in quorate_cluster::FIRST_SHARDS {
            let standings = match self.db.standings(shard).await {
                Ok(standings) => standings,
                Err(_) => return Some(Answer::Later(NO_MAJORITY.into())),
            };
            if standings.iter().any(|standing| standing.node == old.id && standing.alive) {
                return Some(Answer::Later(format!("{} was heard of a moment ago under its old id", ask.name)));
            }
        }
        None
    }

    /// Writes rows if nothing that they were decided by has changed. Says whether that is certain.
    async fn write(&self, roster: &Roster, rows: &[MemberRow]) -> bool {
        let compares = roster.unchanged();
        let put = |row: &MemberRow| Op::Put(PutOp::of(MemberRow::key(row.id), row.encode()));
        let txn = Txn { compares, success: rows.iter().map(put).collect(), failure: Vec::new() };
        let applied = self.db.submit(KeyspaceId::SYSTEM, Command::Transact(txn)).await;
        applied.is_ok_and(|applied| matches!(applied.outcome, Outcome::Transacted(result) if result.succeeded))
    }

    fn joined(&self, node: NodeId, roster: &Roster) -> Answer {
        let first = self.first.clone();
        let row = |row: &MemberRow| {
            let peer_address = row.peer_addresses.first().cloned()?;
            Some(BootMember { id: row.id, name: row.name.clone(), peer_address })
        };
        let mut known: Vec<BootMember> = roster.started().filter_map(row).collect();
        let silent = |m: &&BootMember| !roster.rows.contains_key(&m.id) && !roster.removed.contains_key(&m.id);
        known.extend(self.first.iter().filter(silent).cloned());
        Answer::Joined { cluster: self.hello.cluster, node, first, known }
    }
}

/// What the rows say to who looks.
fn known_as(roster: &Roster, ask: &Ask) -> Answer {
    let mut rows = roster.rows.values().map(|(row, _)| row).filter(|row| row.name == ask.name);
    match rows.find(|row| row.incarnation.is_some() && row.state != MemberState::Leaving) {
        Some(row) if row.incarnation == Some(ask.incarnation) => Answer::Unknown { certain: true },
        Some(_) => Answer::OtherDisk,
        None if roster.removed.values().any(|name| *name == ask.name) => Answer::Refused(format!(
            "{} was removed from this cluster: to bring the machine back as a new member, start it with --join and an empty --data-dir",
            ask.name
        )),
        None => Answer::Unknown { certain: true },
    }
}

/// What whoever listens at an address says when it is looked at.
async fn probe(address: &str) -> Option<Answer> {
    let ask = Ask {
        question: Question::Look,
        cluster: quorate_env::ClusterId(0),
        token: 0,
        incarnation: Incarnation(0),
        name: String::new(),
        peer_address: String::new(),
        client_urls: Vec::new(),
    };
    tokio::time::timeout(PROBE_TIMEOUT, net::ask(address, &ask)).await.ok()?.ok()
}

/// Answers for a node that has no place yet, until it has one.
pub(crate) async fn answer_fresh(listener: Arc<TcpListener>, incarnation: Incarnation) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(async move {
                    // Whoever asks something else goes away, and comes again.
                    let _ = net::answer_fresh(stream, &Answer::Fresh(incarnation)).await;
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

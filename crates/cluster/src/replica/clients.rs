//! What this node's clients ask of a replica, and how long they wait for it.

use super::{Ask, Asker, Context, Replica, Waiting, sleeping};
use crate::ack_wait::AckWait;
use crate::bounds::PENDING_READS_MAX;
use crate::config::Sabotage;
use crate::input::{Reply, Request, RequestId, WatchOutput, WatchRequest};
use crate::proposals::needs_space;
use quorate_env::{Instant, LogIndex};
use quorate_kv::{Command, Consistency, Read, Revision, Unavailable};
use quorate_shard::{Attach, WatcherKey};

impl Replica {
    pub fn request(&mut self, id: RequestId, request: Request, deadline: Instant, cx: &mut Context<'_>) {
        if !sleeping::is_quiet(&request) {
            self.wake(None, cx);
        }
        let header = self.header();
        let answer = match request {
            Request::View { consistency: Consistency::Serializable, .. } => {
                Ok(Reply::View { view: self.machine.view(), header })
            }
            Request::View { .. } => {
                if self.reads.len() >= PENDING_READS_MAX {
                    Err(Unavailable::Overloaded.into())
                } else {
                    self.reads.push(Waiting::View { request: id, deadline });
                    return;
                }
            }
            Request::Submit { command, .. } => return self.submit(id, (command, AckWait::default()), deadline, cx),
            Request::OutcomeOf { id, .. } => Ok(Reply::Outcome(self.machine.outcome_of(id))),
            Request::Lease { lease, renew, with_keys, .. } => {
                if self.asks.len() + self.reads.len() >= PENDING_READS_MAX {
                    Err(Unavailable::Overloaded.into())
                } else {
                    self.next_ask += 1;
                    self.asks.insert(self.next_ask, Ask { request: id, lease, renew, with_keys, deadline, sent: None });
                    return;
                }
            }
            Request::Leases { .. } => {
                Ok(Reply::Leases(Read { header, result: self.machine.leases().map(|grant| grant.id).collect() }))
            }
            Request::Status { .. } => Ok(Reply::Status(self.status(cx))),
            Request::Standings { .. } => return self.ask_standings(id, deadline, cx),
            Request::Transact(_)
            | Request::Settle { .. }
            | Request::Look { .. }
            | Request::Reserve(_)
            | Request::Release { .. } => {
                unreachable!("the node carries these through")
            }
            Request::MoveLeader { to, .. } => return self.ask_to_move(id, to, deadline, cx),
            Request::Collected { .. } => {
                if self.garbage {
                    self.collected_waiters.push((id, deadline));
                    return;
                }
                Ok(Reply::Collected)
            }
        };
        cx.out.replies.push((id, answer));
    }

    /// Has a command proposed. Its client is told what came of it when that is true which it waits for.
    pub fn submit(
        &mut self,
        id: RequestId,
        (command, wait): (Command, AckWait),
        deadline: Instant,
        cx: &mut Context<'_>,
    ) {
        self.wake(None, cx);
        let taken = match cx.no_space && needs_space(&command) {
            true => Err(Unavailable::NoSpace),
            false => self.proposals.submit(id, command, wait, deadline),
        };
        if let Err(why) = taken {
            cx.out.replies.push((id, Err(why.into())));
        }
    }

    pub fn watch(&mut self, key: WatcherKey, request: WatchRequest, cx: &mut Context<'_>) {
        let meta = self.machine.meta();
        let revision = meta.revision;
        let output = match request {
            WatchRequest::Detach => {
                self.hub.detach(key);
                return;
            }
            WatchRequest::Progress => {
                if !self.hub.is_attached(key) {
                    return;
                }
                let ahead = u64::from(cx.sabotaged(Sabotage::ProgressAhead));
                WatchOutput::Progress { revision: Revision(revision.0 + ahead) }
            }
            WatchRequest::Attach { spec, from } => {
                let from = from.unwrap_or(Revision(revision.0 + 1));
                let early = u64::from(cx.sabotaged(Sabotage::WatchTwice) && from.0 > 2);
                let from = Revision(from.0 - early);
                match meta.compacted {
                    Some(compacted) if from < compacted => WatchOutput::Compacted { revision, compacted },
                    _ => match self.hub.attach(key, spec.clone(), from) {
                        Attach::Attached { backlog } => WatchOutput::Attached { revision, backlog },
                        Attach::Behind if cx.sabotaged(Sabotage::SkipHistory) => {
                            self.hub.attach(key, spec, Revision(revision.0 + 1));
                            WatchOutput::Attached { revision, backlog: Vec::new() }
                        }
                        Attach::Behind => WatchOutput::Behind { view: self.machine.view(), from },
                    },
                }
            }
        };
        cx.out.watch.push((key, output));
    }

    pub(super) fn tick_reads(&mut self, cx: &mut Context<'_>) {
        let parked = std::mem::take(&mut self.parked);
        parked.into_iter().for_each(|waiting| self.reads.push(waiting));
        let now = cx.now;
        let expired = self.reads.tick(now, |waiting| match waiting {
            Waiting::View { deadline, .. } | Waiting::Lease { deadline, .. } => *deadline <= now,
            Waiting::Look(glance) => glance.deadline <= now,
            Waiting::Expire(_) => false,
        });
        for waiting in expired {
            self.refuse(waiting, cx);
        }
        self.expire_moments(cx);
        let late: Vec<u64> = self.asks.iter().filter(|(_, ask)| ask.deadline <= now).map(|(id, _)| *id).collect();
        for id in late {
            if let Some(ask) = self.asks.remove(&id) {
                cx.out.replies.push((ask.request, Err(Unavailable::NoLeader.into())));
            }
        }
        let overdue = self.collected_waiters.extract_if(.., |(_, deadline)| *deadline <= now);
        cx.out.replies.extend(overdue.map(|(request, _)| (request, Err(Unavailable::Timeout.into()))));
    }

    pub(super) fn refuse(&mut self, waiting: Waiting, cx: &mut Context<'_>) {
        match waiting {
            Waiting::View { request, .. } | Waiting::Lease { asker: Asker::Client(request), .. } => {
                cx.out.replies.push((request, Err(Unavailable::NoLeader.into())));
            }
            Waiting::Look(glance) => self.turn_down(&glance, Unavailable::NoLeader, cx),
            // A peer asks again by itself; an expiry is due again under the next leader.
            Waiting::Lease { asker: Asker::Peer { .. }, .. } | Waiting::Expire(_) => {}
        }
    }

    pub(super) fn release_reads(&mut self, cx: &mut Context<'_>) {
        let early = cx.sabotaged(Sabotage::ReadBeforeApplied);
        let released = self.reads.release(if early { LogIndex(u64::MAX) } else { self.machine.meta().applied });
        let mut view = None;
        let header = self.header();
        for waiting in released {
            match waiting {
                Waiting::View { request, .. } => {
                    let view = view.get_or_insert_with(|| self.machine.view()).clone();
                    cx.out.replies.push((request, Ok(Reply::View { view, header })));
                }
                Waiting::Look(glance) => self.sight(glance, cx),
                Waiting::Lease { asker, lease, renew, with_keys, deadline } => {
                    match self.answer_lease(lease, renew, with_keys, cx.lease_now()) {
                        Some(answer) => self.tell(asker, answer, cx),
                        None => self.parked.push(Waiting::Lease { asker, lease, renew, with_keys, deadline }),
                    }
                }
                Waiting::Expire(grants) => self.expire(&grants),
            }
        }
    }
}

//! What the clients ask, and how the answers are judged.

use super::{CLIENT_PATIENCE_US, Event, REQUEST_TIMEOUT, Step, World};
use crate::client::{InFlight, Kind};
use crate::history::{Violation, demand};
use crate::trace::recorder::node_lane;
use crate::trace::{Lane, TraceEvent, words};
use quorate_cluster::{Input, Reply, Request, RequestId};
use quorate_kv::{Error, Refusal, Unavailable};

impl World<'_> {
    pub(super) fn client_turn(&mut self, client: usize) -> Step {
        if self.clients[client].in_flight.is_some() {
            return Ok(());
        }
        let operation = self.next_operation;
        self.next_operation += 1;
        let known = self.order.floor().revision;
        let proof = self.to_prove.pop_first();
        let (node, (kind, request)) = match proof {
            Some(node) => (node, self.clients[client].plain_write(operation)),
            None => {
                let there = self.not_retired();
                let node = there[self.clients[client].pick_node(there.len())];
                (node, self.clients[client].next(operation, known))
            }
        };
        if proof.is_none()
            && self.script.and_then(|script| script.operations).is_some_and(|asked| !asked.contains(operation))
        {
            // Who does not ask is not kept waiting.
            self.clients[client].completed += 1;
            let wait = self.clients[client].think(self.plan.think_us);
            self.after(wait, Event::Client { client });
            return Ok(());
        }
        self.ask(client, node, operation, kind, request, proof.is_some())
    }

    pub(super) fn ask(
        &mut self,
        client: usize,
        node: usize,
        operation: u64,
        kind: Kind,
        request: Request,
        proves: bool,
    ) -> Step {
        self.played.asked.insert(operation);
        let request_id = self.next_request;
        self.next_request += 1;
        let in_flight = InFlight { operation, node, kind, began: self.order.floor(), began_us: self.now };
        self.trace(|| TraceEvent::Ask {
            client: Lane::Client(client as u64),
            node: node_lane(node),
            operation,
            text: words::asked(&in_flight.kind, &request),
        });
        if proves {
            self.mark("proof of life asked");
        }
        self.clients[client].in_flight = Some((request_id, in_flight));
        self.requests.insert(request_id, client);
        self.after(CLIENT_PATIENCE_US, Event::Patience { client, operation });
        if self.nodes[node].node.is_none() {
            self.give_up(client);
            return Ok(());
        }
        self.feed(node, Input::Request { id: request_id, timeout: REQUEST_TIMEOUT, request })
    }

    pub(super) fn give_up(&mut self, client: usize) {
        if let Some((request, in_flight)) = self.clients[client].in_flight.take() {
            self.requests.remove(&request);
            self.mark("unknown outcome");
            let (lane, operation) = (Lane::Client(client as u64), in_flight.operation);
            self.trace(|| TraceEvent::GiveUp { client: lane, operation });
            if self.calm && matches!(in_flight.kind, Kind::Write) {
                // It may still be applied; another write must prove that the node serves.
                self.must_prove(in_flight.node);
            }
            let wait = self.clients[client].think(self.plan.think_us);
            self.after(wait, Event::Client { client });
        }
    }

    pub(super) fn answer(&mut self, request: RequestId, answer: Result<Reply, Error>) -> Step {
        if self.operator_hears(request, &answer)? || self.teller_hears(request, &answer)? {
            return Ok(());
        }
        if self.moves.remove(&request) && matches!(answer, Ok(Reply::Moved)) {
            self.mark("leadership moved on request");
        }
        let Some(client) = self.requests.remove(&request) else { return Ok(()) };
        let Some((_, in_flight)) = self.clients[client].in_flight.take() else { return Ok(()) };
        let InFlight { operation, kind, began, began_us, node } = in_flight;
        self.trace(|| {
            let (outcome, revision, text) = words::answered(&answer);
            let client = Lane::Client(client as u64);
            TraceEvent::Answer { client, node: node_lane(node), operation, outcome, revision, text }
        });
        self.hash(&operation.to_le_bytes());
        let judged = match (&kind, answer) {
            (_, Err(Error::Unavailable(why))) => {
                if why == Unavailable::NoSpace {
                    self.mark("refused for want of room");
                }
                self.order.refused(operation)?;
                false
            }
            (_, Err(Error::UnknownOutcome(_) | Error::UnknownTransaction { .. })) => {
                self.mark("unknown outcome");
                false
            }
            (Kind::Write | Kind::Grant { .. }, answer) => {
                let answer = match answer {
                    Ok(Reply::Applied(applied)) => Ok(applied),
                    Err(Error::Refused(refusal)) => Err(refusal),
                    _ => return Err(Violation { rule: "answers fit", detail: format!("operation {operation}") }),
                };
                self.order.answered(operation, began, &answer)?;
                if let (Kind::Grant { id, ttl_s }, Ok(_)) = (&kind, &answer)
                    && self.order.model.lease_exists(*id)
                {
                    self.leases.renewed(*id, *ttl_s, began_us);
                    self.clients[client].granted(*id);
                }
                true
            }
            (Kind::Renew { id }, Ok(Reply::Lease(read))) => {
                if self.order.model.lease_exists(*id) {
                    self.mark("lease renewed");
                    self.leases.renewed(*id, read.result.granted_s, began_us);
                }
                true
            }
            (Kind::Renew { id }, Err(Error::Refused(refusal))) => {
                demand(
                    refusal == Refusal::LeaseNotFound && !self.order.model.lease_exists(*id),
                    "leases are not lost",
                    || format!("lease {} exists, a renewal was answered {refusal:?}", id.0),
                )?;
                self.clients[client].lost(*id);
                true
            }
            (Kind::Compact, _) => true,
            (Kind::Read { op, linearizable }, Ok(Reply::View { view, .. })) => {
                let result =
                    view.range(op).map_err(|e| Violation { rule: "views can be read", detail: e.to_string() })?;
                match result {
                    Ok(result) => self.order.read(op, *linearizable, began, view.revision().0, &result)?,
                    Err(Refusal::RevisionCompacted { compacted }) => {
                        self.mark("read refused as compacted");
                        let known = self.order.model.compacted.unwrap_or(0);
                        let asked = op.revision.map_or(u64::MAX, |revision| revision.0);
                        demand(compacted.0 <= known && asked < compacted.0, "only the compacted is refused", || {
                            format!("a read at {asked} was refused at compaction {}", compacted.0)
                        })?;
                    }
                    // A stale replica may not have the revision yet.
                    Err(Refusal::RevisionInFuture { .. }) if !linearizable => {}
                    Err(other) => {
                        return Err(Violation { rule: "reads are answered", detail: format!("{op:?}: {other}") });
                    }
                }
                true
            }
            (kind, _) => return Err(Violation { rule: "answers fit", detail: format!("{kind:?}") }),
        };
        if judged {
            self.note_releases();
            self.report.operations += 1;
            self.clients[client].completed += 1;
        } else if self.calm && matches!(kind, Kind::Write) {
            self.must_prove(node);
        }
        let wait = self.clients[client].think(self.plan.think_us);
        self.after(wait, Event::Client { client });
        Ok(())
    }
}

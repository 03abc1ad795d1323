//! What goes onto the wire comes back as it was, and what was cut on the way is refused.

use super::*;
use quorate_kv::{Command, Header, Outcome, Revision, SessionId};

#[test]
fn messages_survive_the_wire_and_cuts_do_not() {
    let answer = |copy| PeerBody::EntryAnswer { index: LogIndex(7), term: Term(2), copy };
    let id = CommandId { session: SessionId(4), seq: 9 };
    let envelope = Envelope { id, answered_below: 3, command: Command::LeaseRevoke { id: LeaseId(7) } };
    let header = Header { revision: Revision(3), term: Term(2) };
    let done = Answer::Given(Ok(Applied { header, outcome: Outcome::LeaseRevoked }));
    let refused = Answer::Given(Err(Refusal::EmptyKey));
    let answers = [done, refused, Answer::Forgotten].map(|answer| (id, answer)).to_vec();
    let bodies = [
        PeerBody::Forward(vec![envelope.clone()]),
        PeerBody::Petition(vec![envelope]),
        PeerBody::Petition(Vec::new()),
        PeerBody::Early { answers: answers.clone() },
        PeerBody::Answers { leader: Some(ReplicaId(3)), applied: LogIndex(300), answers },
        PeerBody::Answers { leader: None, applied: LogIndex(0), answers: Vec::new() },
        PeerBody::NotHere,
        PeerBody::LeaveAsk { index: LogIndex(300) },
        PeerBody::LeaveAnswer { index: LogIndex(300) },
        PeerBody::LookAsk {
            ask: 300,
            freshness: Freshness::At(Timestamp(7)),
            reads: vec![RangeOp::of(quorate_kv::KeyRange::all())],
        },
        PeerBody::LookAnswer { ask: 300, sight: Ok(PartResult { at: Timestamp(7), ..PartResult::default() }) },
        PeerBody::LookAnswer { ask: 300, sight: Err(Refusal::MomentForgotten { at: Timestamp(7) }) },
        PeerBody::CloseAsk { at: Timestamp(7) },
        PeerBody::Sleep { term: Term(5), end: LogIndex(300) },
        PeerBody::Rouse,
        PeerBody::Beat,
        PeerBody::EverywhereAsk { index: LogIndex(300) },
        PeerBody::Everywhere { index: LogIndex(300) },
        PeerBody::LeaseAsk { ask: 1, lease: LeaseId(-2), renew: true, with_keys: false },
        PeerBody::LeaseAnswer { ask: 1, answer: Err(Refusal::LeaseNotFound.into()) },
        PeerBody::ChunkAsk { transfer: 5, cursor: "here".into() },
        PeerBody::Chunk { transfer: 5, cursor: "here".into(), chunk: Chunk::default() },
        PeerBody::TransferGone { transfer: 5 },
        PeerBody::StateHash { applied: LogIndex(8), hash: 99 },
        PeerBody::EntryAsk { index: LogIndex(7), term: Term(2) },
        answer(EntryCopy::Held { kind: 0, payload: "an entry".into() }),
        answer(EntryCopy::Absent { in_term: Term(3), leads: true }),
        answer(EntryCopy::Compacted),
        answer(EntryCopy::Replaced),
        PeerBody::RowsAsk { index: LogIndex(7) },
        PeerBody::RowsOffer { transfer: 6 },
        PeerBody::StandingAsk { ask: 9 },
        PeerBody::StandingAnswer {
            ask: 9,
            standings: vec![Standings { node: NodeId(3), voter: true, alive: false, in_sync: true }],
        },
        PeerBody::RecallAsk { ask: 300 },
        PeerBody::RecallAnswer {
            ask: 300,
            seen: vec![(
                ShardId(17),
                Sighting { term: Term(5), voted: Term(4), acknowledged: (Term(3), LogIndex(200)) },
            )],
        },
    ];
    let message = |body| PeerMessage { shard: ShardId(2), from: ReplicaId(1), to: ReplicaId(3), body };
    let batch: Vec<_> = bodies.into_iter().map(message).collect();
    let frame = bytes::Bytes::from(encode_batch(batch.iter()));
    assert_eq!(decode_batch(frame.clone()), Ok(batch));
    for len in 0..frame.len() {
        assert!(decode_batch(frame.slice(..len)).is_err());
    }
}

#[test]
fn frames_hold_what_they_may_and_keep_the_order() {
    let forward = |bytes: usize| {
        let args = vec![0; bytes].into();
        let command = Command::Call { procedure: quorate_kv::ProcedureId(1), version: 1, args };
        let id = CommandId { session: SessionId(4), seq: bytes as u64 };
        let body = PeerBody::Forward(vec![Envelope { id, answered_below: 0, command }]);
        PeerMessage { shard: ShardId(2), from: ReplicaId(1), to: ReplicaId(3), body }
    };
    assert!(frames(Vec::new()).is_empty());
    let sizes = [1, 2, FRAME_BYTES / 2, FRAME_BYTES / 2, 2 * FRAME_BYTES, 3, 4];
    let all = frames(sizes.map(forward).to_vec());
    assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [3, 1, 1, 2]);
    assert_eq!(all.concat(), sizes.map(forward));
    for frame in &all {
        let estimate: usize = frame.iter().map(|message| message.body.size_estimate()).sum();
        assert!(encode_batch(frame.iter()).len() <= estimate + 8);
    }
}

//! What several messages are made of.

use super::{Answer, EntryCopy};
use quorate_env::{DecodeError, Reader, Term, Writer};
use quorate_kv::{
    CommandId, Envelope, Error, Header, LeaseId, LeaseInfo, Read, Refusal, Revision, SessionId, Unavailable,
    decode_answer, encode_answer,
};

pub(super) fn encode_envelopes(envelopes: &[Envelope], w: &mut Writer) {
    w.varint(envelopes.len() as u64);
    envelopes.iter().for_each(|envelope| envelope.encode(w));
}

pub(super) fn decode_envelopes(r: &mut Reader) -> Result<Vec<Envelope>, DecodeError> {
    let mut envelopes = Vec::new();
    for _ in 0..r.count("commands")? {
        envelopes.push(Envelope::decode(r)?);
    }
    Ok(envelopes)
}

pub(super) fn encode_answers(answers: &[(CommandId, Answer)], w: &mut Writer) {
    w.varint(answers.len() as u64);
    for (CommandId { session, seq }, answer) in answers {
        w.u64(session.0);
        w.varint(*seq);
        w.bool(matches!(answer, Answer::Given(_)));
        if let Answer::Given(given) = answer {
            encode_answer(given, w);
        }
    }
}

pub(super) fn decode_answers(r: &mut Reader) -> Result<Vec<(CommandId, Answer)>, DecodeError> {
    let mut answers = Vec::new();
    for _ in 0..r.count("answers")? {
        let id = CommandId { session: SessionId(r.u64("session")?), seq: r.varint("number")? };
        let given = r.bool("given")?;
        answers.push((id, if given { Answer::Given(decode_answer(r)?) } else { Answer::Forgotten }));
    }
    Ok(answers)
}

pub(super) fn encode_copy(copy: &EntryCopy, w: &mut Writer) {
    match copy {
        EntryCopy::Held { kind, payload } => {
            w.u8(0);
            w.u8(*kind);
            w.bytes(payload);
        }
        EntryCopy::Absent { in_term, leads } => {
            w.u8(1);
            w.varint(in_term.0);
            w.bool(*leads);
        }
        EntryCopy::Compacted => w.u8(2),
        EntryCopy::Replaced => w.u8(3),
    }
}

pub(super) fn decode_copy(r: &mut Reader) -> Result<EntryCopy, DecodeError> {
    Ok(match r.u8("copy")? {
        0 => EntryCopy::Held { kind: r.u8("kind")?, payload: r.bytes("payload")? },
        1 => EntryCopy::Absent { in_term: Term(r.varint("term")?), leads: r.bool("leads")? },
        2 => EntryCopy::Compacted,
        3 => EntryCopy::Replaced,
        _ => return Err(r.error("copy")),
    })
}

pub(super) fn encode_lease(answer: &crate::LeaseAnswer, w: &mut Writer) {
    match answer {
        Ok(read) => {
            w.u8(0);
            w.varint(read.header.revision.0);
            w.varint(read.header.term.0);
            w.zigzag(read.result.id.0);
            w.varint(read.result.granted_s);
            w.varint(read.result.remaining_s);
            w.varint(read.result.keys.len() as u64);
            for key in &read.result.keys {
                w.bytes(key);
            }
        }
        Err(Error::Refused(_)) => w.u8(1),
        Err(Error::Unavailable(_) | Error::UnknownOutcome(_) | Error::UnknownTransaction { .. }) => w.u8(2),
    }
}

pub(super) fn decode_lease(r: &mut Reader) -> Result<crate::LeaseAnswer, DecodeError> {
    Ok(match r.u8("lease answer")? {
        0 => {
            let header = Header { revision: Revision(r.varint("revision")?), term: Term(r.varint("term")?) };
            let (id, granted_s, remaining_s) =
                (LeaseId(r.zigzag("lease")?), r.varint("granted")?, r.varint("remaining")?);
            let mut keys = Vec::new();
            for _ in 0..r.count("keys")? {
                keys.push(r.bytes("key")?);
            }
            Ok(Read { header, result: LeaseInfo { id, granted_s, remaining_s, keys } })
        }
        1 => Err(Refusal::LeaseNotFound.into()),
        2 => Err(Unavailable::NoLeader.into()),
        _ => return Err(r.error("lease answer")),
    })
}

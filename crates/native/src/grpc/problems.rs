//! Why there is no good answer, as a status of gRPC with a [`Problem`] in it. The one place where failures become codes of gRPC.
//!
//! The problem is a detail of the `google.rpc.Status` that is in `grpc-status-details-bin`, where clients' libraries look for such. It travels in a
//! header, of which many clients take no more than 8 KiB in all: what is long is left out.

use super::proto::{Now, Outcome, Problem};
use super::translate;
use crate::answers::Failure;
use crate::feed::compacted_message;
use crate::reasons::Reason;
use bytes::Bytes;
use prost::Message;
use quorate_kv::{Error, KeyValue, Refusal, Revision};
use tonic::{Code, Status};

/// What is longer than this is cut, if it is for people, and else left out.
const LONG_BYTES: usize = 512;

const PROBLEM: &str = "type.googleapis.com/quorate.v1.Problem";

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct RichStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// The problem that a status carries.
#[must_use]
pub fn problem_of(status: &Status) -> Option<Problem> {
    let rich = RichStatus::decode(status.details()).ok()?;
    let detail = rich.details.into_iter().find(|detail| detail.type_url == PROBLEM)?;
    Problem::decode(detail.value).ok()
}

/// The code that a reason goes with: UNAVAILABLE if, and only if, nothing was done and it may be tried again.
fn code(reason: Reason) -> Code {
    match reason {
        Reason::BadRequest | Reason::NotOrdered | Reason::KeysInLog | Reason::NotLog => Code::InvalidArgument,
        Reason::NoSuchKey | Reason::NoSuchKeyspace | Reason::NoSuchPage => Code::NotFound,
        Reason::NoSuchMethod => Code::Unimplemented,
        Reason::AlreadySplit | Reason::KeyspaceExists => Code::AlreadyExists,
        Reason::ConditionFailed => Code::FailedPrecondition,
        Reason::Conflict | Reason::LockLost | Reason::Aborted => Code::Aborted,
        Reason::Compacted | Reason::Trimmed | Reason::BeyondEnd => Code::OutOfRange,
        Reason::TooLarge => Code::ResourceExhausted,
        Reason::TooSlow => Code::DeadlineExceeded,
        Reason::NotHere
        | Reason::FeatureLevel
        | Reason::NoClockBound
        | Reason::NoLeader
        | Reason::NoSpace
        | Reason::Overloaded
        | Reason::Stopping
        | Reason::Timeout => Code::Unavailable,
    }
}

/// What the outcome is when this is the reason.
pub(super) fn outcome(reason: Reason) -> Outcome {
    if reason.outcome() == "unavailable" { Outcome::Unavailable } else { Outcome::Refused }
}

/// What is told about a failure.
fn problem(failure: &Failure) -> Problem {
    let Some(reason) = failure.reason() else {
        let unknown_id = failure.id().unwrap_or_default();
        return Problem { outcome: Outcome::Unknown.into(), unknown_id, ..Problem::default() };
    };
    let mut problem = Problem { outcome: outcome(reason).into(), reason: reason.name().into(), ..Problem::default() };
    match failure {
        Failure::NoKey(key)
        | Failure::Core(Error::Refused(
            Refusal::Locked { key, .. } | Refusal::Moved { key } | Refusal::ReservationLost { key },
        )) => {
            problem.key = key.clone();
        }
        Failure::ConditionFailed(Some(kv)) => problem.now = Some(now(kv.as_ref())),
        Failure::Core(Error::Refused(Refusal::Trimmed { first })) => problem.first = Some(*first),
        Failure::Core(Error::Refused(Refusal::BeyondEnd { end })) => problem.end = Some(*end),
        Failure::Elsewhere(url) => problem.ask = vec![url.clone()],
        _ => {}
    }
    if problem.key.len() > LONG_BYTES {
        problem.key.clear();
    }
    problem
}

fn now(kv: Option<&KeyValue>) -> Now {
    let mut now = Now { kv: kv.map(translate::key_value), left_out: false };
    for bytes in now.kv.iter_mut().flat_map(|kv| [&mut kv.key, &mut kv.value]) {
        if bytes.len() > LONG_BYTES {
            bytes.clear();
            now.left_out = true;
        }
    }
    now
}

/// What is said to people, with what to do about it in the words of gRPC.
fn message(failure: &Failure) -> String {
    let mut message = match failure {
        Failure::NoCall(name) => format!("quorate.v1.Quorate has no call {name:?}"),
        Failure::NoKeyspace(name) => {
            format!("there is no keyspace {name:?}: make it with CreateKeyspace, or look at ListKeyspaces")
        }
        Failure::NoKey(key) => format!("there is no key {key:?}: Put makes it, Scan lists what there is"),
        _ if failure.reason().is_some() => failure.message(),
        // Whoever named what it wants can always send it again.
        _ => {
            let ask =
                failure.id().map_or("read what it would have written".into(), |id| format!("ask Status about {id}"));
            format!("nobody knows whether it was done; {ask}, or send it again under the same idempotency_key")
        }
    };
    if message.len() > LONG_BYTES {
        let end = (0..=LONG_BYTES - 3).rev().find(|end| message.is_char_boundary(*end));
        message.truncate(end.unwrap_or_default());
        message.push_str("...");
    }
    message
}

fn carried(code: Code, mut problem: Problem, message: String) -> Status {
    problem.message.clone_from(&message);
    let detail = Any { type_url: PROBLEM.into(), value: problem.encode_to_vec().into() };
    let rich = RichStatus { code: code.into(), message: message.clone(), details: vec![detail] };
    Status::with_details(code, message, rich.encode_to_vec().into())
}

/// The status that says a failure.
pub(crate) fn status(failure: &Failure) -> Status {
    // Clients see the same code when their own deadline passes, and know as little then.
    let code = failure.reason().map_or(Code::DeadlineExceeded, code);
    carried(code, problem(failure), message(failure))
}

/// The end of a watch that wanted what is gone.
pub(super) fn compacted(oldest: Revision) -> Status {
    let (reason, compacted) = (Reason::Compacted, oldest.0 as i64);
    let problem =
        Problem { outcome: outcome(reason).into(), reason: reason.name().into(), compacted, ..Problem::default() };
    carried(code(reason), problem, compacted_message(oldest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_env::ShardId;
    use quorate_kv::across::TxId;
    use quorate_kv::{LeaseId, Unavailable};

    fn told(failure: Failure) -> (Code, Problem) {
        let status = status(&failure);
        let problem = problem_of(&status).expect("a problem");
        assert_eq!(problem.message, status.message());
        (status.code(), problem)
    }

    #[test]
    fn each_status_says_why_in_a_typed_detail() {
        let (code, problem) = told(Failure::NoKey("k".into()));
        assert_eq!(
            (code, problem.outcome(), problem.reason.as_str()),
            (Code::NotFound, Outcome::Refused, "no_such_key")
        );
        assert_eq!(problem.key, "k");
        let (code, problem) = told(Failure::Core(Refusal::Locked { key: "k".into(), by: TxId(1) }.into()));
        assert_eq!((code, problem.reason.as_str(), &problem.key[..]), (Code::Aborted, "conflict", &b"k"[..]));
        let (code, problem) = told(Failure::Core(Refusal::ReservationLost { key: "k".into() }.into()));
        assert_eq!((code, problem.reason.as_str(), &problem.key[..]), (Code::Aborted, "lock_lost", &b"k"[..]));
        let (code, problem) = told(Failure::Core(Unavailable::NoLeader.into()));
        assert_eq!((code, problem.outcome()), (Code::Unavailable, Outcome::Unavailable));
        let (code, problem) = told(Failure::Elsewhere("http://10.0.0.2:2379".into()));
        assert_eq!((code, problem.reason.as_str()), (Code::Unavailable, "not_here"));
        assert_eq!(problem.ask, ["http://10.0.0.2:2379"]);
        let status = compacted(Revision(9));
        assert_eq!((status.code(), problem_of(&status).expect("a problem").compacted), (Code::OutOfRange, 9));
    }

    #[test]
    fn what_nobody_knows_can_be_asked_about_if_it_has_a_name() {
        let (code, problem) = told(Failure::Core(Error::UnknownTransaction { tx: TxId(7), home: ShardId(2) }));
        assert_eq!((code, problem.outcome()), (Code::DeadlineExceeded, Outcome::Unknown));
        assert_eq!(problem.unknown_id, "2-00000000000000000000000000000007");
        assert!(problem.reason.is_empty() && problem.message.contains(&problem.unknown_id));
        let (code, problem) = told(Failure::Overtaken);
        assert_eq!(
            (code, problem.outcome(), problem.unknown_id.as_str()),
            (Code::DeadlineExceeded, Outcome::Unknown, "")
        );
    }

    #[test]
    fn who_is_refused_is_told_what_is_there() {
        let kv = |value: Vec<u8>| KeyValue {
            key: "k".into(),
            value: value.into(),
            create_revision: Revision(3),
            mod_revision: Revision(9),
            version: 2,
            lease: LeaseId::NONE,
        };
        let now = |found| {
            let (code, problem) = told(Failure::ConditionFailed(found));
            assert_eq!(code, Code::FailedPrecondition);
            problem.now
        };
        let short = now(Some(Some(kv(b"v".to_vec())))).expect("somebody looked");
        let shown = short.kv.expect("it is there");
        assert_eq!((shown.value, shown.mod_revision, short.left_out), ("v".into(), 9, false));
        let long = now(Some(Some(kv(vec![b'v'; LONG_BYTES + 1])))).expect("somebody looked");
        assert!(long.left_out && long.kv.is_some_and(|kv| kv.value.is_empty() && kv.mod_revision == 9));
        assert_eq!(now(Some(None)), Some(Now::default()));
        assert_eq!(now(None), None);
    }

    #[test]
    fn a_status_fits_the_headers_that_clients_take() {
        for byte in [b'k', 0xFF] {
            let key = Bytes::from(vec![byte; 32_000]);
            let kv = KeyValue {
                key: vec![byte; LONG_BYTES].into(),
                value: vec![byte; LONG_BYTES].into(),
                create_revision: Revision(3),
                mod_revision: Revision(9),
                version: 2,
                lease: LeaseId::NONE,
            };
            for failure in [
                Failure::NoKey(key.clone()),
                Failure::Core(Refusal::Moved { key }.into()),
                Failure::ConditionFailed(Some(Some(kv))),
                Failure::Bad("ä".repeat(9_000)),
            ] {
                let response: axum::response::Response = status(&failure).into_http();
                let bytes: usize =
                    response.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
                assert!(bytes < 6 << 10, "{bytes} bytes");
            }
        }
    }

    #[test]
    fn the_codes_are_those_of_the_page() {
        let page = include_str!("../../../../docs/native-api.md");
        let rows = page.lines().skip_while(|line| !line.starts_with("| gRPC's code |")).skip(2);
        let mut documented: Vec<(String, String)> = Vec::new();
        for row in rows.take_while(|line| line.starts_with('|')) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let words = cells[3].split('`').skip(1).step_by(2);
            documented.extend(words.map(|word| (word.to_owned(), cells[1].to_owned())));
        }
        documented.sort();
        // No call answers these two in this way: there are no pages, and Status tells of what was aborted.
        let said = Reason::ALL.iter().filter(|reason| !matches!(reason, Reason::NoSuchPage | Reason::Aborted));
        let screaming = |code: Code| {
            let name = format!("{code:?}");
            let parts = name
                .char_indices()
                .map(|(at, c)| if at > 0 && c.is_uppercase() { format!("_{c}") } else { c.to_string() });
            parts.collect::<String>().to_uppercase()
        };
        let mut said: Vec<(String, String)> =
            said.map(|reason| (reason.name().into(), screaming(code(*reason)))).collect();
        said.sort();
        assert_eq!(documented, said);
    }
}

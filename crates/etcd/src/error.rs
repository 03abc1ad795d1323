//! The core's errors in etcd's codes and texts. Clients match on both, so they are etcd's to the byte.

use quorate_kv::{Error, MemberRefusal, MoveRefusal, Refusal, Unavailable};
use tonic::{Code, Status};

/// An error that etcd defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EtcdError(pub Code, pub &'static str);

pub(crate) const EMPTY_KEY: EtcdError = EtcdError(Code::InvalidArgument, "etcdserver: key is not provided");
pub(crate) const KEY_NOT_FOUND: EtcdError = EtcdError(Code::InvalidArgument, "etcdserver: key not found");
pub(crate) const VALUE_PROVIDED: EtcdError = EtcdError(Code::InvalidArgument, "etcdserver: value is provided");
pub(crate) const LEASE_PROVIDED: EtcdError = EtcdError(Code::InvalidArgument, "etcdserver: lease is provided");
pub(crate) const TOO_MANY_OPS: EtcdError =
    EtcdError(Code::InvalidArgument, "etcdserver: too many operations in txn request");
pub(crate) const DUPLICATE_KEY: EtcdError =
    EtcdError(Code::InvalidArgument, "etcdserver: duplicate key given in txn request");
pub(crate) const TOO_LARGE: EtcdError = EtcdError(Code::InvalidArgument, "etcdserver: request is too large");
pub(crate) const TXN_TOO_DEEP: EtcdError = EtcdError(Code::InvalidArgument, "etcdserver: txn nested too deep");
pub(crate) const COMPACTED: EtcdError =
    EtcdError(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
pub(crate) const FUTURE_REVISION: EtcdError =
    EtcdError(Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision");
pub(crate) const NO_SPACE: EtcdError = EtcdError(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");
pub(crate) const LEASE_NOT_FOUND: EtcdError = EtcdError(Code::NotFound, "etcdserver: requested lease not found");
pub(crate) const LEASE_EXISTS: EtcdError = EtcdError(Code::FailedPrecondition, "etcdserver: lease already exists");
pub(crate) const LEASE_TTL_TOO_LARGE: EtcdError = EtcdError(Code::OutOfRange, "etcdserver: too large lease TTL");
pub(crate) const TOO_MANY_REQUESTS: EtcdError = EtcdError(Code::ResourceExhausted, "etcdserver: too many requests");
pub(crate) const NO_LEADER: EtcdError = EtcdError(Code::Unavailable, "etcdserver: no leader");
pub(crate) const TIMEOUT: EtcdError = EtcdError(Code::Unavailable, "etcdserver: request timed out");
pub(crate) const STOPPED: EtcdError = EtcdError(Code::Unavailable, "etcdserver: server stopped");
pub(crate) const AUTH_NOT_ENABLED: EtcdError =
    EtcdError(Code::FailedPrecondition, "etcdserver: authentication is not enabled");

pub(crate) const MEMBER_NOT_FOUND: EtcdError = EtcdError(Code::NotFound, "etcdserver: member not found");
pub(crate) const PEER_URL_EXISTS: EtcdError =
    EtcdError(Code::FailedPrecondition, "etcdserver: Peer URLs already exists");
pub(crate) const BAD_URLS: EtcdError = EtcdError(Code::InvalidArgument, "etcdserver: given member URLs are invalid");
pub(crate) const NOT_A_LEARNER: EtcdError =
    EtcdError(Code::FailedPrecondition, "etcdserver: can only promote a learner member");
pub(crate) const LEARNER_NOT_READY: EtcdError =
    EtcdError(Code::FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader");
pub(crate) const TOO_MANY_LEARNERS: EtcdError =
    EtcdError(Code::FailedPrecondition, "etcdserver: too many learner members in cluster");
pub(crate) const NOT_ENOUGH_STARTED: EtcdError =
    EtcdError(Code::FailedPrecondition, "etcdserver: re-configuration failed due to not enough started members");
pub(crate) const UNHEALTHY: EtcdError = EtcdError(Code::Unavailable, "etcdserver: unhealthy cluster");

pub(crate) const NOT_LEADER: EtcdError = EtcdError(Code::FailedPrecondition, "etcdserver: not leader");
pub(crate) const BAD_TRANSFEREE: EtcdError = EtcdError(Code::FailedPrecondition, "etcdserver: bad leader transferee");
pub(crate) const TRANSFER_TIMEOUT: EtcdError =
    EtcdError(Code::Unavailable, "etcdserver: request timed out, leader transfer took too long");

impl From<EtcdError> for Status {
    fn from(e: EtcdError) -> Self {
        Status::new(e.0, e.1)
    }
}

/// The one place where the core's errors become etcd's.
pub(crate) fn status(error: &Error) -> Status {
    let known = match error {
        Error::Refused(refusal) => match refusal {
            Refusal::KeyNotFound => KEY_NOT_FOUND,
            Refusal::LeaseNotFound => LEASE_NOT_FOUND,
            Refusal::LeaseExists => LEASE_EXISTS,
            Refusal::LeaseTtlTooLarge => LEASE_TTL_TOO_LARGE,
            Refusal::RevisionCompacted { .. } => COMPACTED,
            Refusal::RevisionInFuture { .. } => FUTURE_REVISION,
            Refusal::TooLarge { .. } => TOO_LARGE,
            Refusal::Member(refusal) => match refusal {
                MemberRefusal::NotFound => MEMBER_NOT_FOUND,
                MemberRefusal::AddressTaken => PEER_URL_EXISTS,
                MemberRefusal::BadAddress => BAD_URLS,
                MemberRefusal::NotLearner => NOT_A_LEARNER,
                MemberRefusal::NotInSync => LEARNER_NOT_READY,
                MemberRefusal::TooManyLearners => TOO_MANY_LEARNERS,
                MemberRefusal::LastVoter => NOT_ENOUGH_STARTED,
                MemberRefusal::Unhealthy | MemberRefusal::Needed => UNHEALTHY,
                // None of etcd's calls replaces a member.
                MemberRefusal::Itself
                | MemberRefusal::Leaves
                | MemberRefusal::Drained
                | MemberRefusal::NoVote
                | MemberRefusal::Taken
                | MemberRefusal::FewerZones => UNHEALTHY,
            },
            Refusal::Move(refusal) => match refusal {
                MoveRefusal::NotLeader => NOT_LEADER,
                MoveRefusal::BadTarget => BAD_TRANSFEREE,
                MoveRefusal::TooLong => TRANSFER_TIMEOUT,
            },
            // Whoever holds the lock lets go of it soon: a client that retries will pass.
            Refusal::Locked { .. }
            | Refusal::Aborted { .. }
            | Refusal::Moved { .. }
            | Refusal::ReservationLost { .. }
            | Refusal::TooManyReserved { .. } => {
                return Status::unavailable(refusal.to_string());
            }
            Refusal::EmptyKey => EMPTY_KEY,
            Refusal::UnknownProcedure
            | Refusal::KeyspaceNotFound
            | Refusal::KeyspaceExists
            | Refusal::KeyspaceName
            | Refusal::KeyspaceShards
            | Refusal::Replicas
            | Refusal::OrderedSplit
            | Refusal::NotOrdered
            | Refusal::AlreadySplit
            | Refusal::LeasesSplit
            | Refusal::LogSplit
            | Refusal::KeysInLog
            | Refusal::NotLog
            | Refusal::Trimmed { .. }
            | Refusal::BeyondEnd { .. }
            | Refusal::TooManyRecords { .. }
            | Refusal::MomentAhead { .. }
            | Refusal::MomentForgotten { .. }
            | Refusal::TooManyShards { .. } => return Status::internal(refusal.to_string()),
        },
        Error::Unavailable(why) => match why {
            Unavailable::NoLeader => NO_LEADER,
            Unavailable::Timeout => TIMEOUT,
            Unavailable::Overloaded => TOO_MANY_REQUESTS,
            Unavailable::NoSpace => NO_SPACE,
            Unavailable::FeatureLevel { .. } => return Status::failed_precondition(why.to_string()),
            Unavailable::NotHere => NO_LEADER,
            Unavailable::NoClockBound => return Status::failed_precondition(why.to_string()),
            Unavailable::Stopping => STOPPED,
        },
        // etcd's clients know this one as "may or may not have been applied".
        Error::UnknownOutcome(_) | Error::UnknownTransaction { .. } => TIMEOUT,
    };
    known.into()
}

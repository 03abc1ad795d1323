//! Why there is no good answer, in words that programs read. The list is closed: docs/native-api.md and openapi.json have the same one.

use axum::http::StatusCode;
use quorate_kv::{Refusal, Unavailable};

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $code:ident;)*) => {
        /// A reason, with the code of HTTP that it goes with.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Reason {
            $($(#[$doc])* $variant,)*
        }

        impl Reason {
            /// All there are.
            #[cfg(test)]
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            pub const fn code(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$code,)* }
            }
        }
    };
}

reasons! {
    /// What became of a transaction, for ever: an answer to who asked for that.
    Aborted = "aborted", OK;
    /// An event of a watch: the revisions that it wanted are gone.
    Compacted = "compacted", OK;
    NotHere = "not_here", TEMPORARY_REDIRECT;
    BadRequest = "bad_request", BAD_REQUEST;
    NotOrdered = "not_ordered", BAD_REQUEST;
    KeysInLog = "keys_in_log", BAD_REQUEST;
    NotLog = "not_log", BAD_REQUEST;
    NoSuchKey = "no_such_key", NOT_FOUND;
    NoSuchKeyspace = "no_such_keyspace", NOT_FOUND;
    NoSuchPage = "no_such_page", NOT_FOUND;
    NoSuchMethod = "no_such_method", METHOD_NOT_ALLOWED;
    TooSlow = "too_slow", REQUEST_TIMEOUT;
    AlreadySplit = "already_split", CONFLICT;
    ConditionFailed = "condition_failed", CONFLICT;
    Conflict = "conflict", CONFLICT;
    KeyspaceExists = "keyspace_exists", CONFLICT;
    LockLost = "lock_lost", CONFLICT;
    Trimmed = "trimmed", GONE;
    TooLarge = "too_large", PAYLOAD_TOO_LARGE;
    BeyondEnd = "beyond_end", RANGE_NOT_SATISFIABLE;
    FeatureLevel = "feature_level", SERVICE_UNAVAILABLE;
    NoClockBound = "no_clock_bound", SERVICE_UNAVAILABLE;
    NoLeader = "no_leader", SERVICE_UNAVAILABLE;
    NoSpace = "no_space", SERVICE_UNAVAILABLE;
    Overloaded = "overloaded", SERVICE_UNAVAILABLE;
    Stopping = "stopping", SERVICE_UNAVAILABLE;
    Timeout = "timeout", SERVICE_UNAVAILABLE;
}

impl Reason {
    /// What the outcome is when this is the reason.
    pub fn outcome(self) -> &'static str {
        if self.code().is_server_error() || self == Self::NotHere { "unavailable" } else { "refused" }
    }
}

impl From<Unavailable> for Reason {
    fn from(why: Unavailable) -> Self {
        match why {
            // Where there is a page to go to, the answer says so before it comes to this.
            Unavailable::NoLeader | Unavailable::NotHere => Self::NoLeader,
            Unavailable::Timeout => Self::Timeout,
            Unavailable::Overloaded => Self::Overloaded,
            Unavailable::NoSpace => Self::NoSpace,
            Unavailable::FeatureLevel { .. } => Self::FeatureLevel,
            Unavailable::NoClockBound => Self::NoClockBound,
            Unavailable::Stopping => Self::Stopping,
        }
    }
}

impl From<&Refusal> for Reason {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Locked { .. } | Refusal::Aborted { .. } | Refusal::Moved { .. } => Self::Conflict,
            Refusal::ReservationLost { .. } => Self::LockLost,
            Refusal::AlreadySplit => Self::AlreadySplit,
            Refusal::KeyspaceNotFound => Self::NoSuchKeyspace,
            Refusal::KeyspaceExists => Self::KeyspaceExists,
            Refusal::NotOrdered => Self::NotOrdered,
            Refusal::KeysInLog => Self::KeysInLog,
            Refusal::NotLog => Self::NotLog,
            Refusal::Trimmed { .. } => Self::Trimmed,
            Refusal::BeyondEnd { .. } => Self::BeyondEnd,
            Refusal::TooLarge { .. }
            | Refusal::TooManyShards { .. }
            | Refusal::TooManyRecords { .. }
            | Refusal::TooManyReserved { .. } => Self::TooLarge,
            _ => Self::BadRequest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The words between backticks in the last column of the table of codes.
    fn documented() -> BTreeSet<&'static str> {
        let page = include_str!("../../../docs/native-api.md");
        let rows = page.lines().skip_while(|line| !line.starts_with("| code |")).skip(2);
        let reasons = rows.take_while(|line| line.starts_with('|')).filter_map(|row| row.split('|').nth(3));
        let words = reasons.flat_map(|cell| cell.split('`').skip(1).step_by(2));
        words.filter(|word| word.chars().all(|c| c == '_' || c.is_ascii_lowercase())).collect()
    }

    #[test]
    fn the_reasons_are_those_of_the_page_and_of_openapi() {
        let known: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(known.len(), Reason::ALL.len());
        assert_eq!(documented(), known);
        let openapi: serde_json::Value = serde_json::from_str(crate::OPENAPI).expect("json");
        let listed = openapi["components"]["schemas"]["Reason"]["enum"].as_array().expect("a list");
        assert_eq!(listed.iter().filter_map(serde_json::Value::as_str).collect::<BTreeSet<_>>(), known);
    }
}

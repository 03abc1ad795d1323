//! Why there is no good answer, by what the caller does next.

use crate::KeyValue;
use serde_json::Value;
use thiserror::Error;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// Why a server refused, in its own word.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
            /// One that this release does not know.
            Other(String),
        }

        impl Reason {
            /// Reads the word.
            #[must_use]
            pub fn of(name: &str) -> Self {
                match name { $($name => Self::$variant,)* _ => Self::Other(name.into()) }
            }

            /// The word.
            #[must_use]
            pub fn name(&self) -> &str {
                match self { $(Self::$variant => $name,)* Self::Other(name) => name }
            }

            /// Those that there are names for.
            #[cfg(test)]
            pub(crate) const KNOWN: &[Self] = &[$(Self::$variant),*];
        }
    };
}

reasons! {
    /// What became of a transaction that was asked about: it never happens.
    Aborted = "aborted";
    /// A shard begins there already.
    AlreadySplit = "already_split";
    /// The request makes no sense; the message says why.
    BadRequest = "bad_request";
    /// The revisions that a watch wanted are gone.
    Compacted = "compacted";
    /// The key is not as the condition says.
    ConditionFailed = "condition_failed";
    /// Others were in the way.
    Conflict = "conflict";
    /// The log ends before that offset.
    BeyondEnd = "beyond_end";
    /// A log holds records, not keys.
    KeysInLog = "keys_in_log";
    /// Only a log has records.
    NotLog = "not_log";
    /// What is wanted of a log was cut off.
    Trimmed = "trimmed";
    /// Not every member runs a release that knows how.
    FeatureLevel = "feature_level";
    /// There is one of that name.
    KeyspaceExists = "keyspace_exists";
    /// Something that was reserved is not any more: an older transaction has taken it over, or its time was up.
    LockLost = "lock_lost";
    /// Writers wait for clocks, and the server was not told how far those may be from true time.
    NoClockBound = "no_clock_bound";
    /// Nobody leads the shard at the moment.
    NoLeader = "no_leader";
    /// The disks are full.
    NoSpace = "no_space";
    /// The key is not there.
    NoSuchKey = "no_such_key";
    /// The keyspace is not there.
    NoSuchKeyspace = "no_such_keyspace";
    /// The server's release does not know how.
    NoSuchMethod = "no_such_method";
    /// The server's release does not know the address.
    NoSuchPage = "no_such_page";
    /// The server has no replica of what is to be watched, and says where there is one.
    NotHere = "not_here";
    /// Only what is in an ordered keyspace can be watched.
    NotOrdered = "not_ordered";
    /// The server has too much to do.
    Overloaded = "overloaded";
    /// The server stops.
    Stopping = "stopping";
    /// The server did not get it done in time.
    Timeout = "timeout";
    /// More than a request may hold.
    TooLarge = "too_large";
    /// The request did not come to its end in time.
    TooSlow = "too_slow";
}

/// Why there is no good answer. The variants differ in what to do next.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// It could not be asked at all. Correct the program or its configuration.
    #[error("{0}")]
    Misuse(String),
    /// A server said no. Nothing happened, and asking again unchanged will not help.
    #[error("{message}")]
    Refused {
        /// Why, for programs.
        reason: Reason,
        /// Why, and what to do, for people.
        message: String,
    },
    /// The key is not as the condition says, so nothing was written. Look at it, and decide anew.
    #[error("nothing was written: the key is not as the condition says; look at it, and decide anew")]
    ConditionFailed {
        /// What is there instead, or that nothing is; none if the server did not look, as when it had answered before.
        now: Option<Option<KeyValue>>,
    },
    /// The revisions that a watch wanted are gone. Scan the keys anew, and watch from there.
    #[error("what the watch wanted is gone: read the keys anew, then watch from revision {oldest} or later")]
    Compacted {
        /// The oldest revision that is left.
        oldest: u64,
    },
    /// What is wanted of a log was cut off. Go on from the first record that is kept.
    #[error("what came before offset {first} was cut off: go on from there")]
    Trimmed {
        /// Its offset.
        first: u64,
    },
    /// Others were in the way each time. Nothing happened; try later, or let fewer write the same keys.
    #[error("others were in the way {tries} times: {message}; try later, or let fewer write the same keys at once")]
    Conflict {
        /// How often it was tried.
        tries: u32,
        /// What the last server said, which names the key if it knows.
        message: String,
    },
    /// No server could do it. Nothing happened; try again.
    #[error("{}", said.join("\n"))]
    Unavailable {
        /// What was last heard of each server.
        said: Vec<String>,
    },
    /// Nobody knows whether it was done. Sent again under the same name, it is done once.
    #[error("{}\nit may have been done: {}", said.join("\n"), unknown(name.as_ref()))]
    Unknown {
        /// Its `Idempotency-Key`, if it can have one.
        name: Option<String>,
        /// What a server called the last try, for `GET /v1/status/ID`, which speaks of that try alone: another under
        /// the same name may be done all the same.
        id: Option<String>,
        /// What was last heard of each server.
        said: Vec<String>,
    },
}

fn unknown(name: Option<&String>) -> String {
    match name {
        Some(name) => format!("send it again under the Idempotency-Key {name}, which does nothing twice"),
        None => "look at what there is now before asking again".into(),
    }
}

impl Error {
    /// What a server's refusal means.
    pub(crate) fn refused(said: &Value) -> Self {
        let reason = Reason::of(said["reason"].as_str().unwrap_or_default());
        match reason {
            Reason::ConditionFailed => {
                Self::ConditionFailed { now: said.get("now").and_then(|now| serde_json::from_value(now.clone()).ok()) }
            }
            Reason::Compacted => Self::Compacted { oldest: said["compacted"].as_u64().unwrap_or_default() },
            Reason::Trimmed => Self::Trimmed { first: said["first"].as_u64().unwrap_or_default() },
            Reason::Conflict => Self::Conflict { tries: 1, message: message(said) },
            reason => Self::Refused { reason, message: message(said) },
        }
    }

    /// An answer that is none of those that the API has.
    pub(crate) fn strange(what: impl std::fmt::Display) -> Self {
        Self::Unavailable { said: vec![format!("the answer makes no sense: {what}; is that a Quorate server?")] }
    }
}

/// What a server says to people.
pub(crate) fn message(said: &Value) -> String {
    said["message"].as_str().unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::BTreeSet;

    #[test]
    fn the_reasons_are_those_that_servers_have() {
        let openapi = include_str!("../../native/openapi.json");
        let openapi: Value = serde_json::from_str(openapi).expect("json");
        let listed = openapi["components"]["schemas"]["Reason"]["enum"].as_array().expect("a list");
        let listed: BTreeSet<&str> = listed.iter().filter_map(Value::as_str).collect();
        assert_eq!(Reason::KNOWN.iter().map(Reason::name).collect::<BTreeSet<_>>(), listed);
        assert!(Reason::KNOWN.iter().all(|reason| Reason::of(reason.name()) == *reason));
    }

    #[test]
    fn a_condition_that_failed_says_what_is_there_if_anybody_looked() {
        let now = |said: Value| match Error::refused(&said) {
            Error::ConditionFailed { now } => now.map(|now| now.map(|kv| kv.mod_revision)),
            other => panic!("{other}"),
        };
        let kv = json!({ "key": "k", "value": "v", "version": 2, "create_revision": 3, "mod_revision": 9 });
        assert_eq!(now(json!({ "reason": "condition_failed", "now": kv })), Some(Some(9)));
        assert_eq!(now(json!({ "reason": "condition_failed", "now": null })), Some(None));
        assert_eq!(now(json!({ "reason": "condition_failed" })), None);
    }
}

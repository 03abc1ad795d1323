//! What to do after each try, as a pure function of what was asked and what was heard.
//!
//! ```text
//!   done, or refused for good ────> say so
//!   sent elsewhere ───────────────> ask there
//!   not reached, not available ───> ask the next server
//!   asked, and the answer is lost ─> ask the next server under the same name; without a name, say that nobody knows
//! ```
//!
//! Once an answer is lost, only an answer that was decided under the name counts. That another try met a lock or an old
//! server says nothing about the one that may still be under way.

use crate::error::message;
use crate::options::REDIRECTS_MAX;
use crate::request::Kind;
use crate::{Error, Reason};
use serde_json::Value;

/// What became of one try.
#[derive(Debug)]
pub(crate) enum Heard {
    /// The server answered: its code, what it says if that is JSON, and where it sends us.
    Answer { code: u16, said: Option<Value>, location: Option<String> },
    /// The server was not asked.
    Unreachable(String),
    /// It was asked, and then nothing came.
    Lost(String),
}

/// What to do now.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    Done(Value),
    Fail(Error),
    /// Ask where this leads.
    Follow(String),
    /// Ask the next server, after a pause when all were asked.
    GoOn,
}

/// What is known of a request that goes on.
#[derive(Debug)]
pub(crate) struct Trial {
    kind: Kind,
    /// It may have been done.
    perhaps_done: bool,
    /// What a server calls it.
    id: Option<String>,
    /// Others were in the way so often, and what the last server said of them if nothing else has happened since.
    conflicts: u32,
    conflict: Option<String>,
    /// Redirects that were followed since a server of the list was asked.
    followed: u32,
    /// What was last heard of each server.
    said: Vec<(String, String)>,
}

impl Trial {
    pub fn new(kind: Kind) -> Self {
        let (conflicts, followed) = (0, 0);
        Self { kind, perhaps_done: false, id: None, conflicts, conflict: None, followed, said: Vec::new() }
    }

    /// A server of the list is asked next.
    pub fn begin(&mut self) {
        self.followed = 0;
    }

    pub fn judge(&mut self, server: &str, heard: Heard) -> Next {
        self.conflict = None;
        let (code, said, location) = match heard {
            Heard::Unreachable(why) => {
                return self.pass(server, format!("{server} cannot be reached: {why}; is a server running there?"));
            }
            Heard::Lost(why) => return self.lose(server, format!("{server}: {why}")),
            Heard::Answer { code, said, location } => (code, said, location),
        };
        if let (307 | 308, Some(location)) = (code, location) {
            self.followed += 1;
            return match self.followed <= REDIRECTS_MAX {
                true => Next::Follow(location),
                false => self.pass(server, format!("{server}: it sends us on, as did {REDIRECTS_MAX} before it")),
            };
        }
        let Some(said) = said else {
            return self.lose(server, format!("{server}: {code}, and no JSON: is that a Quorate server?"));
        };
        match code {
            200..300 => Next::Done(said),
            503 => self.pass(server, format!("{server}: {}", message(&said))),
            400..500 => self.refused(server, &said),
            _ => {
                self.id = said["id"].as_str().map(str::to_owned).or(self.id.take());
                self.lose(server, format!("{server}: {}", message(&said)))
            }
        }
    }

    /// Nothing happened by this try, and another server may do it.
    pub fn pass(&mut self, server: &str, why: String) -> Next {
        self.said.retain(|(before, _)| before != server);
        self.said.push((server.into(), why));
        Next::GoOn
    }

    /// Something may have happened by this try.
    fn lose(&mut self, server: &str, why: String) -> Next {
        self.perhaps_done |= self.kind != Kind::Read;
        self.pass(server, why);
        if self.kind == Kind::Change { Next::Fail(self.end()) } else { Next::GoOn }
    }

    fn refused(&mut self, server: &str, said: &Value) -> Next {
        match Error::refused(said) {
            Error::Conflict { message, .. } => {
                self.pass(server, format!("{server}: {message}"));
                self.conflicts += 1;
                self.conflict = Some(message);
                Next::GoOn
            }
            // That the condition failed, or that something was lost, was decided under the name, once for all.
            error @ (Error::ConditionFailed { .. } | Error::Refused { reason: Reason::LockLost, .. }) => {
                Next::Fail(error)
            }
            // No server that decides says so of what it has done.
            error if !self.perhaps_done => Next::Fail(error),
            error => {
                self.pass(server, format!("{server}: {error}"));
                Next::Fail(self.end())
            }
        }
    }

    /// The last that can be said when there is no time left.
    pub fn end(&mut self) -> Error {
        let said = self.said.drain(..).map(|(_, why)| why).collect();
        match (self.perhaps_done, self.conflict.take(), &self.kind) {
            (true, _, Kind::Named(name)) => Error::Unknown { name: Some(name.clone()), id: self.id.take(), said },
            (true, _, _) => Error::Unknown { name: None, id: self.id.take(), said },
            (false, Some(message), _) => Error::Conflict { tries: self.conflicts, message },
            (false, None, _) => Error::Unavailable { said },
        }
    }
}

/// Whether an error says that a key is not there.
pub(crate) fn is_absent(error: &Error) -> bool {
    matches!(error, Error::Refused { reason: Reason::NoSuchKey, .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn named() -> Trial {
        Trial::new(Kind::Named("order-17".into()))
    }

    fn answer(code: u16, said: Value) -> Heard {
        Heard::Answer { code, said: Some(said), location: None }
    }

    fn refused(code: u16, reason: &str) -> Heard {
        answer(code, json!({ "outcome": "refused", "reason": reason, "message": format!("because of {reason}") }))
    }

    fn unknown(id: &str) -> Heard {
        answer(504, json!({ "outcome": "unknown", "id": id, "message": "nobody knows" }))
    }

    #[test]
    fn what_is_done_or_refused_ends_it() {
        let done = json!({ "outcome": "done" });
        assert_eq!(named().judge("a", answer(200, done.clone())), Next::Done(done.clone()));
        assert_eq!(named().judge("a", answer(201, done.clone())), Next::Done(done));
        let Next::Fail(Error::Refused { reason, .. }) = named().judge("a", refused(404, "no_such_keyspace")) else {
            panic!("it is refused");
        };
        assert_eq!(reason, Reason::NoSuchKeyspace);
    }

    #[test]
    fn who_is_not_there_or_has_no_leader_is_passed_over() {
        let mut trial = named();
        assert_eq!(trial.judge("a", Heard::Unreachable("refused".into())), Next::GoOn);
        assert_eq!(trial.judge("b", refused(503, "no_leader")), Next::GoOn);
        assert_eq!(trial.judge("a", Heard::Unreachable("refused again".into())), Next::GoOn);
        let Error::Unavailable { said } = trial.end() else { panic!("nothing was done") };
        assert_eq!(said.len(), 2, "the last of each: {said:?}");
        assert!(said[1].contains("refused again") && said[1].contains("is a server running there?"));
    }

    #[test]
    fn what_may_have_been_done_is_unknown_until_it_is_decided() {
        let lost = || Heard::Lost("no answer".into());
        let mut trial = named();
        assert_eq!(trial.judge("a", lost()), Next::GoOn);
        assert_eq!(trial.judge("b", unknown("2-7")), Next::GoOn);
        // The try that is still under way may hold the very lock.
        assert_eq!(trial.judge("c", refused(409, "conflict")), Next::GoOn);
        assert_eq!(trial.judge("a", refused(503, "no_leader")), Next::GoOn);
        let Error::Unknown { name, id, said } = trial.end() else { panic!("nobody knows") };
        assert_eq!((name.as_deref(), id.as_deref(), said.len()), (Some("order-17"), Some("2-7"), 3));
        // A server of another release has not decided anything.
        let mut trial = named();
        trial.judge("a", lost());
        assert!(matches!(trial.judge("b", refused(404, "no_such_page")), Next::Fail(Error::Unknown { .. })));
        // A condition is judged under the name.
        let mut trial = named();
        trial.judge("a", lost());
        let decided = trial.judge("b", refused(409, "condition_failed"));
        assert_eq!(decided, Next::Fail(Error::ConditionFailed { now: None }));
        let mut trial = named();
        trial.judge("a", lost());
        let decided = trial.judge("b", refused(409, "lock_lost"));
        assert!(matches!(decided, Next::Fail(Error::Refused { reason: Reason::LockLost, .. })), "{decided:?}");
        // As is what was done, by whichever try.
        let mut trial = named();
        trial.judge("a", lost());
        let done = json!({ "outcome": "done", "repeated": true });
        assert_eq!(trial.judge("b", answer(200, done.clone())), Next::Done(done));
    }

    #[test]
    fn what_has_no_name_is_not_sent_again_once_it_may_have_been_done() {
        let mut trial = Trial::new(Kind::Change);
        assert_eq!(trial.judge("a", Heard::Unreachable("refused".into())), Next::GoOn);
        let next = trial.judge("b", Heard::Lost("no answer".into()));
        assert!(matches!(next, Next::Fail(Error::Unknown { name: None, .. })), "{next:?}");
        assert!(matches!(Trial::new(Kind::Change).judge("a", unknown("2-7")), Next::Fail(Error::Unknown { .. })));
    }

    #[test]
    fn a_read_does_nothing_so_it_is_never_unknown() {
        let mut trial = Trial::new(Kind::Read);
        assert_eq!(trial.judge("a", Heard::Lost("no answer".into())), Next::GoOn);
        assert_eq!(trial.judge("b", unknown("2-7")), Next::GoOn);
        assert!(matches!(trial.end(), Error::Unavailable { .. }));
    }

    #[test]
    fn redirects_are_followed_so_far() {
        let mut trial = Trial::new(Kind::Read);
        let elsewhere = || Heard::Answer { code: 307, said: None, location: Some("http://b/v1".into()) };
        for _ in 0..2 {
            trial.begin();
            for _ in 0..REDIRECTS_MAX {
                assert_eq!(trial.judge("a", elsewhere()), Next::Follow("http://b/v1".into()));
            }
            assert_eq!(trial.judge("a", elsewhere()), Next::GoOn);
        }
        let nowhere = Heard::Answer { code: 307, said: None, location: None };
        assert_eq!(trial.judge("a", nowhere), Next::GoOn);
    }

    #[test]
    fn others_in_the_way_are_named_when_that_was_the_last_of_it() {
        let mut trial = named();
        trial.judge("a", refused(409, "conflict"));
        trial.judge("b", refused(409, "conflict"));
        assert_eq!(trial.end(), Error::Conflict { tries: 2, message: "because of conflict".into() });
        trial.judge("a", refused(409, "conflict"));
        trial.judge("b", Heard::Unreachable("refused".into()));
        assert!(matches!(trial.end(), Error::Unavailable { .. }));
    }

    #[test]
    fn what_is_no_json_may_have_been_done() {
        let strange = || Heard::Answer { code: 502, said: None, location: None };
        let mut trial = named();
        assert_eq!(trial.judge("a", strange()), Next::GoOn);
        assert!(matches!(trial.end(), Error::Unknown { .. }));
    }
}

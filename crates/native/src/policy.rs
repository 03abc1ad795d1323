//! What is wanted of a keyspace, in words: `{"history": "1h", "freshness": "within:500ms", "replication": "all", "commit_wait": true}`.

use crate::answers::Failure;
use crate::freshness;
use quorate_kv::{Freshness, Policy, PolicyChange, Replication};
use std::time::Duration;

/// History that nobody compacts.
const FOREVER: &str = "forever";

/// The shortest history: a page or two of a scan at one moment.
const HISTORY_MIN: Duration = Duration::from_secs(1);

/// The longest that is a number: whoever wants more wants it for ever.
const HISTORY_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

const UNITS: [(&str, u64); 4] = [("d", 24 * 60 * 60), ("h", 60 * 60), ("m", 60), ("s", 1)];

const REPLICATIONS: [(&str, Replication); 2] = [("majority", Replication::Majority), ("all", Replication::All)];

/// What is to be different, in a client's words.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted<'a> {
    pub history: Option<&'a str>,
    pub freshness: Option<&'a str>,
    pub replication: Option<&'a str>,
    pub commit_wait: Option<bool>,
}

/// Reads what is to be different.
pub(crate) fn parse(wanted: Wanted<'_>) -> Result<PolicyChange, Failure> {
    let Wanted { history, freshness: fresh, replication, commit_wait } = wanted;
    if history.is_none() && fresh.is_none() && replication.is_none() && commit_wait.is_none() {
        return Err(Failure::Bad("nothing is wanted: name history, freshness, replication or commit_wait".into()));
    }
    let freshness = fresh.map(|words| freshness::parse(Some(words), Freshness::Strict)).transpose()?;
    if freshness.is_some_and(|freshness| freshness.moment().is_some()) {
        return Err(Failure::Bad(
            "a keyspace's freshness is strict, within:500ms or any: a token is a request's own".into(),
        ));
    }
    let history = history.map(self::history).transpose()?;
    Ok(PolicyChange { history, freshness, replication: replication.map(self::replication).transpose()?, commit_wait })
}

fn replication(words: &str) -> Result<Replication, Failure> {
    let read = REPLICATIONS.iter().find(|(name, _)| *name == words).map(|(_, replication)| *replication);
    read.ok_or_else(|| Failure::Bad(format!("a keyspace's replication is majority or all, not {words:?}")))
}

/// The words for whose disks a write must be on, which [`parse`] reads.
pub(crate) fn replication_words(policy: &Policy) -> &'static str {
    REPLICATIONS.iter().find(|(_, replication)| *replication == policy.replication).map_or("", |(name, _)| *name)
}

fn history(words: &str) -> Result<Option<Duration>, Failure> {
    if words == FOREVER {
        return Ok(None);
    }
    let read = UNITS.iter().find_map(|(unit, seconds)| {
        let number = words.strip_suffix(unit).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
        number.parse::<u64>().ok()?.checked_mul(*seconds).map(Duration::from_secs)
    });
    let read = read.filter(|history| (HISTORY_MIN..=HISTORY_MAX).contains(history));
    read.map(Some).ok_or_else(|| Failure::Bad(format!("{words:?} is no history: 90s, 10m, 1h, 7d or {FOREVER}")))
}

/// The words for how far history reaches back, which [`parse`] reads.
pub(crate) fn history_words(policy: &Policy) -> String {
    let Some(history) = policy.history else { return FOREVER.into() };
    let seconds = history.as_secs().max(1);
    let (unit, each) = UNITS.into_iter().find(|(_, each)| seconds.is_multiple_of(*each)).unwrap_or(("s", 1));
    format!("{}{unit}", seconds / each)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read_again() {
        for words in ["1s", "90s", "10m", "1h", "36h", "7d", "forever"] {
            let change = parse(Wanted { history: Some(words), ..Wanted::default() }).expect("words");
            assert_eq!(history_words(&Policy::OF_MADE.with(change)), words);
        }
        let change = parse(Wanted { freshness: Some("within:2s"), ..Wanted::default() }).expect("words");
        assert_eq!((change.history, change.freshness), (None, Some(Freshness::Within(Duration::from_secs(2)))));
        for words in ["all", "majority"] {
            let wanted = Wanted { replication: Some(words), commit_wait: Some(true), ..Wanted::default() };
            let policy = Policy::OF_MADE.with(parse(wanted).expect("words"));
            assert_eq!((replication_words(&policy), policy.commit_wait), (words, true));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for words in ["", "1", "h", "0s", "-1s", "1.5h", "99999999999999999999d", "40000d", "Forever", "500ms"] {
            assert!(parse(Wanted { history: Some(words), ..Wanted::default() }).is_err(), "{words}");
        }
        for words in ["at:1.0", "after:1.0", "now"] {
            assert!(parse(Wanted { freshness: Some(words), ..Wanted::default() }).is_err(), "{words}");
            assert!(parse(Wanted { replication: Some(words), ..Wanted::default() }).is_err(), "{words}");
        }
        assert!(parse(Wanted::default()).is_err());
    }
}

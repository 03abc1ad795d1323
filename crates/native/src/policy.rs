//! What is wanted of a keyspace, in words: `{"history": "1h", "freshness": "within:500ms", "replication": "all", "commit_wait": true}`; of a log
//! `{"retain": "7d", "retain_bytes": "10GiB"}`, too.

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

const SIZES: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

const REPLICATIONS: [(&str, Replication); 3] =
    [("majority", Replication::Majority), ("all", Replication::All), ("leader", Replication::Leader)];

/// What is to be different, in words.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Words<'a> {
    pub history: Option<&'a str>,
    pub freshness: Option<&'a str>,
    pub retain: Option<&'a str>,
    pub retain_bytes: Option<&'a str>,
    pub replication: Option<&'a str>,
    pub commit_wait: Option<bool>,
}

/// Reads what is to be different.
pub(crate) fn parse(words: Words<'_>) -> Result<PolicyChange, Failure> {
    let Words { history, freshness: fresh, retain, retain_bytes, replication, commit_wait } = words;
    let named = [history, fresh, retain, retain_bytes, replication].iter().any(Option::is_some);
    if !named && commit_wait.is_none() {
        let known = "history, freshness, retain, retain_bytes, replication or commit_wait";
        return Err(Failure::Bad(format!("nothing is wanted: name {known}")));
    }
    let freshness = fresh.map(|words| freshness::parse(Some(words), Freshness::Strict)).transpose()?;
    if freshness.is_some_and(|freshness| freshness.moment().is_some()) {
        return Err(Failure::Bad(
            "a keyspace's freshness is strict, within:500ms or any: a token is a request's own".into(),
        ));
    }
    let time = |what: &'static str| move |words| time(what, words);
    Ok(PolicyChange {
        history: history.map(time("history")).transpose()?,
        freshness,
        retain: retain.map(time("time to retain records")).transpose()?,
        retain_bytes: retain_bytes.map(size).transpose()?,
        replication: replication.map(self::replication).transpose()?,
        commit_wait,
    })
}

fn replication(words: &str) -> Result<Replication, Failure> {
    let read = REPLICATIONS.iter().find(|(name, _)| *name == words).map(|(_, replication)| *replication);
    read.ok_or_else(|| Failure::Bad(format!("a keyspace's replication is majority, all or leader, not {words:?}")))
}

/// The words for whose disks a write must be on, which [`parse`] reads.
pub(crate) fn replication_words(policy: &Policy) -> &'static str {
    REPLICATIONS.iter().find(|(_, replication)| *replication == policy.replication).map_or("", |(name, _)| *name)
}

fn size(words: &str) -> Result<Option<u64>, Failure> {
    if words == FOREVER {
        return Ok(None);
    }
    let read = SIZES.iter().find_map(|(unit, each)| {
        let number = words.strip_suffix(unit).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
        number.parse::<u64>().ok()?.checked_mul(*each).filter(|bytes| *bytes > 0)
    });
    let no = || Failure::Bad(format!("{words:?} is no size to retain: 500MiB, 10GiB or {FOREVER}"));
    read.map(Some).ok_or_else(no)
}

/// The words for how much a log keeps, which [`parse`] reads.
pub(crate) fn retain_bytes_words(policy: &Policy) -> String {
    let Some(bytes) = policy.retain_bytes else { return FOREVER.into() };
    let (unit, each) = SIZES.into_iter().find(|(_, each)| bytes.is_multiple_of(*each)).unwrap_or(("B", 1));
    format!("{}{unit}", bytes / each)
}

fn time(what: &'static str, words: &str) -> Result<Option<Duration>, Failure> {
    if words == FOREVER {
        return Ok(None);
    }
    let read = UNITS.iter().find_map(|(unit, seconds)| {
        let number = words.strip_suffix(unit).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
        number.parse::<u64>().ok()?.checked_mul(*seconds).map(Duration::from_secs)
    });
    let read = read.filter(|history| (HISTORY_MIN..=HISTORY_MAX).contains(history));
    read.map(Some).ok_or_else(|| Failure::Bad(format!("{words:?} is no {what}: 90s, 10m, 1h, 7d or {FOREVER}")))
}

/// The words for how far history reaches back, which [`parse`] reads.
pub(crate) fn history_words(policy: &Policy) -> String {
    time_words(policy.history)
}

/// The words for how long a log keeps its records, which [`parse`] reads.
pub(crate) fn retain_words(policy: &Policy) -> String {
    time_words(policy.retain)
}

fn time_words(time: Option<Duration>) -> String {
    let Some(time) = time else { return FOREVER.into() };
    let seconds = time.as_secs().max(1);
    let (unit, each) = UNITS.into_iter().find(|(_, each)| seconds.is_multiple_of(*each)).unwrap_or(("s", 1));
    format!("{}{unit}", seconds / each)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read_again() {
        for words in ["1s", "90s", "10m", "1h", "36h", "7d", "forever"] {
            let change = parse(Words { history: Some(words), retain: Some(words), ..Words::default() }).expect("words");
            let policy = Policy::OF_MADE.with(change);
            assert_eq!((history_words(&policy), retain_words(&policy)), (words.into(), words.into()));
        }
        for words in ["1B", "1000B", "3KiB", "500MiB", "10GiB", "2TiB", "forever"] {
            let change = parse(Words { retain_bytes: Some(words), ..Words::default() }).expect("words");
            assert_eq!(retain_bytes_words(&Policy::OF_MADE.with(change)), words);
        }
        let change = parse(Words { freshness: Some("within:2s"), ..Words::default() }).expect("words");
        assert_eq!((change.history, change.freshness), (None, Some(Freshness::Within(Duration::from_secs(2)))));
        for words in ["all", "majority", "leader"] {
            let wanted = Words { replication: Some(words), commit_wait: Some(true), ..Words::default() };
            let policy = Policy::OF_MADE.with(parse(wanted).expect("words"));
            assert_eq!((replication_words(&policy), policy.commit_wait), (words, true));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for words in ["", "1", "h", "0s", "-1s", "1.5h", "99999999999999999999d", "40000d", "Forever", "500ms"] {
            assert!(parse(Words { history: Some(words), ..Words::default() }).is_err(), "{words}");
            assert!(parse(Words { retain_bytes: Some(words), ..Words::default() }).is_err(), "{words}");
        }
        for words in ["at:1.0", "after:1.0", "now"] {
            assert!(parse(Words { freshness: Some(words), ..Words::default() }).is_err(), "{words}");
            assert!(parse(Words { replication: Some(words), ..Words::default() }).is_err(), "{words}");
        }
        assert!(parse(Words::default()).is_err());
    }
}

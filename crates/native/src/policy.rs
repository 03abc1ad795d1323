//! What is wanted of a keyspace, in words: `{"history": "1h", "freshness": "within:500ms"}`.

use crate::answers::Failure;
use crate::freshness;
use quorate_kv::{Freshness, Policy, PolicyChange};
use std::time::Duration;

/// History that nobody compacts.
const FOREVER: &str = "forever";

/// The shortest history: a page or two of a scan at one moment.
const HISTORY_MIN: Duration = Duration::from_secs(1);

/// The longest that is a number: whoever wants more wants it for ever.
const HISTORY_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

const UNITS: [(&str, u64); 4] = [("d", 24 * 60 * 60), ("h", 60 * 60), ("m", 60), ("s", 1)];

/// Reads what is to be different.
pub(crate) fn parse(history: Option<&str>, fresh: Option<&str>) -> Result<PolicyChange, Failure> {
    if history.is_none() && fresh.is_none() {
        return Err(Failure::Bad("nothing is wanted: history, freshness, or both".into()));
    }
    let freshness = fresh.map(|words| freshness::parse(Some(words), Freshness::Strict)).transpose()?;
    if freshness.is_some_and(|freshness| freshness.moment().is_some()) {
        return Err(Failure::Bad(
            "a keyspace's freshness is strict, within:500ms or any: a token is a request's own".into(),
        ));
    }
    Ok(PolicyChange { history: history.map(self::history).transpose()?, freshness })
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
            let change = parse(Some(words), None).expect("words");
            assert_eq!(history_words(&Policy::OF_MADE.with(change)), words);
        }
        let change = parse(None, Some("within:2s")).expect("words");
        assert_eq!((change.history, change.freshness), (None, Some(Freshness::Within(Duration::from_secs(2)))));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for words in ["", "1", "h", "0s", "-1s", "1.5h", "99999999999999999999d", "40000d", "Forever", "500ms"] {
            assert!(parse(Some(words), None).is_err(), "{words}");
        }
        for words in ["at:1.0", "after:1.0", "now"] {
            assert!(parse(None, Some(words)).is_err(), "{words}");
        }
        assert!(parse(None, None).is_err());
    }
}

//! How fresh a read is to be, in words: `strict`, `within:500ms`, `after:TOKEN`, `at:TOKEN`, `any` (docs/design/consistency.md).

use crate::answers::Failure;
use quorate_env::Timestamp;
use quorate_kv::Freshness;
use std::time::Duration;

/// What may be said.
const WORDS: &str = "freshness is strict, at:TOKEN, within:500ms, after:TOKEN or any";

/// What nobody reads within: it says nothing any more.
const AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads the words, if anything is said.
pub(crate) fn parse(words: Option<&str>, otherwise: Freshness) -> Result<Freshness, Failure> {
    let Some(words) = words else { return Ok(otherwise) };
    let bad = || Failure::Bad(format!("{words:?} is no freshness: {WORDS}"));
    match words.split_once(':') {
        None if words == "strict" => Ok(Freshness::Strict),
        None if words == "any" => Ok(Freshness::Any),
        Some(("at", token)) => self::token(token).map(Freshness::At),
        Some(("after", token)) => self::token(token).map(Freshness::After),
        Some(("within", age)) => age_of(age).map(Freshness::Within).ok_or_else(bad),
        _ => Err(bad()),
    }
}

/// The words for it, which [`parse`] reads.
pub(crate) fn words(freshness: Freshness) -> String {
    match freshness {
        Freshness::Strict => "strict".into(),
        Freshness::At(at) => format!("at:{at}"),
        Freshness::Within(age) => format!("within:{}ms", age.as_millis()),
        Freshness::After(at) => format!("after:{at}"),
        Freshness::Any => "any".into(),
    }
}

/// Reads a token that an answer came with.
pub(crate) fn token(text: &str) -> Result<Timestamp, Failure> {
    let no = |_| Failure::Bad(format!("{text:?} is no token: one comes with every answer, like 1795310400123.7"));
    text.parse().map_err(no)
}

/// The token that goes with an answer, if the cluster keeps timestamps.
pub(crate) fn told(token: Timestamp) -> Option<String> {
    (token != Timestamp::ZERO).then(|| token.to_string())
}

fn age_of(text: &str) -> Option<Duration> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (text.strip_suffix('s')?, 1_000),
    };
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let age = Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(unit)?);
    (age <= AGE_MAX).then_some(age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read_again() {
        let all = [
            Freshness::Strict,
            Freshness::At(Timestamp(1 << 40)),
            Freshness::Within(Duration::from_millis(1_500)),
            Freshness::After(Timestamp(7)),
            Freshness::Any,
        ];
        for freshness in all {
            assert_eq!(parse(Some(&words(freshness)), Freshness::Strict).expect("its own words"), freshness);
        }
        assert_eq!(parse(None, Freshness::Any).expect("nothing"), Freshness::Any);
        for (words, seconds) in [("within:2s", 2), ("within:86400s", 24 * 60 * 60), ("within:86400000ms", 24 * 60 * 60)]
        {
            let within = Freshness::Within(Duration::from_secs(seconds));
            assert_eq!(parse(Some(words), Freshness::Strict).expect("an age"), within, "{words}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let broken = [
            "",
            "Strict",
            "strict:",
            "any:1",
            "at",
            "at:",
            "at:now",
            "after:-1",
            "within:5",
            "within:ms",
            "within:-5ms",
            "within:1.5s",
            "within:+1s",
            "within:86401s",
            "within:86400001ms",
            "within:99999999999999999999s",
            "soon",
        ];
        for words in broken {
            assert!(parse(Some(words), Freshness::Strict).is_err(), "{words}");
        }
    }
}

//! What an address says: the keyspace and key in its path, and the words behind its `?`. A word that is not known is refused, so that a typing
//! mistake is not silently ignored.

use crate::answers::Failure;
use crate::{freshness, percent, words};
use axum::http::Uri;
use bytes::Bytes;
use quorate_kv::{Error, Freshness, KeyRange, Refusal};

/// The parts of a path behind a route's own words.
fn parts<'a>(uri: &'a Uri, route: &str) -> (&'a str, Option<&'a str>) {
    let rest = uri.path().strip_prefix(route).unwrap_or_default();
    rest.split_once('/').map_or((rest, None), |(keyspace, key)| (keyspace, Some(key)))
}

fn name(part: &str) -> Result<String, Failure> {
    let bytes = percent::decode(part).map_err(Failure::Bad)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The keyspace that a path names behind `route`.
pub(crate) fn keyspace_of(uri: &Uri, route: &str) -> Result<String, Failure> {
    name(parts(uri, route).0)
}

/// The keyspace and the key that a path names behind `route`. A key may have slashes, which stand for themselves.
pub(crate) fn key_of(uri: &Uri, route: &str) -> Result<(String, Bytes), Failure> {
    let (keyspace, key) = parts(uri, route);
    let key = percent::decode(key.unwrap_or_default()).map_err(Failure::Bad)?;
    if key.is_empty() {
        return Err(Error::from(Refusal::EmptyKey).into());
    }
    Ok((name(keyspace)?, key))
}

/// The words behind a `?`, each said once.
#[derive(Debug)]
pub(crate) struct Query(Vec<(String, Bytes)>);

impl Query {
    /// Reads them; only those that are `known` may be said.
    pub fn of(uri: &Uri, known: &[&str]) -> Result<Self, Failure> {
        let mut said: Vec<(String, Bytes)> = Vec::new();
        for word in uri.query().unwrap_or_default().split('&').filter(|word| !word.is_empty()) {
            let (word, value) = word.split_once('=').unwrap_or((word, ""));
            if !known.contains(&word) {
                let there_are = if known.is_empty() { "none".into() } else { known.join(", ") };
                return Err(Failure::Bad(format!("{word:?} is no word of this address; there are: {there_are}")));
            }
            if said.iter().any(|(before, _)| before == word) {
                return Err(Failure::Bad(format!("{word} is said twice")));
            }
            said.push((word.into(), percent::decode_value(value).map_err(Failure::Bad)?));
        }
        Ok(Self(said))
    }

    pub fn bytes(&self, word: &str) -> Option<Bytes> {
        self.0.iter().find(|(said, _)| said == word).map(|(_, value)| value.clone())
    }

    pub fn number(&self, word: &str) -> Result<Option<u64>, Failure> {
        let Some(value) = self.bytes(word) else { return Ok(None) };
        number(&value).map(Some).ok_or_else(|| Failure::Bad(format!("{word} is a number")))
    }

    /// How fresh a read is to be, if it says so.
    pub fn freshness(&self, otherwise: Freshness) -> Result<Freshness, Failure> {
        let said = self.bytes("freshness");
        let words = said.as_ref().map(|said| String::from_utf8_lossy(said));
        freshness::parse(words.as_deref(), otherwise)
    }

    pub fn flag(&self, word: &str) -> Result<bool, Failure> {
        match self.bytes(word).as_deref() {
            None | Some(b"false") => Ok(false),
            Some(b"" | b"true") => Ok(true),
            Some(_) => Err(Failure::Bad(format!("{word} is true or false"))),
        }
    }

    /// The keys that `key`, `prefix`, or `from` and `to` name; all if none is said.
    pub fn range(&self) -> Result<KeyRange, Failure> {
        let [key, prefix, from, to] = ["key", "prefix", "from", "to"].map(|word| self.bytes(word));
        range_or_all(key, prefix, from, to)
    }
}

/// The keys that are named in one of the three ways; all if none is said.
pub(crate) fn range_or_all(
    key: Option<Bytes>,
    prefix: Option<Bytes>,
    from: Option<Bytes>,
    to: Option<Bytes>,
) -> Result<KeyRange, Failure> {
    if key.as_ref().is_some_and(Bytes::is_empty) {
        return Err(Error::from(Refusal::EmptyKey).into());
    }
    match (&key, &prefix, &from, &to) {
        (None, None, None, None) => Ok(KeyRange::all()),
        _ => words::range(key, prefix, from, to).map_err(Failure::Bad),
    }
}

/// A number in decimal digits.
pub(crate) fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_kv::RangeEnd;

    fn uri(text: &str) -> Uri {
        text.parse().expect("an address")
    }

    #[test]
    fn a_path_names_a_keyspace_and_a_key() {
        let key = |text: &str| key_of(&uri(text), "/v1/kv/").map(|(name, key)| (name, key.to_vec()));
        assert_eq!(key("/v1/kv/stock/a%2F1").expect("a key"), ("stock".into(), b"a/1".to_vec()));
        assert_eq!(key("/v1/kv/stock/a/1//+").expect("a key"), ("stock".into(), b"a/1//+".to_vec()));
        assert_eq!(key("/v1/kv/st%6fck/%FF%00").expect("a key"), ("stock".into(), vec![0xFF, 0]));
        assert!(matches!(key("/v1/kv/stock/"), Err(Failure::Core(Error::Refused(Refusal::EmptyKey)))));
        assert!(matches!(key("/v1/kv/stock/%F"), Err(Failure::Bad(_))));
    }

    #[test]
    fn words_are_known_and_said_once() {
        let known = ["prefix", "limit", "prev"];
        let query = Query::of(&uri("/v1/kv/stock?prefix=a%2Fb+c&limit=7&prev"), &known).expect("all are known");
        assert_eq!(query.bytes("prefix").as_deref(), Some(&b"a/b c"[..]));
        assert_eq!(query.number("limit").expect("a number"), Some(7));
        assert!(query.flag("prev").expect("a flag"));
        assert_eq!(query.range().expect("a range"), KeyRange::prefix("a/b c"));
        for broken in ["?prefx=a", "?limit=1&limit=2", "?prefix=%"] {
            assert!(Query::of(&uri(&format!("/v1/kv/stock{broken}")), &known).is_err(), "{broken}");
        }
        let query = Query::of(&uri("/?limit=many&prev=perhaps"), &known).expect("all are known");
        assert!(query.number("limit").is_err() && query.flag("prev").is_err());
    }

    #[test]
    fn nothing_said_means_all_keys() {
        let range = |text: &str| {
            let query = Query::of(&uri(text), &["key", "prefix", "from", "to"]).expect("all are known");
            query.range().ok()
        };
        assert_eq!(range("/"), Some(KeyRange::all()));
        assert_eq!(range("/?key=k"), Some(KeyRange::single("k")));
        let before = |start: &'static str, end: &'static str| KeyRange {
            start: start.into(),
            end: RangeEnd::Before(end.into()),
        };
        assert_eq!(range("/?from=a&to=c"), Some(before("a", "c")));
        assert_eq!(range("/?key=k&prefix=k"), None);
        assert_eq!(range("/?key="), None);
    }
}

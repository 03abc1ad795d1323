//! Which keys.

use crate::Text;
use crate::text::in_address;

/// Keys of one keyspace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Range {
    /// All there are.
    #[default]
    All,
    /// One.
    Key(Text),
    /// Those that begin so.
    Prefix(Text),
    /// Those from the first on, and before the second, as far as they are named.
    Between(Option<Text>, Option<Text>),
}

impl Range {
    /// One key.
    #[must_use]
    pub fn key(key: impl AsRef<[u8]>) -> Self {
        Self::Key(Text::from(&key))
    }

    /// The keys that begin so.
    #[must_use]
    pub fn prefix(prefix: impl AsRef<[u8]>) -> Self {
        Self::Prefix(Text::from(&prefix))
    }

    /// The words that name it.
    pub(crate) fn words(&self) -> Vec<(&'static str, Text)> {
        let all = match self {
            Self::All => [None, None],
            Self::Key(key) => [Some(("key", key)), None],
            Self::Prefix(prefix) => [Some(("prefix", prefix)), None],
            Self::Between(from, to) => [from.as_ref().map(|from| ("from", from)), to.as_ref().map(|to| ("to", to))],
        };
        all.into_iter().flatten().map(|(word, key)| (word, key.clone())).collect()
    }

    /// An address with the words behind its `?`, and more of them.
    pub(crate) fn address(&self, path: &str, more: &[(&str, String)]) -> String {
        let words = self.words().into_iter().map(|(word, key)| format!("{word}={}", in_address(&key.0)));
        let words: Vec<String> = words.chain(more.iter().map(|(word, value)| format!("{word}={value}"))).collect();
        if words.is_empty() { path.into() } else { format!("{path}?{}", words.join("&")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_which_keys() {
        let of = |range: Range| range.address("/v1/kv/stock", &[]);
        assert_eq!(of(Range::All), "/v1/kv/stock");
        assert_eq!(of(Range::key("a/b")), "/v1/kv/stock?key=a%2Fb");
        assert_eq!(of(Range::prefix(b"\xFF")), "/v1/kv/stock?prefix=%FF");
        assert_eq!(of(Range::Between(Some("b".into()), Some("d".into()))), "/v1/kv/stock?from=b&to=d");
        assert_eq!(of(Range::Between(None, Some("d".into()))), "/v1/kv/stock?to=d");
        assert_eq!(Range::All.address("/v1", &[("limit", "3".into())]), "/v1?limit=3");
    }
}

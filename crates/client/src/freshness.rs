//! How fresh a read is to be, and what its answer stands for.

use crate::keys::{address, read};
use crate::request::Request;
use crate::verdict::is_absent;
use crate::{Client, Error, KeyValue};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Stands for all that an answer told, or that a write did: whoever reads after it finds that again, at any node. It can be handed on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub struct Token(pub String);

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Token {
    /// Whether another stands for something later.
    #[must_use]
    pub fn is_before(&self, other: &Self) -> bool {
        let parts = |token: &Self| {
            let (ms, count) = token.0.split_once('.').unwrap_or((&token.0, "0"));
            (ms.parse::<u64>().unwrap_or_default(), count.parse::<u64>().unwrap_or_default())
        };
        parts(self) < parts(other)
    }
}

/// How fresh a read must be. What needs less of other nodes answers sooner, and where they cannot be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Freshness {
    /// It sees all that was acknowledged before it began.
    #[default]
    Strict,
    /// It sees what had happened at a moment, in all shards alike, and nothing later.
    At(Token),
    /// It sees all that was acknowledged longer ago than this.
    Within(Duration),
    /// It sees all that had happened at a moment, and maybe more.
    After(Token),
    /// It sees what was true once.
    Any,
}

/// As addresses say it.
impl fmt::Display for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Strict => f.write_str("strict"),
            Self::At(token) => write!(f, "at:{token}"),
            Self::Within(age) => write!(f, "within:{}ms", age.as_millis()),
            Self::After(token) => write!(f, "after:{token}"),
            Self::Any => f.write_str("any"),
        }
    }
}

/// What was said is no freshness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoFreshness;

impl fmt::Display for NoFreshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a freshness is strict, at:TOKEN, within:500ms, after:TOKEN or any")
    }
}

impl std::error::Error for NoFreshness {}

impl FromStr for Freshness {
    type Err = NoFreshness;

    fn from_str(text: &str) -> Result<Self, NoFreshness> {
        let token = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            true if !text.is_empty() => Ok(Token(text.into())),
            _ => Err(NoFreshness),
        };
        let age = |text: &str| {
            let (number, unit) = match text.strip_suffix("ms") {
                Some(number) => (number, 1),
                None => (text.strip_suffix('s')?, 1_000),
            };
            let number = number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse::<u64>().ok())??;
            Some(Duration::from_millis(number.checked_mul(unit)?))
        };
        match text.split_once(':') {
            None if text == "strict" => Ok(Self::Strict),
            None if text == "any" => Ok(Self::Any),
            Some(("at", text)) => token(text).map(Self::At),
            Some(("after", text)) => token(text).map(Self::After),
            Some(("within", text)) => age(text).map(Self::Within).ok_or(NoFreshness),
            _ => Err(NoFreshness),
        }
    }
}

/// A key as a read saw it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Seen {
    /// The key.
    #[serde(flatten)]
    pub kv: KeyValue,
    /// What the answer stands for; none if the cluster keeps no timestamps yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
}

impl Client {
    /// Reads a key as fresh as is asked for, or as its keyspace's reads are if nothing is said; none if it is not there.
    ///
    /// # Errors
    /// If it is refused, or nobody is available.
    pub async fn look<'a>(
        &self,
        keyspace: &str,
        key: impl AsRef<[u8]>,
        freshness: impl Into<Option<&'a Freshness>>,
    ) -> Result<Option<Seen>, Error> {
        let said = freshness.into().map(|freshness| format!("?freshness={freshness}"));
        let path = address(keyspace, key.as_ref())? + &said.unwrap_or_default();
        match self.ask(&Request::get(path)).await {
            Ok(said) => read(said).map(Some),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freshness_is_said_as_addresses_say_it() {
        let token = || Token("1795310400123.7".into());
        let said = [
            Freshness::Strict,
            Freshness::At(token()),
            Freshness::Within(Duration::from_millis(1_500)),
            Freshness::After(token()),
            Freshness::Any,
        ];
        for freshness in &said {
            assert_eq!(freshness.to_string().parse().as_ref(), Ok(freshness));
        }
        for broken in ["", "Strict", "at:", "at:x", "within:5", "within:s", "within:-1s", "any:1"] {
            assert_eq!(broken.parse::<Freshness>(), Err(NoFreshness), "{broken}");
        }
        assert_eq!("within:2s".parse(), Ok(Freshness::Within(Duration::from_secs(2))));
        let said = said.map(|freshness| freshness.to_string());
        assert_eq!(said, ["strict", "at:1795310400123.7", "within:1500ms", "after:1795310400123.7", "any"]);
    }
}

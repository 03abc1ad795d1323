//! Logs: records appended, fetched and cut off.

use crate::keys::read;
use crate::request::Request;
use crate::text::in_address;
use crate::{Client, Error, Text, Token};
use bytes::Bytes;
use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use tokio::time::Instant;

/// What is appended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Record {
    /// What it is about; may be empty, and need not be unique.
    pub key: Text,
    /// What it says.
    pub value: Text,
}

/// A record in its log.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct LogEntry {
    /// Its place: they ascend by one.
    pub offset: u64,
    /// When it was appended, in milliseconds since 1970.
    pub timestamp: u64,
    /// What it is about.
    pub key: Text,
    /// What it says.
    pub value: Text,
}

/// Records were appended.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Appended {
    /// Of the first; the others follow without a gap.
    pub offset: u64,
    /// How many.
    pub count: u64,
    /// Whether that had been done before, under the same name.
    pub repeated: bool,
    /// What was done stands here; none if the cluster keeps no timestamps yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
}

/// What a fetch found.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Fetched {
    /// The records, consecutive; none if there is none yet.
    pub records: Vec<LogEntry>,
    /// Where to go on.
    pub next: u64,
    /// The first offset that is kept.
    pub first: u64,
    /// The next offset to be given.
    pub end: u64,
    /// Stands for what was seen; none if the cluster keeps no timestamps yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
}

/// Where a fetch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the first record that is kept.
    First,
    /// With the next one that is appended.
    End,
    /// With this one.
    Offset(u64),
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First => f.write_str("first"),
            Self::End => f.write_str("end"),
            Self::Offset(offset) => write!(f, "{offset}"),
        }
    }
}

impl FromStr for Start {
    type Err = String;

    fn from_str(said: &str) -> Result<Self, String> {
        match said {
            "first" => Ok(Self::First),
            "end" => Ok(Self::End),
            digits => digits.parse().map(Self::Offset).map_err(|_| "an offset, first or end".into()),
        }
    }
}

impl Record {
    /// A record.
    #[must_use]
    pub fn of(key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Self {
        Self { key: Text::from(&key), value: Text(value.into()) }
    }
}

fn address(log: &str) -> String {
    format!("/v1/logs/{}", in_address(log.as_bytes()))
}

impl Client {
    /// Appends records, in this order and next to each other, under a name of the caller's; one is drawn if there is none. Under one name it is done once, and the
    /// answer is the same each time.
    ///
    /// # Errors
    /// If it is refused, nobody is available, or nobody knows whether it was done.
    pub async fn append(&self, log: &str, records: &[Record], name: Option<String>) -> Result<Appended, Error> {
        let body = json!({ "records": records });
        read(self.ask(&Request::named(Method::POST, address(log), body, name)).await?)
    }

    /// Reads at most `max` records. If there is none yet, waits for one for about so long.
    ///
    /// # Errors
    /// [`Error::Trimmed`] if what is wanted was cut off; or if it is refused, or nobody is available.
    pub async fn fetch(&self, log: &str, start: Start, max: u64, wait: Duration) -> Result<Fetched, Error> {
        let until = Instant::now() + wait;
        // A server that is silent for longer is taken to be gone.
        let patience = self.shared.options.answer / 2;
        let mut start = start;
        loop {
            let wait_ms = until.saturating_duration_since(Instant::now()).min(patience).as_millis();
            let path = format!("{}?from={start}&max={max}&wait_ms={wait_ms}", address(log));
            let fetched: Fetched = read(self.ask(&Request::get(path)).await?)?;
            if !fetched.records.is_empty() || Instant::now() >= until {
                return Ok(fetched);
            }
            start = Start::Offset(fetched.next);
        }
    }

    /// Cuts off what comes before an offset, for good; says which is the first that is kept. What is behind the end means the end.
    ///
    /// # Errors
    /// If it is refused, or nobody is available.
    pub async fn trim(&self, log: &str, before: u64) -> Result<u64, Error> {
        // Done twice it does no more.
        let said = self.ask(&Request::removal(format!("{}?before={before}", address(log)))).await?;
        said["first"].as_u64().ok_or_else(|| Error::strange("it does not say what is kept"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_fetch_begins_is_said_in_a_word() {
        for start in [Start::First, Start::End, Start::Offset(0), Start::Offset(u64::MAX)] {
            assert_eq!(start.to_string().parse(), Ok(start));
        }
        assert!("-1".parse::<Start>().is_err() && "last".parse::<Start>().is_err());
    }
}

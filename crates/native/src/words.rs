//! The words of requests and answers. Names are the interface; what is not known is refused, so that a typing mistake is not silently ignored.

use crate::answers::Failure;
use crate::locks::Lock;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use quorate_kv::{KeyRange, KeyValue, RangeEnd, RangeResult};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Bytes: as text where they are text, and else in base64.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
pub(crate) enum Text {
    /// As they are.
    Plain(String),
    /// In base64.
    Encoded {
        /// The standard alphabet, padded.
        base64: String,
    },
}

impl Text {
    /// The bytes.
    ///
    /// # Errors
    /// If it is not base64.
    pub fn bytes(&self) -> Result<Bytes, String> {
        match self {
            Self::Plain(text) => Ok(Bytes::copy_from_slice(text.as_bytes())),
            Self::Encoded { base64 } => STANDARD.decode(base64).map(Bytes::from).map_err(|e| format!("base64: {e}")),
        }
    }

    /// How bytes are said.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Plain(text.into()),
            Err(_) => Self::Encoded { base64: STANDARD.encode(bytes) },
        }
    }
}

/// Reads a request's body, whatever it says it is.
pub(crate) fn parse<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, Failure> {
    let body = body.map_err(|e| match e.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Failure::TooLarge,
        _ => Failure::Bad(e.body_text()),
    })?;
    serde_json::from_slice(&body).map_err(|e| Failure::Bad(format!("the body is not what is expected here: {e}")))
}

/// Which keys: one `key`, all with a `prefix`, or those from `from` on, before `to`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Keys {
    pub keyspace: String,
    pub key: Option<Text>,
    pub prefix: Option<Text>,
    pub from: Option<Text>,
    pub to: Option<Text>,
    #[serde(default)]
    pub limit: u64,
}

impl Keys {
    pub fn range(&self) -> Result<KeyRange, String> {
        let bytes = |text: &Option<Text>| text.as_ref().map(Text::bytes).transpose();
        range(bytes(&self.key)?, bytes(&self.prefix)?, bytes(&self.from)?, bytes(&self.to)?)
    }
}

/// The keys that are named in one of the three ways.
pub(crate) fn range(
    key: Option<Bytes>,
    prefix: Option<Bytes>,
    from: Option<Bytes>,
    to: Option<Bytes>,
) -> Result<KeyRange, String> {
    match (key, prefix, from, to) {
        (Some(key), None, None, None) => Ok(KeyRange::single(key)),
        (None, Some(prefix), None, None) => Ok(KeyRange::prefix(prefix)),
        (None, None, from, to) if from.is_some() || to.is_some() => {
            Ok(KeyRange { start: from.unwrap_or_default(), end: to.map_or(RangeEnd::Unbounded, RangeEnd::Before) })
        }
        _ => Err("name the keys by one of key, prefix, or from and to".into()),
    }
}

/// A condition on one key: exactly one of the attributes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Compare {
    pub keyspace: String,
    pub key: Text,
    /// `=` if nothing is said.
    pub op: Option<String>,
    pub value: Option<Text>,
    pub version: Option<i64>,
    pub mod_revision: Option<i64>,
    pub create_revision: Option<i64>,
    /// Whether the key is there; with `=` alone.
    pub exists: Option<bool>,
}

/// What is appended to a log.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// Empty, if nothing is said.
    pub key: Option<Text>,
    pub value: Text,
}

/// Records, in their order.
pub(crate) fn records(words: &[Record]) -> Result<Vec<quorate_kv::log::Record>, String> {
    let one = |record: &Record| {
        let key = record.key.as_ref().map(Text::bytes).transpose()?.unwrap_or_default();
        Ok(quorate_kv::log::Record { key, value: record.value.bytes()? })
    };
    words.iter().map(one).collect()
}

/// A write: `put` a key and its `value`, or `delete` a key, or the keys with `delete_prefix`; or `append` records to a log.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Write {
    pub keyspace: String,
    pub put: Option<Text>,
    pub value: Option<Text>,
    pub delete: Option<Text>,
    pub delete_prefix: Option<Text>,
    pub append: Option<Vec<Record>>,
}

/// What must be so of a key before it is written: everything that is named.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Condition {
    pub value: Option<Text>,
    pub version: Option<i64>,
    pub mod_revision: Option<i64>,
    pub create_revision: Option<i64>,
    /// Whether the key is there.
    pub exists: Option<bool>,
}

/// The body of `PUT /v1/kv/{keyspace}/{key}`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Put {
    pub value: Text,
    #[serde(rename = "if")]
    pub condition: Option<Condition>,
    /// A token: the write happens later.
    pub after: Option<String>,
}

/// The body of `DELETE /v1/kv/{keyspace}/{key}`, which may be left out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Delete {
    #[serde(rename = "if")]
    pub condition: Option<Condition>,
    /// A token: the removal happens later.
    pub after: Option<String>,
}

/// The body of `POST /v1/tx`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Transaction {
    pub compare: Vec<Compare>,
    pub read: Vec<Keys>,
    pub write: Vec<Write>,
    /// Written when a compare does not hold.
    #[serde(rename = "else")]
    pub otherwise: Vec<Write>,
    /// A token: all of it happens later.
    pub after: Option<String>,
    /// How fresh reads are to be; only where nothing is compared or written.
    pub freshness: Option<String>,
    /// What is reserved, and must still be.
    pub lock: Option<Lock>,
}

impl Transaction {
    /// The keyspaces that it names.
    pub fn keyspaces(&self) -> Vec<&str> {
        let compares = self.compare.iter().map(|compare| &compare.keyspace);
        let reads = self.read.iter().map(|read| &read.keyspace);
        let writes = self.write.iter().chain(&self.otherwise).map(|write| &write.keyspace);
        let held = self.lock.iter().flat_map(|lock| &lock.held).map(|held| &held.keyspace);
        compares.chain(reads).chain(writes).chain(held).map(String::as_str).collect()
    }
}

/// One key of an answer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Kv {
    key: Text,
    value: Text,
    version: u64,
    create_revision: u64,
    mod_revision: u64,
}

/// The answer to one read.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Found {
    kvs: Vec<Kv>,
    count: u64,
    more: bool,
}

impl From<&KeyValue> for Kv {
    fn from(kv: &KeyValue) -> Self {
        Self {
            key: Text::of(&kv.key),
            value: Text::of(&kv.value),
            version: kv.version,
            create_revision: kv.create_revision.0,
            mod_revision: kv.mod_revision.0,
        }
    }
}

impl From<&RangeResult> for Found {
    fn from(result: &RangeResult) -> Self {
        Self { kvs: result.kvs.iter().map(Kv::from).collect(), count: result.count, more: result.more }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_text_where_they_can_be() {
        for bytes in [&b"text"[..], b"", b"\xFF\x00", "ä".as_bytes()] {
            let text = Text::of(bytes);
            let json = serde_json::to_string(&text).expect("json");
            let again: Text = serde_json::from_str(&json).expect("its own words");
            assert_eq!(again.bytes().expect("its own bytes"), bytes);
        }
        assert_eq!(Text::of(b"text"), Text::Plain("text".into()));
        let broken: Text = serde_json::from_str(r#"{"base64":"!"}"#).expect("json");
        assert!(broken.bytes().is_err());
    }

    #[test]
    fn keys_are_named_in_one_way() {
        let range = |json: &str| serde_json::from_str::<Keys>(json).expect("json").range();
        assert_eq!(range(r#"{"keyspace":"a","key":"k"}"#), Ok(KeyRange::single("k")));
        assert_eq!(range(r#"{"keyspace":"a","prefix":"k"}"#), Ok(KeyRange::prefix("k")));
        let from = KeyRange { start: "b".into(), end: RangeEnd::Unbounded };
        assert_eq!(range(r#"{"keyspace":"a","from":"b"}"#), Ok(from));
        let to = KeyRange { start: Bytes::new(), end: RangeEnd::Before("c".into()) };
        assert_eq!(range(r#"{"keyspace":"a","to":"c"}"#), Ok(to));
        assert!(range(r#"{"keyspace":"a"}"#).is_err());
        assert!(range(r#"{"keyspace":"a","key":"k","prefix":"k"}"#).is_err());
        assert!(serde_json::from_str::<Keys>(r#"{"keyspace":"a","kei":"k"}"#).is_err());
    }
}

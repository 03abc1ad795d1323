//! One key, read and written.

use crate::request::Request;
use crate::text::in_address;
use crate::verdict::is_absent;
use crate::{Client, Error, Text, Token};
use bytes::Bytes;
use hyper::Method;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A key that is there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct KeyValue {
    /// The key.
    pub key: Text,
    /// Its value.
    pub value: Text,
    /// How often it was written since it was made.
    pub version: u64,
    /// The revision at which it was made.
    pub create_revision: u64,
    /// The revision of its last write. Revisions count within a shard.
    pub mod_revision: u64,
}

impl KeyValue {
    /// The value, if it is text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.value.0).ok()
    }
}

/// What must be so of a key before it is written: all that is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// Whether it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exists: Option<bool>,
    /// Its value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Text>,
    /// How often it was written since it was made; 0 if it is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// The revision of its last write; 0 if it is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mod_revision: Option<i64>,
    /// The revision at which it was made; 0 if it is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create_revision: Option<i64>,
}

/// A key was written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Written {
    /// Whether that had been done before, under the same name.
    pub repeated: bool,
    /// What was done stands here; none if the cluster keeps no timestamps yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
}

/// A key is not there any more.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Deleted {
    /// Whether it was there; none if this was done before, under the same name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<bool>,
    /// Whether that had been done before, under the same name.
    pub repeated: bool,
    /// What was done stands here; none if the cluster keeps no timestamps yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
}

/// An answer, in words of ours.
pub(crate) fn read<T: DeserializeOwned>(said: Value) -> Result<T, Error> {
    serde_json::from_value(said).map_err(Error::strange)
}

pub(crate) fn address(keyspace: &str, key: &[u8]) -> Result<String, Error> {
    match key.is_empty() {
        true => Err(Error::Misuse("a key is not empty; a scan lists what there is".into())),
        false => Ok(format!("/v1/kv/{}/{}", in_address(keyspace.as_bytes()), in_address(key))),
    }
}

impl Client {
    /// Reads a key; none if it is not there.
    ///
    /// # Errors
    /// If it is refused, or nobody is available.
    pub async fn get(&self, keyspace: &str, key: impl AsRef<[u8]>) -> Result<Option<KeyValue>, Error> {
        match self.ask(&Request::get(address(keyspace, key.as_ref())?)).await {
            Ok(said) => read(said).map(Some),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a key.
    ///
    /// # Errors
    /// If it is refused, nobody is available, or nobody knows whether it was done.
    pub async fn put(&self, keyspace: &str, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<Written, Error> {
        self.put_if(keyspace, key, value, None, None).await
    }

    /// Writes a key if it is as a condition says, under a name of the caller's; one is drawn if there is none.
    ///
    /// # Errors
    /// If the condition fails, it is refused, nobody is available, or nobody knows whether it was done.
    pub async fn put_if(
        &self,
        keyspace: &str,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        condition: Option<&Condition>,
        name: Option<String>,
    ) -> Result<Written, Error> {
        let mut body = json!({ "value": Text(value.into()) });
        if let Some(condition) = condition {
            body["if"] = json!(condition);
        }
        let path = address(keyspace, key.as_ref())?;
        read(self.ask(&Request::named(Method::PUT, path, body, name)).await?)
    }

    /// Removes a key.
    ///
    /// # Errors
    /// If it is refused, nobody is available, or nobody knows whether it was done.
    pub async fn delete(&self, keyspace: &str, key: impl AsRef<[u8]>) -> Result<Deleted, Error> {
        self.delete_if(keyspace, key, None, None).await
    }

    /// Removes a key if it is as a condition says, under a name of the caller's; one is drawn if there is none.
    ///
    /// # Errors
    /// If the condition fails, it is refused, nobody is available, or nobody knows whether it was done.
    pub async fn delete_if(
        &self,
        keyspace: &str,
        key: impl AsRef<[u8]>,
        condition: Option<&Condition>,
        name: Option<String>,
    ) -> Result<Deleted, Error> {
        let body = condition.map_or(json!({}), |condition| json!({ "if": condition }));
        let path = address(keyspace, key.as_ref())?;
        read(self.ask(&Request::named(Method::DELETE, path, body, name)).await?)
    }
}

//! Transactions as the API has them: checks, looks and writes over any keyspaces, all in one step.

use crate::keys::read;
use crate::request::Request;
use crate::{Client, Error, KeyValue, Range, Record, Text, Token};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// How a check compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// It is that.
    Equal,
    /// It is not that.
    NotEqual,
    /// It is less.
    Less,
    /// It is more.
    Greater,
}

impl Op {
    fn sign(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::Greater => ">",
        }
    }
}

/// What must be so of a key. Of one that is not there, the numbers are 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// Whether it is there.
    Exists(bool),
    /// Its value.
    Value(Op, Text),
    /// How often it was written since it was made.
    Version(Op, u64),
    /// The revision of its last write.
    ModRevision(Op, u64),
    /// The revision at which it was made.
    CreateRevision(Op, u64),
}

/// What is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// A key and its value.
    Put(Text, Text),
    /// A key goes.
    Delete(Text),
    /// All keys that begin so go.
    DeletePrefix(Text),
    /// Records are appended to a log, in this order.
    Append(Vec<Record>),
}

impl Write {
    /// A key and its value.
    #[must_use]
    pub fn put(key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Self {
        Self::Put(Text::from(&key), Text(value.into()))
    }

    /// A key goes.
    #[must_use]
    pub fn delete(key: impl AsRef<[u8]>) -> Self {
        Self::Delete(Text::from(&key))
    }

    /// All keys that begin so go.
    #[must_use]
    pub fn delete_prefix(prefix: impl AsRef<[u8]>) -> Self {
        Self::DeletePrefix(Text::from(&prefix))
    }

    fn said(&self, keyspace: &str) -> Value {
        match self {
            Self::Put(key, value) => json!({ "keyspace": keyspace, "put": key, "value": value }),
            Self::Delete(key) => json!({ "keyspace": keyspace, "delete": key }),
            Self::DeletePrefix(prefix) => json!({ "keyspace": keyspace, "delete_prefix": prefix }),
            Self::Append(records) => json!({ "keyspace": keyspace, "append": records }),
        }
    }
}

/// A transaction: all checks hold and the writes happen, or one does not and those of `otherwise` do. What is looked at
/// is as of before the writes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Transaction {
    compare: Vec<Value>,
    read: Vec<Value>,
    write: Vec<Value>,
    #[serde(rename = "else")]
    otherwise: Vec<Value>,
    /// What is reserved.
    #[serde(skip_serializing_if = "Option::is_none")]
    lock: Option<Value>,
}

impl Transaction {
    /// One that does nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Something must be so.
    #[must_use]
    pub fn check(mut self, keyspace: &str, key: impl AsRef<[u8]>, check: &Check) -> Self {
        let mut said = json!({ "keyspace": keyspace, "key": Text::from(&key) });
        let (word, op, what) = match check {
            Check::Exists(exists) => ("exists", Op::Equal, json!(exists)),
            Check::Value(op, value) => ("value", *op, json!(value)),
            Check::Version(op, version) => ("version", *op, json!(version)),
            Check::ModRevision(op, revision) => ("mod_revision", *op, json!(revision)),
            Check::CreateRevision(op, revision) => ("create_revision", *op, json!(revision)),
        };
        said[word] = what;
        if op != Op::Equal {
            said["op"] = json!(op.sign());
        }
        self.compare.push(said);
        self
    }

    /// Keys are looked at, of which at most `limit` are told; 0 for all.
    #[must_use]
    pub fn look(mut self, keyspace: &str, range: &Range, limit: u64) -> Self {
        let mut said = Map::from_iter([("keyspace".into(), json!(keyspace)), ("limit".into(), json!(limit))]);
        said.extend(range.words().into_iter().map(|(word, key)| (word.into(), json!(key))));
        if *range == Range::All {
            said.insert("prefix".into(), json!(""));
        }
        self.read.push(Value::Object(said));
        self
    }

    /// Something is written if all checks hold.
    #[must_use]
    pub fn write(mut self, keyspace: &str, write: &Write) -> Self {
        self.write.push(write.said(keyspace));
        self
    }

    /// It rests on what is reserved.
    pub(crate) fn under(self, lock: Option<Value>) -> Self {
        Self { lock, ..self }
    }

    /// Something is written if a check does not hold.
    #[must_use]
    pub fn otherwise(mut self, keyspace: &str, write: &Write) -> Self {
        self.otherwise.push(write.said(keyspace));
        self
    }
}

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Found {
    /// The keys, ascending.
    pub kvs: Vec<KeyValue>,
    /// How many there are.
    pub count: u64,
    /// Whether there are more than are told.
    pub more: bool,
}

/// A transaction was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Transacted {
    /// Whether all checks held.
    pub succeeded: bool,
    /// Whether that had been done before, under the same name. Then there are no reads.
    #[serde(default)]
    pub repeated: bool,
    /// What each look found.
    #[serde(default)]
    pub reads: Vec<Found>,
    /// The offset of the first record of each append that was done, in order; also if it is repeated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub appended: Vec<u64>,
    /// What was done and read stands here; none if the cluster keeps no timestamps yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
}

impl Client {
    /// Carries out a transaction under a name of the caller's; one is drawn if there is none. Under one name it is done
    /// once, however often it is sent, and whoever sends it.
    ///
    /// # Errors
    /// If it is refused, others are in the way, nobody is available, or nobody knows whether it was done.
    pub async fn transact(&self, transaction: &Transaction, name: Option<String>) -> Result<Transacted, Error> {
        read(self.ask(&Request::transaction(json!(transaction), name)).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_said_in_the_words_of_the_api() {
        let transaction = Transaction::new()
            .check("stock", "apples", &Check::Value(Op::Equal, "4".into()))
            .check("stock", "pears", &Check::ModRevision(Op::Less, 7))
            .check("stock", b"\xFF", &Check::Exists(false))
            .look("orders", &Range::prefix("17/"), 3)
            .look("orders", &Range::All, 0)
            .write("stock", &Write::put("apples", "3"))
            .write("stock", &Write::delete_prefix("b"))
            .otherwise("orders", &Write::delete("17/state"));
        let expected = json!({
            "compare": [
                { "keyspace": "stock", "key": "apples", "value": "4" },
                { "keyspace": "stock", "key": "pears", "mod_revision": 7, "op": "<" },
                { "keyspace": "stock", "key": { "base64": "/w==" }, "exists": false },
            ],
            "read": [
                { "keyspace": "orders", "prefix": "17/", "limit": 3 },
                { "keyspace": "orders", "prefix": "", "limit": 0 },
            ],
            "write": [
                { "keyspace": "stock", "put": "apples", "value": "3" },
                { "keyspace": "stock", "delete_prefix": "b" },
            ],
            "else": [{ "keyspace": "orders", "delete": "17/state" }],
        });
        assert_eq!(json!(transaction), expected);
    }
}

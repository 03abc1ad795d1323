//! Keyspaces: which there are, new ones, and splits. A change of them has no name, so one whose answer is lost is not
//! sent again.

use crate::keys::read;
use crate::request::Request;
use crate::text::in_address;
use crate::{Client, Error, Freshness, Text};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// What a keyspace promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One shard, one order: can be watched.
    Ordered,
    /// As many shards as it takes.
    Ranged,
    /// One shard, with records in it instead of keys.
    Log,
}

/// Whose disks a write is on before it is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Replication {
    /// Those of a majority of a shard's voters.
    #[default]
    Majority,
    /// Those of all voters: while one is away, the outcome of a write is unknown.
    All,
    /// That of the leader, which the others follow: what it acknowledged last is lost if it fails.
    Leader,
}

/// What is to be different about a keyspace; what is not named stays.
#[derive(Clone, Debug, Default, Serialize)]
pub struct KeyspaceChange {
    /// `90s`, `10m`, `1h`, `7d` or `forever`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<String>,
    /// `strict`, `within:500ms` or `any`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freshness: Option<String>,
    /// See [`Keyspace::retain`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retain: Option<String>,
    /// See [`Keyspace::retain_bytes`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retain_bytes: Option<String>,
    /// See [`Keyspace::replication`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replication: Option<Replication>,
    /// See [`Keyspace::commit_wait`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit_wait: Option<bool>,
}

/// A keyspace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Keyspace {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: u64,
    /// What it promises.
    pub kind: Kind,
    /// How many replicas each shard is to have; none said means one on every member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<usize>,
    /// For so long what was overwritten can still be read: `90s`, `10m`, `1h`, `7d` or `forever`.
    #[serde(default)]
    pub history: String,
    /// Of reads and scans that do not say.
    #[serde(default)]
    pub freshness: String,
    /// Of a log, how long it keeps its records: `90s`, `10m`, `1h`, `7d` or `forever`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain: Option<String>,
    /// Of a log, how many bytes of them: `500MiB`, `10GiB` or `forever`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain_bytes: Option<String>,
    /// Whose disks a write is on before it is acknowledged.
    #[serde(default)]
    pub replication: Replication,
    /// Whether a write is acknowledged only when its timestamp is over on every clock within the nodes' bound.
    #[serde(default)]
    pub commit_wait: bool,
    /// What was acknowledged and lost with a leader, where the leader's disk is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Loss>,
    /// Its shards, ascending.
    pub shards: Vec<Shard>,
}

/// What was acknowledged of a keyspace and lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Loss {
    /// Clients were told at most so often that something was done which was not, in the end.
    pub answers: u64,
    /// When that was last found, in milliseconds since 1970 by the clock of the node that found it.
    pub found_ms: u64,
}

/// A shard of a keyspace: the keys from one on, up to where the next begins.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Shard {
    /// Its number.
    pub shard: u64,
    /// Its first key.
    pub from: Text,
    /// The nodes that are to have a replica of it, by name.
    #[serde(default)]
    pub nodes: Vec<String>,
    /// The nodes whose replicas vote, as its leader last said.
    #[serde(default)]
    pub voters: Vec<String>,
}

impl Client {
    /// All keyspaces.
    ///
    /// # Errors
    /// If nobody is available.
    pub async fn keyspaces(&self) -> Result<Vec<Keyspace>, Error> {
        let mut said = self.ask(&Request::get("/v1/keyspaces")).await?;
        read(said["keyspaces"].take())
    }

    /// All keyspaces that the node that answers knows of. One that was just made elsewhere may be missing; but no majority is needed.
    ///
    /// # Errors
    /// If nobody answers.
    pub async fn known_keyspaces(&self) -> Result<Vec<Keyspace>, Error> {
        let mut said = self.ask(&Request::get("/v1/keyspaces?stale=true")).await?;
        read(said["keyspaces"].take())
    }

    /// Makes a keyspace, whose shards begin at `split_at`, besides the first, and have so many replicas each; three, if nothing is said.
    ///
    /// # Errors
    /// If it is refused, as when it is there already; nobody is available; or nobody knows whether it was done.
    pub async fn create_keyspace(
        &self,
        name: &str,
        kind: Kind,
        split_at: &[Text],
        replicas: Option<u32>,
    ) -> Result<Keyspace, Error> {
        let mut wish = json!({ "name": name, "kind": kind, "split_at": split_at });
        if let Some(replicas) = replicas {
            wish["replicas"] = replicas.into();
        }
        read(self.ask(&Request::change("/v1/keyspaces".into(), wish)).await?)
    }

    /// Wants another history of a keyspace, or another freshness of reads that do not say, or both; what is not named stays.
    ///
    /// # Errors
    /// If it is refused, as when it is none of those; nobody is available; or nobody knows whether it was done.
    pub async fn change_keyspace(
        &self,
        name: &str,
        history: Option<&str>,
        freshness: Option<&Freshness>,
    ) -> Result<Keyspace, Error> {
        let (history, freshness) = (history.map(str::to_owned), freshness.map(Freshness::to_string));
        self.set_keyspace(name, &KeyspaceChange { history, freshness, ..KeyspaceChange::default() }).await
    }

    /// Wants something else of a keyspace.
    ///
    /// # Errors
    /// If it is refused, as when there is no such keyspace; nobody is available, as when commit-wait is wanted and no node that answers knows how far clocks
    /// may be from true time; or nobody knows whether it was done.
    pub async fn set_keyspace(&self, name: &str, change: &KeyspaceChange) -> Result<Keyspace, Error> {
        let change = json!(change);
        let path = format!("/v1/keyspaces/{}", in_address(name.as_bytes()));
        read(self.ask(&Request::patch(path, change)).await?)
    }

    /// Gives the keys from `at` on, up to where the next shard begins, a shard of their own.
    ///
    /// # Errors
    /// If it is refused, as when one begins there already; nobody is available; or nobody knows whether it was done.
    pub async fn split_keyspace(&self, name: &str, at: impl AsRef<[u8]>) -> Result<Keyspace, Error> {
        let path = format!("/v1/keyspaces/{}/split", in_address(name.as_bytes()));
        read(self.ask(&Request::change(path, json!({ "at": Text::from(&at) }))).await?)
    }
}

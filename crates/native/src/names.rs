//! The keyspaces that a request names.

use crate::answers::Failure;
use quorate_kv::{Db, Error, Keyspace, KeyspaceKind, Refusal};
use std::sync::Arc;

/// Keyspaces, by name.
pub(crate) struct Names(Vec<Keyspace>);

impl Names {
    /// This node may not have heard yet of a keyspace that another has just made: then it asks a majority.
    pub async fn of(names: &[&str], db: &Arc<dyn Db>) -> Result<Self, Failure> {
        let mut known = Self(db.known_keyspaces());
        for name in names {
            if known.find(name).is_err() {
                known = Self(db.keyspaces().await?);
                known.find(name)?;
            }
        }
        Ok(known)
    }

    /// One that holds keys: reads of a log are fetches.
    pub fn find_keys(&self, name: &str) -> Result<&Keyspace, Failure> {
        let found = self.find(name)?;
        if found.kind == KeyspaceKind::Log { Err(Error::from(Refusal::KeysInLog).into()) } else { Ok(found) }
    }

    pub fn find(&self, name: &str) -> Result<&Keyspace, Failure> {
        self.0.iter().find(|keyspace| keyspace.name == name).ok_or_else(|| Failure::NoKeyspace(name.into()))
    }
}

/// The one keyspace that a request names.
pub(crate) async fn keyspace(name: &str, db: &Arc<dyn Db>) -> Result<Keyspace, Failure> {
    Names::of(&[name], db).await?.find(name).cloned()
}

/// The same, if it holds keys.
pub(crate) async fn keyspace_of_keys(name: &str, db: &Arc<dyn Db>) -> Result<Keyspace, Failure> {
    Names::of(&[name], db).await?.find_keys(name).cloned()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use bytes::Bytes;
    use quorate_env::ShardId;
    use quorate_kv::{KeyspaceId, Policy};

    /// One keyspace, "orders", cut at some keys.
    pub(crate) fn names(cuts: &[&'static str]) -> Names {
        let starts = std::iter::once("").chain(cuts.iter().copied());
        let shards = starts.zip(17..).map(|(start, shard)| (Bytes::from(start), ShardId(shard))).collect();
        let (id, kind) = (KeyspaceId(16), KeyspaceKind::Ranged);
        Names(vec![Keyspace { id, name: "orders".into(), kind, shards, policy: Policy::OF_MADE }])
    }
}

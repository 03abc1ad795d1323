//! The members of the cluster, as whoever answers knows them.

use crate::keys::read;
use crate::request::Request;
use crate::text::in_address;
use crate::{Client, Error};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// A member.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Node {
    /// Its name; empty until it has first started.
    pub name: String,
    /// Its id, in hexadecimal digits.
    pub id: String,
    /// What fails together with it; empty if it has said nothing.
    pub zone: String,
    /// Whether it has no vote.
    pub learner: bool,
    /// Whether it is to have no replica of a shard that can live elsewhere.
    #[serde(default)]
    pub drained: bool,
    /// The id of the member that is to have what it has, after which it is removed.
    #[serde(default)]
    pub replaced_by: Option<String>,
    /// Where clients reach it; empty until it has first started.
    pub client_urls: Vec<String>,
    /// Shards of keyspaces that are to have a replica there.
    pub replicas: u64,
    /// Shards whose replica there votes, as their leaders last said.
    pub votes: u64,
    /// Whether it is the one that answered.
    pub here: bool,
}

impl Client {
    /// The members. A node answers by itself, also when it has no leader.
    ///
    /// # Errors
    /// If nobody answers.
    pub async fn nodes(&self) -> Result<Vec<Node>, Error> {
        let mut said = self.ask(&Request::get("/v1/nodes")).await?;
        read(said["nodes"].take())
    }

    /// Has shards that live on some nodes leave a node, or lets them come back to it. Returns when they have left, or
    /// after some seconds, and says whether they have: what has not goes on by itself, and `nodes` says when nothing is left there.
    ///
    /// # Errors
    /// If it is refused, as when a keyspace would have too few replicas; nobody is available; or nobody knows whether the wish was written.
    pub async fn drain(&self, node: &str, drained: bool) -> Result<bool, Error> {
        let path = format!("/v1/nodes/{}/drain", in_address(node.as_bytes()));
        read(self.ask(&Request::change(path, json!({ "drained": drained }))).await?["left"].take())
    }

    /// Has one node, which is a member already or joins, get whatever another has, and that one removed then: never has a shard fewer replicas
    /// meanwhile. Returns when that is done, or after some seconds, and says whether it is: what is not goes on by itself.
    ///
    /// # Errors
    /// If it is refused, as when a shard would be in fewer zones; nobody is available; or nobody knows whether the wish was written.
    pub async fn replace(&self, node: &str, with: &str) -> Result<bool, Error> {
        let path = format!("/v1/nodes/{}/replace", in_address(node.as_bytes()));
        read(self.ask(&Request::change(path, json!({ "with": with }))).await?["removed"].take())
    }
}

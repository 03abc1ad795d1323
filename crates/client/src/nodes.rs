//! The members of the cluster, as whoever answers knows them.

use crate::keys::read;
use crate::request::Request;
use crate::{Client, Error};
use serde::{Deserialize, Serialize};

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
}

//! `/v1/nodes`: the members, their zones, and how much of the keyspaces they have; which of them are drained, and which are to be replaced. Each node lists them by itself, also when
//! it has no leader.

use crate::answers::Failure;
use crate::query::Query;
use crate::words::parse;
use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::Uri;
use bytes::Bytes;
use quorate_env::NodeId;
use quorate_kv::{Db, NodeInfo};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// An id is a string of hexadecimal digits, as `quorate node list` prints it: a number of JSON would lose some of its 64 bits.
fn told(node: &NodeInfo, here: NodeId) -> Value {
    let NodeInfo { member, zone, drained, replaced_by, replicas, votes } = node;
    json!({
        "name": member.name,
        "id": format!("{:x}", member.id.0),
        "zone": zone,
        "learner": member.learner,
        "drained": drained,
        "replaced_by": replaced_by.map(|by| format!("{:x}", by.0)),
        "client_urls": member.client_urls,
        "replicas": replicas,
        "votes": votes,
        "here": member.id == here,
    })
}

pub(crate) async fn list(State(db): State<Arc<dyn Db>>, uri: Uri) -> Result<Json<Value>, Failure> {
    Query::of(&uri, &[])?;
    let here = db.identity().node;
    Ok(Json(json!({ "nodes": db.nodes().iter().map(|node| told(node, here)).collect::<Vec<_>>() })))
}

/// The body of `POST /v1/nodes/{node}/drain`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wish {
    drained: bool,
}

pub(crate) async fn drain(
    State(db): State<Arc<dyn Db>>,
    Path(named): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Failure> {
    let wish: Wish = parse(body)?;
    let left = db.drain_node(find(&db.nodes(), &named)?, wish.drained).await?;
    Ok(Json(json!({ "outcome": "done", "drained": wish.drained, "left": left })))
}

/// The body of `POST /v1/nodes/{node}/replace`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Replacement {
    with: String,
}

pub(crate) async fn replace(
    State(db): State<Arc<dyn Db>>,
    Path(named): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Failure> {
    let Replacement { with } = parse(body)?;
    let nodes = db.nodes();
    let removed = db.replace_node(find(&nodes, &named)?, find(&nodes, &with)?).await?;
    Ok(Json(json!({ "outcome": "done", "removed": removed })))
}

/// The id of a node that was named, or whose id was given. A name that two nodes have says neither.
fn find(nodes: &[NodeInfo], named: &str) -> Result<NodeId, Failure> {
    let of_name: Vec<NodeId> = nodes.iter().filter(|it| it.member.name == named).map(|it| it.member.id).collect();
    let of_id = nodes.iter().map(|it| it.member.id).find(|id| format!("{:x}", id.0) == named);
    match (&of_name[..], of_id) {
        ([id], _) => Ok(*id),
        ([], Some(id)) => Ok(id),
        ([], None) => Err(Failure::Bad(format!("there is no node {named:?}: GET /v1/nodes lists their names and ids"))),
        _ => Err(Failure::Bad(format!("several nodes are called {named:?}: GET /v1/nodes lists their ids"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_kv::Member;

    #[test]
    fn an_id_keeps_all_its_bits_and_who_answers_says_so() {
        let member = Member {
            id: NodeId(u64::MAX - 1),
            name: "n1".into(),
            peer_addresses: vec!["10.0.0.1:2380".into()],
            client_urls: vec!["http://10.0.0.1:2379".into()],
            learner: false,
        };
        let node = NodeInfo { member, zone: "a".into(), drained: false, replaced_by: None, replicas: 5, votes: 4 };
        let expected = json!({
            "name": "n1", "id": "fffffffffffffffe", "zone": "a", "learner": false, "drained": false, "replaced_by": null,
            "client_urls": ["http://10.0.0.1:2379"], "replicas": 5, "votes": 4, "here": true,
        });
        assert_eq!(told(&node, NodeId(u64::MAX - 1)), expected);
        assert_eq!(told(&node, NodeId(u64::MAX))["here"], false);
    }
}

//! `quorate node`: the cluster's members, listed and changed through any of its servers.

use crate::cli::{NodeArgs, NodeVerb, ServerArgs};
use crate::endpoint::connect;
use crate::failure::Failure;
use crate::native::client::client;
use quorate_etcd::proto::etcdserverpb::cluster_client::ClusterClient;
use quorate_etcd::proto::etcdserverpb::{
    Member, MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest,
};
use serde::Serialize;
use std::time::Duration;
use tonic::transport::Channel;

/// A server that does not answer within this is passed over.
const PATIENCE: Duration = Duration::from_secs(8);

#[derive(Debug, Serialize)]
struct Row {
    id: String,
    name: String,
    state: &'static str,
    peer_urls: Vec<String>,
    client_urls: Vec<String>,
}

impl From<Member> for Row {
    fn from(member: Member) -> Self {
        let state = match (member.client_ur_ls.is_empty(), member.is_learner) {
            (true, _) => "unstarted",
            (false, true) => "learner",
            (false, false) => "voter",
        };
        let (peer_urls, client_urls) = (member.peer_ur_ls, member.client_ur_ls);
        Self { id: format!("{:x}", member.id), name: member.name, state, peer_urls, client_urls }
    }
}

pub async fn run(args: NodeArgs) -> Result<(), Failure> {
    let native = || client(&ServerArgs { endpoints: args.endpoints.clone(), json: args.json });
    match &args.verb {
        NodeVerb::Drain { node, undo } if !native()?.drain(node, !undo).await? && !undo => {
            eprintln!("shards are still leaving {node}: quorate doctor says when nothing moves any more");
        }
        NodeVerb::Replace { node, with } if !native()?.replace(node, with).await? => {
            eprintln!("{with} is still getting what {node} has: quorate node list says when {node} is gone");
        }
        _ => {}
    }
    let mut said = Vec::new();
    for endpoint in &args.endpoints {
        let attempt = async {
            let mut client = ClusterClient::new(connect(endpoint).await?);
            carry_out(&mut client, &args.verb, args.endpoints.len() > 1).await
        };
        match tokio::time::timeout(PATIENCE, attempt).await {
            Ok(Ok(members)) => return show(members, args.json),
            Ok(Err(failure @ Failure::Usage(_))) => return Err(failure),
            Ok(Err(failure)) => said.push(format!("{endpoint}: {failure}")),
            Err(_) => {
                said.push(format!("{endpoint}: no answer within {} s; see quorate node list", PATIENCE.as_secs()));
            }
        }
    }
    Err(Failure::Server(said.join("\n")))
}

async fn carry_out(
    client: &mut ClusterClient<Channel>,
    verb: &NodeVerb,
    has_others: bool,
) -> Result<Vec<Member>, Failure> {
    let told = |status: tonic::Status| {
        let next = match status.message() {
            m if m.contains("not in sync") || m.contains("in sync with leader") => ": wait until it has caught up",
            m if m.contains("unhealthy") => ": start the members that are down first, or remove those",
            m if m.contains("not enough started members") => ": the last voting member cannot go; add another first",
            m if m.contains("member not found") => ": see quorate node list",
            m if m.contains("Peer URLs already exists") => ": choose another address, or see quorate node list",
            m if m.contains("URLs are invalid") => ": write host:port",
            _ => "",
        };
        let text = format!("{}{next}", status.message());
        // What the cluster says no to, another server would too.
        let elsewhere = has_others && status.code() == tonic::Code::Unavailable;
        if elsewhere { Failure::Server(text) } else { Failure::Usage(text) }
    };
    let list = client.member_list(MemberListRequest { linearizable: true }).await.map_err(told)?.into_inner().members;
    match verb {
        // Drained or replaced by now, if that was asked for.
        NodeVerb::List | NodeVerb::Drain { .. } | NodeVerb::Replace { .. } => Ok(list),
        NodeVerb::Add { peer_address, learner } => {
            let peer_ur_ls = vec![format!("http://{}", peer_address.trim_start_matches("http://"))];
            let request = MemberAddRequest { peer_ur_ls, is_learner: *learner };
            Ok(client.member_add(request).await.map_err(told)?.into_inner().members)
        }
        NodeVerb::Promote { node } => {
            let id = find(&list, node)?;
            Ok(client.member_promote(MemberPromoteRequest { id }).await.map_err(told)?.into_inner().members)
        }
        NodeVerb::Remove { node } => {
            let id = find(&list, node)?;
            Ok(client.member_remove(MemberRemoveRequest { id }).await.map_err(told)?.into_inner().members)
        }
    }
}

/// The id of a node that was named, or whose id was given.
fn find(members: &[Member], node: &str) -> Result<u64, Failure> {
    let id =
        u64::from_str_radix(node.trim_start_matches('n'), 16).ok().filter(|id| members.iter().any(|m| m.id == *id));
    let named: Vec<u64> = members.iter().filter(|m| m.name == node).map(|m| m.id).collect();
    match (named.as_slice(), id) {
        ([named], _) => Ok(*named),
        ([], Some(id)) => Ok(id),
        ([], None) => Err(Failure::Usage(format!("no member has the name or id {node}: see quorate node list"))),
        _ => Err(Failure::Usage(format!("several members are called {node}: give the id, see quorate node list"))),
    }
}

fn show(members: Vec<Member>, json: bool) -> Result<(), Failure> {
    let rows: Vec<Row> = members.into_iter().map(Row::from).collect();
    if json {
        println!("{}", serde_json::to_string_pretty(&rows).map_err(std::io::Error::other)?);
        return Ok(());
    }
    println!("{:<18} {:<12} {:<10} {:<28} CLIENTS", "ID", "NAME", "STATE", "PEERS");
    for row in &rows {
        let name = if row.name.is_empty() { "-" } else { &row.name };
        let clients = row.client_urls.join(",");
        println!("{:<18} {:<12} {:<10} {:<28} {clients}", row.id, name, row.state, row.peer_urls.join(","));
    }
    Ok(())
}

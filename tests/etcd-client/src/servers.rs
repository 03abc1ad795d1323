//! What the members say of themselves.

use crate::{Outcome, same};
use etcd_client::{AlarmAction, AlarmType, Client};

pub async fn check(client: &mut Client, members: usize) -> Outcome {
    let list = client.member_list().await?;
    same!(list.members().len(), members);
    let ids: Vec<u64> = list.members().iter().map(|member| member.id()).collect();
    let status = client.status().await?;
    same!(ids.contains(&status.leader()), true);
    same!(status.version().starts_with("3."), true);
    same!(status.raft_index() >= status.raft_applied_index(), true);
    client.hash().await?;
    client.hash_kv(0).await?;
    let alarms = client.alarm(AlarmAction::Get, AlarmType::None, None).await?;
    same!(alarms.alarms().len(), 0);
    Ok(())
}

//! The Cluster service: who the members are, and changes of that.

use crate::error::{BAD_URLS, status};
use crate::maintenance::MaintenanceService;
use crate::metrics::Method;
use crate::proto::etcdserverpb::cluster_server::Cluster;
use crate::proto::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest, MemberUpdateResponse,
};
use quorate_env::NodeId;
use quorate_kv::{Consistency, MemberChange};
use tonic::{Request, Response, Status};

/// Addresses without the scheme that etcd's clients write before them.
fn addresses(urls: Vec<String>) -> Result<Vec<String>, Status> {
    let bare = |url: String| {
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?;
        // A URL of a peer has no path.
        (!rest.contains('/')).then(|| rest.to_owned())
    };
    urls.into_iter().map(|url| bare(url).ok_or_else(|| BAD_URLS.into())).collect()
}

impl MaintenanceService {
    async fn members(&self, consistency: Consistency) -> Result<Vec<Member>, Status> {
        let members = self.db.members(consistency).await.map_err(|e| status(&e))?;
        let url = |address: String| if address.contains("://") { address } else { format!("http://{address}") };
        let members = members.into_iter().map(|member| Member {
            id: member.id.0,
            name: member.name,
            peer_ur_ls: member.peer_addresses.into_iter().map(url).collect(),
            client_ur_ls: member.client_urls,
            is_learner: member.learner,
        });
        Ok(members.collect())
    }

    async fn list_members(&self, r: MemberListRequest) -> Result<MemberListResponse, Status> {
        let consistency = if r.linearizable { Consistency::Linearizable } else { Consistency::Serializable };
        let members = self.members(consistency).await?;
        Ok(MemberListResponse { header: self.header().await?, members })
    }

    /// Changes the members; returns who was meant, and the members after that.
    async fn change(&self, change: MemberChange) -> Result<(NodeId, Vec<Member>), Status> {
        let id = self.db.change_members(change).await.map_err(|e| status(&e))?;
        Ok((id, self.members(Consistency::Linearizable).await?))
    }

    async fn add(&self, r: MemberAddRequest) -> Result<MemberAddResponse, Status> {
        let peer_addresses = addresses(r.peer_ur_ls)?;
        let (id, members) = self.change(MemberChange::Add { peer_addresses, learner: r.is_learner }).await?;
        let member = members.iter().find(|member| member.id == id.0).cloned();
        Ok(MemberAddResponse { header: self.header().await?, member, members })
    }

    async fn remove(&self, r: MemberRemoveRequest) -> Result<MemberRemoveResponse, Status> {
        let (_, members) = self.change(MemberChange::Remove(NodeId(r.id))).await?;
        Ok(MemberRemoveResponse { header: self.header().await?, members })
    }

    async fn update(&self, r: MemberUpdateRequest) -> Result<MemberUpdateResponse, Status> {
        let peer_addresses = addresses(r.peer_ur_ls)?;
        let (_, members) = self.change(MemberChange::Update { id: NodeId(r.id), peer_addresses }).await?;
        Ok(MemberUpdateResponse { header: self.header().await?, members })
    }

    async fn promote(&self, r: MemberPromoteRequest) -> Result<MemberPromoteResponse, Status> {
        let (_, members) = self.change(MemberChange::Promote(NodeId(r.id))).await?;
        Ok(MemberPromoteResponse { header: self.header().await?, members })
    }
}

#[tonic::async_trait]
impl Cluster for MaintenanceService {
    async fn member_add(&self, r: Request<MemberAddRequest>) -> Result<Response<MemberAddResponse>, Status> {
        self.metrics.count(Method::MemberAdd, self.add(r.into_inner()).await)
    }

    async fn member_remove(&self, r: Request<MemberRemoveRequest>) -> Result<Response<MemberRemoveResponse>, Status> {
        self.metrics.count(Method::MemberRemove, self.remove(r.into_inner()).await)
    }

    async fn member_update(&self, r: Request<MemberUpdateRequest>) -> Result<Response<MemberUpdateResponse>, Status> {
        self.metrics.count(Method::MemberUpdate, self.update(r.into_inner()).await)
    }

    async fn member_list(&self, r: Request<MemberListRequest>) -> Result<Response<MemberListResponse>, Status> {
        self.metrics.count(Method::MemberList, self.list_members(r.into_inner()).await)
    }

    async fn member_promote(
        &self,
        r: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        self.metrics.count(Method::MemberPromote, self.promote(r.into_inner()).await)
    }
}

#[cfg(test)]
mod tests {
    use super::addresses;

    #[test]
    fn peer_urls_are_addresses_with_a_scheme() {
        let told = |url: &str| addresses(vec![url.to_owned()]).ok();
        assert_eq!(told("http://127.0.0.1:2380"), Some(vec!["127.0.0.1:2380".to_owned()]));
        assert_eq!(told("https://[::1]:2380"), Some(vec!["[::1]:2380".to_owned()]));
        for bad in ["127.0.0.1:2380", "ftp://h:1", "http://h:1/path"] {
            assert_eq!(told(bad), None, "{bad}");
        }
    }
}

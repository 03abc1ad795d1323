//! Leases: granted, kept alive, listed, revoked, expired.

use crate::{Outcome, refused, same};
use etcd_client::{Client, LeaseTimeToLiveOptions, PutOptions};
use std::time::{Duration, Instant};

/// How long after its time a lease may still be there: it is the cluster that ends it, a little later.
const EXPIRED_WITHIN: Duration = Duration::from_secs(15);

pub async fn check(client: &mut Client) -> Outcome {
    revoked(client).await?;
    expired(client).await
}

async fn revoked(client: &mut Client) -> Outcome {
    let lease = client.lease_grant(60, None).await?;
    same!(lease.ttl(), 60);
    client.put("leased", "value", Some(PutOptions::new().with_lease(lease.id()))).await?;
    let (mut keeper, mut answers) = client.lease_keep_alive(lease.id()).await?;
    keeper.keep_alive().await?;
    let kept = answers.message().await?.ok_or("the keep-alive stream ended")?;
    same!((kept.id(), kept.ttl()), (lease.id(), 60));
    let options = Some(LeaseTimeToLiveOptions::new().with_keys());
    let left = client.lease_time_to_live(lease.id(), options).await?;
    same!(left.granted_ttl(), 60);
    same!(left.keys(), [b"leased".to_vec()]);
    let all = client.leases().await?;
    same!(all.leases().iter().any(|status| status.id() == lease.id()), true);
    client.lease_revoke(lease.id()).await?;
    same!(client.get("leased", None).await?.count(), 0);
    same!(client.lease_time_to_live(lease.id(), None).await?.ttl(), -1);
    refused(client.lease_revoke(lease.id()).await, "etcdserver: requested lease not found")
}

async fn expired(client: &mut Client) -> Outcome {
    let lease = client.lease_grant(2, None).await?;
    client.put("brief", "value", Some(PutOptions::new().with_lease(lease.id()))).await?;
    let began = Instant::now();
    while client.get("brief", None).await?.count() > 0 {
        if began.elapsed() > EXPIRED_WITHIN {
            return Err("a lease did not expire".into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    same!(began.elapsed() > Duration::from_secs(1), true);
    Ok(())
}

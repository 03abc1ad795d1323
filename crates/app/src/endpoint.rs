//! Connections to servers that speak etcd's API, for the client verbs.

use crate::failure::Failure;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// Connects to `host:port` or a URL.
pub async fn connect(address: &str) -> Result<Channel, Failure> {
    let url = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let endpoint = Endpoint::from_shared(url)
        .map_err(|e| Failure::Usage(format!("{address} is not an address: {e}; write host:port")))?
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(3));
    endpoint.connect().await.map_err(|e| {
        let why = std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string);
        Failure::Server(format!("cannot reach {address}: {why}; is a server running there?"))
    })
}

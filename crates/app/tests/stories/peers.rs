//! Strangers on the peer port.

use crate::support::{Cluster, serves};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_cluster_is_turned_away() {
    let mut cluster = Cluster::start(3).await;
    cluster.kill(2);
    let elsewhere = tempfile::tempdir().expect("a folder");
    let stranger = elsewhere.path().join("n3").display().to_string();
    let (status, said) = cluster.refused(2, &[("--initial-cluster-token", "another"), ("--data-dir", &stranger)]);
    assert_eq!(status.code(), Some(70));
    assert!(said.contains("refuses this node"), "{said}");
    assert!(said.contains("check --initial-cluster and the addresses"), "{said}");
    // Nor did he stop the others, who dialled him in the meantime and were turned away by him.
    for endpoint in &cluster.endpoints()[..2] {
        serves(endpoint).await;
    }
    cluster.restart(2);
    cluster.ready().await;
}

/// Whether the other side closes the connection soon.
fn is_closed(mut stream: TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(e) => !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_peer_port_is_closed_and_disturbs_nobody() {
    let cluster = Cluster::start(3).await;
    let connected = |first: &[u8]| {
        let mut stream = TcpStream::connect(cluster.peer_address(0)).expect("connected");
        stream.write_all(first).expect("written");
        stream
    };
    // Nothing; garbage; a frame that announces 4 GiB; a frame that never ends; a client at the wrong port.
    let strangers = [
        connected(b""),
        connected(&[0xFF; 4096]),
        connected(&[0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0]),
        connected(&[100, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        connected(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ];
    for endpoint in cluster.endpoints() {
        serves(&endpoint).await;
    }
    for (n, stream) in strangers.into_iter().enumerate() {
        assert!(is_closed(stream), "stranger {n} is kept");
    }
    for endpoint in cluster.endpoints() {
        serves(&endpoint).await;
    }
}

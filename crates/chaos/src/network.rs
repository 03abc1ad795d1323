//! A network of its own: each node in a namespace with one cable to a bridge, and rules at its end of the cable that make packets vanish.
//!
//! ```text
//!   n1 ─ veth ─┐
//!   n2 ─ veth ─┼─ bridge ─ clients        what is cut gets no answer at all, no reset and no error: a black hole
//!   n3 ─ veth ─┘
//! ```

use crate::failure::Failure;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Networks that this process has made.
static MADE: AtomicU32 = AtomicU32::new(0);

/// What a packet is dropped or doubled for, out of 100.
pub type PerCent = u8;

/// The bridge and the namespaces, removed with the value. Who runs in them must have ended before.
#[derive(Debug)]
pub struct Network {
    bridge: String,
    namespaces: Vec<String>,
    /// The first three bytes of all addresses.
    net: String,
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            let _ = Command::new("ip").args(["netns", "del", namespace]).output();
        }
        let _ = Command::new("ip").args(["link", "del", &self.bridge]).output();
    }
}

/// Runs a command; what it prints, or what it says against it.
fn run(program: &str, args: &[&str]) -> Result<String, Failure> {
    let unable = |why: String| Failure::Unable { what: "make a network of its own", why };
    let output = Command::new(program).args(args).output().map_err(|e| unable(format!("{program}: {e}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(unable(format!("{program} {}: {said}", args.join(" "))))
}

impl Network {
    /// Makes it.
    ///
    /// # Errors
    /// Without root, network namespaces, or nftables.
    pub fn make(nodes: usize) -> Result<Self, Failure> {
        // Names and addresses differ between experiments, so that no two meet.
        let id = (std::process::id() + MADE.fetch_add(1, Ordering::Relaxed)) % 10_000;
        let net = format!("10.{}.{}", 200 + id / 250, id % 250);
        let bridge = format!("qc{id}");
        run("ip", &["link", "add", &bridge, "type", "bridge"])?;
        let mut made = Self { bridge, namespaces: Vec::new(), net };
        run("ip", &["addr", "add", &format!("{}.254/24", made.net), "dev", &made.bridge])?;
        run("ip", &["link", "set", &made.bridge, "up"])?;
        for node in 0..nodes {
            made.join(node, id)?;
        }
        Ok(made)
    }

    fn join(&mut self, node: usize, id: u32) -> Result<(), Failure> {
        let namespace = format!("qc{id}n{}", node + 1);
        let (outside, inside) = (format!("qc{id}v{}", node + 1), "eth0");
        run("ip", &["netns", "add", &namespace])?;
        self.namespaces.push(namespace.clone());
        let peer = ["type", "veth", "peer", "name", inside, "netns", &namespace];
        run("ip", &[&["link", "add", outside.as_str()], peer.as_slice()].concat())?;
        run("ip", &["link", "set", &outside, "master", &self.bridge, "up"])?;
        let address = format!("{}/24", self.address(node));
        for args in [
            vec!["addr", "add", &address, "dev", inside],
            vec!["link", "set", inside, "up"],
            vec!["link", "set", "lo", "up"],
        ] {
            run("ip", &[vec!["-n", namespace.as_str()], args].concat())?;
        }
        for rule in [
            "add table inet chaos",
            "add chain inet chaos in { type filter hook input priority 0; }",
            "add chain inet chaos out { type filter hook output priority 0; }",
            "add table netdev chaos",
            "add chain netdev chaos out { type filter hook egress device eth0 priority 0; }",
        ] {
            self.rule(node, rule)?;
        }
        Ok(())
    }

    fn rule(&self, node: usize, rule: &str) -> Result<String, Failure> {
        run("ip", &["netns", "exec", &self.namespaces[node], "nft", rule])
    }

    fn address(&self, node: usize) -> String {
        format!("{}.{}", self.net, node + 1)
    }

    /// Where a node listens for clients and for the others.
    #[must_use]
    pub fn addresses(&self, node: usize) -> (String, String) {
        (format!("{}:2379", self.address(node)), format!("{}:2380", self.address(node)))
    }

    /// The namespace of a node.
    #[must_use]
    pub fn namespace(&self, node: usize) -> &str {
        &self.namespaces[node]
    }

    /// Nothing goes from one node to another any more; the way back stays.
    ///
    /// # Errors
    /// If the rule is refused.
    pub fn cut(&mut self, from: usize, to: usize) -> Result<(), Failure> {
        let from = self.address(from);
        self.rule(to, &format!("add rule inet chaos in ip saddr {from} counter drop")).map(drop)
    }

    /// Nothing reaches a node and nothing leaves it, clients included.
    ///
    /// # Errors
    /// If the rule is refused.
    pub fn swallow(&mut self, node: usize) -> Result<(), Failure> {
        self.rule(node, "add rule inet chaos in iifname eth0 counter drop")?;
        self.rule(node, "add rule inet chaos out oifname eth0 counter drop").map(drop)
    }

    /// Between nodes, packets are lost and packets arrive twice. Clients are spared: they are the observers.
    ///
    /// # Errors
    /// If a rule is refused.
    pub fn storm(&mut self, lost: PerCent, doubled: PerCent) -> Result<(), Failure> {
        for node in 0..self.namespaces.len() {
            let peers: Vec<String> =
                (0..self.namespaces.len()).filter(|peer| *peer != node).map(|peer| self.address(peer)).collect();
            let peers = peers.join(", ");
            let lose = format!("ip saddr {{ {peers} }} numgen random mod 100 < {lost} counter drop");
            self.rule(node, &format!("add rule inet chaos in {lose}"))?;
            let double = format!("ip daddr {{ {peers} }} numgen random mod 100 < {doubled} counter dup to eth0");
            self.rule(node, &format!("add rule netdev chaos out {double}"))?;
        }
        Ok(())
    }

    /// Packets that were doubled since the last heal.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn doubled(&self) -> Result<u64, Failure> {
        (0..self.namespaces.len()).map(|node| Ok(packets(&self.rule(node, "list table netdev chaos")?))).sum()
    }

    /// Ends everything; returns how many packets vanished since it was called last.
    ///
    /// # Errors
    /// If the rules cannot be removed.
    pub fn heal(&mut self) -> Result<u64, Failure> {
        let mut dropped = 0;
        for node in 0..self.namespaces.len() {
            dropped += packets(&self.rule(node, "list table inet chaos")?);
            self.rule(node, "flush table inet chaos")?;
            self.rule(node, "flush table netdev chaos")?;
        }
        Ok(dropped)
    }
}

/// The sum of all counters in what `nft list` prints.
fn packets(listed: &str) -> u64 {
    let counts = listed.split("counter packets ").skip(1);
    counts.filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::packets;

    #[test]
    fn counters_are_summed() {
        let listed = "ip saddr 10.1.1.1 counter packets 12 bytes 800 drop\n counter packets 3 bytes 9 drop\n accept";
        assert_eq!(packets(listed), 15);
    }
}

//! Clients that others wrote, each against a cluster of three real processes of its own, in which shards of another keyspace split meanwhile.

mod aetcd;
mod etcd_client;
mod etcdctl;
mod neighbours;

use crate::failure::Failure;
use crate::programs::{self, Profile};
use crate::server::Server;
use neighbours::Neighbours;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

/// Nodes of a cluster.
const NODES: usize = 3;

/// Works through what a client knows, on these endpoints; says what it did not like.
type Work = dyn Fn(&[String]) -> Result<(), String>;

/// A client that is there to be run.
struct Client {
    name: String,
    work: Box<Work>,
}

/// Runs every client that there is; fails when one is not content.
pub async fn run() -> Result<(), Failure> {
    let quorate = programs::quorate(None, Profile::Dev)?;
    let mut clients = vec![etcd_client::build()?];
    clients.extend(etcdctl::found());
    clients.extend(aetcd::found());
    let mut not_content = Vec::new();
    for Client { name, work } in clients {
        let cluster = Server::quorate(&quorate, NODES).await?;
        let (began, around) = (Instant::now(), Neighbours::move_in(&cluster.endpoints[0]));
        let worked = work(&cluster.endpoints);
        let took = began.elapsed().as_secs_f64();
        let splits = around.move_out().await?;
        match worked.and_then(|()| if splits > 0 { Ok(()) } else { Err("nothing was split around it".into()) }) {
            Ok(()) => println!("{name}: content after {took:.1} s, while {splits} shards were split around it"),
            Err(why) => {
                println!("{name}: NOT CONTENT: {why}");
                not_content.push(name);
            }
        }
    }
    if not_content.is_empty() { Ok(()) } else { Err(Failure::NotContent(not_content)) }
}

/// Runs a client program to its end and returns what it prints; an error is what it complains of.
fn output(command: &mut Command, input: &str) -> Result<String, String> {
    command.env("ETCDCTL_API", "3").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let done = finish(command, input).map_err(|e| e.to_string())?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if done.status.success() {
        return Ok(said(&done.stdout));
    }
    let args: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    Err(format!("{}: {}: {}", args.join(" "), done.status, said(&done.stderr).trim()))
}

fn finish(command: &mut Command, input: &str) -> io::Result<Output> {
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    child.wait_with_output()
}

//! The `etcd-client` crate as a user of Quorate would use it. Takes the endpoints, works through every service that is served, and ends with
//! an error at the first answer that is not as etcd's.

mod keys;
mod leases;
mod servers;
mod watches;

use etcd_client::{Client, ConnectOptions};
use std::process::ExitCode;
use std::time::Duration;

/// Whatever goes wrong ends the program; nobody acts on the difference.
type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Longer than any election.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Fails with what was compared and where, as `assert_eq` would, but without a panic.
#[macro_export]
macro_rules! same {
    ($left:expr, $right:expr) => {
        match (&$left, &$right) {
            (left, right) if *left == *right => {}
            (left, right) => {
                return Err(format!("{}:{}: {left:?} is not {right:?}", file!(), line!()).into());
            }
        }
    };
}

async fn run(endpoints: Vec<String>) -> Outcome {
    let options = ConnectOptions::new().with_timeout(TIMEOUT).with_connect_timeout(TIMEOUT);
    let mut client = Client::connect(&endpoints, Some(options)).await?;
    keys::check(&mut client).await.map_err(|e| format!("keys: {e}"))?;
    leases::check(&mut client).await.map_err(|e| format!("leases: {e}"))?;
    watches::check(&mut client).await.map_err(|e| format!("watches: {e}"))?;
    servers::check(&mut client, endpoints.len()).await.map_err(|e| format!("servers: {e}").into())
}

#[tokio::main]
async fn main() -> ExitCode {
    let endpoints: Vec<String> = std::env::args().skip(1).collect();
    if endpoints.is_empty() {
        eprintln!("usage: quorate-etcd-client-test host:port...");
        return ExitCode::from(64);
    }
    match run(endpoints).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

/// What a server refuses must be refused with etcd's words.
fn refused<T>(answer: Result<T, etcd_client::Error>, words: &str) -> Outcome {
    match answer {
        Err(etcd_client::Error::GRpcStatus(status)) if status.message() == words => Ok(()),
        Err(e) => Err(format!("refused with {e} instead of {words:?}").into()),
        Ok(_) => Err(format!("answered instead of refused with {words:?}").into()),
    }
}

//! The client as somebody at a command line wants it: all servers are asked once, and errors say which verb comes next.

use crate::cli::ServerArgs;
use crate::failure::Failure;
use quorate_client::{Client, Error, Options, Reason};
use serde_json::json;

/// A client of the servers that the flags name.
pub fn client(args: &ServerArgs) -> Result<Client, Failure> {
    let mut options = Options::default();
    options.rounds = 1;
    Ok(Client::with(&args.endpoints, options)?)
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused { reason, message } => refusal(&reason, message),
            Error::ConditionFailed { now } => {
                let now = match now {
                    None => String::new(),
                    Some(None) => ": it is not there now".into(),
                    Some(Some(now)) => format!(": it is now {}", json!(now)),
                };
                Self::Violation(format!("nothing was written, the key is not as the condition says{now}"))
            }
            Error::Compacted { oldest } => Self::Violation(format!(
                "what was wanted is gone: scan the keys, then watch with --revision {oldest} or later"
            )),
            Error::Unknown { name, said, .. } => {
                let next = name.map_or("see quorate keyspace list".into(), |name| {
                    format!("send it again with --idempotency-key {name}, which does nothing twice")
                });
                Self::Server(format!("{}\nit may have been done: {next}", said.join("\n")))
            }
            Error::Misuse(message) => Self::Usage(message),
            error => Self::Server(error.to_string()),
        }
    }
}

fn refusal(reason: &Reason, message: String) -> Failure {
    match reason {
        Reason::NoSuchKeyspace => Failure::Usage(
            "there is no such keyspace: make it with quorate keyspace create, or see quorate keyspace list".into(),
        ),
        Reason::KeyspaceExists | Reason::AlreadySplit => {
            Failure::Usage(format!("{message}: see quorate keyspace list"))
        }
        Reason::NoSuchPage | Reason::NoSuchMethod => {
            Failure::Server(format!("{message}: does the server run an older release?"))
        }
        _ => Failure::Usage(message),
    }
}

//! `quorate log`: records of a log.

use super::client::client;
use super::keys::input;
use super::{print, print_json};
use crate::cli::{LogArgs, LogVerb};
use crate::failure::Failure;
use quorate_client::{Client, Error, Fetched, Record, Start};
use serde_json::json;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::Duration;

/// How long one fetch of a follower waits.
const FOLLOW: Duration = Duration::from_secs(60);

/// Records of one fetch.
const PAGE: u64 = 500;

pub async fn run(args: LogArgs) -> Result<(), Failure> {
    let (client, as_json) = (client(&args.servers)?, args.servers.json);
    match args.verb {
        LogVerb::Append { log, value, key, idempotency_key } => {
            let value = if value == "-" { input(Path::new("-"))? } else { value.into_vec() };
            let record = Record::of(key.unwrap_or_default().as_bytes(), value);
            let done = client.append(&log, &[record], idempotency_key).await?;
            match as_json {
                true => print_json(&done)?,
                false => print(&[done.offset.to_string().as_bytes()])?,
            }
        }
        LogVerb::Fetch { log, from, max, follow } => fetch(&client, &log, (from, max, follow), as_json).await?,
        LogVerb::Trim { log, before } => {
            let first = client.trim(&log, before).await?;
            match as_json {
                true => print_json(&json!({ "first": first }))?,
                false => print(&[first.to_string().as_bytes()])?,
            }
        }
    }
    Ok(())
}

/// Prints records: offset, key, value. A follower goes on until somebody stops it.
async fn fetch(
    client: &Client,
    log: &str,
    (mut start, max, follow): (Start, Option<u64>, bool),
    as_json: bool,
) -> Result<(), Failure> {
    let mut left = max.unwrap_or(u64::MAX);
    while left > 0 {
        let wait = if follow { FOLLOW } else { Duration::ZERO };
        let fetched = client.fetch(log, start, PAGE.min(left), wait).await;
        let Fetched { records, next, end, .. } = fetched.map_err(|error| match error {
            Error::Trimmed { first } => {
                Failure::Violation(format!("what is wanted was cut off: fetch with --from {first}"))
            }
            error => error.into(),
        })?;
        for record in &records {
            match as_json {
                true => print_json(record)?,
                false => print(&[record.offset.to_string().as_bytes(), &record.key.0, &record.value.0])?,
            }
        }
        left -= records.len() as u64;
        start = Start::Offset(next);
        if !follow && next >= end {
            break;
        }
    }
    Ok(())
}

//! A watch that goes on: at the next server when one goes away, behind the last event that was seen.

use super::client::{Ask, Servers, Silence, refusal, send};
use super::{bytes, list, print, print_json};
use crate::failure::Failure;
use axum::body::{Body, to_bytes};
use hyper::StatusCode;
use serde_json::Value;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tokio_stream::StreamExt;

/// Servers say something each ten seconds: one that is silent for longer has gone.
const QUIET_MAX: Duration = Duration::from_secs(25);

/// How long all servers may be away.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two rounds of asking all.
const PAUSE: Duration = Duration::from_millis(200);

/// One event of a stream.
#[derive(Debug, PartialEq, Eq)]
struct Event {
    id: Option<String>,
    name: String,
    data: String,
}

/// Finds events in the bytes of a stream.
#[derive(Default)]
struct Reader(Vec<u8>);

impl Reader {
    /// Takes some bytes; returns the events that they complete.
    fn take(&mut self, chunk: &[u8]) -> Vec<Event> {
        // An end lies in what is new, or begins with the last byte of what was there.
        let mut looked = self.0.len().saturating_sub(1);
        self.0.extend_from_slice(chunk);
        let mut events = Vec::new();
        while let Some(end) = self.0[looked..].windows(2).position(|pair| pair == b"\n\n") {
            let rest = self.0.split_off(looked + end + 2);
            let event = std::mem::replace(&mut self.0, rest);
            events.push(Self::event(&String::from_utf8_lossy(&event)));
            looked = 0;
        }
        events
    }

    fn event(text: &str) -> Event {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        Event {
            id: field("id: "),
            name: field("event: ").unwrap_or_default(),
            data: field("data: ").unwrap_or_default(),
        }
    }
}

/// What was seen, and when somebody was last heard.
struct Watch {
    ask: Ask,
    json: bool,
    heard: Instant,
    /// Why the last server that was asked is not followed.
    why: String,
}

impl Watch {
    fn remember(&mut self, id: String) {
        self.ask.headers = vec![("last-event-id", id)];
    }

    fn show(&mut self, event: Event) -> Result<(), Failure> {
        let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
        match event.name.as_str() {
            "change" if self.json => print_json(&data)?,
            "change" => {
                for change in list(&data["changes"]) {
                    let revision = data["revision"].to_string();
                    let what = change["type"].as_str().unwrap_or_default().as_bytes();
                    let (key, value) = (bytes(&change["key"]), bytes(&change["value"]));
                    let columns = [revision.as_bytes(), what, &key, &value];
                    print(if what == b"put" { &columns } else { &columns[..3] })?;
                }
            }
            "compacted" => {
                let oldest = &data["compacted"];
                return Err(Failure::Violation(format!(
                    "what was wanted is gone: scan the keys, then watch with --revision {oldest} or later"
                )));
            }
            // That a watch stands, how far it is, or that its server stops: then the stream ends.
            _ => {}
        }
        // Only what was printed has been seen.
        event.id.into_iter().for_each(|id| self.remember(id));
        Ok(())
    }

    /// Follows one server until it goes away.
    async fn follow(&mut self, endpoint: &str) -> Result<(), Failure> {
        let response = match send(endpoint, &self.ask).await {
            Ok(response) => response,
            Err(Silence::Unreachable(why) | Silence::Lost(why)) => {
                self.why = why;
                return Ok(());
            }
        };
        let (code, body) = (response.status(), Body::new(response.into_body()));
        if code != StatusCode::OK {
            let said = to_bytes(body, 1 << 20).await.unwrap_or_default();
            let said: Value = serde_json::from_slice(&said).unwrap_or_default();
            self.why = format!("{endpoint}: {code} {}", said["message"].as_str().unwrap_or_default());
            return if code.is_server_error() { Ok(()) } else { Err(refusal(&said)) };
        }
        let (mut chunks, mut reader) = (body.into_data_stream(), Reader::default());
        while let Ok(Some(Ok(chunk))) = timeout(QUIET_MAX, chunks.next()).await {
            self.heard = Instant::now();
            for event in reader.take(&chunk) {
                self.show(event)?;
            }
        }
        self.why = format!("{endpoint}: the watch ended");
        Ok(())
    }
}

/// Prints what happens, until nobody can tell any more.
pub async fn follow(servers: &Servers, path: String, json: bool) -> Result<(), Failure> {
    let mut watch = Watch { ask: Ask::get(path), json, heard: Instant::now(), why: String::new() };
    loop {
        for endpoint in servers.all() {
            watch.follow(endpoint).await?;
        }
        if watch.heard.elapsed() > PATIENCE {
            return Err(Failure::Server(format!("no server was heard for {} s: {}", PATIENCE.as_secs(), watch.why)));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

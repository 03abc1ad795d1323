//! A watch that goes on: at the next server when one goes away, behind the last event that was handed out.
//!
//! An event's id is the revision up to which everything has been told, to whichever node it is shown. It is remembered
//! when the event is handed out and not when it comes, so what was lost on the way, or in here, is told again.

use crate::events::{Event, Reader, TooLong};
use crate::keys::read;
use crate::options::{REDIRECTS_MAX, WATCH_QUIET_MAX};
use crate::pause::{draw, pause};
use crate::text::in_address;
use crate::verdict::{Next, Trial};
use crate::{Client, Error, KeyValue, Range, Text, request};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::VecDeque;
use tokio::time::{Instant, sleep, timeout};

/// What happened to one key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Change {
    /// It was written.
    Put {
        /// What it is now.
        #[serde(flatten)]
        kv: KeyValue,
        /// What it was before, if that was asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prev: Option<KeyValue>,
    },
    /// It went.
    Delete {
        /// The key.
        key: Text,
        /// The revision at which it went.
        mod_revision: u64,
        /// What it was before, if that was asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prev: Option<KeyValue>,
    },
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchEvent {
    /// It stands. This comes once.
    Created {
        /// The keyspace's revision then.
        revision: u64,
    },
    /// All that happened at one revision to the keys that are watched.
    Changed {
        /// Which.
        revision: u64,
        /// What.
        changes: Vec<Change>,
    },
    /// Everything up to a revision has been told.
    Progress {
        /// Which.
        revision: u64,
    },
}

/// The data of an event, as the server says it.
#[derive(Deserialize)]
struct Data {
    revision: u64,
    #[serde(default)]
    changes: Vec<Change>,
}

/// A watch of keys of an ordered keyspace.
#[derive(Debug)]
pub struct Watch {
    client: Client,
    keyspace: String,
    range: Range,
    revision: Option<u64>,
    prev: bool,
    /// Up to where everything has been handed out.
    seen: Option<u64>,
    created: bool,
    stream: Option<(Incoming, Reader)>,
    /// What has come and was not handed out.
    events: VecDeque<Event>,
    /// Which server is asked.
    at: usize,
    /// How often servers went away since one told something, and since when.
    losses: u32,
    silent: Option<Instant>,
    said: Trial,
}

impl Client {
    /// Watches keys of an ordered keyspace from what happens next on. Nothing is asked yet.
    #[must_use]
    pub fn watch(&self, keyspace: &str, range: &Range) -> Watch {
        Watch {
            client: self.clone(),
            keyspace: keyspace.into(),
            range: range.clone(),
            revision: None,
            prev: false,
            seen: None,
            created: false,
            stream: None,
            events: VecDeque::new(),
            at: 0,
            losses: 0,
            silent: None,
            said: Trial::new(request::Kind::Read),
        }
    }
}

impl Watch {
    /// Begins with a revision instead of what happens next.
    #[must_use]
    pub fn from_revision(mut self, revision: u64) -> Self {
        self.revision = Some(revision);
        self
    }

    /// Begins behind what another watch has [`seen`](Self::seen).
    #[must_use]
    pub fn behind(mut self, seen: u64) -> Self {
        self.seen = Some(seen);
        self
    }

    /// Tells what was there before, too.
    #[must_use]
    pub fn with_prev(mut self) -> Self {
        self.prev = true;
        self
    }

    /// The revision up to which everything has been handed out; none before the watch stands.
    #[must_use]
    pub fn seen(&self) -> Option<u64> {
        self.seen
    }

    /// The next event, whenever it comes, from whichever server. Giving up waiting for it loses nothing.
    ///
    /// # Errors
    /// If the watch is refused, what it wants is gone, or no server was heard for too long
    /// ([`Options::watch_patience`](crate::Options)). After the last it can be asked again.
    pub async fn next(&mut self) -> Result<WatchEvent, Error> {
        loop {
            while let Some(event) = self.events.pop_front() {
                match self.hand_out(&event) {
                    Ok(Some(event)) => return Ok(event),
                    Ok(None) => {}
                    Err(error) => return Err(self.break_off(error)),
                }
            }
            let Some((body, reader)) = &mut self.stream else {
                self.connect().await?;
                continue;
            };
            match timeout(WATCH_QUIET_MAX, body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    let chunk = frame.into_data().unwrap_or_default();
                    match reader.take(&chunk) {
                        Ok(events) => self.events.extend(events),
                        Err(TooLong) => return Err(self.break_off(Error::strange("an event without an end"))),
                    }
                }
                Ok(_) => self.lost("the watch ended"),
                Err(_) => self.lost("nothing was heard of the watch"),
            }
        }
    }

    /// What an event says to the caller, if anything; the one place where something becomes seen.
    fn hand_out(&mut self, event: &Event) -> Result<Option<WatchEvent>, Error> {
        let data: Value = serde_json::from_str(&event.data).map_err(Error::strange)?;
        let told = match event.name.as_str() {
            "created" => {
                let Data { revision, .. } = read(data)?;
                let first = !std::mem::replace(&mut self.created, true);
                first.then_some(WatchEvent::Created { revision })
            }
            "change" => {
                let Data { revision, changes } = read(data)?;
                self.losses = 0;
                Some(WatchEvent::Changed { revision, changes })
            }
            "progress" => {
                let Data { revision, .. } = read(data)?;
                self.losses = 0;
                Some(WatchEvent::Progress { revision })
            }
            "compacted" => return Err(Error::refused(&data)),
            // That the server stops: then the stream ends. What later releases say has an id all the same.
            _ => None,
        };
        self.silent = None;
        if let Some(id) = event.id.as_ref().and_then(|id| id.parse().ok()) {
            self.seen = self.seen.max(Some(id));
        }
        Ok(told)
    }

    /// It cannot go on like this. Asked again, it begins behind what was handed out.
    fn break_off(&mut self, error: Error) -> Error {
        self.stream = None;
        self.events.clear();
        error
    }

    /// The next server is asked.
    fn lost(&mut self, why: &str) {
        self.stream = None;
        let place = &self.client.shared.places[self.at];
        self.said.pass(place.host(), format!("{place}: {why}"));
        self.pass();
    }

    fn pass(&mut self) {
        self.at = (self.at + 1) % self.client.shared.places.len();
        self.losses = self.losses.saturating_add(1);
        self.silent.get_or_insert_with(Instant::now);
    }

    fn path(&self) -> String {
        let path = format!("/v1/watch/{}", in_address(self.keyspace.as_bytes()));
        let revision = self.revision.map(|revision| ("revision", revision.to_string()));
        let prev = self.prev.then(|| ("prev", "true".to_owned()));
        self.range.address(&path, &revision.into_iter().chain(prev).collect::<Vec<_>>())
    }

    /// Asks one server, and those to which it sends us, behind what was seen.
    async fn connect(&mut self) -> Result<(), Error> {
        let shared = self.client.shared.clone();
        let servers = shared.places.len() as u32;
        if self.silent.is_some_and(|since| since.elapsed() > shared.options.watch_patience) {
            self.silent = None;
            return Err(self.said.end());
        }
        if self.losses > 0 && self.losses.is_multiple_of(servers) {
            sleep(pause(self.losses / servers - 1, draw())).await;
        }
        self.said.begin();
        let (mut place, mut path) = (shared.places[self.at].clone(), self.path());
        // One more than are followed: the last is passed over.
        for _ in 0..=REDIRECTS_MAX {
            let heard = match shared.http.open(&place, &path, self.seen).await {
                Ok(body) => {
                    self.stream = Some((body, Reader::default()));
                    return Ok(());
                }
                Err(heard) => heard,
            };
            match self.said.judge(place.host(), heard) {
                Next::Fail(error) => return Err(error),
                Next::Follow(location) => match place.follow(&location) {
                    Some(there) => (place, path) = there,
                    None => {
                        self.said.pass(place.host(), format!("{place} sends us to {location:?}, which is no address"));
                        break;
                    }
                },
                Next::GoOn | Next::Done(_) => break,
            }
        }
        self.pass();
        Ok(())
    }
}

//! A client that finds again what it has seen and written, at whichever server, without asking a majority each time.

use crate::keys::{address, read};
use crate::request::Request;
use crate::{Client, Deleted, Error, Freshness, KeyValue, Text, Token, Transacted, Written};
use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};
use std::sync::{Mutex, PoisonError};

/// Reads its own writes, and never goes back in time: each request names the latest token of those before it (Terry et al., "Session Guarantees for Weakly
/// Consistent Replicated Data", PDIS 1994). What others have written since may be missing.
///
/// The token can be handed on, with a message or a cookie, so that whoever gets it sees no less.
#[derive(Debug)]
pub struct Session {
    client: Client,
    token: Mutex<Option<Token>>,
}

impl Client {
    /// Begins a session that has seen nothing yet.
    #[must_use]
    pub fn session(&self) -> Session {
        Session { client: self.clone(), token: Mutex::default() }
    }
}

impl Session {
    /// Stands for all that the session has seen and written; none if that is nothing, or the cluster keeps no timestamps yet.
    #[must_use]
    pub fn token(&self) -> Option<Token> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The session has seen what a token stands for that somebody handed on.
    pub fn saw(&self, token: Token) {
        let mut known = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref().is_none_or(|known| known.is_before(&token)) {
            *known = Some(token);
        }
    }

    fn heard(&self, token: Option<&Token>) {
        token.cloned().into_iter().for_each(|token| self.saw(token));
    }

    /// Reads a key; none if it is not there.
    ///
    /// # Errors
    /// If it is refused, or nobody is available.
    pub async fn get(&self, keyspace: &str, key: impl AsRef<[u8]>) -> Result<Option<KeyValue>, Error> {
        let freshness = self.token().map_or(Freshness::Any, Freshness::After);
        let key = Text(Bytes::copy_from_slice(key.as_ref()));
        // That a key is not there comes with a token, too, where it is the answer to a read of several.
        let body = json!({ "read": [{ "keyspace": keyspace, "key": key }], "freshness": freshness.to_string() });
        let seen: Transacted = read(self.client.ask(&Request::post("/v1/tx", body)).await?)?;
        self.heard(seen.token.as_ref());
        Ok(seen.reads.into_iter().next().and_then(|found| found.kvs.into_iter().next()))
    }

    fn later(&self, mut body: Value) -> Value {
        if let Some(token) = self.token() {
            body["after"] = json!(token);
        }
        body
    }

    /// Writes a key, later than all that the session has seen.
    ///
    /// # Errors
    /// If it is refused, nobody is available, or nobody knows whether it was done.
    pub async fn put(&self, keyspace: &str, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<Written, Error> {
        let body = self.later(json!({ "value": Text(value.into()) }));
        let path = address(keyspace, key.as_ref())?;
        let written: Written = read(self.client.ask(&Request::named(Method::PUT, path, body, None)).await?)?;
        self.heard(written.token.as_ref());
        Ok(written)
    }

    /// Removes a key, later than all that the session has seen.
    ///
    /// # Errors
    /// If it is refused, nobody is available, or nobody knows whether it was done.
    pub async fn delete(&self, keyspace: &str, key: impl AsRef<[u8]>) -> Result<Deleted, Error> {
        let (path, body) = (address(keyspace, key.as_ref())?, self.later(json!({})));
        let deleted: Deleted = read(self.client.ask(&Request::named(Method::DELETE, path, body, None)).await?)?;
        self.heard(deleted.token.as_ref());
        Ok(deleted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Does, Fake};

    fn body(request: &str) -> Value {
        serde_json::from_str(request.split("\r\n\r\n").nth(1).expect("a body")).expect("json")
    }

    #[tokio::test]
    async fn each_request_names_the_latest_token_of_those_before_it() {
        let seen = |token: &str| {
            let reads = json!([{ "kvs": [], "count": 0, "more": false }]);
            let done =
                json!({ "outcome": "done", "succeeded": true, "repeated": false, "reads": reads, "token": token });
            Does::Answer(200, done)
        };
        let written = |token| Does::Answer(200, json!({ "outcome": "done", "repeated": false, "token": token }));
        let script = [seen("900.1"), written("1000.2"), seen("1000.2"), written("999.0"), seen("1000.11")];
        let server = Fake::new(script).await;
        let session = Client::new([&server.endpoint]).expect("an address").session();
        assert_eq!(session.token(), None);
        assert_eq!(session.get("stock", "apples").await, Ok(None));
        session.put("stock", "apples", "4").await.expect("written");
        assert_eq!(session.get("stock", "apples").await, Ok(None));
        session.delete("stock", "apples").await.expect("removed");
        assert_eq!(session.token(), Some(Token("1000.2".into())), "a token never goes back");
        session.saw(Token("1000.10".into()));
        session.get("stock", "apples").await.expect("read");
        assert_eq!(session.token(), Some(Token("1000.11".into())));

        let bodies: Vec<Value> = server.heard().iter().map(|request| body(request)).collect();
        let freshness = [0, 2, 4].map(|at: usize| bodies[at]["freshness"].as_str().expect("said"));
        assert_eq!(freshness, ["any", "after:1000.2", "after:1000.10"]);
        assert_eq!([&bodies[1]["after"], &bodies[3]["after"]], ["900.1", "1000.2"]);
    }
}

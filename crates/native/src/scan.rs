//! Keys in pages; over HTTP, `GET /v1/kv/{keyspace}`.
//!
//! A page is strictly serializable by itself, if nothing else is asked for, and stays within one shard: it visits no more than that, however many
//! shards the keyspace has. So a page may be short, or empty, though more follow; what follows is always told.

use crate::answers::Failure;
use crate::freshness;
use crate::keys::ROUTE;
use crate::names::keyspace_of_keys;
use crate::percent;
use crate::query::{Query, keyspace_of};
use crate::words::Kv;
use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use bytes::Bytes;
use quorate_env::Timestamp;
use quorate_kv::across::Look;
use quorate_kv::{Db, Freshness, KeyRange, KeyValue, Keyspace, RangeEnd, RangeResult};
use serde::Serialize;
use std::sync::Arc;

/// Keys of a page, if nothing is said.
const LIMIT: u64 = 100;

/// Keys of a page at most: all of it is in memory at once.
const LIMIT_MAX: u64 = 1_000;

/// Keys, and where the next are.
#[derive(Debug, Serialize)]
pub(crate) struct Page {
    outcome: &'static str,
    kvs: Vec<Kv>,
    /// The address of the next page; none behind the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// Stands for all that the page tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

/// What a client wants listed.
pub(crate) struct Wish {
    range: KeyRange,
    pub limit: u64,
    pub freshness: Freshness,
}

/// Where the next page begins.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Behind a key.
    After(Bytes),
    /// At a key.
    From(Bytes),
}

impl Wish {
    /// Some keys, of which only those behind `after` are meant.
    pub fn new(
        mut range: KeyRange,
        limit: Option<u64>,
        after: Option<Bytes>,
        freshness: Freshness,
    ) -> Result<Self, Failure> {
        let limit = limit.unwrap_or(LIMIT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(Failure::Bad(format!("limit is 1 to {LIMIT_MAX}; the answer says where the next page is")));
        }
        if let Some(after) = after {
            range.start = range.start.max(behind(&after));
        }
        Ok(Self { range, limit, freshness })
    }

    fn of(uri: &Uri, keyspace: &Keyspace) -> Result<Self, Failure> {
        let query = Query::of(uri, &["prefix", "from", "to", "limit", "after", "freshness"])?;
        let freshness = query.freshness(keyspace.policy.freshness)?;
        Self::new(query.range()?, query.number("limit")?, query.bytes("after"), freshness)
    }

    /// Before which key it ends.
    pub fn to(&self) -> Option<&Bytes> {
        match &self.range.end {
            RangeEnd::Before(end) => Some(end),
            RangeEnd::Single | RangeEnd::Unbounded => None,
        }
    }

    /// What of it one shard has.
    fn piece(&self, keyspace: &Keyspace) -> Option<KeyRange> {
        keyspace.pieces(&self.range).next().map(|(_, piece)| piece)
    }

    /// Where the next page is, when the keys of a piece were found.
    fn next(&self, piece: &KeyRange, found: &RangeResult) -> Option<Next> {
        match (&found.kvs.last(), &piece.end) {
            (Some(last), _) if found.more => Some(Next::After(last.key.clone())),
            (_, RangeEnd::Before(end)) if piece.end != self.range.end => Some(Next::From(end.clone())),
            _ => None,
        }
    }

    /// The address of the next page.
    fn address(&self, keyspace: &Keyspace, next: &Next) -> String {
        let start = match next {
            Next::After(key) => format!("after={}", percent::encode(key)),
            Next::From(key) => format!("from={}", percent::encode(key)),
        };
        let to = self.to().map_or(String::new(), |end| format!("&to={}", percent::encode(end)));
        let fresh = match self.freshness {
            freshness if freshness == keyspace.policy.freshness => String::new(),
            freshness => format!("&freshness={}", freshness::words(freshness)),
        };
        format!("{ROUTE}{}?{start}{to}&limit={}{fresh}", keyspace.name, self.limit)
    }
}

/// The first key behind a key.
fn behind(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}

/// The first page of what is wanted, and where the next one begins.
pub(crate) async fn page(
    wish: &Wish,
    keyspace: &Keyspace,
    db: &Arc<dyn Db>,
) -> Result<(Vec<KeyValue>, Option<Next>, Timestamp), Failure> {
    let Some(piece) = wish.piece(keyspace) else { return Ok((Vec::new(), None, Timestamp::ZERO)) };
    let look = Look { keyspace: keyspace.id, range: piece.clone(), limit: wish.limit };
    let looked = db.look(vec![look], wish.freshness).await?;
    let found = looked.looks.into_iter().next().unwrap_or_default();
    let next = wish.next(&piece, &found);
    Ok((found.kvs, next, looked.token))
}

pub(crate) async fn scan(State(db): State<Arc<dyn Db>>, uri: Uri) -> Result<Json<Page>, Failure> {
    let keyspace = keyspace_of_keys(&keyspace_of(&uri, ROUTE)?, &db).await?;
    let wish = Wish::of(&uri, &keyspace)?;
    let (kvs, next, token) = page(&wish, &keyspace, &db).await?;
    let next = next.map(|next| wish.address(&keyspace, &next));
    let kvs = kvs.iter().map(Kv::from).collect();
    Ok(Json(Page { outcome: "done", kvs, next, token: freshness::told(token) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::tests::names;
    use quorate_kv::{LeaseId, Revision};

    fn kv(key: &str) -> KeyValue {
        let (key, value) = (Bytes::copy_from_slice(key.as_bytes()), Bytes::new());
        let (create_revision, mod_revision) = (Revision(2), Revision(2));
        KeyValue { key, value, create_revision, mod_revision, version: 1, lease: LeaseId::NONE }
    }

    /// All pages of a scan over some keys, as whoever follows them sees them.
    fn follow(first: &str, cuts: &[&'static str], keys: &[&str]) -> Vec<Vec<String>> {
        let names = names(cuts);
        let keyspace = names.find("orders").expect("there is one");
        let (mut pages, mut next) = (Vec::new(), Some(format!("/v1/kv/orders{first}")));
        while let Some(address) = next {
            let wish = Wish::of(&address.parse().expect("an address"), keyspace).expect("a wish");
            let Some(piece) = wish.piece(keyspace) else { break };
            let within = keys.iter().filter(|key| piece.contains(key.as_bytes()));
            let mut kvs: Vec<KeyValue> = within.map(|key| kv(key)).collect();
            let (count, more) = (kvs.len() as u64, kvs.len() as u64 > wish.limit);
            kvs.truncate(wish.limit as usize);
            pages.push(kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect());
            let found = RangeResult { kvs, count, more };
            next = wish.next(&piece, &found).map(|next| wish.address(keyspace, &next));
        }
        pages
    }

    #[test]
    fn pages_end_with_shards_and_nothing_is_left_out_or_told_twice() {
        let keys = ["a", "b/1", "b/2", "b/3", "m", "z%"];
        let pages = follow("?limit=2", &["b/2", "n", "p"], &keys);
        assert_eq!(pages, [vec!["a", "b/1"], vec!["b/2", "b/3"], vec!["m"], vec![], vec!["z%"]]);
        assert_eq!(follow("?prefix=b/&limit=2", &["b/2"], &keys), [vec!["b/1"], vec!["b/2", "b/3"]]);
        assert_eq!(follow("?prefix=b/", &[], &keys), [["b/1", "b/2", "b/3"]]);
        assert_eq!(follow("?from=b/2&to=m&limit=1", &[], &keys), [["b/2"], ["b/3"]]);
        assert_eq!(follow("?prefix=b/&after=b/2", &[], &keys), [["b/3"]]);
        assert_eq!(follow("?from=c&to=b", &[], &keys), [[""; 0]; 0]);
    }

    #[test]
    fn a_page_has_a_bound() {
        let names = names(&[]);
        for broken in ["?limit=0", "?limit=1001", "?limit=-1", "?prefix=a&from=b", "?key=a", "?until=b"] {
            let address = format!("/v1/kv/orders{broken}").parse().expect("an address");
            assert!(Wish::of(&address, names.find("orders").expect("there is one")).is_err(), "{broken}");
        }
    }
}

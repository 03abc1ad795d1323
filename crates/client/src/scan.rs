//! Keys in pages.

use crate::keys::read;
use crate::request::Request;
use crate::text::in_address;
use crate::{Client, Error, Freshness, KeyValue, Range, Text};
use serde::Deserialize;

/// A scan that goes on from page to page. Each page is strictly serializable by itself; two pages are two moments, unless the scan is of one.
#[derive(Debug)]
pub struct Scan {
    client: Client,
    /// The address of the next page; none behind the last.
    next: Option<String>,
}

#[derive(Deserialize)]
struct Page {
    kvs: Vec<KeyValue>,
    next: Option<String>,
}

impl Client {
    /// Lists keys, ascending, in pages of at most `limit`, which is 1 to 1000. Nothing is asked yet.
    #[must_use]
    pub fn scan(&self, keyspace: &str, range: &Range, limit: usize) -> Scan {
        let path = format!("/v1/kv/{}", in_address(keyspace.as_bytes()));
        // One key is all from it on, before the next that there can be.
        let range = match range {
            Range::Key(key) => {
                let next = [&key.0[..], &[0]].concat();
                Range::Between(Some(key.clone()), Some(Text(next.into())))
            }
            range => range.clone(),
        };
        Scan { client: self.clone(), next: Some(range.address(&path, &[("limit", limit.to_string())])) }
    }
}

impl Scan {
    /// As fresh as this, each page. [`Freshness::At`] makes all pages one picture.
    #[must_use]
    pub fn as_fresh_as(mut self, freshness: &Freshness) -> Self {
        self.next = self.next.map(|path| format!("{path}&freshness={freshness}"));
        self
    }

    /// The next page; none behind the last. A page may have fewer keys than were asked for, or none, though more
    /// follow. After an error it can be asked for again.
    ///
    /// # Errors
    /// If it is refused, or nobody is available.
    pub async fn page(&mut self) -> Result<Option<Vec<KeyValue>>, Error> {
        let Some(path) = &self.next else { return Ok(None) };
        let page: Page = read(self.client.ask(&Request::get(path.clone())).await?)?;
        self.next = page.next;
        Ok(Some(page.kvs))
    }

    /// All pages in one.
    ///
    /// # Errors
    /// If one is refused, or nobody is available.
    pub async fn all(mut self) -> Result<Vec<KeyValue>, Error> {
        let mut all = Vec::new();
        while let Some(page) = self.page().await? {
            all.extend(page);
        }
        Ok(all)
    }
}

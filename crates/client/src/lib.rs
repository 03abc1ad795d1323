//! A client of Quorate's native API (docs/native-api.md), in which a transaction is a closure.
//!
//! ```ignore
//! let client = Client::new(["10.0.0.1:2379", "10.0.0.2:2379", "10.0.0.3:2379"])?;
//! client
//!     .transaction(|tx| async move {
//!         let alice = amount(tx.get("bank", "alice").await?);
//!         let bob = amount(tx.get("bank", "bob").await?);
//!         tx.put("bank", "alice", (alice - 5).to_string());
//!         tx.put("bank", "bob", (bob + 5).to_string());
//!         Ok::<_, Error>(())
//!     })
//!     .await?;
//! ```
//!
//! Keys that many write at once are read with [`Tx::get_for_update`], which reserves them, so that the commit is not
//! beaten by others'.
//!
//! ```text
//!   transaction (buffer, locks) ─> transact ─┐
//!   keys, scan, logs, keyspaces ─────────────┴> client::ask ─> verdict (pure: what now?) ─> http ─> a node
//!   watch ─> events (pure) ──────────────────────────────────────────────────────────────> http ─> a node
//! ```
//!
//! What it promises: what it reports as done was done once; what it reports as refused or unavailable was not done; and
//! when nobody knows, it says so ([`Error::Unknown`]), with the name under which asking again does nothing twice. Every
//! write carries such a name, so whatever loses an answer is asked again, at the next node.
//!
//! It knows the API's words and nothing of the server's insides: no other crate of Quorate is below it.

mod buffer;
mod client;
mod error;
mod events;
#[cfg(test)]
mod fake;
mod freshness;
mod http;
mod keys;
mod keyspaces;
mod locks;
mod logs;
mod nodes;
mod options;
mod pause;
mod place;
mod range;
mod request;
mod scan;
mod session;
#[cfg(test)]
mod tests;
mod text;
mod transact;
mod transaction;
mod verdict;
mod watch;

pub use client::Client;
pub use error::{Error, Reason};
pub use freshness::{Freshness, NoFreshness, Seen, Token};
pub use keys::{Condition, Deleted, KeyValue, Written};
pub use keyspaces::{Keyspace, KeyspaceChange, Kind, Loss, Replication, Shard};
pub use logs::{Appended, Fetched, LogEntry, Record, Start};
pub use nodes::Node;
pub use options::Options;
pub use range::Range;
pub use request::{Request, random_name};
pub use scan::Scan;
pub use session::Session;
pub use text::Text;
pub use transact::{Check, Found, Op, Transacted, Transaction, Write};
pub use transaction::Tx;
pub use watch::{Change, Watch, WatchEvent};

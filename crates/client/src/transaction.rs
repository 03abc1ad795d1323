//! Transactions as closures.
//!
//! ```text
//!   run the closure: each key is read when it is asked for, writes are kept back
//!        │
//!        v
//!   one POST /v1/tx: all that was read is still so ──yes──> all is written: done
//!        ^                      │ no
//!        └──── after a pause ───┘
//! ```
//!
//! Nothing is locked while the closure runs, so whoever dies in it leaves nothing behind. In exchange it may run
//! several times, and may see keys as they never were together; what it concludes from that is thrown away, an error
//! too. So it does nothing but read and write through its [`Tx`].
//!
//! What it reads with [`Tx::get_for_update`] is reserved: nobody else writes it until the commit, so that where many
//! write one key, one after the other gets through, and none tries in vain. An older transaction takes over what a
//! younger one has reserved, whose closure is run again; its own age it keeps, so in the end it is the oldest. What is
//! reserved ends by itself four seconds later, so the closure is short.
//!
//! Each run commits under a name of its own. If the answer is lost, the same commit is sent again under that name,
//! until somebody knows.

use crate::buffer::{At, Buffer};
use crate::error::Reason;
use crate::locks::Locks;
use crate::pause::{draw, pause};
use crate::{Client, Error, Options, Record, Transaction};
use bytes::Bytes;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::{Instant, sleep};

/// Keys that a message names.
const KEYS_NAMED_MAX: usize = 4;

/// One run of a transaction's closure. Clones are the same run; what is done with one that outlives it comes to
/// nothing.
#[derive(Clone, Debug)]
pub struct Tx {
    client: Client,
    buffer: Arc<Mutex<Buffer>>,
    locks: Arc<Locks>,
}

impl Tx {
    fn buffer(&self) -> MutexGuard<'_, Buffer> {
        // Each of its steps leaves it whole.
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a key's value; none if it is not there. What this run has written is seen, and what it has read does not
    /// change.
    ///
    /// # Errors
    /// If it is refused, or nobody is available. Return that from the closure.
    pub async fn get(&self, keyspace: &str, key: impl AsRef<[u8]>) -> Result<Option<Bytes>, Error> {
        let at: At = (keyspace.into(), Bytes::copy_from_slice(key.as_ref()));
        if let Some(known) = self.buffer().known(&at) {
            return Ok(known);
        }
        match self.client.get(keyspace, key).await {
            Ok(found) => Ok(self.buffer().remember(at, found)),
            Err(error) => {
                self.buffer().failed = true;
                Err(error)
            }
        }
    }

    /// Reserves a key and reads its value; none if it is not there. Nobody else writes it until this run is committed or
    /// given up. Waits for older transactions that have reserved it.
    ///
    /// # Errors
    /// If it is refused, something that this run has reserved is lost, or nobody is available. Return that from the
    /// closure: if something was lost it is run again.
    pub async fn get_for_update(&self, keyspace: &str, key: impl AsRef<[u8]>) -> Result<Option<Bytes>, Error> {
        let at: At = (keyspace.into(), Bytes::copy_from_slice(key.as_ref()));
        let others = {
            let buffer = self.buffer();
            if let Some(known) = buffer.known(&at).filter(|_| buffer.held.contains_key(&at)) {
                return Ok(known);
            }
            buffer.held.clone()
        };
        let reserved = self.locks.reserve(&at, &others).await;
        let mut buffer = self.buffer();
        let error = match reserved {
            Ok((found, since)) => match buffer.reserve(&at, found, since) {
                Some(known) => return Ok(known),
                None => {
                    let message = format!("somebody changed {} after it was read", String::from_utf8_lossy(&at.1));
                    Error::Conflict { tries: 1, message }
                }
            },
            Err(error) => error,
        };
        buffer.failed = true;
        buffer.lost = lost(&error);
        Err(error)
    }

    /// Writes a key, if this run is committed.
    pub fn put(&self, keyspace: &str, key: impl AsRef<[u8]>, value: impl Into<Bytes>) {
        self.buffer().write((keyspace.into(), Bytes::copy_from_slice(key.as_ref())), Some(value.into()));
    }

    /// Removes a key, if this run is committed.
    pub fn delete(&self, keyspace: &str, key: impl AsRef<[u8]>) {
        self.buffer().write((keyspace.into(), Bytes::copy_from_slice(key.as_ref())), None);
    }
}

impl Tx {
    /// Appends a record to a log, behind those that this run has appended before, if it is committed. It has its offset then.
    pub fn append(&self, log: &str, key: impl AsRef<[u8]>, value: impl Into<Bytes>) {
        self.buffer().append(log, Record::of(key, value));
    }
}

/// What others have taken, if that is why: then another run may have it.
fn lost(error: &Error) -> Option<String> {
    match error {
        Error::Conflict { message, .. } | Error::Refused { reason: Reason::LockLost, message } => Some(message.clone()),
        _ => None,
    }
}

/// What became of one run.
enum Committed {
    Done,
    /// Somebody changed what it had read, or was in the way.
    Conflict(String),
}

impl Client {
    /// Runs a closure as one strictly serializable step over any keys of any keyspaces: all that it has read is still
    /// so when all that it has written is written. While others change what it reads, it is run again
    /// ([`Options::transaction_tries`]), so it does nothing that may not be done twice. An error of its
    /// own writes nothing, and is returned if what it saw was so.
    ///
    /// # Errors
    /// The closure's; and if it is refused, others are in the way each time, nobody is available, or nobody knows
    /// whether it was done.
    pub async fn transaction<T, E, F, R>(&self, mut closure: F) -> Result<T, E>
    where
        F: FnMut(Tx) -> R,
        R: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        let Options { transaction_tries, transaction_deadline, .. } = self.shared.options;
        let until = Instant::now() + transaction_deadline;
        let locks = Arc::new(Locks::new(self.clone()));
        let mut tries = 0;
        loop {
            tries += 1;
            let tx = Tx { client: self.clone(), buffer: Arc::default(), locks: locks.clone() };
            let result = closure(tx.clone()).await;
            let buffer = std::mem::take(&mut *tx.buffer());
            let step = match &result {
                Ok(_) => buffer.commit(),
                Err(_) if buffer.failed => None,
                Err(_) => buffer.validation(),
            };
            let committed = match (&buffer.lost, step) {
                (Some(message), _) => Committed::Conflict(message.clone()),
                (None, None) => return result,
                (None, Some(step)) => self.commit(step.under(locks.claim(&buffer.held)), &buffer).await?,
            };
            match committed {
                Committed::Done => {
                    locks.committed(&buffer.held);
                    return result;
                }
                Committed::Conflict(message) if tries >= transaction_tries || Instant::now() >= until => {
                    return Err(Error::Conflict { tries, message }.into());
                }
                // Who has reserved something waits where it is, and not here.
                Committed::Conflict(_) if locks.are_used() => sleep(pause(0, draw())).await,
                Committed::Conflict(_) => sleep(pause(tries - 1, draw())).await,
            }
        }
    }

    async fn commit(&self, step: Transaction, buffer: &Buffer) -> Result<Committed, Error> {
        match self.transact(&step, None).await {
            Ok(done) if done.succeeded => Ok(Committed::Done),
            Ok(_) => {
                let read = buffer.keys_read();
                let some = read[..read.len().min(KEYS_NAMED_MAX)].join(", ");
                Ok(Committed::Conflict(format!(
                    "somebody changed one of the {} keys that it read ({some})",
                    read.len()
                )))
            }
            Err(error) => lost(&error).map(Committed::Conflict).ok_or(error),
        }
    }
}

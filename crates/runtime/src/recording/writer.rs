//! The thread that finds words for what was seen, and writes them.
//!
//! It gathers for a moment, so that busy times cost few writes; what was handed to the kernel survives a kill of the process.

use super::{Seen, Shared, TraceOptions, What};
use quorate_trace::{Lane, LifeHead, MessageId, OwnEvent, OwnRecord, Record, TraceEvent, words};
use serde::Serialize;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// Between two looks at the queue: a kill loses no more than what happened in this time.
const GATHERING: Duration = Duration::from_millis(2);

/// Bytes of lines that are handed to the kernel at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Kept free below the limit for the line that says why the record ends.
const LAST_WORDS_BYTES: u64 = 256;

pub(super) struct Writer {
    file: File,
    path: PathBuf,
    shared: Arc<Shared>,
    /// Lines that are not yet in the file.
    lines: Vec<u8>,
    bytes: u64,
    bytes_max: u64,
    /// The latest time that was written.
    latest: u64,
}

impl Writer {
    /// Appends the first line of a life.
    pub fn open(options: &TraceOptions, head: &LifeHead, shared: Arc<Shared>) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(&options.file)?;
        file.try_lock().map_err(|e| match e {
            TryLockError::WouldBlock => io::Error::other("another process records in it"),
            TryLockError::Error(e) => e,
        })?;
        let bytes = file.metadata()?.len();
        let (path, bytes_max) = (options.file.clone(), options.bytes_max);
        let mut writer = Self { file, path, shared, lines: Vec::new(), bytes, bytes_max, latest: 0 };
        head.write(&mut writer.lines)?;
        if !writer.write()? {
            let mib = bytes_max >> 20;
            tracing::warn!("{} has {mib} MiB already: nothing more is recorded in it", writer.path.display());
            writer.shared.ended.store(true, Ordering::Relaxed);
        }
        Ok(writer)
    }

    pub fn run(mut self, seen: &Receiver<Seen>) {
        if self.shared.ended.load(Ordering::Relaxed) {
            return;
        }
        if let Err(e) = self.follow(seen) {
            tracing::error!("{}: {e}; nothing more is recorded", self.path.display());
        }
        self.shared.ended.store(true, Ordering::Relaxed);
    }

    /// Until the process stops, or its record must.
    fn follow(&mut self, seen: &Receiver<Seen>) -> io::Result<()> {
        while let Ok(first) = seen.recv() {
            for Seen { at, what, bytes } in std::iter::once(first).chain(seen.try_iter()) {
                self.shared.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
                self.tell_unrecorded()?;
                if let What::Stop(cause) = what {
                    let event = TraceEvent::Crash { node: self.shared.node, cause };
                    self.line(&Record { at: at.max(self.latest), event })?;
                    self.write()?;
                    return Ok(());
                }
                self.tell(at, what)?;
                if self.lines.len() > CHUNK_BYTES && !self.write()? {
                    return Ok(());
                }
            }
            if !self.write()? {
                return Ok(());
            }
            std::thread::sleep(GATHERING);
        }
        Ok(())
    }

    fn tell_unrecorded(&mut self) -> io::Result<()> {
        // Most of the time there is nothing to take.
        if self.shared.unrecorded.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        let events = self.shared.unrecorded.swap(0, Ordering::Relaxed);
        self.line(&OwnRecord { at: self.latest, event: OwnEvent::Unrecorded { events } })
    }

    fn tell(&mut self, at: u64, what: What) -> io::Result<()> {
        self.latest = self.latest.max(at);
        let node = self.shared.node;
        match what {
            What::Event(event) => self.line(&Record { at, event }),
            What::Sent { to, first, messages } => {
                let to = Lane::Node(to.0);
                messages.iter().zip(0..).try_for_each(|(sent, n)| {
                    let message = MessageId(first.wrapping_add(n));
                    let (shard, said) = (sent.shard.0, words::said(&sent.body));
                    self.line(&Record { at, event: TraceEvent::Send { message, from: node, to, shard, said } })
                })
            }
            What::Delivered { first, count } => (0..count).try_for_each(|n| {
                let message = MessageId(first.wrapping_add(n));
                self.line(&Record { at, event: TraceEvent::Deliver { message } })
            }),
            What::Stop(_) => unreachable!("it ends the record"),
        }
    }

    fn line(&mut self, record: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.lines, record)?;
        self.lines.push(b'\n');
        Ok(())
    }

    /// Hands the lines to the kernel. False: they do not fit any more, and the record has ended.
    fn write(&mut self) -> io::Result<bool> {
        let fits = self.bytes + self.lines.len() as u64 + LAST_WORDS_BYTES <= self.bytes_max;
        if !fits {
            self.lines.clear();
            let why = format!("the limit of {} bytes is reached", self.bytes_max);
            if self.bytes + LAST_WORDS_BYTES <= self.bytes_max {
                self.line(&OwnRecord { at: self.latest, event: OwnEvent::RecordEnds { why } })?;
            }
        }
        self.file.write_all(&self.lines)?;
        self.bytes += self.lines.len() as u64;
        self.lines.clear();
        Ok(fits)
    }
}

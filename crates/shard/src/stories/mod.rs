//! Stories about the state machine: scripts in `stories/`, each with the output that it should have.
//!
//! A new story is a file of commands; `UPDATE_GOLDENFILES=1 cargo test -p quorate-shard` fills the answers in, and somebody reads them.
//!
//! ```text
//!   apply put a 1 lease=7 prev          one entry with one command; see `language` for operations and transactions
//!   queue put a 1                       the next command of a longer entry; `apply` without arguments ends it
//!   session 5 seq=2 answered=2          the next command carries this id, instead of a new one
//!   read get a z rev=3                  a read, from a view
//!   grant 7 ttl=60, revoke 7, expire 7 at=3, leases
//!   compact 5, collect [max=2]
//!   watch w a z [from=3] [no-put]       attach to the hub; events are printed as entries are applied
//!   unwatch w, history a z from=2 [bytes=100]
//!   flush, crash                        what was not flushed is lost; the machine opens again
//!   move [bytes=64] [damage]            the rows travel to another store, which takes over
//!   clock 100                           the entries from here on say that it is so late; what it was before
//!   moment 100 get a z                  a read of what was there at a timestamp
//!   state, hash [rev=4], rows
//!   prepare, decide, settle, resolve, forget, ledger: see `across`
//!   trim 3, log                         a log is cut off; where it begins and ends, and its records
//!   split, wean, births, build, enter, clear: see `splits`
//!   yield, absorb: see `merges`
//! ```

mod across;
mod language;
mod merges;
mod reserving;
mod splits;

use crate::{
    Attach, EntryPayload, Export, Import, ImportError, Machine, Output, Procedures, Slot, WatchHub, encode_entry, rows,
};
use bytes::Bytes;
use goldenscript::{ArgumentConsumer, Context};
use language::Words;
use quorate_env::{LogIndex, Term, Timestamp, WallMs};
use quorate_kv::log::{Bounds, Entry};
use quorate_kv::{
    Command, CommandId, Envelope, Event, EventKind, KeyRange, LeaseId, Level, Outcome, Revision, SessionId, WatchSpec,
};
use quorate_storage::store::{ModelStore, Store};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

type Told = Result<String, Box<dyn Error>>;

/// The session of commands that a story gives no id.
const OWN: SessionId = SessionId(1);

#[test]
fn every_story_goes_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("stories");
    let mut stories: Vec<_> =
        std::fs::read_dir(folder).expect("stories").map(|entry| entry.expect("a story").path()).collect();
    stories.sort();
    assert!(stories.len() >= 10, "stories are missing");
    for story in stories {
        eprintln!("story {}", story.display());
        goldenscript::run(&mut Teller::new(), story).expect("a story can be read");
    }
}

struct Teller {
    store: Arc<ModelStore>,
    machine: Machine,
    hub: WatchHub,
    watchers: BTreeMap<u64, String>,
    queued: Vec<Envelope>,
    next: Option<(CommandId, u64)>,
    seq: u64,
    /// What the next entries are stamped with.
    clock: Timestamp,
    /// The row behind which the rows were that another shard gave last.
    absorbed_after: Bytes,
}

impl Teller {
    fn new() -> Self {
        let store = Arc::new(ModelStore::new());
        let procedures = Arc::new(Procedures::of(Level::LATEST));
        let machine = Machine::create(store.clone(), Slot(1), Bytes::new(), procedures).expect("a fresh machine");
        let hub = WatchHub::new(machine.meta().revision);
        Self {
            store,
            machine,
            hub,
            watchers: BTreeMap::new(),
            queued: Vec::new(),
            next: None,
            seq: 0,
            clock: Timestamp::ZERO,
            absorbed_after: Bytes::new(),
        }
    }

    fn envelope(&mut self, command: Command) -> Envelope {
        let (id, answered_below) = self.next.take().unwrap_or_else(|| {
            self.seq += 1;
            (CommandId { session: OWN, seq: self.seq }, 0)
        });
        Envelope { id, answered_below, command }
    }

    fn run_now(&mut self, command: Command) -> Told {
        let envelope = self.envelope(command);
        self.queued.push(envelope);
        self.apply()
    }

    fn apply(&mut self) -> Told {
        let commands = std::mem::take(&mut self.queued);
        let data = if commands.is_empty() { Vec::new() } else { encode_entry(WallMs(0), self.clock, commands.iter()) };
        let decoded = EntryPayload::decode(data.clone().into());
        assert!(commands.is_empty() || decoded.expect("own encoding").commands == commands);
        let index = self.machine.meta().applied.next();
        let own = commands.first().map_or(OWN, |envelope| envelope.id.session);
        let output = self.machine.apply(index, Term(1), &data.into(), &|asked| asked.id.session == own)?;
        let mut told = self.tell(&output);
        for (key, events) in self.hub.publish(output.events) {
            writeln!(told, "{} sees {}", self.watchers[&key], language::events(&events))?;
        }
        Ok(told)
    }

    fn tell(&self, output: &Output) -> String {
        let mut told = String::new();
        let mut line = |text: String| writeln!(told, "{text}").expect("memory");
        if output.results.is_empty() {
            line(String::from("no answer"));
        }
        for (id, result) in &output.results {
            line(match result {
                Ok(applied) => {
                    let outcome = match &applied.outcome {
                        Outcome::Transacted(result) => language::txn_result(result),
                        Outcome::Stepped(answer) => across::answer(answer),
                        Outcome::Reserved(reserved) => reserving::answer(reserved),
                        Outcome::Trimmed(first) => format!("kept from {first} on"),
                        other => format!("{other:?}"),
                    };
                    format!("{}/{} at {}: {outcome}", id.session.0, id.seq, applied.header.revision.0)
                }
                Err(refusal) => format!("{}/{} refused: {refusal}", id.session.0, id.seq),
            });
        }
        output.granted.iter().for_each(|g| line(format!("granted {} by entry {}", g.id.0, g.granted_at.0)));
        output.revoked.iter().for_each(|id| line(format!("revoked {}", id.0)));
        told
    }

    fn watch(&mut self, args: &mut ArgumentConsumer<'_>) -> Told {
        let name = args.next_pos().ok_or("which watch?")?.to_owned();
        let from = option(args, "from")?.map(Revision);
        let mut words = Words::of(args);
        let range = words.range()?;
        let (no_put, no_delete) = (words.flag("no-put"), words.flag("no-del"));
        words.end()?;
        let key = self.watchers.len() as u64 + 1;
        self.watchers.insert(key, name);
        let spec = WatchSpec { range, start: from, no_put, no_delete, prev_kv: true };
        let from = from.unwrap_or(Revision(self.machine.meta().revision.0 + 1));
        Ok(match self.hub.attach(key, spec, from) {
            Attach::Attached { backlog } => {
                let seen: Vec<String> = backlog.iter().map(|events| language::events(events)).collect();
                format!("attached; sees {}", if seen.is_empty() { String::from("nothing") } else { seen.join(", ") })
            }
            Attach::Behind => String::from("behind: read history first"),
        })
    }

    fn history(&self, args: &mut ArgumentConsumer<'_>) -> Told {
        let from = Revision(option(args, "from")?.unwrap_or(1));
        let bytes = option(args, "bytes")?.unwrap_or(usize::MAX);
        let mut words = Words::of(args);
        let range: KeyRange = words.range()?;
        words.end()?;
        let page = self.machine.view().events(&range, from, true, bytes)?;
        Ok(format!("{}\nnext {}", language::events(&page.events), page.next.0))
    }

    /// Rows travel in chunks to a fresh store, where the machine goes on.
    fn travel(&mut self, chunk_bytes: usize, damage: bool) -> Told {
        let store = Arc::new(ModelStore::new());
        let mut export = Export::new(self.machine.view());
        let mut import = Import::new(store.clone(), Slot(9));
        let mut chunks = 0;
        while !import.is_done() {
            let cursor = import.cursor().clone();
            let mut chunk = export.chunk(&cursor, chunk_bytes)?.ok_or("a cursor was forgotten")?;
            if damage && chunks == 1 {
                chunk.rows.swap_remove(0);
            }
            match import.accept(&cursor, &chunk) {
                Err(ImportError::Damaged) => return Ok(String::from("damaged: not installed")),
                other => other?,
            }
            let again = export.chunk(&cursor, chunk_bytes)?.ok_or("the last chunk cannot be sent again")?;
            import.accept(&cursor, &again)?;
            chunks += 1;
        }
        let before = self.machine.meta().clone();
        self.machine = Machine::open(store.clone(), Slot(9), Arc::new(Procedures::of(Level::LATEST)))?;
        self.store = store;
        assert_eq!(*self.machine.meta(), before);
        Ok(format!("{chunks} chunks"))
    }

    fn crash(&mut self) -> Told {
        self.store = Arc::new(self.store.crash());
        let slot = self.machine.slot();
        self.machine = Machine::open(self.store.clone(), slot, Arc::new(Procedures::of(Level::LATEST)))?;
        self.hub.reset(self.machine.meta().revision);
        self.state()
    }

    fn state(&self) -> Told {
        let meta = self.machine.meta();
        let compacted = meta.compacted.map_or(String::from("nothing"), |revision| revision.0.to_string());
        let (applied, revision, hash) = (meta.applied.0, meta.revision.0, meta.state_hash);
        Ok(format!("applied {applied}, revision {revision}, compacted {compacted}, hash {hash:016x}"))
    }

    fn rows(&self) -> Told {
        let mut told = String::new();
        let prefix = self.machine.slot().prefix();
        let end = quorate_storage::store::prefix_end(&prefix);
        for row in self.store.scan(Bound::Included(prefix.into()), end, false) {
            let (key, value) = row?;
            let (kind, rest) = key[rows::SLOT_BYTES..].split_first().ok_or("a row without a kind")?;
            let former = rows::parse_history(&key).filter(|_| *kind == rows::HISTORY);
            let name = former.map_or_else(
                || rest.escape_ascii().to_string(),
                |(key, revision)| format!("{} at {}", key.escape_ascii(), revision.0),
            );
            writeln!(told, "{} {name}: {} bytes", char::from(*kind), value.len())?;
        }
        Ok(told)
    }
}

impl goldenscript::Runner for Teller {
    type Command = goldenscript::Command;

    fn run(&mut self, command: &Self::Command, _: &Context) -> Told {
        let mut args = command.consume_args();
        let number = |args: &mut ArgumentConsumer<'_>| -> Result<i64, Box<dyn Error>> {
            Ok(args.next_pos().ok_or("a number is missing")?.parse()?)
        };
        let told = match command.name.as_str() {
            "apply" if command.args.is_empty() => return self.apply(),
            name @ ("apply" | "queue") => {
                let mut words = Words::of(&mut args);
                let command = Command::Transact(words.txn()?);
                words.end()?;
                if name == "apply" {
                    return self.run_now(command);
                }
                let envelope = self.envelope(command);
                self.queued.push(envelope);
                String::new()
            }
            "session" => {
                let session = SessionId(number(&mut args)? as u64);
                let seq = option(&mut args, "seq")?.ok_or("which seq?")?;
                self.next = Some((CommandId { session, seq }, option(&mut args, "answered")?.unwrap_or(0)));
                String::new()
            }
            "read" => {
                let mut words = Words::of(&mut args);
                let op = words.get()?;
                words.end()?;
                let view = self.machine.view();
                let waits = view.blocker(&op).map_or(String::new(), |by| format!(", and must wait for {}", by.by.0));
                match view.range(&op)? {
                    Ok(result) => language::range_result(&result) + &waits,
                    Err(refusal) => format!("refused: {refusal}"),
                }
            }
            "grant" => {
                let id = LeaseId(number(&mut args)?);
                let ttl_s = option(&mut args, "ttl")?.unwrap_or(60);
                self.run_now(Command::LeaseGrant { id, ttl_s })?
            }
            "revoke" => {
                let id = LeaseId(number(&mut args)?);
                self.run_now(Command::LeaseRevoke { id })?
            }
            "expire" => {
                let id = LeaseId(number(&mut args)?);
                let granted_at = LogIndex(option(&mut args, "at")?.ok_or("granted by which entry?")?);
                self.run_now(Command::LeaseExpire { id, granted_at })?
            }
            "leases" => {
                let keys = |id| -> Vec<String> {
                    self.machine.lease_keys(id).iter().map(|key| key.escape_ascii().to_string()).collect()
                };
                let lease = |g: crate::Grant| format!("{} ttl {} keys [{}]\n", g.id.0, g.ttl_s, keys(g.id).join(" "));
                self.machine.leases().map(lease).collect()
            }
            "clock" => {
                self.clock = Timestamp(number(&mut args)? as u64);
                let (clock, closed) = (self.machine.meta().clock, self.machine.closed());
                format!("it is {}, closed up to {}", clock.0, closed.0)
            }
            "moment" => {
                let at = Timestamp(number(&mut args)? as u64);
                let mut words = Words::of(&mut args);
                let op = words.get()?;
                words.end()?;
                match self.machine.view().range_at(&op, at)? {
                    Ok(result) => language::range_result(&result),
                    Err(refusal) => format!("refused: {refusal}"),
                }
            }
            "history-before" => {
                let at = Timestamp(number(&mut args)? as u64);
                let end = self.machine.view().history_before(at)?;
                end.map_or(String::from("nothing may go"), |end| format!("may end at {}", end.0))
            }
            "compact" => {
                let revision = Revision(number(&mut args)? as u64);
                self.run_now(Command::Compact { revision })?
            }
            "collect" => {
                let more = self.machine.collect_garbage(option(&mut args, "max")?.unwrap_or(usize::MAX))?;
                String::from(if more { "more is left" } else { "nothing is left" })
            }
            "trim" => {
                let before = number(&mut args)? as u64;
                self.run_now(Command::Trim { before })?
            }
            "log" => {
                let view = self.machine.view();
                let Bounds { first, swept, end, bytes } = view.log_bounds()?;
                let mut told = format!("first {first}, swept {swept}, end {end}, {bytes} bytes\n");
                for Entry { offset, at, record } in view.log_entries(0, u64::MAX)? {
                    let (key, value) = (record.key.escape_ascii(), record.value.escape_ascii());
                    writeln!(told, "{offset} {key}={value} at {}", at.0)?;
                }
                told
            }
            "watch" => return self.watch(&mut args),
            "unwatch" => {
                let name = args.next_pos().ok_or("which watch?")?;
                let key = self.watchers.iter().find(|(_, known)| *known == name).map(|(key, _)| *key);
                let was = self.hub.detach(key.ok_or("no such watch")?);
                String::from(if was { "detached" } else { "was not attached" })
            }
            "history" => return self.history(&mut args),
            "flush" => {
                self.store.seal().ok_or("nothing to flush")?.run()?;
                String::new()
            }
            "crash" => self.crash()?,
            "move" => {
                let bytes = option(&mut args, "bytes")?.unwrap_or(64);
                self.travel(bytes, args.next_pos() == Some("damage"))?
            }
            "state" => self.state()?,
            "rests" => String::from(if self.machine.is_at_rest() { "yes" } else { "no" }),
            "hash" => {
                let revision: Option<u64> = option(&mut args, "rev")?;
                match self.machine.view().hash(revision.map(Revision))? {
                    Ok(hash) => format!("{:08x} at {} above {}", hash.hash, hash.revision.0, hash.compacted.0),
                    Err(refusal) => format!("refused: {refusal}"),
                }
            }
            "rows" => self.rows()?,
            "ledger" => across::ledger(&self.machine)?,
            name @ ("prepare" | "decide" | "settle" | "resolve" | "forget") => {
                let command = across::command(name, &mut args)?;
                self.run_now(command)?
            }
            "reservations" => reserving::table(&self.machine, self.machine.slot())?,
            name @ ("reserve" | "release" | "lapse") => {
                let command = reserving::command(name, &mut args)?;
                self.run_now(command)?
            }
            name @ ("split" | "wean" | "births" | "build" | "enter" | "clear") => self.split(name, &mut args)?,
            name @ ("yield" | "absorb") => self.merge(name, &mut args)?,
            other => return Err(format!("no such command: {other}").into()),
        };
        args.reject_next()?;
        Ok(told)
    }
}

fn option<T: std::str::FromStr<Err: Error + 'static>>(
    args: &mut ArgumentConsumer<'_>,
    name: &str,
) -> Result<Option<T>, Box<dyn Error>> {
    Ok(args.take_key(name).map(str::parse).transpose()?)
}

/// An event in a few characters.
pub(super) fn event(event: &Event) -> String {
    let key = event.kv.key.escape_ascii();
    let prev = event.prev.as_ref().map_or(String::new(), |kv| format!(" was {}", kv.value.escape_ascii()));
    match event.kind {
        EventKind::Put => format!("put {key}={}@{}{prev}", event.kv.value.escape_ascii(), event.kv.mod_revision.0),
        EventKind::Delete => format!("del {key}@{}{prev}", event.kv.mod_revision.0),
    }
}

//! The words of operations and transactions in stories, and how answers are written down.
//!
//! ```text
//!   put KEY VALUE [lease=N] [prev] [keep-value] [keep-lease]
//!   del KEY [END] [prev]                     END is the first key not meant; `onwards` means no end
//!   get KEY [END] [rev=N] [limit=N] [sort=mod] [desc] [after-limit] [keys] [count] [min-mod=N] [max-mod=N] [min-create=N] [max-create=N]
//!   if TARGET KEY [END] eq|ne|gt|lt X {and ...} then OP {also OP} else OP {also OP}
//!   nest TXN done                            as an operation; TARGET is version, create, mod, value or lease
//! ```

use bytes::Bytes;
use goldenscript::{Argument, ArgumentConsumer};
use quorate_kv::{
    Compare, CompareOp, DeleteOp, Event, Expected, KeyRange, KeyValue, LeaseId, Op, OpResult, PutOp, RangeEnd, RangeOp,
    RangeResult, Revision, Sort, SortBy, Txn, TxnResult,
};
use std::collections::VecDeque;
use std::error::Error;

type Read<T> = Result<T, Box<dyn Error>>;

/// Words that end an operation.
const BREAKS: &[&str] = &["also", "and", "then", "else", "done"];

/// What remains to be read of a command.
pub(super) struct Words {
    words: VecDeque<(String, Option<String>)>,
}

impl Words {
    pub fn of(args: &mut ArgumentConsumer<'_>) -> Self {
        let word = |argument: &Argument| match argument {
            Argument::Positional(word) => (word.clone(), None),
            Argument::KeyValue(name, value) => (name.clone(), Some(value.clone())),
            _ => unreachable!("goldenscript has two kinds of arguments"),
        };
        Self { words: args.map(word).collect() }
    }

    pub fn end(&self) -> Read<()> {
        match self.words.front() {
            None => Ok(()),
            Some((word, _)) => Err(format!("what does {word} mean here?").into()),
        }
    }

    pub fn is(&mut self, word: &str) -> bool {
        let found = self.words.front().is_some_and(|(front, value)| front == word && value.is_none());
        if found {
            self.words.pop_front();
        }
        found
    }

    pub fn word(&mut self) -> Read<String> {
        match self.words.pop_front() {
            Some((word, None)) => Ok(word),
            other => Err(format!("a word is missing before {other:?}").into()),
        }
    }

    /// A word of the operation that is being read, found anywhere before the next break.
    pub fn flag(&mut self, name: &str) -> bool {
        self.take(|(word, value)| word == name && value.is_none()).is_some()
    }

    fn option<T: std::str::FromStr<Err: Error + 'static>>(&mut self, name: &str) -> Read<Option<T>> {
        let found = self.take(|(word, value)| word == name && value.is_some());
        Ok(found.and_then(|(_, value)| value).map(|value| value.parse()).transpose()?)
    }

    fn take(&mut self, wanted: impl Fn(&(String, Option<String>)) -> bool) -> Option<(String, Option<String>)> {
        let end = self.words.iter().position(|(word, _)| BREAKS.contains(&word.as_str())).unwrap_or(self.words.len());
        let at = self.words.iter().take(end).position(wanted)?;
        self.words.remove(at)
    }

    /// A key and, if there is one, the end of the range.
    pub fn range(&mut self) -> Read<KeyRange> {
        let start = Bytes::from(self.word()?);
        let options = ["eq", "ne", "gt", "lt", "prev", "keys", "count", "desc", "after-limit", "no-put", "no-del"];
        let more = self.words.front().is_some_and(|(word, value)| {
            value.is_none() && !BREAKS.contains(&word.as_str()) && !options.contains(&word.as_str())
        });
        let end = if more { Some(self.word()?) } else { None };
        let end = match end.as_deref() {
            None => RangeEnd::Single,
            Some("onwards") => RangeEnd::Unbounded,
            Some(end) => RangeEnd::Before(Bytes::copy_from_slice(end.as_bytes())),
        };
        Ok(KeyRange { start, end })
    }

    pub fn txn(&mut self) -> Read<Txn> {
        let mut txn = Txn::default();
        if self.is("if") {
            txn.compares.push(self.compare()?);
            while self.is("and") {
                txn.compares.push(self.compare()?);
            }
            if self.is("then") {
                txn.success = self.ops()?;
            }
            if self.is("else") {
                txn.failure = self.ops()?;
            }
        } else {
            txn.success = self.ops()?;
        }
        Ok(txn)
    }

    fn ops(&mut self) -> Read<Vec<Op>> {
        let mut ops = vec![self.op()?];
        while self.is("also") {
            ops.push(self.op()?);
        }
        Ok(ops)
    }

    fn op(&mut self) -> Read<Op> {
        match self.word()?.as_str() {
            "put" => {
                let mut op = PutOp::of(self.word()?, self.word()?);
                op.lease = LeaseId(self.option("lease")?.unwrap_or(0));
                op.prev_kv = self.flag("prev");
                op.ignore_value = self.flag("keep-value");
                op.ignore_lease = self.flag("keep-lease");
                Ok(Op::Put(op))
            }
            "del" => {
                let range = self.range()?;
                Ok(Op::Delete(DeleteOp { range, prev_kv: self.flag("prev") }))
            }
            "get" => Ok(Op::Range(self.get_args()?)),
            "nest" => {
                let txn = self.txn()?;
                if self.is("done") { Ok(Op::Txn(txn)) } else { Err("nest ... done".into()) }
            }
            other => Err(format!("no such operation: {other}").into()),
        }
    }

    pub fn get(&mut self) -> Read<RangeOp> {
        if self.is("get") { self.get_args() } else { Err("get KEY ...".into()) }
    }

    fn get_args(&mut self) -> Read<RangeOp> {
        let mut op = RangeOp::of(self.range()?);
        op.revision = self.option("rev")?.map(Revision);
        op.limit = self.option("limit")?.unwrap_or(0);
        op.min_mod = self.option("min-mod")?.unwrap_or(0);
        op.max_mod = self.option("max-mod")?.unwrap_or(0);
        op.min_create = self.option("min-create")?.unwrap_or(0);
        op.max_create = self.option("max-create")?.unwrap_or(0);
        op.keys_only = self.flag("keys");
        op.count_only = self.flag("count");
        let (descending, after_limit) = (self.flag("desc"), self.flag("after-limit"));
        let by = match self.option::<String>("sort")?.as_deref() {
            None => return Ok(op),
            Some("key") => SortBy::Key,
            Some("version") => SortBy::Version,
            Some("create") => SortBy::Create,
            Some("mod") => SortBy::Mod,
            Some("value") => SortBy::Value,
            Some(other) => return Err(format!("no such order: {other}").into()),
        };
        op.sort = Some(Sort { by, descending, after_limit });
        Ok(op)
    }

    fn compare(&mut self) -> Read<Compare> {
        let target = self.word()?;
        let range = self.range()?;
        let op = match self.word()?.as_str() {
            "eq" => CompareOp::Equal,
            "ne" => CompareOp::NotEqual,
            "gt" => CompareOp::Greater,
            "lt" => CompareOp::Less,
            other => return Err(format!("no such relation: {other}").into()),
        };
        let value = self.word()?;
        let expected = match target.as_str() {
            "version" => Expected::Version(value.parse()?),
            "create" => Expected::Create(value.parse()?),
            "mod" => Expected::Mod(value.parse()?),
            "lease" => Expected::Lease(value.parse()?),
            "value" => Expected::Value(value.into()),
            other => return Err(format!("no such target: {other}").into()),
        };
        Ok(Compare { range, op, expected })
    }
}

fn kv(kv: &KeyValue) -> String {
    let (create, modified, version) = (kv.create_revision.0, kv.mod_revision.0, kv.version);
    let lease = if kv.lease == LeaseId::NONE { String::new() } else { format!(" lease {}", kv.lease.0) };
    format!("{}={} ({create}..{modified} v{version}{lease})", kv.key.escape_ascii(), kv.value.escape_ascii())
}

fn kvs(list: &[KeyValue]) -> String {
    list.iter().map(kv).collect::<Vec<_>>().join(", ")
}

pub(super) fn range_result(result: &RangeResult) -> String {
    let more = if result.more { " and more" } else { "" };
    format!("[{}]{more} of {}", kvs(&result.kvs), result.count)
}

pub(super) fn txn_result(result: &TxnResult) -> String {
    let one = |result: &OpResult| match result {
        OpResult::Range(result) => range_result(result),
        OpResult::Put(result) => {
            result.prev.as_ref().map_or(String::from("put"), |prev| format!("put, was {}", kv(prev)))
        }
        OpResult::Delete(result) if result.prev.is_empty() => format!("deleted {}", result.deleted),
        OpResult::Delete(result) => format!("deleted {}: {}", result.deleted, kvs(&result.prev)),
        OpResult::Txn(result) => format!("<{}>", txn_result(result)),
    };
    let branch = if result.succeeded { "then" } else { "else" };
    let done: Vec<String> = result.results.iter().map(one).collect();
    format!("{branch} {}", if done.is_empty() { String::from("nothing") } else { done.join("; ") })
}

pub(super) fn events(events: &[Event]) -> String {
    let list: Vec<String> = events.iter().map(super::event).collect();
    if list.is_empty() { String::from("nothing") } else { list.join("; ") }
}

//! Minitransactions: compares, then one of two lists of operations, evaluated as one step at apply (Sinfonia, SOSP'07).
//!
//! Nested, because an operation may itself be a minitransaction. A single put or delete is a transaction without compares.

use crate::{KeyRange, LeaseId};
use bytes::Bytes;
use quorate_env::{DecodeError, Reader, Writer};

/// A keyspace's logical time: +1 with each command that changed a key. A fresh keyspace is at revision 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// Of what nobody has changed yet.
    pub const FIRST: Self = Self(1);
}

/// One key as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// Its value; empty when only keys were asked for.
    pub value: Bytes,
    /// The revision at which the key last came into being.
    pub create_revision: Revision,
    /// The revision of the last change.
    pub mod_revision: Revision,
    /// Changes since it came into being, the first counts 1.
    pub version: u64,
    /// The lease that it is attached to, or [`LeaseId::NONE`].
    pub lease: LeaseId,
}

/// How a present attribute must relate to the expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompareOp {
    /// present == expected
    Equal,
    /// present > expected
    Greater,
    /// present < expected
    Less,
    /// present != expected
    NotEqual,
}

/// The attribute that is compared, with what it is compared to. An absent key has all numbers 0 and no value: every
/// comparison of its value fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The key's version.
    Version(i64),
    /// Its creation revision.
    Create(i64),
    /// Its modification revision.
    Mod(i64),
    /// Its value.
    Value(Bytes),
    /// Its lease.
    Lease(i64),
}

/// A condition on every key of a range; a range that holds no key is judged as one absent key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The keys.
    pub range: KeyRange,
    /// The relation.
    pub op: CompareOp,
    /// The attribute and its expected value.
    pub expected: Expected,
}

/// What results are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortBy {
    /// The key's bytes.
    Key,
    /// The version.
    Version,
    /// The creation revision.
    Create,
    /// The modification revision.
    Mod,
    /// The value's bytes.
    Value,
}

/// An order of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    /// The attribute.
    pub by: SortBy,
    /// Largest first.
    pub descending: bool,
    /// Order only what the limit would leave of the rows in key order, and one more; filters have no say in that.
    pub after_limit: bool,
}

/// A read of a range of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeOp {
    /// The keys.
    pub range: KeyRange,
    /// At most this many results; 0 means all. Applied after filters and sort, unless the sort says otherwise.
    pub limit: u64,
    /// As of this revision; `None` is now. There is no revision 0: it reads as now, but is refused once anything was compacted.
    pub revision: Option<Revision>,
    /// `None` is ascending by key.
    pub sort: Option<Sort>,
    /// Leave the values out.
    pub keys_only: bool,
    /// Return the count alone.
    pub count_only: bool,
    /// Only keys last modified at or after; 0 is no bound. These four do not change `count`.
    pub min_mod: u64,
    /// Only keys last modified at or before; 0 is no bound.
    pub max_mod: u64,
    /// Only keys created at or after; 0 is no bound.
    pub min_create: u64,
    /// Only keys created at or before; 0 is no bound.
    pub max_create: u64,
    /// No more once so many bytes of keys and values were found; 0 is no bound. The first is returned whatever its size, and what comes behind the last is
    /// not counted.
    pub bytes_max: u64,
}

impl RangeOp {
    /// A read of everything in `range`, now.
    #[must_use]
    pub fn of(range: KeyRange) -> Self {
        Self {
            range,
            limit: 0,
            revision: None,
            sort: None,
            keys_only: false,
            count_only: false,
            min_mod: 0,
            max_mod: 0,
            min_create: 0,
            max_create: 0,
            bytes_max: 0,
        }
    }
}

/// A write of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutOp {
    /// The key; never empty.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The lease to attach to, or [`LeaseId::NONE`], which detaches.
    pub lease: LeaseId,
    /// Return what was there before.
    pub prev_kv: bool,
    /// Keep the present value; refused when the key is absent.
    pub ignore_value: bool,
    /// Keep the present lease; refused when the key is absent.
    pub ignore_lease: bool,
}

impl PutOp {
    /// A plain write.
    #[must_use]
    pub fn of(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self {
            key: key.into(),
            value: value.into(),
            lease: LeaseId::NONE,
            prev_kv: false,
            ignore_value: false,
            ignore_lease: false,
        }
    }
}

/// A removal of a range of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteOp {
    /// The keys.
    pub range: KeyRange,
    /// Return what was there before.
    pub prev_kv: bool,
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Read.
    Range(RangeOp),
    /// Write.
    Put(PutOp),
    /// Remove.
    Delete(DeleteOp),
    /// Decide and do.
    Txn(Txn),
}

/// Compares, then operations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold for `success` to run.
    pub compares: Vec<Compare>,
    /// Run when they do.
    pub success: Vec<Op>,
    /// Run when one does not.
    pub failure: Vec<Op>,
}

/// The answer to a [`RangeOp`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResult {
    /// The keys found, in the order asked for.
    pub kvs: Vec<KeyValue>,
    /// Whether `limit` cut the list.
    pub more: bool,
    /// Keys in the range, whatever the limit and the filters.
    pub count: u64,
}

/// The answer to a [`PutOp`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutResult {
    /// What was there, if it was asked for and there was something.
    pub prev: Option<KeyValue>,
}

/// The answer to a [`DeleteOp`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteResult {
    /// Keys removed.
    pub deleted: u64,
    /// What was there, if it was asked for.
    pub prev: Vec<KeyValue>,
}

/// The answer to one [`Op`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpResult {
    /// To a read.
    Range(RangeResult),
    /// To a write.
    Put(PutResult),
    /// To a removal.
    Delete(DeleteResult),
    /// To a nested transaction.
    Txn(TxnResult),
}

/// The answer to a [`Txn`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnResult {
    /// Whether the compares held.
    pub succeeded: bool,
    /// One answer for each operation of the branch that ran.
    pub results: Vec<OpResult>,
}

impl Txn {
    /// A transaction of one unconditional operation.
    #[must_use]
    pub fn just(op: Op) -> Self {
        Self { compares: Vec::new(), success: vec![op], failure: Vec::new() }
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        w.varint(self.compares.len() as u64);
        for compare in &self.compares {
            compare.encode(w);
        }
        for branch in [&self.success, &self.failure] {
            w.varint(branch.len() as u64);
            for op in branch {
                op.encode(w);
            }
        }
    }

    pub(crate) fn decode(r: &mut Reader, depth: usize) -> Result<Self, DecodeError> {
        if depth > crate::limits::TXN_DEPTH_MAX {
            return Err(r.error("transaction nested too deep"));
        }
        let mut txn = Self::default();
        for _ in 0..r.count("compares")? {
            txn.compares.push(Compare::decode(r)?);
        }
        for branch in [&mut txn.success, &mut txn.failure] {
            for _ in 0..r.count("operations")? {
                branch.push(Op::decode(r, depth)?);
            }
        }
        Ok(txn)
    }
}

impl Compare {
    /// A cheap upper estimate of the encoded size, in bytes.
    pub(crate) fn size_estimate(&self) -> usize {
        self.range.size_estimate() + 16 + if let Expected::Value(v) = &self.expected { v.len() } else { 0 }
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        self.range.encode(w);
        w.u8(match self.op {
            CompareOp::Equal => 0,
            CompareOp::Greater => 1,
            CompareOp::Less => 2,
            CompareOp::NotEqual => 3,
        });
        match &self.expected {
            Expected::Version(v) => number(w, 0, *v),
            Expected::Create(v) => number(w, 1, *v),
            Expected::Mod(v) => number(w, 2, *v),
            Expected::Lease(v) => number(w, 4, *v),
            Expected::Value(v) => {
                w.u8(3);
                w.bytes(v);
            }
        }
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
        let range = KeyRange::decode(r)?;
        let op = match r.u8("compare operator")? {
            0 => CompareOp::Equal,
            1 => CompareOp::Greater,
            2 => CompareOp::Less,
            3 => CompareOp::NotEqual,
            _ => return Err(r.error("compare operator")),
        };
        let expected = match r.u8("compare target")? {
            0 => Expected::Version(r.zigzag("version")?),
            1 => Expected::Create(r.zigzag("create revision")?),
            2 => Expected::Mod(r.zigzag("mod revision")?),
            3 => Expected::Value(r.bytes("value")?),
            4 => Expected::Lease(r.zigzag("lease")?),
            _ => return Err(r.error("compare target")),
        };
        Ok(Self { range, op, expected })
    }
}

fn number(w: &mut Writer, tag: u8, v: i64) {
    w.u8(tag);
    w.zigzag(v);
}

impl Op {
    fn encode(&self, w: &mut Writer) {
        match self {
            Op::Range(op) => {
                w.u8(0);
                op.encode(w);
            }
            Op::Put(op) => {
                w.u8(1);
                w.u8(u8::from(op.prev_kv) | u8::from(op.ignore_value) << 1 | u8::from(op.ignore_lease) << 2);
                w.bytes(&op.key);
                w.bytes(&op.value);
                w.zigzag(op.lease.0);
            }
            Op::Delete(op) => {
                w.u8(2);
                w.bool(op.prev_kv);
                op.range.encode(w);
            }
            Op::Txn(txn) => {
                w.u8(3);
                txn.encode(w);
            }
        }
    }

    fn decode(r: &mut Reader, depth: usize) -> Result<Self, DecodeError> {
        Ok(match r.u8("operation")? {
            0 => Op::Range(RangeOp::decode(r)?),
            1 => {
                let flags = r.u8("put flags")?;
                if flags > 7 {
                    return Err(r.error("put flags"));
                }
                Op::Put(PutOp {
                    prev_kv: flags & 1 != 0,
                    ignore_value: flags & 2 != 0,
                    ignore_lease: flags & 4 != 0,
                    key: r.bytes("key")?,
                    value: r.bytes("value")?,
                    lease: LeaseId(r.zigzag("lease")?),
                })
            }
            2 => Op::Delete(DeleteOp { prev_kv: r.bool("prev_kv")?, range: KeyRange::decode(r)? }),
            3 => Op::Txn(Txn::decode(r, depth + 1)?),
            _ => return Err(r.error("operation")),
        })
    }
}

impl RangeOp {
    /// Appends the encoding.
    pub fn encode(&self, w: &mut Writer) {
        self.range.encode(w);
        w.varint(self.limit);
        w.varint(self.revision.map_or(0, |r| r.0));
        w.u8(match self.sort {
            None => 0,
            Some(Sort { by, descending, after_limit }) => {
                let by = match by {
                    SortBy::Key => 1,
                    SortBy::Version => 2,
                    SortBy::Create => 3,
                    SortBy::Mod => 4,
                    SortBy::Value => 5,
                };
                by | u8::from(descending) << 4 | u8::from(after_limit) << 5
            }
        });
        // A varint of 0 says that no revision is given, so the revision 0 has a flag.
        let zero = self.revision == Some(Revision(0));
        let bounded = self.bytes_max != 0;
        w.u8(u8::from(self.keys_only) | u8::from(self.count_only) << 1 | u8::from(zero) << 2 | u8::from(bounded) << 3);
        for bound in [self.min_mod, self.max_mod, self.min_create, self.max_create] {
            w.varint(bound);
        }
        if bounded {
            w.varint(self.bytes_max);
        }
    }

    /// Reads one.
    pub fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
        let range = KeyRange::decode(r)?;
        let limit = r.varint("limit")?;
        let revision = Revision(r.varint("revision")?);
        let sort = r.u8("sort")?;
        if sort & 0xC0 != 0 {
            return Err(r.error("sort"));
        }
        let by = match sort & 0x0F {
            0 if sort == 0 => None,
            1 => Some(SortBy::Key),
            2 => Some(SortBy::Version),
            3 => Some(SortBy::Create),
            4 => Some(SortBy::Mod),
            5 => Some(SortBy::Value),
            _ => return Err(r.error("sort")),
        };
        let sort = by.map(|by| Sort { by, descending: sort & 0x10 != 0, after_limit: sort & 0x20 != 0 });
        let flags = r.u8("range flags")?;
        let zero = flags & 4 != 0;
        if flags > 15 || zero && revision.0 != 0 {
            return Err(r.error("range flags"));
        }
        let revision = (zero || revision.0 != 0).then_some(revision);
        Ok(Self {
            range,
            limit,
            revision,
            sort,
            keys_only: flags & 1 != 0,
            count_only: flags & 2 != 0,
            min_mod: r.varint("min mod revision")?,
            max_mod: r.varint("max mod revision")?,
            min_create: r.varint("min create revision")?,
            max_create: r.varint("max create revision")?,
            bytes_max: if flags & 8 != 0 { r.varint("bytes at most")? } else { 0 },
        })
    }
}

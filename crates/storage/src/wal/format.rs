//! The log's bytes, as docs/design/log-format.md draws them; the two change together.
//!
//! ```text
//! segment: header block, then flushes, each a multiple of 4 KiB
//! flush:   header | record record ... | identity identity ... | zeros | tail
//! record:  header | payload | payload checksum
//! ```

use super::{BLOCK, FileName, HardState, LogEntry, LogRecord, WalIdentity};
use bytes::Bytes;
use quorate_env::checksum::checksum;
use quorate_env::{ClusterId, Incarnation, LogIndex, NodeId, ReplicaId, ShardId, Term, Writer};

/// The version of the log's format that this release writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

pub(super) const SEGMENT_MAGIC: u64 = u64::from_le_bytes(*b"QUORWAL\0");
pub(super) const FLUSH_MAGIC: u32 = u32::from_le_bytes(*b"QFLU");
const TAIL_MAGIC: u32 = u32::from_le_bytes(*b"QEND");
const RECORD_MAGIC: u8 = 0xA7;

const SEGMENT_HEADER: usize = 64;
pub(super) const FLUSH_HEADER: usize = 96;
pub(super) const RECORD_HEADER: usize = 64;
const PAYLOAD_CHECKSUM: usize = 8;
const IDENTITY: usize = 40;
pub(super) const TAIL: usize = 40;

const REWRITTEN: u8 = 1;
const DISCARD_AFTER: u8 = 2;

const KIND_ENTRY: u8 = 1;
const KIND_HARD_STATE: u8 = 2;
const KIND_START: u8 = 3;

/// The checksum seed of what lies at `offset` of segment `segment`: bytes of another directory, another segment, an earlier life of
/// this file or another place in it fail their check.
pub(super) fn place(identity: &WalIdentity, segment: u64, offset: usize) -> u64 {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&identity.incarnation.0.to_le_bytes());
    bytes[8..16].copy_from_slice(&segment.to_le_bytes());
    bytes[16..].copy_from_slice(&(offset as u64).to_le_bytes());
    checksum(identity.cluster.0, &bytes)
}

pub(super) fn round_up(bytes: usize) -> usize {
    bytes.div_ceil(BLOCK) * BLOCK
}

/// Bytes that a record adds to a flush.
pub(super) fn record_bytes(payload: usize) -> usize {
    RECORD_HEADER + payload + PAYLOAD_CHECKSUM + IDENTITY
}

/// Bytes of a flush on disk whose records add up to `records` bytes.
pub(super) fn flush_bytes(records: usize) -> usize {
    round_up(FLUSH_HEADER + records + TAIL)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes(b.try_into().unwrap_or_default()))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).map_or(0, |b| u64::from_le_bytes(b.try_into().unwrap_or_default()))
}

// ---------------------------------------------------------------------------------------------------------------- segment

/// What a file says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub version: u32,
    pub identity: WalIdentity,
    pub segment: u64,
}

pub(super) fn encode_segment_header(identity: &WalIdentity, segment: u64, size: u32) -> Bytes {
    let mut w = Writer::appending(Vec::with_capacity(BLOCK));
    w.u64(SEGMENT_MAGIC);
    w.u32(FORMAT_VERSION);
    w.u32(BLOCK as u32);
    w.u64(identity.cluster.0);
    w.u64(identity.node.0);
    w.u64(identity.incarnation.0);
    w.u64(segment);
    w.u64(u64::from(size));
    w.u64(checksum(SEGMENT_MAGIC, w.as_slice()));
    assert_eq!(w.len(), SEGMENT_HEADER);
    let mut block = w.finish();
    block.resize(BLOCK, 0);
    block.into()
}

/// `None` if the block is not a header: a file that was not prepared to the end, or whose header rotted. Flushes identify themselves, so
/// neither does harm.
pub(super) fn decode_segment_header(file: &[u8]) -> Option<SegmentHeader> {
    let header = file.get(..SEGMENT_HEADER)?;
    if u64_at(header, 0) != SEGMENT_MAGIC || u64_at(header, 56) != checksum(SEGMENT_MAGIC, &header[..56]) {
        return None;
    }
    Some(SegmentHeader {
        version: u32_at(header, 8),
        identity: WalIdentity {
            cluster: ClusterId(u64_at(header, 16)),
            node: NodeId(u64_at(header, 24)),
            incarnation: Incarnation(u64_at(header, 32)),
        },
        segment: u64_at(header, 40),
    })
}

// ------------------------------------------------------------------------------------------------------------------ flush

/// The head of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlushHeader {
    pub segment: u64,
    /// +1 per flush, over all segments.
    pub seq: u64,
    /// The last flush that was durable before this one was written.
    pub watermark: u64,
    /// The lowest segment that is needed once this flush is durable.
    pub oldest: u64,
    /// The checksum of the previous flush's header.
    pub previous: u64,
    /// Records and identities, in bytes.
    pub body: u32,
    pub records: u32,
    pub body_checksum: u64,
    pub parity: Parity,
    /// This header's own checksum.
    pub checksum: u64,
}

impl FlushHeader {
    pub fn disk_bytes(&self) -> usize {
        round_up(FLUSH_HEADER + self.body as usize + TAIL)
    }

    /// Where the identities begin, counted from the start of the body.
    pub fn identities_at(&self) -> usize {
        (self.body as usize).saturating_sub(self.records as usize * IDENTITY)
    }

    pub fn encode(&self, w: &mut Writer, seed: u64) -> u64 {
        let start = w.len();
        w.u32(FLUSH_MAGIC);
        w.u32(FORMAT_VERSION);
        w.u64(self.segment);
        w.u64(self.seq);
        w.u64(self.watermark);
        w.u64(self.oldest);
        w.u64(self.previous);
        w.u32(self.body);
        w.u32(self.records);
        w.u64(self.body_checksum);
        w.u64(self.parity.columns);
        w.u64(self.parity.words);
        w.u64(0);
        let sum = checksum(seed, &w.as_slice()[start..]);
        w.u64(sum);
        assert_eq!(w.len() - start, FLUSH_HEADER);
        sum
    }

    /// Reads the header at `offset` of a segment, if a flush of this segment's present life begins there and fits.
    pub fn decode(identity: &WalIdentity, file: FileName, bytes: &[u8], offset: usize) -> Option<Self> {
        let header = bytes.get(offset..offset + FLUSH_HEADER)?;
        if u32_at(header, 0) != FLUSH_MAGIC || u64_at(header, 8) != file.0 {
            return None;
        }
        let checksum_at = FLUSH_HEADER - 8;
        if u64_at(header, checksum_at) != checksum(place(identity, file.0, offset), &header[..checksum_at]) {
            return None;
        }
        Self::decoded(header, file).filter(|header| offset + header.disk_bytes() <= bytes.len())
    }

    /// The fields of a header whose checksum was verified.
    fn decoded(header: &[u8], file: FileName) -> Option<Self> {
        let checksum_at = FLUSH_HEADER - 8;
        Some(Self {
            segment: file.0,
            seq: u64_at(header, 16),
            watermark: u64_at(header, 24),
            oldest: u64_at(header, 32),
            previous: u64_at(header, 40),
            body: u32_at(header, 48),
            records: u32_at(header, 52),
            body_checksum: u64_at(header, 56),
            parity: Parity { columns: u64_at(header, 64), words: u64_at(header, 72) },
            checksum: u64_at(header, checksum_at),
        })
    }

    /// The header at `offset` as it was before one of its bits flipped, if that explains what is there. The sector was then written as a
    /// whole and changed later, which no crash does.
    pub fn mended(identity: &WalIdentity, file: FileName, bytes: &[u8], offset: usize) -> Option<Self> {
        let header = bytes.get(offset..offset + FLUSH_HEADER)?;
        let expected = (u64::from(FORMAT_VERSION) << 32) | u64::from(FLUSH_MAGIC);
        let wrong = (u64_at(header, 0) ^ expected).count_ones() + (u64_at(header, 8) ^ file.0).count_ones();
        if wrong > 1 {
            return None;
        }
        let seed = place(identity, file.0, offset);
        let mut copy = header.to_vec();
        let flipped = (0..FLUSH_HEADER * 8).find(|bit| {
            copy[bit / 8] ^= 1 << (bit % 8);
            let whole = u64_at(&copy, FLUSH_HEADER - 8) == checksum(seed, &copy[..FLUSH_HEADER - 8]);
            copy[bit / 8] ^= 1 << (bit % 8);
            whole
        })?;
        copy[flipped / 8] ^= 1 << (flipped % 8);
        Self::decoded(&copy, file).filter(|header| offset + header.disk_bytes() <= bytes.len())
    }

    pub fn body<'a>(&self, bytes: &'a [u8], offset: usize) -> &'a [u8] {
        &bytes[offset + FLUSH_HEADER..offset + FLUSH_HEADER + self.body as usize]
    }

    pub fn body_is_whole(&self, identity: &WalIdentity, bytes: &[u8], offset: usize) -> bool {
        let seed = place(identity, self.segment, offset + FLUSH_HEADER);
        self.body_checksum == checksum(seed, self.body(bytes, offset))
    }

    /// The segment as it was before one bit of this flush's body flipped, if that explains why the body does not match its checksum.
    pub fn with_mended_body(&self, identity: &WalIdentity, bytes: &[u8], offset: usize) -> Option<Bytes> {
        let body = self.body(bytes, offset);
        let now = Parity::of(body);
        let (columns, word) = (now.columns ^ self.parity.columns, now.words ^ self.parity.words);
        if columns.count_ones() != 1 || word == 0 {
            return None;
        }
        let bit = columns.trailing_zeros() as usize;
        let at = (word as usize - 1).checked_mul(8)?.checked_add(bit / 8)?;
        if at >= body.len() {
            return None;
        }
        let mut mended = bytes.to_vec();
        mended[offset + FLUSH_HEADER + at] ^= 1 << (bit % 8);
        self.body_is_whole(identity, &mended, offset).then(|| mended.into())
    }
}

/// Finds one flipped bit: the XOR of all 64-bit words says which column changed, the XOR of the numbers of all words with an odd
/// number of ones says which word. A sector that a crash left unwritten differs in far more than a bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Parity {
    columns: u64,
    words: u64,
}

impl Parity {
    fn of(bytes: &[u8]) -> Self {
        let mut parity = Self::default();
        let (words, rest) = bytes.as_chunks::<8>();
        for (number, word) in (1u64..).zip(words) {
            parity.add(number, u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        parity.add(words.len() as u64 + 1, u64::from_le_bytes(last));
        parity
    }

    fn add(&mut self, number: u64, word: u64) {
        self.columns ^= word;
        self.words ^= number * u64::from(word.count_ones() & 1);
    }
}

// ---------------------------------------------------------------------------------------------------------------- records

/// The state that links a flush to what was written before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    /// The sequence number of the next flush.
    pub next_flush: u64,
    /// The checksum of the last flush's header.
    pub flush: u64,
    /// The hash of the last record.
    pub record: u64,
}

/// Encodes one flush for `offset` of `segment` and moves the chain on.
pub(super) fn encode_flush(
    identity: &WalIdentity,
    segment: u64,
    offset: usize,
    oldest: u64,
    chain: &mut Chain,
    records: &[(&LogRecord, bool)],
) -> Bytes {
    let body: usize = records.iter().map(|(record, _)| record_bytes(record.payload_len())).sum();
    let total = flush_bytes(body);
    let mut w = Writer::appending(Vec::with_capacity(total));
    w.raw(&[0; FLUSH_HEADER]);
    let mut identities = Writer::appending(Vec::with_capacity(records.len() * IDENTITY));
    for (record, rewritten) in records {
        encode_record(identity, segment, offset, *rewritten, record, &mut chain.record, &mut w, &mut identities);
    }
    w.raw(identities.as_slice());
    assert_eq!(w.len(), FLUSH_HEADER + body, "a flush must be as long as it was planned");

    let mut header = FlushHeader {
        segment,
        seq: chain.next_flush,
        watermark: chain.next_flush - 1,
        oldest,
        previous: chain.flush,
        body: body as u32,
        records: records.len() as u32,
        body_checksum: checksum(place(identity, segment, offset + FLUSH_HEADER), &w.as_slice()[FLUSH_HEADER..]),
        parity: Parity::of(&w.as_slice()[FLUSH_HEADER..]),
        checksum: 0,
    };
    let mut head = Writer::new();
    header.checksum = header.encode(&mut head, place(identity, segment, offset));
    let mut buf = w.finish();
    buf[..FLUSH_HEADER].copy_from_slice(head.as_slice());
    buf.resize(total - TAIL, 0);
    let mut w = Writer::appending(buf);
    w.u32(TAIL_MAGIC);
    w.u32(header.records);
    w.u32((offset + FLUSH_HEADER + header.identities_at()) as u32);
    w.u32(0);
    w.u64(header.seq);
    w.u64(checksum(header.seq, identities.as_slice()));
    let tail_at = w.len() - (TAIL - 8);
    w.u64(checksum(place(identity, segment, offset + tail_at), &w.as_slice()[tail_at..]));
    assert_eq!(w.len(), total);

    chain.next_flush += 1;
    chain.flush = header.checksum;
    w.finish().into()
}

impl LogRecord {
    pub(super) fn payload_len(&self) -> usize {
        match self {
            Self::Entry(entry) | Self::Repair(entry) => entry.payload.len(),
            Self::HardState(_) => 16,
            Self::Start { .. } => 0,
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the parts of one flush, used in one place")]
fn encode_record(
    identity: &WalIdentity,
    segment: u64,
    flush_offset: usize,
    rewritten: bool,
    record: &LogRecord,
    previous: &mut u64,
    w: &mut Writer,
    identities: &mut Writer,
) {
    let mut hard_state = [0; 16];
    let mut flags = if rewritten { REWRITTEN } else { 0 };
    let (kind, entry_kind, shard, term, index, payload) = match record {
        LogRecord::Entry(e) | LogRecord::Repair(e) => (KIND_ENTRY, e.kind, e.shard, e.term, e.index, &e.payload[..]),
        LogRecord::HardState(h) => {
            hard_state[..8].copy_from_slice(&h.replica.0.to_le_bytes());
            hard_state[8..].copy_from_slice(&h.vote.0.to_le_bytes());
            (KIND_HARD_STATE, 0, h.shard, h.term, h.commit, &hard_state[..])
        }
        LogRecord::Start { shard, index, term, discard_after } => {
            flags |= if *discard_after { DISCARD_AFTER } else { 0 };
            (KIND_START, 0, *shard, *term, *index, &[][..])
        }
    };
    let seed = place(identity, segment, flush_offset + w.len());
    let name = RecordName {
        shard,
        index,
        term,
        checksum: checksum(seed, payload),
        kind,
        entry_kind,
        flags,
        bytes: payload.len() as u32,
    };
    let head = name.header(identity, seed, *previous);
    w.raw(&head);
    w.raw(payload);
    w.u64(name.checksum);
    name.encode(identities);
    *previous = name.hash(&head);
}

/// All that a record says of itself except its payload: what its header holds, and the second copy of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordName {
    pub shard: ShardId,
    pub index: LogIndex,
    pub term: Term,
    /// Of the payload, seeded with the record's place.
    pub checksum: u64,
    kind: u8,
    pub entry_kind: u8,
    flags: u8,
    /// Of the payload.
    pub bytes: u32,
}

impl RecordName {
    /// The record's header, seeded with its place.
    pub fn header(&self, identity: &WalIdentity, seed: u64, previous: u64) -> [u8; RECORD_HEADER] {
        let mut w = Writer::new();
        for byte in [RECORD_MAGIC, self.kind, self.entry_kind, self.flags] {
            w.u8(byte);
        }
        w.u32(self.bytes);
        for number in [identity.cluster.0, self.shard.0, identity.incarnation.0, self.term.0, self.index.0, previous] {
            w.u64(number);
        }
        let sum = checksum(seed, w.as_slice());
        w.u64(sum);
        let mut header = [0; RECORD_HEADER];
        header.copy_from_slice(w.as_slice());
        header
    }

    /// What the next record in the log names this one by.
    pub fn hash(&self, header: &[u8]) -> u64 {
        checksum(u64_at(header, RECORD_HEADER - 8), &self.checksum.to_le_bytes())
    }

    /// Reads the header of a record and the payload checksum behind the payload; with it comes what the header names the previous record by.
    pub fn of_header(bytes: &[u8], at: usize, end: usize, seed: u64) -> Option<(Self, u64)> {
        let head = bytes.get(at..(at + RECORD_HEADER).min(end)).filter(|head| head.len() == RECORD_HEADER)?;
        if head[0] != RECORD_MAGIC || u64_at(head, RECORD_HEADER - 8) != checksum(seed, &head[..RECORD_HEADER - 8]) {
            return None;
        }
        let name = Self {
            shard: ShardId(u64_at(head, 16)),
            index: LogIndex(u64_at(head, 40)),
            term: Term(u64_at(head, 32)),
            checksum: u64_at(bytes, at + RECORD_HEADER + u32_at(head, 4) as usize),
            kind: head[1],
            entry_kind: head[2],
            flags: head[3],
            bytes: u32_at(head, 4),
        };
        (at + name.disk_bytes() <= end).then_some((name, u64_at(head, 48)))
    }

    fn encode(&self, w: &mut Writer) {
        for number in [self.shard.0, self.index.0, self.term.0, self.checksum] {
            w.u64(number);
        }
        for byte in [self.kind, self.entry_kind, self.flags, 0] {
            w.u8(byte);
        }
        w.u32(self.bytes);
    }

    fn decode(copy: &[u8]) -> Self {
        Self {
            shard: ShardId(u64_at(copy, 0)),
            index: LogIndex(u64_at(copy, 8)),
            term: Term(u64_at(copy, 16)),
            checksum: u64_at(copy, 24),
            kind: copy[32],
            entry_kind: copy[33],
            flags: copy[34],
            bytes: u32_at(copy, 36),
        }
    }

    /// Bytes of the record among the records of its flush.
    pub fn disk_bytes(&self) -> usize {
        RECORD_HEADER + self.bytes as usize + PAYLOAD_CHECKSUM
    }

    pub fn is_hard_state(&self) -> bool {
        self.kind == KIND_HARD_STATE
    }

    pub fn is_rewritten(&self) -> bool {
        self.flags & REWRITTEN != 0
    }

    /// The record of that payload. `None`: no record of ours looks like this.
    pub fn record(&self, payload: Bytes) -> Option<LogRecord> {
        let Self { shard, index, term, .. } = *self;
        match self.kind {
            KIND_ENTRY => Some(LogRecord::Entry(LogEntry { shard, index, term, kind: self.entry_kind, payload })),
            KIND_HARD_STATE if payload.len() == 16 => Some(LogRecord::HardState(HardState {
                shard,
                replica: ReplicaId(u64_at(&payload, 0)),
                term,
                vote: ReplicaId(u64_at(&payload, 8)),
                commit: index,
            })),
            KIND_START => Some(LogRecord::Start { shard, index, term, discard_after: self.flags & DISCARD_AFTER != 0 }),
            _ => None,
        }
    }
}

/// A record as it was read.
pub(super) struct DecodedRecord {
    pub record: LogRecord,
    pub rewritten: bool,
    pub previous: u64,
    pub hash: u64,
}

/// Reads the records of a flush whose body matches its checksum. Payloads are slices of `bytes`. On failure says where.
pub(super) fn decode_records(
    identity: &WalIdentity,
    header: &FlushHeader,
    bytes: &Bytes,
    offset: usize,
) -> Result<Vec<DecodedRecord>, usize> {
    let mut records = Vec::new();
    let mut at = offset + FLUSH_HEADER;
    let end = at + header.identities_at();
    for _ in 0..header.records {
        let seed = place(identity, header.segment, at);
        let (name, previous) = RecordName::of_header(bytes, at, end, seed).ok_or(at)?;
        let payload = bytes.slice(at + RECORD_HEADER..at + RECORD_HEADER + name.bytes as usize);
        if name.checksum != checksum(seed, &payload) {
            return Err(at);
        }
        records.push(DecodedRecord {
            record: name.record(payload).ok_or(at)?,
            rewritten: name.is_rewritten(),
            previous,
            hash: name.hash(&bytes[at..at + RECORD_HEADER]),
        });
        at += name.disk_bytes();
    }
    Ok(records)
}

/// What the end of a flush says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    pub seq: u64,
    pub records: u32,
    /// Where the identities begin, from the start of the file.
    identities_at: usize,
    identities_checksum: u64,
}

impl Tail {
    /// Reads the tail of the flush that ends at `end`.
    pub fn decode(identity: &WalIdentity, segment: u64, bytes: &[u8], end: usize) -> Option<Self> {
        let at = end.checked_sub(TAIL)?;
        let tail = bytes.get(at..end)?;
        let sum = checksum(place(identity, segment, at), &tail[..TAIL - 8]);
        (u32_at(tail, 0) == TAIL_MAGIC && u64_at(tail, TAIL - 8) == sum).then(|| Self {
            seq: u64_at(tail, 16),
            records: u32_at(tail, 4),
            identities_at: u32_at(tail, 8) as usize,
            identities_checksum: u64_at(tail, 24),
        })
    }

    /// Whether one flipped bit explains that no tail ends at `end`. A tail that is missing altogether is no sign of rot: a crash may have
    /// kept all of a flush but that.
    pub fn is_one_bit_away(identity: &WalIdentity, segment: u64, bytes: &[u8], end: usize) -> bool {
        let Some(tail) = end.checked_sub(TAIL).and_then(|at| bytes.get(at..end)) else { return false };
        let seed = place(identity, segment, end - TAIL);
        let mut copy = tail.to_vec();
        (0..TAIL * 8).any(|bit| {
            copy[bit / 8] ^= 1 << (bit % 8);
            let whole = u32_at(&copy, 0) == TAIL_MAGIC && u64_at(&copy, TAIL - 8) == checksum(seed, &copy[..TAIL - 8]);
            copy[bit / 8] ^= 1 << (bit % 8);
            whole
        })
    }

    /// The second copy of what the records of the flush say of themselves.
    pub fn names(&self, bytes: &[u8]) -> Option<Vec<RecordName>> {
        let end = self.identities_at.checked_add((self.records as usize).checked_mul(IDENTITY)?)?;
        let identities = bytes.get(self.identities_at..end)?;
        let whole = self.identities_checksum == checksum(self.seq, identities);
        whole.then(|| identities.chunks_exact(IDENTITY).map(RecordName::decode).collect())
    }

    /// The header that the flush at `offset` must have had, as far as its tail and its records' names tell; `None` if they are not of
    /// a flush that begins there.
    pub fn header(&self, segment: u64, offset: usize, end: usize, names: &[RecordName]) -> Option<FlushHeader> {
        let records: usize = names.iter().map(RecordName::disk_bytes).sum();
        let header = FlushHeader {
            segment,
            seq: self.seq,
            watermark: self.seq.saturating_sub(1),
            oldest: 0,
            previous: 0,
            body: (records + names.len() * IDENTITY) as u32,
            records: self.records,
            body_checksum: 0,
            parity: Parity::default(),
            checksum: 0,
        };
        let begins_here = self.identities_at == offset + FLUSH_HEADER + records;
        (begins_here && offset + header.disk_bytes() == end).then_some(header)
    }
}

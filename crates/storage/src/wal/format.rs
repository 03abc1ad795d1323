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
const IDENTITY: usize = 32;
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
    fn identities_at(&self) -> usize {
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
        let decoded = Self {
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
        };
        (offset + decoded.disk_bytes() <= bytes.len()).then_some(decoded)
    }

    /// Whether one flipped bit turned the header of flush `seq` into what is at `offset`: then the sector was written as a whole and
    /// changed later, which no crash does.
    pub fn is_one_bit_away(identity: &WalIdentity, file: FileName, bytes: &[u8], offset: usize, seq: u64) -> bool {
        let Some(header) = bytes.get(offset..offset + FLUSH_HEADER) else { return false };
        let expected = (u64::from(FORMAT_VERSION) << 32) | u64::from(FLUSH_MAGIC);
        let wrong = (u64_at(header, 0) ^ expected).count_ones() + (u64_at(header, 8) ^ file.0).count_ones();
        if wrong > 1 {
            return false;
        }
        let mut copy = [0; FLUSH_HEADER];
        copy.copy_from_slice(header);
        let seed = place(identity, file.0, offset);
        (0..FLUSH_HEADER * 8).any(|bit| {
            copy[bit / 8] ^= 1 << (bit % 8);
            let whole = u64_at(&copy, FLUSH_HEADER - 8) == checksum(seed, &copy[..FLUSH_HEADER - 8]);
            let hit = whole && u64_at(&copy, 16) == seq;
            copy[bit / 8] ^= 1 << (bit % 8);
            hit
        })
    }

    pub fn body<'a>(&self, bytes: &'a [u8], offset: usize) -> &'a [u8] {
        &bytes[offset + FLUSH_HEADER..offset + FLUSH_HEADER + self.body as usize]
    }

    pub fn body_is_whole(&self, identity: &WalIdentity, bytes: &[u8], offset: usize) -> bool {
        let seed = place(identity, self.segment, offset + FLUSH_HEADER);
        self.body_checksum == checksum(seed, self.body(bytes, offset))
    }

    /// Whether one flipped bit explains a body that does not match its checksum.
    pub fn body_is_one_bit_away(&self, identity: &WalIdentity, bytes: &[u8], offset: usize) -> bool {
        let body = self.body(bytes, offset);
        let now = Parity::of(body);
        let (columns, word) = (now.columns ^ self.parity.columns, now.words ^ self.parity.words);
        if columns.count_ones() != 1 || word == 0 {
            return false;
        }
        let bit = columns.trailing_zeros() as usize;
        let Some(at) = (word as usize - 1).checked_mul(8).and_then(|at| at.checked_add(bit / 8)) else { return false };
        if at >= body.len() {
            return false;
        }
        let mut mended = body.to_vec();
        mended[at] ^= 1 << (bit % 8);
        self.body_checksum == checksum(place(identity, self.segment, offset + FLUSH_HEADER), &mended)
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
            Self::Entry(entry) => entry.payload.len(),
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
        LogRecord::Entry(e) => (KIND_ENTRY, e.kind, e.shard, e.term, e.index, &e.payload[..]),
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
    let at = w.len();
    let seed = place(identity, segment, flush_offset + at);
    for byte in [RECORD_MAGIC, kind, entry_kind, flags] {
        w.u8(byte);
    }
    w.u32(payload.len() as u32);
    w.u64(identity.cluster.0);
    w.u64(shard.0);
    w.u64(identity.incarnation.0);
    w.u64(term.0);
    w.u64(index.0);
    w.u64(*previous);
    let header_sum = checksum(seed, &w.as_slice()[at..]);
    w.u64(header_sum);
    w.raw(payload);
    let payload_sum = checksum(seed, payload);
    w.u64(payload_sum);
    for number in [shard.0, index.0, term.0, payload_sum] {
        identities.u64(number);
    }
    *previous = checksum(header_sum, &payload_sum.to_le_bytes());
}

/// A record as it was read.
pub(super) struct DecodedRecord {
    pub record: LogRecord,
    pub rewritten: bool,
    pub previous: u64,
    pub hash: u64,
}

/// The first record that cannot be read, and who it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadRecord {
    pub offset: usize,
    pub identity: Option<(ShardId, LogIndex)>,
}

/// Reads the records of a flush. Payloads are slices of `bytes`.
pub(super) fn decode_records(
    identity: &WalIdentity,
    header: &FlushHeader,
    bytes: &Bytes,
    offset: usize,
) -> Result<Vec<DecodedRecord>, BadRecord> {
    let mut records = Vec::new();
    let mut at = offset + FLUSH_HEADER;
    let end = at + header.identities_at();
    for number in 0..header.records as usize {
        let seed = place(identity, header.segment, at);
        let second_copy = || {
            let tail_end = offset + header.disk_bytes();
            BadRecord { offset: at, identity: identity_copy(identity, header.segment, bytes, tail_end, number) }
        };
        if at + RECORD_HEADER > end {
            return Err(second_copy());
        }
        let head = &bytes[at..at + RECORD_HEADER];
        let header_sum = u64_at(head, RECORD_HEADER - 8);
        if head[0] != RECORD_MAGIC || header_sum != checksum(seed, &head[..RECORD_HEADER - 8]) {
            return Err(second_copy());
        }
        let (kind, entry_kind, flags, len) = (head[1], head[2], head[3], u32_at(head, 4) as usize);
        let (shard, term, index) = (ShardId(u64_at(head, 16)), Term(u64_at(head, 32)), LogIndex(u64_at(head, 40)));
        let bad = BadRecord { offset: at, identity: Some((shard, index)) };
        let payload_at = at + RECORD_HEADER;
        if len > end - payload_at || payload_at + len + PAYLOAD_CHECKSUM > end {
            return Err(bad);
        }
        let payload = bytes.slice(payload_at..payload_at + len);
        let payload_sum = u64_at(bytes, payload_at + len);
        if payload_sum != checksum(seed, &payload) {
            return Err(bad);
        }
        let record = match kind {
            KIND_ENTRY => LogRecord::Entry(LogEntry { shard, index, term, kind: entry_kind, payload }),
            KIND_HARD_STATE if len == 16 => LogRecord::HardState(HardState {
                shard,
                replica: ReplicaId(u64_at(&payload, 0)),
                term,
                vote: ReplicaId(u64_at(&payload, 8)),
                commit: index,
            }),
            KIND_START => LogRecord::Start { shard, index, term, discard_after: flags & DISCARD_AFTER != 0 },
            _ => return Err(bad),
        };
        records.push(DecodedRecord {
            record,
            rewritten: flags & REWRITTEN != 0,
            previous: u64_at(head, 48),
            hash: checksum(header_sum, &payload_sum.to_le_bytes()),
        });
        at = payload_at + len + PAYLOAD_CHECKSUM;
    }
    Ok(records)
}

/// The second copy of the identity of record `number` in the flush that ends at `tail_end`.
pub(super) fn identity_copy(
    identity: &WalIdentity,
    segment: u64,
    bytes: &[u8],
    tail_end: usize,
    number: usize,
) -> Option<(ShardId, LogIndex)> {
    let tail_at = tail_end.checked_sub(TAIL)?;
    let tail = bytes.get(tail_at..tail_end)?;
    if u32_at(tail, 0) != TAIL_MAGIC
        || u64_at(tail, TAIL - 8) != checksum(place(identity, segment, tail_at), &tail[..TAIL - 8])
    {
        return None;
    }
    let (count, from) = (u32_at(tail, 4) as usize, u32_at(tail, 8) as usize);
    let identities = bytes.get(from..from.checked_add(count.checked_mul(IDENTITY)?)?)?;
    if u64_at(tail, 24) != checksum(u64_at(tail, 16), identities) {
        return None;
    }
    let copy = identities.get(number * IDENTITY..(number + 1) * IDENTITY)?;
    Some((ShardId(u64_at(copy, 0)), LogIndex(u64_at(copy, 8))))
}

//! Bytes in, bytes out: the one way in which Quorate's own formats are written.
//!
//! Fixed-width integers are little-endian; `varint` is LEB128; byte strings carry a varint length. A [`Reader`] works over
//! shared [`Bytes`], so that a value inside a frame is a slice of that frame and is never copied. Nothing in here panics or
//! allocates more than the input's own length on hostile input.

use bytes::Bytes;
use std::fmt;

/// What was wrong with the bytes. Decoding either succeeds in full or says where it stopped making sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// What was being read.
    pub what: &'static str,
    /// Byte offset at which it failed.
    pub at: usize,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed {} at byte {}", self.what, self.at)
    }
}

impl std::error::Error for DecodeError {}

/// Appends encoded values to a buffer.
#[derive(Debug, Default)]
pub struct Writer {
    buf: Vec<u8>,
}

impl Writer {
    /// An empty writer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A writer that reuses `buf`, appending after what it holds.
    #[must_use]
    pub fn appending(buf: Vec<u8>) -> Self {
        Self { buf }
    }

    /// One byte.
    pub fn u8(&mut self, v: u8) {
        self.buf.push(v);
    }

    /// Two bytes.
    pub fn u16(&mut self, v: u16) {
        self.buf.extend_from_slice(&v.to_le_bytes());
    }

    /// Four bytes.
    pub fn u32(&mut self, v: u32) {
        self.buf.extend_from_slice(&v.to_le_bytes());
    }

    /// Eight bytes.
    pub fn u64(&mut self, v: u64) {
        self.buf.extend_from_slice(&v.to_le_bytes());
    }

    /// One to ten bytes.
    pub fn varint(&mut self, mut v: u64) {
        while v >= 0x80 {
            self.buf.push((v as u8) | 0x80);
            v >>= 7;
        }
        self.buf.push(v as u8);
    }

    /// A signed number, zigzag-coded so that small magnitudes stay short.
    pub fn zigzag(&mut self, v: i64) {
        self.varint(((v << 1) ^ (v >> 63)) as u64);
    }

    /// A byte string with its length.
    pub fn bytes(&mut self, v: &[u8]) {
        self.varint(v.len() as u64);
        self.buf.extend_from_slice(v);
    }

    /// Bytes without a length; the reader must know how many.
    pub fn raw(&mut self, v: &[u8]) {
        self.buf.extend_from_slice(v);
    }

    /// A flag.
    pub fn bool(&mut self, v: bool) {
        self.buf.push(u8::from(v));
    }

    /// Bytes written so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buf.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    /// What was written.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.buf
    }

    /// Replaces four bytes at `at`, for lengths that are known only afterwards.
    pub fn patch_u32(&mut self, at: usize, v: u32) {
        self.buf[at..at + 4].copy_from_slice(&v.to_le_bytes());
    }

    /// The buffer itself.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.buf
    }
}

/// Takes encoded values off the front of a shared buffer.
#[derive(Clone, Debug)]
pub struct Reader {
    buf: Bytes,
    at: usize,
}

impl Reader {
    /// A reader at the start of `buf`.
    #[must_use]
    pub fn new(buf: Bytes) -> Self {
        Self { buf, at: 0 }
    }

    /// The error for `what` at the present position.
    #[must_use]
    pub fn error(&self, what: &'static str) -> DecodeError {
        DecodeError { what, at: self.at }
    }

    /// Bytes not yet read.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.buf.len() - self.at
    }

    /// Whether everything was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    /// Fails unless everything was read.
    pub fn end(&self, what: &'static str) -> Result<(), DecodeError> {
        if self.is_empty() { Ok(()) } else { Err(self.error(what)) }
    }

    fn fixed<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let end = self.at.checked_add(N).filter(|end| *end <= self.buf.len()).ok_or_else(|| self.error(what))?;
        let mut out = [0; N];
        out.copy_from_slice(&self.buf[self.at..end]);
        self.at = end;
        Ok(out)
    }

    /// One byte.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        Ok(self.fixed::<1>(what)?[0])
    }

    /// Two bytes.
    pub fn u16(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.fixed(what)?))
    }

    /// Four bytes.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.fixed(what)?))
    }

    /// Eight bytes.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.fixed(what)?))
    }

    /// LEB128, at most ten bytes.
    pub fn varint(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(what)?;
            let bits = u64::from(byte & 0x7F);
            if shift == 63 && bits > 1 {
                return Err(self.error(what));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.error(what))
    }

    /// A zigzag-coded signed number.
    pub fn zigzag(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        let v = self.varint(what)?;
        Ok(((v >> 1) as i64) ^ -((v & 1) as i64))
    }

    /// A byte string with its length, as a slice of the shared buffer.
    pub fn bytes(&mut self, what: &'static str) -> Result<Bytes, DecodeError> {
        let len = self.varint(what)?;
        let len = usize::try_from(len).map_err(|_| self.error(what))?;
        self.raw(len, what)
    }

    /// Exactly `len` bytes, as a slice of the shared buffer.
    pub fn raw(&mut self, len: usize, what: &'static str) -> Result<Bytes, DecodeError> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.buf.len()).ok_or_else(|| self.error(what))?;
        let out = self.buf.slice(self.at..end);
        self.at = end;
        Ok(out)
    }

    /// A flag; anything but 0 and 1 is malformed.
    pub fn bool(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.error(what)),
        }
    }

    /// A count of things that follow, each at least one byte long, so a hostile count cannot make us reserve memory.
    pub fn count(&mut self, what: &'static str) -> Result<usize, DecodeError> {
        let n = self.varint(what)?;
        if n > self.remaining() as u64 {
            return Err(self.error(what));
        }
        Ok(n as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;

    #[test]
    fn what_is_written_is_read_back() {
        let mut rng = Rng::new(3);
        for _ in 0..200 {
            let (a, b, c) = (rng.next_u64() >> rng.below(64), rng.next_u64() as i64, rng.chance(500));
            let text: Vec<u8> = (0..rng.below(40)).map(|_| rng.next_u64() as u8).collect();
            let mut w = Writer::new();
            w.varint(a);
            w.zigzag(b);
            w.bool(c);
            w.bytes(&text);
            w.u32(7);
            let mut r = Reader::new(Bytes::from(w.finish()));
            assert_eq!(r.varint("a"), Ok(a));
            assert_eq!(r.zigzag("b"), Ok(b));
            assert_eq!(r.bool("c"), Ok(c));
            assert_eq!(r.bytes("text").as_deref(), Ok(&text[..]));
            assert_eq!(r.u32("seven"), Ok(7));
            assert_eq!(r.end("end"), Ok(()));
        }
    }

    #[test]
    fn hostile_bytes_are_refused_without_reserving_memory() {
        let huge_length = Bytes::from_static(&[0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 1, 2]);
        assert!(Reader::new(huge_length.clone()).bytes("value").is_err());
        assert!(Reader::new(huge_length).count("items").is_err());
        assert!(Reader::new(Bytes::from_static(&[0xFF; 11])).varint("number").is_err());
        assert!(Reader::new(Bytes::from_static(&[2])).bool("flag").is_err());
        assert_eq!(Reader::new(Bytes::new()).u64("id"), Err(DecodeError { what: "id", at: 0 }));
    }
}

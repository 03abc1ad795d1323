//! Percent-encoding, by which an address says any bytes: a key that is not text needs no other form there.

use bytes::Bytes;
use std::fmt::Write;

/// Writes bytes so that they are one part of a path, or one value behind a `?`.
#[must_use]
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(*byte)),
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

/// Reads a part of a path.
pub(crate) fn decode(text: &str) -> Result<Bytes, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = behind;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let digit = |at: usize| behind.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(0), digit(1)) else {
            return Err(format!("{text:?}: % is followed by two hexadecimal digits; a % of its own is %25"));
        };
        out.push((high << 4 | low) as u8);
        rest = &behind[2..];
    }
    Ok(out.into())
}

/// Reads a value behind a `?`, where a `+` is a space.
pub(crate) fn decode_value(text: &str) -> Result<Bytes, String> {
    decode(&text.replace('+', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_survive() {
        let all: Vec<u8> = (0..=255).collect();
        for bytes in [&all[..], b"", b"a/b c", "ä%+".as_bytes()] {
            assert_eq!(decode(&encode(bytes)).as_deref(), Ok(bytes));
            assert_eq!(decode_value(&encode(bytes)).as_deref(), Ok(bytes));
        }
        assert_eq!(decode("a+b/c").as_deref(), Ok(&b"a+b/c"[..]));
        assert_eq!(decode_value("a+b").as_deref(), Ok(&b"a b"[..]));
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        for broken in ["%", "%2", "a%zz", "%-1", "%ä"] {
            assert!(decode(broken).is_err(), "{broken}");
        }
    }
}

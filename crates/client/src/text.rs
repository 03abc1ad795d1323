//! Bytes as JSON says them, and as an address does.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes: in JSON as text where they are text, and else in base64.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(pub Bytes);

impl<T: AsRef<[u8]> + ?Sized> From<&T> for Text {
    fn from(bytes: &T) -> Self {
        Self(Bytes::copy_from_slice(bytes.as_ref()))
    }
}

/// How they are said.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Said<'a> {
    Plain(std::borrow::Cow<'a, str>),
    Encoded { base64: String },
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => Said::Plain(text.into()).serialize(to),
            Err(_) => Said::Encoded { base64: STANDARD.encode(&self.0) }.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Self(match Said::deserialize(from)? {
            Said::Plain(text) => Bytes::from(text.into_owned()),
            Said::Encoded { base64 } => STANDARD.decode(base64).map_err(serde::de::Error::custom)?.into(),
        }))
    }
}

/// What stands for itself in any part of an address.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Bytes as one part of a path, or one value behind a `?`.
pub(crate) fn in_address(bytes: &[u8]) -> String {
    percent_encode(bytes, RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_text_where_they_can_be() {
        for (bytes, json) in [
            (&b"text"[..], r#""text""#),
            (b"", r#""""#),
            (b"\xFF\x00", r#"{"base64":"/wA="}"#),
            ("\"ä\"".as_bytes(), r#""\"ä\"""#),
        ] {
            let text = Text::from(bytes);
            assert_eq!(serde_json::to_string(&text).expect("json"), json);
            assert_eq!(serde_json::from_str::<Text>(json).expect("its own words"), text);
        }
        assert!(serde_json::from_str::<Text>(r#"{"base64":"!"}"#).is_err());
    }

    #[test]
    fn any_byte_can_stand_in_an_address() {
        assert_eq!(in_address(b"a-z.0_9~"), "a-z.0_9~");
        assert_eq!(in_address(b"a/b c?&=+%\xFF\x00"), "a%2Fb%20c%3F%26%3D%2B%25%FF%00");
    }
}

//! Finds events in the bytes of a stream of server-sent events. Pure: it takes bytes and returns events.

use crate::options::EVENT_BYTES_MAX;

/// One event of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// What to come back with.
    pub id: Option<String>,
    pub name: String,
    pub data: String,
}

/// An event is larger than any should be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// What has come of an event that is not complete.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// A line without its end.
    line: Vec<u8>,
    event: Option<Event>,
}

impl Reader {
    /// Takes some bytes; returns the events that they complete.
    pub fn take(&mut self, mut chunk: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut events = Vec::new();
        while let Some(end) = chunk.iter().position(|byte| *byte == b'\n') {
            self.line.extend_from_slice(&chunk[..end]);
            chunk = &chunk[end + 1..];
            let line = std::mem::take(&mut self.line);
            events.extend(self.read(&String::from_utf8_lossy(&line)));
            self.check()?;
        }
        self.line.extend_from_slice(chunk);
        self.check()?;
        Ok(events)
    }

    fn check(&self) -> Result<(), TooLong> {
        let held = self.line.len() + self.event.as_ref().map_or(0, |event| event.data.len());
        if held > EVENT_BYTES_MAX { Err(TooLong) } else { Ok(()) }
    }

    /// Reads a line; an empty one completes an event.
    fn read(&mut self, line: &str) -> Option<Event> {
        let line = line.trim_end_matches('\r');
        if line.is_empty() {
            return self.event.take();
        }
        let (word, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        if word.is_empty() {
            // A comment.
            return None;
        }
        let event = self.event.get_or_insert_default();
        match word {
            "id" => event.id = Some(value.into()),
            "event" => event.name = value.into(),
            "data" if event.data.is_empty() => event.data = value.into(),
            "data" => event.data.extend(["\n", value]),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "id: 7\nevent: change\ndata: {\"a\":\"ä\"}\n\nevent: stopping\ndata: {}\n\n: a comment\n\n\
                          data: one\r\ndata:two\r\nretry: 3\r\n\r\nid: 9\ndata: not complete";

    fn event(id: Option<&str>, name: &str, data: &str) -> Event {
        Event { id: id.map(str::to_owned), name: name.into(), data: data.into() }
    }

    #[test]
    fn events_are_found_wherever_their_bytes_are_cut() {
        let expected =
            [event(Some("7"), "change", "{\"a\":\"ä\"}"), event(None, "stopping", "{}"), event(None, "", "one\ntwo")];
        for bytes in 1..STREAM.len() {
            let mut reader = Reader::default();
            let mut found = Vec::new();
            for chunk in STREAM.as_bytes().chunks(bytes) {
                found.extend(reader.take(chunk).expect("short events"));
            }
            assert_eq!(found, expected, "in chunks of {bytes}");
        }
    }

    #[test]
    fn an_event_has_a_bound() {
        let chunk = vec![b'x'; EVENT_BYTES_MAX / 4];
        for begin in [&b""[..], b"data: 1\ndata: "] {
            let mut reader = Reader::default();
            reader.take(begin).expect("short");
            let taken = (0..6).find_map(|_| reader.take(&chunk).err());
            assert_eq!(taken, Some(TooLong));
        }
    }
}

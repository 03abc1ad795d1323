//! The native API as a client without a library uses it: one request, one connection.

use super::PATIENCE;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longer than a server tries by itself.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends a request; none if there is no answer.
pub fn request(endpoint: &str, method: &str, path: &str, key: Option<&str>, body: &Value) -> Option<(u16, Value)> {
    let host = endpoint.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).ok()?;
    stream.set_read_timeout(Some(TIMEOUT)).ok()?;
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let key = key.map_or(String::new(), |key| format!("Idempotency-Key: {key}\r\n"));
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{key}Content-Length: {length}\r\n\r\n"
    );
    stream.write_all((head + &body).as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let code = head.split(' ').nth(1)?.parse().ok()?;
    Some((code, serde_json::from_str(body).ok()?))
}

/// Makes a keyspace.
pub fn create(endpoint: &str, name: &str, kind: &str, split_at: &[&str]) {
    let wish = serde_json::json!({ "name": name, "kind": kind, "split_at": split_at });
    let (code, made) = request(endpoint, "POST", "/v1/keyspaces", None, &wish).expect("an answer");
    assert_eq!(code, 201, "{made}");
}

/// One event of a watch.
#[derive(Debug)]
pub struct Event {
    pub id: Option<u64>,
    pub name: String,
    pub data: Value,
}

/// A watch, read event by event.
pub struct Events(BufReader<TcpStream>);

impl Events {
    /// Opens a watch; with the last id that was seen, it goes on behind that.
    pub fn open(endpoint: &str, path: &str, seen: Option<u64>) -> Option<Self> {
        let mut stream = TcpStream::connect(endpoint).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let seen = seen.map_or(String::new(), |seen| format!("Last-Event-ID: {seen}\r\n"));
        // The old version has no chunks: what comes are the events.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {endpoint}\r\n{seen}\r\n").ok()?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
            assert!(!line.starts_with("HTTP") || line.contains(" 200 "), "{line}");
        }
        Some(Self(reader))
    }

    /// The next event; none when the stream has ended, or nothing came.
    pub fn next(&mut self) -> Option<Event> {
        let mut event = Event { id: None, name: String::new(), data: Value::Null };
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).ok().filter(|read| *read > 0)?;
            match line.trim_end().split_once(": ") {
                Some(("id", id)) => event.id = Some(id.parse().ok()?),
                Some(("event", name)) => event.name = name.into(),
                Some(("data", data)) => event.data = serde_json::from_str(data).ok()?,
                _ => return Some(event),
            }
        }
    }
}

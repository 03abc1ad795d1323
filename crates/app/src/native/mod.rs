//! The verbs that speak the native API, as any client does: over HTTP.

mod client;
pub mod keys;
pub mod keyspaces;
mod watching;

use quorate_native::Text;
use serde_json::Value;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

/// Bytes from the command line, as JSON says them.
fn text(bytes: &OsStr) -> Value {
    serde_json::to_value(Text::of(bytes.as_bytes())).unwrap_or_default()
}

/// Bytes, from how JSON says them.
fn bytes(text: &Value) -> Vec<u8> {
    let text: Option<Text> = serde_json::from_value(text.clone()).ok();
    text.and_then(|text| text.bytes().ok()).map(|bytes| bytes.to_vec()).unwrap_or_default()
}

/// What a list has; nothing if it is none.
fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Prints a line: what it is made of, with tabs between.
fn print(columns: &[&[u8]]) -> std::io::Result<()> {
    let mut line = columns.join(&b'\t');
    line.push(b'\n');
    std::io::stdout().lock().write_all(&line)
}

fn print_json(value: &Value) -> std::io::Result<()> {
    print(&[value.to_string().as_bytes()])
}

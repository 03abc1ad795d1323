//! The verbs that speak the native API, as any client does: over HTTP.

pub mod client;
pub mod keys;
pub mod keyspaces;
pub mod logs;
mod watching;

use serde::Serialize;
use serde_json::json;
use std::io::Write;

/// Prints a line: what it is made of, with tabs between.
fn print(columns: &[&[u8]]) -> std::io::Result<()> {
    let mut line = columns.join(&b'\t');
    line.push(b'\n');
    std::io::stdout().lock().write_all(&line)
}

fn print_json(value: &impl Serialize) -> std::io::Result<()> {
    print(&[json!(value).to_string().as_bytes()])
}

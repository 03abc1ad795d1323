//! The picture of a run: one HTML file that needs nothing else, drawn by its own script from the trace inside it.
//!
//! ```text
//!   trace ──> columns (numbers, texts; suspects: what a broken rule speaks of) ──> page.html <── page.css, page.js
//! ```

mod columns;
mod suspects;

use crate::trace::Trace;
use columns::Page;

const HTML: &str = include_str!("page.html");
const CSS: &str = include_str!("page.css");
/// In this order: what happened, how it is drawn, what can be done with it.
const JS: [&str; 3] = [include_str!("run.js"), include_str!("canvas.js"), include_str!("page.js")];

/// The picture of a trace.
#[must_use]
pub fn diagram(trace: &Trace) -> String {
    let data = serde_json::to_string(&Page::of(trace)).expect("numbers and texts are JSON");
    // No other character could end the script element that holds it.
    let data = data.replace('<', "\\u003c");
    let title = trace.about.title.replace('&', "&amp;").replace('<', "&lt;");
    // Each place is looked for in our own text only, never in what a trace says.
    let (above, below) = HTML.split_once("{{data}}").expect("a place for the data");
    let (above, head) = above.split_once("{{title}}").expect("a place for the title");
    let (head, scripts) = (head.replace("{{css}}", CSS), below.replace("{{js}}", &JS.concat()));
    [above, &title, &head, &data, &scripts].concat()
}

#[cfg(test)]
mod tests;

//! The page stands alone and holds the whole run.

use super::diagram;
use crate::{Options, TraceEvent, planted, run_seed};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn broken() -> crate::Trace {
    let options = Options { planted: planted("ack-before-persist"), trace: true, ..Options::default() };
    run_seed(1, &options).trace.expect("it was asked for")
}

fn data(html: &str) -> Value {
    let (_, rest) = html.split_once("<script type=\"application/json\" id=\"data\">").expect("the data");
    let (json, _) = rest.split_once("</script>").expect("its end");
    serde_json::from_str(json).expect("JSON")
}

#[test]
fn the_page_holds_every_event_and_names_the_broken_rule() {
    let trace = broken();
    let data = data(&diagram(&trace));
    let columns = data["columns"].as_object().expect("columns");
    for (name, column) in columns {
        assert_eq!(column.as_array().map(Vec::len), Some(trace.records.len()), "column {name}");
    }
    let violation = &data["violation"];
    assert_eq!(violation["rule"], "committed is durable on a quorum");
    assert!(violation["explanation"].as_str().is_some_and(|why| why.contains("majority")));
    let marks = violation["marks"].as_array().expect("marks");
    let marked = |at: &Value| &trace.records[at.as_u64().expect("a position") as usize].event;
    assert!(marks.iter().any(|at| matches!(marked(at), TraceEvent::Apply { .. })), "who applied it is marked");
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let html = diagram(&broken());
    for reference in
        ["http:", "https:", "src=", "href=", "url(", "@import", "fetch(", "import(", "XMLHttpRequest", "WebSocket"]
    {
        assert!(!html.contains(reference), "the page refers to something outside: {reference}");
    }
    assert!(!html.contains("{{"), "every place was filled");
}

#[test]
fn nothing_in_a_trace_ends_the_script_that_holds_it() {
    let mut trace = broken();
    trace.about.title = "</title><script>{{js}}{{data}} & more".into();
    trace.about.story = vec!["</script><script>alert(1)</script>".into()];
    let html = diagram(&trace);
    assert_eq!(html.matches("<script").count(), 2, "the data and the code");
    assert_eq!(data(&html)["about"]["story"][0], "</script><script>alert(1)</script>");
}

/// A browser that can print the page as it stands after its script has run: `QUORATE_BROWSER`, or one of Chromium's names on the PATH.
fn browser() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("QUORATE_BROWSER") {
        return Some(named.into());
    }
    let names = ["chromium", "chromium-browser", "google-chrome", "chrome"];
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).flat_map(|dir| names.map(|name| dir.join(name))).find(|file| file.is_file())
}

/// What a headless browser makes of a page; it is stopped when it takes too long.
fn rendered(browser: &PathBuf, html: &str, hash: &str) -> String {
    let dir = tempfile::tempdir().expect("a folder");
    let (page, dom) = (dir.path().join("page.html"), dir.path().join("dom.html"));
    std::fs::write(&page, html).expect("a file");
    let mut child = Command::new(browser)
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000", "--dump-dom"])
        .arg("--virtual-time-budget=10000")
        .arg(format!("--user-data-dir={}", dir.path().join("profile").display()))
        .arg(format!("file://{}#{hash}", page.display()))
        .stdout(std::fs::File::create(&dom).expect("a file"))
        .stderr(Stdio::null())
        .spawn()
        .expect("the browser starts");
    let began = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if began.elapsed() > Duration::from_secs(90) {
            let _ = child.kill();
            panic!("{} did not render the page within 90 s", browser.display());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    std::fs::read_to_string(&dom).expect("what it printed")
}

#[test]
fn a_browser_shows_the_broken_rule_and_a_picture() {
    let Some(browser) = browser() else {
        eprintln!("skipped: no Chromium on the PATH; name one with QUORATE_BROWSER");
        return;
    };
    let dom = rendered(&browser, &diagram(&broken()), "selftest");
    assert!(
        dom.contains("Broken rule: committed is durable on a quorum"),
        "the rule stands in:\n{}",
        &dom[..dom.len().min(3000)]
    );
    let (_, rest) = dom.split_once("<pre id=\"selftest\">").expect("the script ran to its end");
    let result: Value = serde_json::from_str(rest.split_once("</pre>").expect("an end").0).expect("JSON");
    assert_eq!(result["events"], broken().records.len());
    assert!(result["colours"].as_u64().is_some_and(|n| n > 20), "the canvas is not blank: {result}");
    assert_eq!(result["failed"], serde_json::json!([]), "what the page found wrong with itself");
    assert!(dom.contains("t1 Leader, leader n"), "the last events are listed in words");
}

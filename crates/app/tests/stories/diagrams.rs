//! A failure of the simulator becomes a picture, at once or by way of a file; what is no trace does not.

use std::fs;
use std::path::Path;
use std::process::Command;

fn quorate(dir: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_quorate")).args(args).current_dir(dir).output().expect("it starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_seed_is_drawn_at_once_or_from_its_trace() {
    let dir = tempfile::tempdir().expect("a folder");
    let seed = ["sim", "--seed", "1", "--break", "ack-before-persist", "--trace", "run.trace", "--diagram", "one.html"];
    let (code, said) = quorate(dir.path(), &seed);
    assert_eq!(code, Some(1), "a broken rule is a failure: {said}");
    assert_eq!(quorate(dir.path(), &["diagram", "run.trace", "two.html"]), (Some(0), String::new()));
    let read = |name| fs::read_to_string(dir.path().join(name)).expect("it was written");
    assert!(read("one.html").contains("committed is durable on a quorum"));
    assert_eq!(read("one.html"), read("two.html"));
}

#[test]
fn what_is_no_trace_is_refused_with_its_line() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("notes.txt"), "not a trace").expect("a file");
    let (code, said) = quorate(dir.path(), &["diagram", "notes.txt", "out.html"]);
    assert_eq!(code, Some(64));
    assert!(said.contains("notes.txt: line 1: no header of a trace"), "{said}");
    assert!(!dir.path().join("out.html").exists());
    let (code, said) = quorate(dir.path(), &["sim", "--diagram", "out.html"]);
    assert_eq!(code, Some(2), "a picture is of one seed: {said}");
}

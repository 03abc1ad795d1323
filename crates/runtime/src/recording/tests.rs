//! What is recorded can be read again, whatever befell the record.

use super::{Recorded, Recorder, TraceOptions};
use quorate_env::NodeId;
use quorate_kv::{Error, Unavailable};
use quorate_trace::{Lane, Life, Outcome, TraceEvent, read_process};
use std::fs;
use std::path::Path;

fn open(file: &Path, bytes_max: u64) -> Recorder {
    let of = Recorded { cluster: 7, node: NodeId(1), name: "n1".into(), members: vec![(1, "n1".into())] };
    Recorder::open(&TraceOptions { file: file.to_path_buf(), bytes_max }, of).expect("a file")
}

fn read(file: &Path) -> Vec<Life> {
    read_process(&fs::read_to_string(file).expect("a file")).expect("lives")
}

fn events(life: &Life) -> Vec<TraceEvent> {
    life.records.iter().map(|record| record.event.clone()).collect()
}

#[test]
fn questions_have_their_answers_and_lanes_of_their_own() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("n1.trace");
    let recorder = open(&file, 1 << 20);
    let renew = |n| recorder.asked(format!("renew lease {n}")).expect("a lane is free");
    let (one, two) = (renew(1), renew(2));
    one.answered(Ok(5));
    let three = renew(3);
    drop(two);
    three.answered(Err(&Error::from(Unavailable::Timeout)));
    recorder.stop("told to stop");
    recorder.note("too late".into());
    let [c0, c1, node] = [Lane::Client(0), Lane::Client(1), Lane::Node(1)];
    let ask = |client, operation| {
        let text = format!("renew lease {operation}");
        TraceEvent::Ask { client, node, operation, text }
    };
    let answer = |client, operation, outcome, revision, text: &str| {
        let text = text.into();
        TraceEvent::Answer { client, node, operation, outcome, revision, text }
    };
    let expected = [
        ask(c0, 1),
        ask(c1, 2),
        answer(c0, 1, Outcome::Done, 5, ""),
        ask(c0, 3),
        TraceEvent::GiveUp { client: c1, operation: 2 },
        answer(c0, 3, Outcome::Unavailable, 0, &Unavailable::Timeout.to_string()),
        TraceEvent::Crash { node, cause: "told to stop".into() },
    ];
    assert_eq!(events(&read(&file)[0]), expected);
}

#[test]
fn a_life_follows_what_a_kill_tore() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("n1.trace");
    for _ in 0..2 {
        let recorder = open(&file, 1 << 20);
        recorder.note("it runs".into());
        recorder.stop("told to stop");
        let text = fs::read(&file).expect("a file");
        fs::write(&file, &text[..text.len() - 9]).expect("a file");
    }
    let lives = read(&file);
    assert_eq!(lives.len(), 2);
    for life in &lives {
        assert_eq!(events(life), [TraceEvent::Note { node: Lane::Node(1), text: "it runs".into() }]);
    }
    assert!(lives[0].head.wall < lives[1].head.wall);
}

#[test]
fn a_file_is_of_one_process_at_a_time() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("n1.trace");
    let recorder = open(&file, 1 << 20);
    let of = Recorded { cluster: 7, node: NodeId(2), name: "n2".into(), members: Vec::new() };
    let refused = Recorder::open(&TraceOptions { file: file.clone(), bytes_max: 1 << 20 }, of).err().expect("refused");
    assert_eq!(refused.to_string(), "another process records in it");
    recorder.stop("told to stop");
    assert_eq!(read(&file).len(), 1);
}

#[test]
fn at_its_limit_the_record_ends_and_says_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("n1.trace");
    let recorder = open(&file, 4_096);
    for n in 0..1_000 {
        recorder.note(format!("note {n}"));
        std::thread::sleep(std::time::Duration::from_micros(20));
    }
    recorder.stop("told to stop");
    assert!(fs::metadata(&file).expect("a file").len() <= 4_096);
    let lives = read(&file);
    assert!(lives[0].record_ends.is_some());
    // Where there is no room for another life, that does not matter.
    let recorder = open(&file, fs::metadata(&file).expect("a file").len());
    recorder.note("nowhere".into());
    recorder.stop("told to stop");
    assert_eq!(read(&file).len(), 1);
}

#[test]
fn what_the_writer_cannot_keep_up_with_is_counted() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("n1.trace");
    let recorder = open(&file, 1 << 30);
    let notes = 200_000;
    (0..notes).for_each(|n| recorder.note(format!("note {n}")));
    recorder.stop("told to stop");
    let life = read(&file).remove(0);
    assert!(life.unrecorded > 0, "the queue is shorter than that");
    assert_eq!(life.records.len() as u64 - 1 + life.unrecorded, notes);
}

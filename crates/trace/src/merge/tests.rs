//! Small clusters whose truth is known: what they record by clocks that are wrong is put together again.

use super::{MergeError, Omitted, merge};
use crate::{Lane, Life, LifeHead, Loss, MessageId, Outcome, PROCESS_VERSION, Record, Said, Trace, TraceEvent};

const HOUR: i64 = 3_600_000_000;

/// When all this happens, in microseconds since the Unix epoch.
const THEN: i64 = 1_795_291_200_000_000;

/// A life that begins at a true time, on a machine whose clock is ahead.
struct Process {
    life: Life,
    begins: u64,
}

fn process(node: u64, begins: u64, ahead: i64) -> Process {
    let members = (1..=3).map(|id| (id, format!("n{id}"))).collect();
    let wall = (THEN + begins as i64 + ahead) as u64;
    let head = LifeHead { quorate_process: PROCESS_VERSION, cluster: 7, node, name: format!("n{node}"), wall, members };
    Process { life: Life { head, records: Vec::new(), unrecorded: 0, record_ends: None }, begins }
}

impl Process {
    fn tell(&mut self, at: u64, event: TraceEvent) {
        self.life.records.push(Record { at: at - self.begins, event });
    }

    fn note(&mut self, at: u64, text: &str) {
        let node = self.life.head.lane();
        self.tell(at, TraceEvent::Note { node, text: text.into() });
    }

    fn send(&mut self, at: u64, message: u64, to: u64) {
        let said = Said { kind: "Heartbeat".into(), ..Said::default() };
        let (message, from, to) = (MessageId(message), self.life.head.lane(), Lane::Node(to));
        self.tell(at, TraceEvent::Send { message, from, to, shard: 1, said });
    }

    fn deliver(&mut self, at: u64, message: u64) {
        self.tell(at, TraceEvent::Deliver { message: MessageId(message) });
    }
}

/// Messages of two nodes to each other, each a connection: 250 us each way, once a millisecond.
fn talk(one: &mut Process, other: &mut Process, times: std::ops::Range<u64>) {
    let (there, back) = (one.life.head.node << 40, other.life.head.node << 40);
    for n in times {
        let at = n * 1_000;
        one.send(at, there + n, other.life.head.node);
        other.deliver(at + 250, there + n);
        other.send(at + 400, back + n, one.life.head.node);
        one.deliver(at + 650, back + n);
    }
}

fn merged(files: Vec<Vec<Process>>) -> (Trace, Omitted) {
    let files = files.into_iter().map(|file| file.into_iter().map(|process| process.life).collect()).collect();
    let (trace, omitted) = merge(files).expect("they belong together");
    let mut text = Vec::new();
    trace.write_json(&mut text).expect("memory takes it");
    let read = Trace::read_json(&String::from_utf8(text).expect("JSON is UTF-8"));
    assert_eq!(read.as_ref(), Ok(&trace), "it is a trace like any other");
    (trace, omitted)
}

/// The lines of a replay, but the story.
fn lines(trace: &Trace) -> String {
    let mut lines = Vec::new();
    trace.write_lines(&mut lines).expect("memory takes it");
    String::from_utf8(lines).expect("text")
}

fn count(trace: &Trace, of: impl Fn(&TraceEvent) -> bool) -> usize {
    trace.records.iter().filter(|record| of(&record.event)).count()
}

#[test]
fn clocks_that_are_hours_apart_are_made_to_agree() {
    let (mut one, mut two, mut three) = (process(1, 0, 0), process(2, 0, HOUR), process(3, 0, -5 * HOUR));
    talk(&mut one, &mut two, 0..20);
    talk(&mut two, &mut three, 20..40);
    let (trace, omitted) = merged(vec![vec![two], vec![three], vec![one]]);
    assert_eq!(omitted, Omitted::default());
    assert_eq!(trace.about.lanes, [1, 2, 3].map(Lane::Node));
    assert!(trace.records.windows(2).all(|pair| pair[0].at <= pair[1].at));
    let arrivals = trace.records.iter().filter(|record| matches!(record.event, TraceEvent::Deliver { .. }));
    let wrong = arrivals.filter(|record| !matches!(record.at % 1_000, 250 | 650)).count();
    assert_eq!(wrong, 0, "{}", lines(&trace));
    assert!(
        trace
            .about
            .story
            .iter()
            .any(|line| line.contains("n2 is n2 in one life, whose clock was 3600000.000 ms ahead"))
    );
}

#[test]
fn what_is_not_in_the_record_is_left_out_and_counted() {
    let (mut one, mut two) = (process(1, 0, 0), process(2, 0, HOUR));
    talk(&mut one, &mut two, 0..2_000);
    // Of n2's record the fifth arrival is missing, of n1's the seventh sending.
    two.life.records.retain(|record| record.event != TraceEvent::Deliver { message: MessageId((1 << 40) + 5) });
    two.life.unrecorded = 1;
    let seventh = MessageId((1 << 40) + 7);
    one.life.records.retain(|record| !matches!(record.event, TraceEvent::Send { message, .. } if message == seventh));
    let (trace, omitted) = merged(vec![vec![one], vec![two]]);
    assert_eq!(omitted, Omitted { unsent: 1, unnoticed: 1, unrecorded: 1, ..Omitted::default() });
    assert_eq!(count(&trace, |event| matches!(event, TraceEvent::Send { .. })), 3_998);
    assert_eq!(count(&trace, |event| matches!(event, TraceEvent::Deliver { .. })), 3_998);
    assert!(trace.about.story.contains(&"Left out: 1 messages whose arrival was not recorded.".to_owned()));
}

#[test]
fn halves_of_questions_and_syncs_do_not_confuse() {
    let mut one = process(1, 0, 0);
    let (node, client) = (Lane::Node(1), Lane::Client(0));
    let ask = |operation| TraceEvent::Ask { client, node, operation, text: "put k".into() };
    let answer = |operation| {
        let (outcome, text) = (Outcome::Done, String::new());
        TraceEvent::Answer { client, node, operation, outcome, revision: 3, text }
    };
    let begin = |ticket| TraceEvent::SyncBegin { node, ticket, records: 1 };
    let events =
        [ask(1), answer(1), answer(2), ask(3), ask(4), begin(1), begin(2), TraceEvent::SyncEnd { node, ticket: 9 }];
    events.into_iter().zip(1..).for_each(|(event, at)| one.tell(at * 1_000, event));
    let (trace, omitted) = merged(vec![vec![one]]);
    assert_eq!(omitted.halves, 2);
    let expected = "
    0.000000  n1             starts, life 1
    0.001000 c100 -> n1       operation 1: put k
    0.002000  n1 -> c100      operation 1: done at revision 3
    0.004000 c100 -> n1       operation 2: put k
    0.005000 c100            operation 2: unknown, it waits no longer
    0.005000 c100 -> n1       operation 3: put k
    0.006000  n1             log sync 1 begins, 1 record
    0.007000  n1             log sync 1 is durable
    0.007000  n1             log sync 2 begins, 1 record
    0.007000                 the end
";
    assert_eq!(format!("\n{}", lines(&trace)), expected);
}

#[test]
fn a_killed_process_has_two_lives_and_what_was_sent_between_them_found_nobody() {
    let (mut one, mut two) = (process(1, 0, 0), process(2, 0, HOUR));
    talk(&mut one, &mut two, 0..10);
    two.tell(
        9_900,
        TraceEvent::Ask { client: Lane::Client(0), node: Lane::Node(2), operation: 1, text: "put k".into() },
    );
    // The wall clock was set back before the second life.
    let mut again = process(2, 60_000, -HOUR);
    one.send(30_000, 1 << 50, 2);
    again.note(60_500, "it is back");
    one.send(70_000, 1 << 51, 2);
    again.deliver(70_300, 1 << 51);
    again.send(70_400, 1 << 52, 1);
    one.deliver(70_600, 1 << 52);
    one.note(5_000_000, "n1 goes on");
    again.tell(4_900_000, TraceEvent::Crash { node: Lane::Node(2), cause: "told to stop".into() });
    let (trace, omitted) = merged(vec![vec![one], vec![two, again]]);
    assert_eq!(omitted, Omitted::default());
    let text = lines(&trace);
    let place = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what:?} is not in:\n{text}"));
    let story = [
        "n2             starts, life 1",
        "operation 1: unknown",
        "n2             crashes (its record ends here)",
        "n1 -x n2   s1  Heartbeat  #21 found nobody",
        "n2             starts, life 2",
        "n2             it is back",
        "n1 => n2   s1  Heartbeat  #22 delivered",
        "n2             crashes (told to stop)",
        "n1             n1 goes on",
    ];
    let places: Vec<usize> = story.iter().map(|line| place(line)).collect();
    assert!(places.is_sorted(), "{text}");
}

#[test]
fn of_a_node_without_a_record_only_others_are_left() {
    let (mut one, mut two, mut three) = (process(1, 0, 0), process(2, 0, HOUR), process(3, 0, 0));
    talk(&mut one, &mut two, 0..10);
    talk(&mut three, &mut one, 10..20);
    let (trace, omitted) = merged(vec![vec![one], vec![two]]);
    assert_eq!(omitted, Omitted { unsent: 10, unheard: 10, ..Omitted::default() });
    assert_eq!(count(&trace, |event| matches!(event, TraceEvent::Send { .. })), 20);
    assert_eq!(trace.about.lanes, [1, 2].map(Lane::Node));
}

#[test]
fn a_record_that_ended_early_loses_nothing() {
    let (mut one, mut two) = (process(1, 0, 0), process(2, 0, 0));
    talk(&mut one, &mut two, 0..3_000);
    two.life.records.retain(|record| record.at < 10_000);
    two.life.record_ends = Some(10_000);
    let (trace, omitted) = merged(vec![vec![one], vec![two]]);
    assert_eq!((omitted.unheard, omitted.unsent), (2_990, 2_990));
    assert_eq!(count(&trace, |event| matches!(event, TraceEvent::Lose { .. } | TraceEvent::Crash { .. })), 0);
}

#[test]
fn what_a_cut_took_is_lost_and_what_the_end_took_is_under_way() {
    let (mut one, mut two) = (process(1, 0, 0), process(2, 0, 0));
    talk(&mut one, &mut two, 0..10);
    one.send(20_000, 1 << 50, 2);
    talk(&mut one, &mut two, 3_000..3_010);
    one.send(3_010_000, 1 << 51, 2);
    let (trace, omitted) = merged(vec![vec![one], vec![two]]);
    assert_eq!(omitted, Omitted::default());
    let lost = trace.records.iter().filter(|record| matches!(record.event, TraceEvent::Lose { why: Loss::Cut, .. }));
    assert_eq!(lost.map(|record| record.at).collect::<Vec<_>>(), [20_000]);
    assert!(
        lines(&trace).ends_with("n1 -> n2   s1  Heartbeat  #42\n    3.010000                 the end\n"),
        "{}",
        lines(&trace)
    );
}

#[test]
fn nothing_arrives_before_it_was_sent_whatever_the_clocks_do() {
    // The second clock loses a millisecond with each message.
    let (mut one, mut two) = (process(1, 0, 0), process(2, 0, 0));
    for n in 0..50 {
        one.send(n * 2_000, n, 2);
        two.deliver(n * 1_000 + 10, n);
        two.send(n * 1_000 + 20, (1 << 40) + n, 1);
        one.deliver(n * 2_000 + 500, (1 << 40) + n);
    }
    let (trace, omitted) = merged(vec![vec![one], vec![two]]);
    assert_eq!(omitted, Omitted::default());
    let mut sent = std::collections::BTreeMap::new();
    for record in &trace.records {
        match &record.event {
            TraceEvent::Send { message, .. } => drop(sent.insert(*message, record.at)),
            TraceEvent::Deliver { message } => assert!(sent[message] < record.at, "{}", lines(&trace)),
            _ => {}
        }
    }
    assert_eq!(sent.len(), 100);
}

#[test]
fn nodes_are_numbered_as_they_are_named() {
    let named = |node: u64, name: &str| {
        let mut process = process(node, 0, 0);
        process.life.head.name = name.into();
        process.life.head.members = vec![(77, "beta".into()), (1 << 60, "alpha".into())];
        process.note(5, name);
        process
    };
    let (trace, _) = merged(vec![vec![named(77, "beta")], vec![named(1 << 60, "alpha")]]);
    let text = lines(&trace);
    assert!(text.contains("n1             alpha") && text.contains("n2             beta"), "{text}");
}

#[test]
fn who_comes_back_with_another_disk_has_a_lane_of_its_own() {
    let (mut one, mut two, mut other) = (process(1, 0, 0), process(2, 0, 0), process(50, 5_000_000, 0));
    talk(&mut one, &mut two, 0..10);
    other.life.head.name = "n2".into();
    other.note(5_000_100, "it is empty");
    let (trace, _) = merged(vec![vec![one], vec![two, other]]);
    assert_eq!(trace.about.lanes, [1, 2, 4].map(Lane::Node), "n3 is known to be somewhere");
    assert!(lines(&trace).contains("n4             it is empty"), "{}", lines(&trace));
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let mut other = process(2, 0, 0).life;
    other.head.cluster = 8;
    assert_eq!(merge(vec![vec![process(1, 0, 0).life], vec![other]]), Err(MergeError::Clusters(7, 8)));
    let twice = || vec![process(1, 0, 0).life];
    assert_eq!(merge(vec![twice(), twice()]), Err(MergeError::Twice { name: "n1".into() }));
    assert_eq!(merge(Vec::new()), Err(MergeError::Nothing));
}

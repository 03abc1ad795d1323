//! Paxos and Raft side by side: both want one value chosen out of three, in one and the same world.
//!
//! ```text
//!   seed ──> schedule (losses, copies, delays, standstills) ──> run of three Paxos processes ──┐
//!                                                          └──> run of three Raft replicas ────┴──> findings, one picture
//! ```

mod players;
mod run;
mod schedule;

use super::board::Board;
use super::{Finding, Play, Scenario, finding, middle_and_longest};
use players::{Paxos, Raft};
use run::{Outcome, Run};
use schedule::{PROCESSES, Schedule};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "paxos-and-raft",
    title: "under the same losses and delays both choose one value, by the same two majorities",
    text: "Three Paxos processes want one value chosen, each its own, and three of Quorate's own replicas want the same of Raft. Both live in one \
           world: whether what leaves one for another at some time is lost, doubled or late, and who stands still or is killed when, is drawn \
           before anybody speaks. Both ask two majorities: a vote is a promise, an append an acceptance. In Paxos anybody may ask, and promises \
           bring back what may have been chosen; in Raft a voter refuses whoever lacks what it has itself, so that a leader finds it in its own \
           log. Either way it is taken over. Proposers that do not listen to promises break the one, replicas that come back without their vote \
           the other. What differs is the price: a duel of proposers is over when one is lucky; an election comes first, but its leader stays. The \
           waits are each one's own: a proposer tries again after 40 to 90 ms, a replica after 20 to 115.",
    source: "Lamport: Paxos made simple (2001); Ongaro, Ousterhout: In search of an understandable consensus algorithm (USENIX ATC 2014); Howard, \
             Mortier: Paxos vs Raft (PaPoC 2020).",
    play,
};

const RUNS: u64 = 300;
/// So many schedules are tried for one in which a broken protocol is seen to be broken: a vote must be lost between two requests for it.
const TRIES: u64 = 20_000;

fn paxos<'a>(schedule: &'a Schedule, deaf: bool) -> Run<'a, Paxos> {
    Run::new(schedule, move |who| Paxos::new(who, schedule.own_rng(who), deaf))
}

fn raft(schedule: &Schedule, forgetful: bool) -> Run<'_, Raft> {
    Run::new(schedule, move |who| Raft::new(who, forgetful))
}

fn play(seed: u64) -> Play {
    let first = seed.wrapping_mul(RUNS);
    let schedules: Vec<Schedule> = (0..RUNS).map(|run| Schedule::stormy(first.wrapping_add(run))).collect();
    let by_paxos: Vec<Outcome> = schedules.iter().map(|schedule| paxos(schedule, false).run()).collect();
    let by_raft: Vec<Outcome> = schedules.iter().map(|schedule| raft(schedule, false).run()).collect();
    let mut findings = vec![
        finding(
            agreed(&by_paxos),
            format!("in {RUNS} schedules Paxos chooses one value, and all three know it {}", price(&by_paxos)),
        ),
        finding(
            agreed(&by_raft),
            format!(
                "in the same schedules Raft's first command is the same at all three, and all know it {}",
                price(&by_raft)
            ),
        ),
    ];
    findings.extend(broken(first));
    findings.extend(compared(&by_paxos, &by_raft));
    findings.push(quiet());
    Play { findings, trace: tell(&schedules[0]) }
}

/// The check can fail, for both.
fn broken(first: u64) -> [Finding; 2] {
    let deaf = first_broken(first, |schedule| paxos(schedule, true).run());
    let forgetful = first_broken(first, |schedule| raft(schedule, true).run());
    let of = |schedule: Option<u64>| schedule.map_or("none".into(), |number| number.to_string());
    [
        finding(
            deaf.is_some(),
            format!(
                "proposers that do not listen to promises choose two values for the first time in schedule {}",
                of(deaf)
            ),
        ),
        finding(
            forgetful.is_some(),
            format!(
                "replicas that come back without their vote commit two first commands for the first time in schedule {}",
                of(forgetful)
            ),
        ),
    ]
}

fn compared(by_paxos: &[Outcome], by_raft: &[Outcome]) -> [Finding; 3] {
    let adopted = |outcomes: &[Outcome]| outcomes.iter().filter(|outcome| outcome.adopted).count();
    let (taken, found) = (adopted(by_paxos), adopted(by_raft));
    let same = by_paxos.iter().zip(by_raft).filter(|(one, other)| one.values == other.values).count() as u64;
    let (rounds, rounds_most) = middle_and_longest(by_paxos.iter().map(|outcome| outcome.attempts));
    let (terms, terms_most) = middle_and_longest(by_raft.iter().map(|outcome| outcome.attempts));
    [
        finding(
            taken > 0 && found > 0,
            format!(
                "in {taken} a proposer takes over another's value from a promise; in {found} a leader finds another's command in its log, \
                 and keeps it"
            ),
        ),
        finding(
            same > 0 && same < RUNS,
            format!("both choose the same value in {same}: which one it is, is up to the schedule and the protocol"),
        ),
        finding(
            rounds >= terms,
            format!(
                "the duel of three proposers ends in round {rounds} of their ballots in the median and {rounds_most} at the latest, the election \
                 in term {terms} and {terms_most}"
            ),
        ),
    ]
}

/// Whether each chose one value, and all came to know it.
fn agreed(outcomes: &[Outcome]) -> bool {
    outcomes.iter().all(|outcome| outcome.values.len() == 1 && outcome.all_know_us.is_some())
}

/// The first schedule, counted from 1, in which two values are chosen.
fn first_broken(first: u64, run: impl Fn(&Schedule) -> Outcome) -> Option<u64> {
    let broken = |number: &u64| run(&Schedule::stormy(first.wrapping_add(number - 1))).values.len() > 1;
    (1..=TRIES).find(broken)
}

/// How long it took until all knew, and how many messages.
fn price(outcomes: &[Outcome]) -> String {
    let (ms, ms_most) = middle_and_longest(outcomes.iter().filter_map(|outcome| Some(outcome.all_know_us? / 1_000)));
    let (messages, messages_most) = middle_and_longest(outcomes.iter().map(|outcome| outcome.messages));
    format!("after {ms} ms and {messages} messages in the median, {ms_most} ms and {messages_most} messages at most")
}

/// One alone, where every message takes a millisecond.
fn quiet() -> Finding {
    let schedule = Schedule::quiet();
    let (paxos, raft) = (paxos(&schedule, false).run(), raft(&schedule, false).run());
    let first = |outcome: &Outcome, kind: &str| {
        let first = outcome.firsts.iter().find(|(known, _)| known == kind);
        first.map_or(u64::MAX, |(_, at)| at / 1_000)
    };
    let all_know = |outcome: &Outcome| outcome.all_know_us.map_or(u64::MAX, |us| us / 1_000);
    let (prepare, accept) = (first(&paxos, "prepare"), first(&paxos, "accept"));
    let (ask, vote, append) = (first(&raft, "RequestPreVote"), first(&raft, "RequestVote"), first(&raft, "Append"));
    finding(
        accept - prepare == append - vote && all_know(&paxos) < all_know(&raft),
        format!(
            "alone, with 1 ms for each message, all know after {} ms and {} messages under Paxos (prepare at {prepare}, accept at {accept}), after {} \
             ms and {} messages under Raft, which asks first whether it would be elected (at {ask}, vote at {vote}, append of the leader's \
             first, empty entry at {append})",
            all_know(&paxos),
            paxos.messages,
            all_know(&raft),
            raft.messages
        ),
    )
}

fn tell(schedule: &Schedule) -> crate::Trace {
    let mut board = Board::new(&[
        "a process under Paxos",
        "a process under Paxos",
        "a process under Paxos",
        "a replica under Raft, in the place of n1",
        "a replica under Raft, in the place of n2",
        "a replica under Raft, in the place of n3",
    ]);
    paxos(schedule, false).told(&mut board, 0).run();
    raft(schedule, false).told(&mut board, PROCESSES).run();
    board.finish()
}

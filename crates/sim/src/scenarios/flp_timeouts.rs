//! Elections by timeout against an adversary who delays: what drawing the timeouts at random is good for, and what it is not.

mod election;
mod replicas;

use super::board::Board;
use super::{Finding, Play, Scenario, finding, middle_and_longest};
use election::{Adversary, Election, Outcome, PROCESSES, PROMPT_MS, Telling, Timeouts};
use quorate_env::Rng;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "flp-timeouts",
    title: "drawn timeouts end an election unless messages are late whatever is drawn",
    text: "Raft's way out of the impossibility: who hears of no leader for a while begins a term and asks for votes; each has one vote in a term, and a \
           majority leads. Nobody crashes and no message is lost; an adversary may only delay requests for votes. Equal timeouts split the vote for \
           ever even without him. Timeouts that differ elect a leader at once if messages are on time, and never if he knows them: each request \
           comes when its candidate has given up. Against the very same delays, timeouts drawn anew for each term end it: some draw is long enough. \
           But only because the delays end below the longest draw. Who watches the draws, or is later than all of them, wins again; timeouts that \
           double outgrow every bound on delays, drawn or not, and fail if there is none. So a timeout is an assumption about timing, and a coin \
           such as Ben-Or's (scenario flp) is not: it ends sooner or later whatever the delays. Quorate's own timeouts are no draws but differ by place and \
           term: the adversary beats them too, until messages are on time. What none of this can do is to give one term two leaders.",
    source: "Ongaro, Ousterhout: In search of an understandable consensus algorithm (USENIX ATC 2014), section 9.3; Dwork, Lynch, Stockmeyer: Consensus in \
             the presence of partial synchrony (JACM 1988); Fischer, Lynch, Paterson (JACM 1985).",
    play,
};

/// After so many elections without a leader we believe that there will be none.
const ELECTIONS: u64 = 10_000;
const RUNS: u64 = 1_000;
const EQUAL_MS: [u64; PROCESSES] = [200; PROCESSES];
const DIFFERENT_MS: [u64; PROCESSES] = [150, 200, 250];
/// Longer than the longest of these, and within the draws.
const LATE_MS: u64 = 251;
const DRAWN_MS: (u64, u64) = (150, 300);
/// A bound that doubling timeouts must first reach.
const VERY_LATE_MS: u64 = 10_000;
/// As many doublings as fit a count of milliseconds.
const DOUBLINGS: u64 = 40;
/// For real replicas, each of which does much more than an election needs.
const REAL_ELECTIONS: u64 = 500;

/// All that was played. No term of it may have two leaders.
#[derive(Default)]
struct Played {
    terms: u64,
    two_leaders: bool,
}

impl Played {
    fn run(&mut self, timeouts: Timeouts, adversary: Adversary, elections_max: u64) -> Outcome {
        let outcome = Election::new(timeouts, adversary).run(elections_max);
        self.terms += outcome.elections;
        self.two_leaders |= outcome.two_leaders;
        outcome
    }
}

fn drawn(rng: &Rng, run: u64) -> Timeouts {
    Timeouts::Drawn(DRAWN_MS, rng.split(run))
}

/// Whether none of so many elections had a leader.
fn leaderless(outcome: &Outcome, elections: u64) -> bool {
    !outcome.elected && outcome.elections == elections
}

fn play(seed: u64) -> Play {
    let rng = Rng::new(seed);
    let mut played = Played::default();
    let mut findings = fixed(&mut played);
    findings.extend(drawn_anew(&rng, &mut played));
    findings.extend(doubled(&mut played));
    findings.push(quorate(&mut played));
    let Played { terms, two_leaders } = played;
    findings.push(finding(!two_leaders, format!("none of all these {terms} terms has two leaders")));
    findings.push(forgetful(&rng));
    Play { findings, trace: tell(&rng) }
}

fn fixed(played: &mut Played) -> Vec<Finding> {
    let equal = played.run(Timeouts::Fixed(EQUAL_MS), Adversary::Absent, ELECTIONS);
    let prompt = played.run(Timeouts::Fixed(DIFFERENT_MS), Adversary::Absent, ELECTIONS);
    let known = played.run(Timeouts::Fixed(DIFFERENT_MS), Adversary::Oblivious(LATE_MS), ELECTIONS);
    let [least, between, most] = DIFFERENT_MS;
    vec![
        finding(
            leaderless(&equal, ELECTIONS),
            format!(
                "with timeouts of {} ms for all and every message after {} ms, the votes of {ELECTIONS} elections are split",
                EQUAL_MS[0], equal.slowest_ms
            ),
        ),
        finding(
            prompt.elected,
            format!("timeouts of {least}, {between} and {most} ms elect a leader in election {}", prompt.elections),
        ),
        finding(
            leaderless(&known, ELECTIONS),
            format!(
                "when requests for votes come after {} ms, none lost, the same timeouts elect nobody in {ELECTIONS} elections",
                known.slowest_ms
            ),
        ),
    ]
}

fn drawn_anew(rng: &Rng, played: &mut Played) -> [Finding; 2] {
    let late = Adversary::Oblivious(LATE_MS);
    let runs: Vec<Outcome> = (0..RUNS).map(|run| played.run(drawn(rng, run), late, ELECTIONS)).collect();
    let (middle, longest) = middle_and_longest(runs.iter().map(|run| run.elections));
    let later = played.run(drawn(rng, RUNS), Adversary::Oblivious(DRAWN_MS.1 + PROMPT_MS), ELECTIONS);
    let watched = played.run(drawn(rng, RUNS), Adversary::Watching, ELECTIONS);
    [
        finding(
            runs.iter().all(|run| run.elected),
            format!(
                "with the same delays and timeouts drawn between {} and {} ms, all of {RUNS} runs elect a leader, in election {middle} in the \
                 median and {longest} at the latest",
                DRAWN_MS.0, DRAWN_MS.1
            ),
        ),
        finding(
            leaderless(&later, ELECTIONS) && leaderless(&watched, ELECTIONS),
            format!(
                "when requests come after {} ms, or each when the timeout that its candidate drew is over, {ELECTIONS} elections have no leader",
                later.slowest_ms
            ),
        ),
    ]
}

fn doubled(played: &mut Played) -> [Finding; 2] {
    let timeouts = Timeouts::Doubled(DIFFERENT_MS);
    let bounded = played.run(timeouts.clone(), Adversary::Oblivious(VERY_LATE_MS), DOUBLINGS);
    let unbounded = played.run(timeouts, Adversary::Watching, DOUBLINGS);
    [
        finding(
            bounded.elected,
            format!(
                "timeouts that double in each term elect a leader in election {} though requests come after {} s, and nothing is drawn",
                bounded.elections,
                bounded.slowest_ms / 1_000
            ),
        ),
        finding(
            leaderless(&unbounded, DOUBLINGS),
            format!(
                "against delays without a bound that does not help: {DOUBLINGS} elections have no leader, the last of them in year {}",
                unbounded.ended_ms / (365 * 24 * 3_600_000)
            ),
        ),
    ]
}

fn quorate(played: &mut Played) -> Finding {
    let outcome = replicas::run(REAL_ELECTIONS);
    played.terms += REAL_ELECTIONS;
    played.two_leaders |= outcome.two_leaders;
    finding(
        !outcome.led_late && outcome.ticks_to_leader.is_some(),
        format!(
            "three of Quorate's replicas elect nobody in {REAL_ELECTIONS} elections while requests come after {} ticks, and somebody {} ticks \
             after messages are on time",
            replicas::LATE_TICKS,
            outcome.ticks_to_leader.unwrap_or_default()
        ),
    )
}

/// The check can fail.
fn forgetful(rng: &Rng) -> Finding {
    let election = |run| Election::new(drawn(rng, run), Adversary::Oblivious(LATE_MS)).forgetful();
    let broken = (0..RUNS).filter(|run| election(*run).run(ELECTIONS).two_leaders).count();
    finding(
        broken > 0,
        format!("when nobody remembers whom it voted for, {broken} of {RUNS} runs have two leaders in one term"),
    )
}

/// Two elections of equal timeouts, three of different ones, and drawn ones until somebody leads.
fn tell(rng: &Rng) -> crate::Trace {
    let mut board = Board::new(&["a process", "a process", "a process"]);
    let late = Adversary::Oblivious(LATE_MS);
    let parts = [
        ("all wait equally long", Timeouts::Fixed(EQUAL_MS), Adversary::Absent, 2),
        ("each waits as long as the adversary knows", Timeouts::Fixed(DIFFERENT_MS), late, 3),
        ("timeouts are drawn, delays are the same", drawn(rng, 0), late, ELECTIONS),
    ];
    let (mut begin_ms, mut terms_before) = (0, 0);
    for (what, timeouts, adversary, elections_max) in parts {
        board.note(begin_ms * 1_000 + 1, 0, what);
        let telling = Telling { board: &mut board, begin_ms, terms_before };
        let outcome = Election::new(timeouts, adversary).told(telling).run(elections_max);
        begin_ms += outcome.ended_ms + 2 * LATE_MS;
        terms_before += outcome.elections;
    }
    board.finish()
}

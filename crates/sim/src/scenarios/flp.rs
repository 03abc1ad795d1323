//! No consensus by waiting alone: whoever delays messages can keep a deterministic protocol undecided for ever.

use super::board::Board;
use super::{Play, Scenario, finding};
use quorate_env::Rng;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "flp",
    title: "delays alone keep a deterministic protocol undecided; a coin or good timing ends it",
    text: "Three processes, one of which may have crashed, so nobody can wait for more than two values, its own among them. Round by round each tells \
           its value; who hears one value twice proposes it; two equal proposals decide, one is adopted. An adversary who decides which message \
           comes late, and loses none, lets everybody hear two different values: nothing is ever decided, though nobody has crashed. That is no \
           fault of this protocol, every deterministic one has such a schedule. Two ways out: processes that toss a coin when they learn nothing \
           escape the adversary; and once messages are on time, waiting a little longer is enough. Raft's timeouts, though drawn at random, are of the \
           second kind: scenario flp-timeouts.",
    source: "Fischer, Lynch, Paterson: Impossibility of distributed consensus with one faulty process (JACM 1985); Ben-Or (PODC 1983); Dwork, \
             Lynch, Stockmeyer: Consensus in the presence of partial synchrony (JACM 1988).",
    play,
};

const PROCESSES: usize = 3;
const ROUNDS: usize = 10_000;
const RUNS: usize = 1_000;

/// Whose message comes in time, for each process: one other's, or both.
type Heard = [[bool; PROCESSES]; PROCESSES];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    values: [bool; PROCESSES],
    decided: [Option<bool>; PROCESSES],
}

impl State {
    fn of(values: [bool; PROCESSES]) -> Self {
        Self { values, decided: [None; PROCESSES] }
    }

    fn all_decided(&self) -> bool {
        self.decided.iter().all(Option::is_some)
    }

    fn agrees(&self) -> bool {
        let mut decisions = self.decided.iter().flatten();
        let first = decisions.next();
        decisions.all(|decision| Some(decision) == first)
    }
}

/// What each proposes, after the first half of a round.
fn proposals(values: [bool; PROCESSES], heard: &Heard) -> [Option<bool>; PROCESSES] {
    std::array::from_fn(|who| {
        let count = |wanted| (0..PROCESSES).filter(|from| heard[who][*from] && values[*from] == wanted).count();
        [false, true].into_iter().find(|value| count(*value) * 2 > PROCESSES)
    })
}

/// A round. Who learns nothing keeps its value, or tosses the coin if it has one.
fn round(state: State, first: &Heard, second: &Heard, coin: &mut Option<Rng>) -> State {
    let proposed = proposals(state.values, first);
    let mut next = state;
    for (who, heard) in second.iter().enumerate() {
        let told: Vec<bool> = (0..PROCESSES).filter(|from| heard[*from]).filter_map(|from| proposed[from]).collect();
        match (told.first(), coin.as_mut()) {
            (Some(value), _) => {
                next.values[who] = *value;
                if told.len() >= 2 {
                    next.decided[who].get_or_insert(*value);
                }
            }
            (None, Some(coin)) => next.values[who] = coin.chance(500),
            (None, None) => {}
        }
    }
    next
}

/// Everybody hears itself and, if there is one, somebody who thinks otherwise.
fn adversary(values: [bool; PROCESSES]) -> Heard {
    std::array::from_fn(|who| {
        let mut others = (0..PROCESSES).filter(|other| *other != who);
        let other = others.clone().find(|other| values[*other] != values[who]).or(others.next_back());
        std::array::from_fn(|from| from == who || Some(from) == other)
    })
}

const ON_TIME: Heard = [[true; PROCESSES]; PROCESSES];

/// Every way in which each hears itself and one other, or all.
fn every_schedule() -> Vec<Heard> {
    let one = |who: usize, choice: usize| -> [bool; PROCESSES] {
        std::array::from_fn(|from| choice == 2 || from == who || from == (who + 1 + choice) % PROCESSES)
    };
    (0..27).map(|n| [one(0, n % 3), one(1, n / 3 % 3), one(2, n / 9)]).collect()
}

fn every_start() -> impl Iterator<Item = State> {
    (0..8).map(|bits: u8| State::of(std::array::from_fn(|who| bits >> who & 1 == 1)))
}

fn play(seed: u64) -> Play {
    let mixed = State::of([false, false, true]);
    let stuck = (0..ROUNDS).fold(mixed, |state, _| round(state, &adversary(state.values), &ON_TIME, &mut None));
    let freed = round(stuck, &ON_TIME, &ON_TIME, &mut None);

    let mut rng = Rng::new(seed);
    let mut longest = 0;
    let mut all_end = true;
    for run in 0..RUNS {
        let mut coin = Some(rng.split(run as u64));
        let mut state = mixed;
        let mut rounds = 0;
        while !state.all_decided() && rounds < ROUNDS {
            state = round(state, &adversary(state.values), &ON_TIME, &mut coin);
            rounds += 1;
        }
        longest = longest.max(rounds);
        all_end &= state.all_decided() && state.agrees();
    }

    let schedules = every_schedule();
    let (mut tried, mut safe) = (0, true);
    for start in every_start() {
        let valid = |state: &State| state.decided.iter().flatten().all(|decision| start.values.contains(decision));
        let after_one = schedules.iter().flat_map(|one| schedules.iter().map(move |two| (one, two)));
        let mut reached: Vec<State> = Vec::new();
        for (one, two) in after_one {
            let state = round(start, one, two, &mut None);
            if !reached.contains(&state) {
                reached.push(state);
            }
        }
        for state in reached {
            for (one, two) in schedules.iter().flat_map(|one| schedules.iter().map(move |two| (one, two))) {
                let end = round(state, one, two, &mut None);
                tried += 1;
                safe &= end.agrees() && valid(&end);
            }
        }
    }
    let findings = vec![
        finding(
            stuck == mixed,
            format!(
                "after {ROUNDS} rounds of the adversary nobody has decided, and everything is as it was at the beginning"
            ),
        ),
        finding(freed.all_decided() && freed.agrees(), "one round with messages on time is enough to decide"),
        finding(
            all_end,
            format!("with coins, all of {RUNS} runs decide in spite of the adversary, after {longest} rounds at most"),
        ),
        finding(
            safe,
            format!("two never decide differently, nor what nobody wanted, in {tried} schedules of two rounds"),
        ),
    ];
    rng.next_u64();
    Play { findings, trace: tell(&mut rng) }
}

/// Three rounds of the adversary, then one on time.
fn tell(rng: &mut Rng) -> crate::Trace {
    let mut board = Board::new(&["a process", "a process", "a process"]);
    let mut state = State::of([false, false, true]);
    for number in 0..4 {
        let late = number < 3;
        let begin = 1_000 + number * 40_000;
        let first = if late { adversary(state.values) } else { ON_TIME };
        for (from, to) in
            (0..PROCESSES).flat_map(|from| (0..PROCESSES).map(move |to| (from, to))).filter(|(a, b)| a != b)
        {
            // What is late comes when the round is over.
            let wait = if first[to][from] { rng.between(2_000, 8_000) } else { rng.between(32_000, 38_000) };
            let value = u8::from(state.values[from]);
            board.message((from, to), (begin, Some(begin + wait)), "value", format!("{value} in round {}", number + 1));
        }
        let proposed = proposals(state.values, &first);
        state = round(state, &first, &ON_TIME, &mut None);
        for (who, proposal) in proposed.iter().enumerate() {
            let text = match (proposal, state.decided[who]) {
                (_, Some(value)) => format!("decides {}", u8::from(value)),
                (Some(value), None) => format!("proposes {}", u8::from(*value)),
                (None, None) => "heard a 0 and a 1".into(),
            };
            board.note(begin + 20_000, who, text);
        }
    }
    board.finish()
}

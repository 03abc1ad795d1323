//! What the world does, as a function of the seed alone: both protocols consult it, and neither can change it by what it says or how often.

use quorate_env::Rng;

pub const PROCESSES: usize = 3;
/// On one way, what leaves within the same slot has the same fate.
const SLOT_US: u64 = 2_000;
/// Until then messages are lost, doubled and late, and processes stand still.
const STORM_US: u64 = 300_000;
const LATE_US: u64 = 15_000;
/// In thousandths.
const LOST: u64 = 100;
const DOUBLED: u64 = 200;
const KILLED: u64 = 700;
/// When a process stands still for the first time, for how long each time, and how long it then does not. The first comes early: in the midst of
/// the first promises and votes.
const FIRST_STOP_US: (u64, u64) = (5_000, 30_000);
const STOP_US: (u64, u64) = (1_000, 5_000);
const GOES_US: (u64, u64) = (10_000, 150_000);
/// A process wants its value to be chosen from a time before this.
const WISH_US: u64 = 5_000;
/// A purpose of randomness that no message has.
const OTHER: u64 = 1 << 60;

/// A process does nothing for a while.
#[derive(Clone, Copy, Debug)]
pub struct Stop {
    pub who: usize,
    pub from: u64,
    pub until: u64,
    /// It is killed, and comes back with what its disk holds. Otherwise it is only paused.
    pub killed: bool,
}

pub struct Schedule {
    rng: Rng,
    storm_us: u64,
    /// How long messages take when there is no storm.
    calm_us: (u64, u64),
    pub stops: Vec<Stop>,
    /// When each process begins to want its value chosen, if ever.
    pub wishes: [Option<u64>; PROCESSES],
}

fn between(rng: &mut Rng, (least, most): (u64, u64)) -> u64 {
    rng.between(least, most)
}

impl Schedule {
    /// A storm, in which all want something.
    pub fn stormy(seed: u64) -> Self {
        let rng = Rng::new(seed);
        let mut draw = rng.split(OTHER);
        let wishes = std::array::from_fn(|_| Some(draw.below(WISH_US)));
        let mut stops = Vec::new();
        for who in 0..PROCESSES {
            let mut from = between(&mut draw, FIRST_STOP_US);
            while from < STORM_US {
                let until = from + between(&mut draw, STOP_US);
                stops.push(Stop { who, from, until, killed: draw.chance(KILLED) });
                from = until + between(&mut draw, GOES_US);
            }
        }
        Self { rng, storm_us: STORM_US, calm_us: (1_000, 3_000), stops, wishes }
    }

    /// Every message takes a millisecond, and only the first process wants something.
    pub fn quiet() -> Self {
        let wishes = std::array::from_fn(|who| (who == 0).then_some(0));
        Self { rng: Rng::new(0), storm_us: 0, calm_us: (1_000, 1_000), stops: Vec::new(), wishes }
    }

    /// When the copies arrive of what leaves now. Who is paused hears them afterwards, who is dead never does.
    pub fn arrivals(&self, (from, to): (usize, usize), now: u64) -> Vec<u64> {
        let way = (now / SLOT_US * PROCESSES as u64 + from as u64) * PROCESSES as u64 + to as u64;
        let mut rng = self.rng.split(way);
        let storm = now < self.storm_us;
        let copies = match storm {
            true if rng.chance(LOST) => 0,
            true if rng.chance(DOUBLED) => 2,
            _ => 1,
        };
        let waits = if storm { (self.calm_us.0, LATE_US) } else { self.calm_us };
        (0..copies).map(|_| now + between(&mut rng, waits)).filter_map(|at| self.heard(to, at)).collect()
    }

    fn heard(&self, who: usize, at: u64) -> Option<u64> {
        match self.stop(who, at) {
            Some(stop) if stop.killed => None,
            Some(stop) => Some(stop.until),
            None => Some(at),
        }
    }

    /// Whether a process stands still.
    pub fn stop(&self, who: usize, at: u64) -> Option<&Stop> {
        self.stops.iter().find(|stop| stop.who == who && (stop.from..stop.until).contains(&at))
    }

    /// What a process draws for itself.
    pub fn own_rng(&self, who: usize) -> Rng {
        self.rng.split(OTHER + 1 + who as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_changes_nothing() {
        let (one, other) = (Schedule::stormy(7), Schedule::stormy(7));
        let ways = [(0, 1), (1, 0), (2, 1)];
        let moments = || (0..STORM_US * 2).step_by(1_700).flat_map(|at| ways.map(|way| (way, at)));
        let forwards: Vec<_> = moments().map(|(way, at)| one.arrivals(way, at)).collect();
        let mut backwards: Vec<_> =
            moments().collect::<Vec<_>>().into_iter().rev().map(|(way, at)| other.arrivals(way, at)).collect();
        backwards.reverse();
        assert_eq!(forwards, backwards);
        assert!([0, 1, 2].iter().all(|copies| forwards.iter().any(|arrivals| arrivals.len() == *copies)));
    }

    #[test]
    fn nobody_hears_anything_while_it_stands_still() {
        let schedule = Schedule::stormy(7);
        assert!(schedule.stops.iter().any(|stop| stop.killed) && schedule.stops.iter().any(|stop| !stop.killed));
        for at in (0..STORM_US).step_by(900) {
            let arrivals = schedule.arrivals((0, 1), at);
            assert!(arrivals.iter().all(|at| schedule.stop(1, *at).is_none()), "{arrivals:?}");
        }
    }
}

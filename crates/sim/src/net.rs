//! A network that delays, drops, duplicates, reorders, clogs and cuts.

use quorate_env::Rng;
use std::collections::BTreeSet;

/// How bad it is, per message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub delay_us: (u64, u64),
    pub drop_per_mille: u64,
    pub duplicate_per_mille: u64,
    /// Messages that take much longer than others, and so arrive out of order.
    pub straggler_per_mille: u64,
    /// How much a link carries; no limit if nothing is said.
    pub bytes_per_ms: Option<u64>,
    /// Whether some links are several times as long as others, and longer one way than the other.
    pub uneven: bool,
}

/// Calm.
pub(crate) const CALM: Weather = Weather {
    delay_us: (100, 1_000),
    drop_per_mille: 0,
    duplicate_per_mille: 0,
    straggler_per_mille: 0,
    bytes_per_ms: None,
    uneven: false,
};

#[derive(Debug)]
pub(crate) struct Net {
    pub weather: Weather,
    cuts: BTreeSet<(usize, usize)>,
    clogs: BTreeSet<(usize, usize)>,
    /// For a while nothing is lost, and nothing takes much longer than the rest.
    pub spared: bool,
    rng: Rng,
}

/// What becomes of a message.
#[derive(Debug)]
pub(crate) enum Fate {
    /// Copies of it arrive, so many microseconds from now; it is lost if there is none.
    Arrives(Vec<u64>),
    /// The link holds it, and lets it go when it heals.
    Held,
}

impl Net {
    pub fn new(weather: Weather, rng: Rng) -> Self {
        Self { weather, cuts: BTreeSet::new(), clogs: BTreeSet::new(), spared: false, rng }
    }

    /// A message of so many bytes is sent.
    pub fn send(&mut self, from: usize, to: usize, bytes: usize) -> Fate {
        if self.clogs.contains(&(from, to)) {
            return Fate::Held;
        }
        let dropped = self.rng.chance(self.weather.drop_per_mille) && !self.spared;
        if self.cuts.contains(&(from, to)) || dropped {
            return Fate::Arrives(Vec::new());
        }
        Fate::Arrives(self.arrivals(from, to, bytes))
    }

    /// When copies of a message arrive.
    pub fn arrivals(&mut self, from: usize, to: usize, bytes: usize) -> Vec<u64> {
        let copies = 1 + u64::from(self.rng.chance(self.weather.duplicate_per_mille));
        let (low, high) = self.weather.delay_us;
        let transfer = self.weather.bytes_per_ms.map_or(0, |per_ms| bytes as u64 * 1_000 / per_ms);
        let length = if self.weather.uneven { 1 + (from * 5 + to * 3) as u64 % 7 } else { 1 };
        let mut arrivals = Vec::new();
        for _ in 0..copies {
            let far = self.rng.chance(self.weather.straggler_per_mille) && !self.spared;
            arrivals.push(self.rng.between(low, high) * length * if far { 20 } else { 1 } + transfer);
        }
        arrivals
    }

    /// Cuts one direction.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
    }

    /// Clogs one direction: nothing is lost, and nothing arrives before it heals. So the buffers of a connection do, whose other end does not read.
    pub fn clog(&mut self, from: usize, to: usize) {
        self.clogs.insert((from, to));
    }

    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts.contains(&(from, to))
    }

    /// Whether no link is cut or clogged.
    pub fn is_whole(&self) -> bool {
        self.cuts.is_empty() && self.clogs.is_empty()
    }

    pub fn heal(&mut self) {
        self.cuts.clear();
        self.clogs.clear();
    }
}

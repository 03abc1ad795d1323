//! How long operations took, in the figures that reports give.

use crate::failure::Failure;
use std::time::Duration;

pub struct Times {
    per_second: f64,
    pub median: Duration,
    p99: Duration,
    most: Duration,
}

impl Times {
    /// Of operations within so many `seconds`. [`Failure::Http`] if there were none.
    pub fn of(mut times: Vec<Duration>, seconds: f64) -> Result<Self, Failure> {
        times.sort();
        let Some(last) = times.len().checked_sub(1) else { return Err(Failure::Http("nothing was written".into())) };
        let [median, p99, most] = [500, 990, 1_000].map(|per_mille| times[last * per_mille / 1_000]);
        Ok(Self { per_second: times.len() as f64 / seconds, median, p99, most })
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [median, p99, most] = [self.median, self.p99, self.most].map(|time| time.as_secs_f64() * 1_000.0);
        write!(f, "{:.0} per second, p50 {median:.2} ms, p99 {p99:.2} ms, at most {most:.0} ms", self.per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_count_as_what_they_are_and_nothing_is_no_figure() {
        let times = Times::of((1..=1_001).rev().map(Duration::from_millis).collect(), 2.0).expect("some");
        assert_eq!(times.to_string(), "500 per second, p50 501.00 ms, p99 991.00 ms, at most 1001 ms");
        assert_eq!(times.median, Duration::from_millis(501));
        assert!(Times::of(Vec::new(), 2.0).is_err());
    }
}

//! Sets of numbers as people write them: `3,7,12-40`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// No set that is typed in is larger.
const COUNT_MAX: u64 = 1_000_000;

/// Which faults or operations of a run are meant; both are counted from 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers(BTreeSet<u64>);

impl Numbers {
    /// Whether a number is among them.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        self.0.contains(&number)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        self.0.iter().copied()
    }

    pub(crate) fn insert(&mut self, number: u64) {
        self.0.insert(number);
    }

    pub(crate) fn and(&self, other: &Self) -> Self {
        Self(&self.0 & &other.0)
    }
}

impl FromIterator<u64> for Numbers {
    fn from_iter<I: IntoIterator<Item = u64>>(numbers: I) -> Self {
        Self(numbers.into_iter().collect())
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for number in self.iter() {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == number => *last = number,
                _ => runs.push((number, number)),
            }
        }
        let texts = runs.iter().map(|(first, last)| match last - first {
            0 => first.to_string(),
            _ => format!("{first}-{last}"),
        });
        let texts: Vec<String> = texts.collect();
        f.write_str(if texts.is_empty() { "none".into() } else { texts.join(",") }.as_str())
    }
}

impl FromStr for Numbers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::default());
        }
        let wrong = || format!("{text:?} is not like 3,7,12-40, or none");
        let mut numbers = BTreeSet::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u64, u64) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
            if first == 0 || last < first || last - first >= COUNT_MAX {
                return Err(wrong());
            }
            numbers.extend(first..=last);
        }
        Ok(Self(numbers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_written_and_read() {
        for text in ["none", "3", "3,7", "3,7,12-40", "1-2,4"] {
            assert_eq!(text.parse::<Numbers>().map(|numbers| numbers.to_string()), Ok(text.into()));
        }
        for text in ["", "0", "7-3", "a", "1-", "1-99999999999"] {
            assert!(text.parse::<Numbers>().is_err(), "{text:?}");
        }
    }
}

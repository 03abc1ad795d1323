//! A difference, readable: only what was set, only the lines that differ and their surroundings.

use super::watched::Deliveries;
use std::fmt::Debug;

/// The answer to a request to open a watch.
pub type Opened = quorate_etcd::proto::etcdserverpb::WatchResponse;

/// Lines shown around one that differs.
const CONTEXT: usize = 3;

/// Where two servers differ.
#[derive(Debug)]
pub struct Difference {
    what: String,
    lines: Vec<String>,
}

impl Difference {
    /// The difference between two values, if they differ.
    pub fn between<T: Debug + PartialEq>(what: &str, quorate: &T, etcd: &T) -> Option<Self> {
        if quorate == etcd {
            return None;
        }
        Some(Self { what: what.to_owned(), lines: compare(&outline(quorate), &outline(etcd)) })
    }

    /// The first watch that delivered something else.
    pub fn of_watches(quorate: &Deliveries, etcd: &Deliveries) -> Option<Self> {
        let nothing = Vec::new();
        quorate.keys().chain(etcd.keys()).find_map(|id| {
            let (quorate, etcd) = (quorate.get(id).unwrap_or(&nothing), etcd.get(id).unwrap_or(&nothing));
            Self::between(&format!("what watch {id} delivered"), quorate, etcd)
        })
    }
}

/// All that is needed to understand a difference and to see it again.
pub fn page(step: impl Debug, difference: &Difference, seed: u64, op: u64) -> String {
    let Difference { what, lines } = difference;
    format!(
        "DIFFERENT in {what}: seed {seed}, op {op}\n\n{}\n\n  - quorate   + etcd\n{}\n\n\
         again: cargo xtask differential --seed {seed} --ops {}\n",
        outline(&step).join("\n"),
        lines.join("\n"),
        op + 1,
    )
}

/// A value's debug form, a line per field, without the fields that have their default.
fn outline(value: &impl Debug) -> Vec<String> {
    let default = |line: &str| {
        let value = line.trim_end_matches(',').rsplit(": ").next().unwrap_or(line);
        line.contains(": ") && matches!(value, "0" | "false" | "None" | "[]" | "b\"\"" | "\"\"")
    };
    format!("{value:#?}").lines().filter(|line| !default(line)).map(str::to_owned).collect()
}

/// The lines that differ, marked, with some around them. What is equal at both ends is left out, so one change stays one change.
fn compare(quorate: &[String], etcd: &[String]) -> Vec<String> {
    let same = |a: &[String], b: &[String]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let head = same(quorate, etcd);
    let reversed = |lines: &[String]| lines[head..].iter().rev().cloned().collect::<Vec<_>>();
    let tail = same(&reversed(quorate), &reversed(etcd));
    let marked = |mark: char, lines: &[String]| lines.iter().map(|line| format!("{mark} {line}")).collect::<Vec<_>>();
    let end = quorate.len() - tail;
    let mut lines = marked(' ', &quorate[head.saturating_sub(CONTEXT)..head]);
    lines.extend(marked('-', &quorate[head..end]));
    lines.extend(marked('+', &etcd[head..etcd.len() - tail]));
    lines.extend(marked(' ', &quorate[end..(end + CONTEXT).min(quorate.len())]));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_shows_what_differs_and_little_else() {
        #[derive(Debug, PartialEq)]
        struct Answer {
            count: u64,
            more: bool,
            name: &'static str,
        }
        let (ours, theirs) = (Answer { count: 1, more: false, name: "x" }, Answer { count: 2, more: false, name: "x" });
        assert!(Difference::between("it", &ours, &ours).is_none());
        let page = page("a step", &Difference::between("it", &ours, &theirs).expect("they differ"), 7, 3);
        assert!(page.contains("-     count: 1,\n+     count: 2,\n      name: \"x\",\n"), "{page}");
        assert!(page.contains("--seed 7 --ops 4") && !page.contains("more"), "{page}");
    }
}

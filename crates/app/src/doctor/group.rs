//! Who votes on something, and whether a majority of them is left when more of them fail.
//!
//! Who is silent already counts as lost, so what is proved or refuted is that one *more* node or zone may fail.

use quorate_client::Node;
use std::collections::{BTreeMap, BTreeSet};

/// Who has a say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    pub name: String,
    /// Empty if it has said none: then nothing else fails together with it, as far as anybody knows.
    pub zone: String,
    pub answers: bool,
}

impl Voter {
    pub fn of(node: &Node, answering: &BTreeSet<String>) -> Self {
        Self { name: node.name.clone(), zone: node.zone.clone(), answers: answering.contains(&node.id) }
    }

    /// The one of that name. Where several have it, as while a node comes back with a new disk, one that is silent is meant; and one that is no
    /// member any more does not answer.
    pub fn named(name: &str, nodes: &[Node], answering: &BTreeSet<String>) -> Self {
        let voters = nodes.iter().filter(|node| node.name == name).map(|node| Self::of(node, answering));
        let gone = || Self { name: name.into(), zone: String::new(), answers: false };
        voters.min_by_key(|voter| voter.answers).unwrap_or_else(gone)
    }
}

/// Those who vote on one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group(pub Vec<Voter>);

impl Group {
    pub fn majority(&self) -> usize {
        self.0.len() / 2 + 1
    }

    pub fn answering(&self) -> Vec<&str> {
        self.0.iter().filter(|voter| voter.answers).map(|voter| &*voter.name).collect()
    }

    pub fn silent(&self) -> Vec<&str> {
        self.0.iter().filter(|voter| !voter.answers).map(|voter| &*voter.name).collect()
    }

    /// Whether a majority answers.
    pub fn serves(&self) -> bool {
        self.answering().len() >= self.majority()
    }

    /// How many more may fail, whichever they are. None, if too many have already.
    pub fn may_fail(&self) -> Option<usize> {
        self.answering().len().checked_sub(self.majority())
    }

    /// Why it would not survive one node more, or does not serve now.
    pub fn refuted_by_a_node(&self) -> Option<String> {
        match (self.may_fail(), self.silent()) {
            (Some(1..), _) => None,
            (_, silent) if silent.is_empty() => Some(match self.0.len() {
                0 => "nobody has said yet who votes".into(),
                1 => format!("only {} votes", names(&self.answering())),
                _ => format!("only {} vote", names(&self.answering())),
            }),
            (_, silent) => Some(format!(
                "{} of {} voters answer, {} must; silent: {}",
                self.answering().len(),
                self.0.len(),
                self.majority(),
                names(&silent)
            )),
        }
    }

    /// Why it would not survive one zone more, or does not serve now.
    pub fn refuted_by_a_zone(&self) -> Option<String> {
        if !self.serves() {
            return self.refuted_by_a_node();
        }
        let mut together: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        for voter in self.0.iter().filter(|voter| voter.answers) {
            let alone = if voter.zone.is_empty() { &*voter.name } else { "" };
            together.entry((&voter.zone, alone)).or_default().push(&voter.name);
        }
        let spare = self.may_fail().unwrap_or(0);
        let ((zone, _), lost) = together.into_iter().find(|(_, lost)| lost.len() > spare)?;
        let of = format!("{} of {} voters", lost.len(), self.0.len());
        let place = if zone.is_empty() { "alone, without a zone".into() } else { format!("in zone {zone}") };
        let silent = self.silent();
        let silent = if silent.is_empty() { String::new() } else { format!("; silent: {}", names(&silent)) };
        Some(match &lost[..] {
            [one] => format!("{one}, {of}, is {place}{silent}"),
            [one, two] => format!("{one} and {two}, {of}, are both {place}{silent}"),
            many => format!("{}, {of}, are all {place}{silent}", names(many)),
        })
    }
}

/// "n1, n2 and n3".
pub fn names(names: &[&str]) -> String {
    match names {
        [] => "nobody".into(),
        [one] => (*one).into(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

//! What tellers and auditors were told, held against the journal. Pure.
//!
//! Each transfer is in one transaction with its row and its teller's counter, so an answer that is of one moment explains itself: with the
//! counters at that moment, the journal says what every account holds, to the coin.

use super::money::Row;
use quorate_sim::Violation;
use std::collections::{BTreeMap, BTreeSet};

/// What a teller was told of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It was done.
    Done,
    /// It was not done.
    Refused,
    /// Nobody knew.
    Unknown,
}

/// A transfer that a teller asked for. Its numbers ascend.
#[derive(Clone, Debug)]
pub struct Transfer {
    pub teller: usize,
    pub n: u64,
    pub row: Row,
    pub began_us: u64,
    pub ended_us: u64,
    pub told: Told,
}

/// How an auditor looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// At all that was acknowledged before.
    Strict,
    /// At the moment of a token, which came with an answer that told of these counters.
    At { told: Vec<u64> },
    /// At what is at most so old. Keys are each for itself, so there are no balances.
    Within { us: u64 },
}

/// An account, as somebody saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    pub holds: u64,
    /// How often it was written.
    pub version: u64,
}

/// What an auditor was told.
#[derive(Clone, Debug)]
pub struct Audit {
    pub auditor: usize,
    pub way: Way,
    pub began_us: u64,
    pub ended_us: u64,
    /// All accounts.
    pub balances: Vec<Balance>,
    /// Of each teller.
    pub counters: Vec<u64>,
}

/// Everything.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub accounts: usize,
    /// What each account began with.
    pub start: u64,
    pub tellers: usize,
    pub transfers: Vec<Transfer>,
    pub audits: Vec<Audit>,
    /// All balances in the end, as each node tells them.
    pub closing: Vec<Vec<u64>>,
    /// The rows of all journals in the end.
    pub journal: BTreeMap<(usize, u64), Row>,
}

/// What was found right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Transfers that were acknowledged.
    pub done: usize,
    /// Transfers that were refused.
    pub refused: usize,
    /// Transfers of which nobody knew.
    pub unknown: usize,
    /// Unknown ones that took effect.
    pub unknown_done: usize,
    /// Strict audits.
    pub strict: usize,
    /// Audits at the moment of a token.
    pub moments: usize,
    /// Reads of the counters that may be a little old.
    pub within: usize,
}

fn broken(rule: &'static str, detail: String) -> Result<(), Violation> {
    Err(Violation { rule, detail })
}

/// Holds everything against everything.
///
/// # Errors
/// The first rule that is broken.
pub fn judge(history: &History) -> Result<Judged, Violation> {
    outcomes(history)?;
    closing(history)?;
    let acknowledged = Acknowledged::of(history);
    let mut audits: Vec<&Audit> = history.audits.iter().collect();
    audits.sort_by_key(|audit| audit.began_us);
    let mut seen = BTreeMap::new();
    for audit in audits {
        freshness(audit, &acknowledged)?;
        if !matches!(audit.way, Way::Within { .. }) {
            explained(history, audit)?;
        }
        if audit.way == Way::Strict {
            onwards(audit, seen.insert(audit.auditor, audit))?;
        }
    }
    let told = |told: Told| history.transfers.iter().filter(move |transfer| transfer.told == told);
    let ways = |fits: fn(&Way) -> bool| history.audits.iter().filter(|audit| fits(&audit.way)).count();
    let took_effect = |transfer: &&Transfer| history.journal.contains_key(&(transfer.teller, transfer.n));
    Ok(Judged {
        done: told(Told::Done).count(),
        refused: told(Told::Refused).count(),
        unknown: told(Told::Unknown).count(),
        unknown_done: told(Told::Unknown).filter(took_effect).count(),
        strict: ways(|way| *way == Way::Strict),
        moments: ways(|way| matches!(way, Way::At { .. })),
        within: ways(|way| matches!(way, Way::Within { .. })),
    })
}

/// The journal has what was acknowledged, nothing that was refused, and nothing that nobody sent.
fn outcomes(history: &History) -> Result<(), Violation> {
    let mut sent = BTreeSet::new();
    for Transfer { teller, n, row, told, .. } in &history.transfers {
        sent.insert((*teller, *n));
        let name = || format!("transfer {n} of teller {teller}, {row:?}");
        match (told, history.journal.get(&(*teller, *n))) {
            (Told::Done, None) => broken("what was acknowledged is there", format!("{} is not", name()))?,
            (Told::Refused, Some(_)) => broken("what was refused is not there", format!("{} is", name()))?,
            (_, Some(found)) if found != row => {
                broken("a row says what was sent", format!("{} became {found:?}", name()))?;
            }
            _ => {}
        }
    }
    match history.journal.keys().find(|key| !sent.contains(key)) {
        Some(key) => broken("nothing is there that nobody sent", format!("{key:?}")),
        None => Ok(()),
    }
}

/// What each account must hold where these transfers have been done.
fn balances<'a>(history: &History, rows: impl Iterator<Item = &'a Row>) -> Vec<i128> {
    let mut balances = vec![i128::from(history.start); history.accounts];
    for Row { from, to, amount } in rows {
        balances[*from] -= i128::from(*amount);
        balances[*to] += i128::from(*amount);
    }
    balances
}

fn total(history: &History) -> u128 {
    u128::from(history.start) * history.accounts as u128
}

/// The balances in the end are those that the journal explains, at each node.
fn closing(history: &History) -> Result<(), Violation> {
    let expected = balances(history, history.journal.values());
    for (node, found) in history.closing.iter().enumerate() {
        let sum: u128 = found.iter().map(|holds| u128::from(*holds)).sum();
        if found.len() != history.accounts || sum != total(history) {
            let detail =
                format!("{sum} in {} accounts in the end, by node {node}, not {}", found.len(), total(history));
            broken("money is conserved", detail)?;
        }
        if let Some(at) = (0..found.len()).find(|at| i128::from(found[*at]) != expected[*at]) {
            let detail = format!("account {at} holds {} by node {node}, its rows say {}", found[at], expected[at]);
            broken("balances are what the journal says", detail)?;
        }
    }
    Ok(())
}

/// Of each teller, when its done transfers began and ended, ascending in number and in time.
struct Acknowledged(Vec<Vec<(u64, u64, u64)>>);

impl Acknowledged {
    fn of(history: &History) -> Self {
        let mut all = vec![Vec::new(); history.tellers];
        for transfer in &history.transfers {
            if transfer.told != Told::Refused {
                // Of one with an unknown outcome it is not known when it was over.
                let ended_us = if transfer.told == Told::Done { transfer.ended_us } else { u64::MAX };
                all[transfer.teller].push((transfer.n, transfer.began_us, ended_us));
            }
        }
        all.iter_mut().for_each(|transfers| transfers.sort_unstable());
        Self(all)
    }

    /// The last that was acknowledged before a time.
    fn before(&self, teller: usize, us: u64) -> u64 {
        self.0[teller].iter().rev().find(|(_, _, ended)| *ended < us).map_or(0, |(n, _, _)| *n)
    }

    /// The last that was asked for before a time.
    fn asked(&self, teller: usize, us: u64) -> u64 {
        self.0[teller].iter().rev().find(|(_, began, _)| *began <= us).map_or(0, |(n, _, _)| *n)
    }
}

/// An audit sees what it must, and nothing that was not asked for yet.
fn freshness(audit: &Audit, acknowledged: &Acknowledged) -> Result<(), Violation> {
    for (teller, seen) in audit.counters.iter().enumerate() {
        let least = match &audit.way {
            Way::Strict => acknowledged.before(teller, audit.began_us),
            Way::Within { us } => acknowledged.before(teller, audit.began_us.saturating_sub(*us)),
            Way::At { told } => told.get(teller).copied().unwrap_or_default(),
        };
        let name = || {
            format!(
                "auditor {} at {} us, {:?}, saw {seen} of teller {teller}",
                audit.auditor, audit.began_us, audit.way
            )
        };
        if *seen < least {
            broken("a read is as fresh as was asked for", format!("{}, not {least}", name()))?;
        }
        let most = acknowledged.asked(teller, audit.ended_us);
        if *seen > most {
            broken("nothing is read before it was asked for", format!("{}; {most} was the last", name()))?;
        }
    }
    Ok(())
}

/// What an audit saw is of one moment: its sum is right, and its counters explain each account.
fn explained(history: &History, audit: &Audit) -> Result<(), Violation> {
    let name = format!("auditor {} at {} us, {:?}", audit.auditor, audit.began_us, audit.way);
    let sum: u128 = audit.balances.iter().map(|balance| u128::from(balance.holds)).sum();
    if audit.balances.len() != history.accounts || sum != total(history) {
        let detail = format!("{name}: {sum} in {} accounts, not {}", audit.balances.len(), total(history));
        broken("an audit finds all the money", detail)?;
    }
    let done =
        |teller: usize| history.journal.range((teller, 0)..=(teller, audit.counters[teller])).map(|(_, row)| row);
    let expected = balances(history, (0..history.tellers).flat_map(done));
    match (0..history.accounts).find(|at| i128::from(audit.balances[*at].holds) != expected[*at]) {
        Some(at) => {
            let detail = format!(
                "{name}: account {at} held {}; with the counters {:?} the journal says {}",
                audit.balances[at].holds, audit.counters, expected[at]
            );
            broken("an audit is of one moment", detail)
        }
        None => Ok(()),
    }
}

/// One reader never goes back in time.
fn onwards(audit: &Audit, before: Option<&Audit>) -> Result<(), Violation> {
    let Some(before) = before else { return Ok(()) };
    let back = audit.counters.iter().zip(&before.counters).any(|(now, then)| now < then);
    let older = audit.balances.iter().zip(&before.balances).position(|(now, then)| now.version < then.version);
    if back || older.is_some() {
        let detail = format!(
            "auditor {} at {} us: counters {:?} after {:?}, account {older:?} is older",
            audit.auditor, audit.began_us, audit.counters, before.counters
        );
        broken("one reader does not go back", detail)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn row(from: usize, to: usize, amount: u64) -> Row {
        Row { from, to, amount }
    }

    fn transfer(teller: usize, n: u64, row: Row, at: u64, told: Told) -> Transfer {
        Transfer { teller, n, row, began_us: at, ended_us: at + 5, told }
    }

    fn audit(way: Way, began_us: u64, holds: [u64; 3], counters: [u64; 2]) -> Audit {
        let balances = holds.map(|holds| Balance { holds, version: began_us }).to_vec();
        Audit { auditor: 0, way, began_us, ended_us: began_us + 5, balances, counters: counters.to_vec() }
    }

    /// Three accounts, two tellers, four transfers, and audits before, between and after them. All is well.
    fn good() -> History {
        let (first, second, lost) = (row(0, 1, 10), row(1, 2, 30), row(2, 0, 5));
        History {
            accounts: 3,
            start: 100,
            tellers: 2,
            transfers: vec![
                transfer(0, 1, first, 10, Told::Done),
                transfer(1, 1, second, 20, Told::Done),
                transfer(0, 2, row(0, 1, 999), 30, Told::Refused),
                transfer(1, 2, lost, 40, Told::Unknown),
            ],
            audits: vec![
                audit(Way::Strict, 1, [100, 100, 100], [0, 0]),
                audit(Way::Strict, 16, [90, 110, 100], [1, 0]),
                audit(Way::At { told: vec![1, 0] }, 28, [90, 110, 100], [1, 0]),
                audit(Way::Strict, 50, [95, 80, 125], [1, 2]),
                Audit { balances: Vec::new(), ..audit(Way::Within { us: 20 }, 50, [0; 3], [1, 1]) },
            ],
            closing: vec![vec![95, 80, 125]; 2],
            journal: [((0, 1), first), ((1, 1), second), ((1, 2), lost)].into(),
        }
    }

    /// Does something to a good history; the rule that refuses it.
    fn refused<T>(harm: impl FnOnce(&mut History) -> T) -> &'static str {
        let mut history = good();
        harm(&mut history);
        judge(&history).expect_err("a broken rule").rule
    }

    #[test]
    fn a_good_history_is_found_good() {
        let judged = judge(&good()).expect("good");
        let expected = Judged { done: 2, refused: 1, unknown: 1, unknown_done: 1, strict: 3, moments: 1, within: 1 };
        assert_eq!(judged, expected);
        // What is unknown may as well never have happened.
        let mut without = good();
        without.journal.remove(&(1, 2));
        without.closing = vec![vec![90, 80, 130]];
        without.audits[3] = audit(Way::Strict, 50, [90, 80, 130], [1, 1]);
        assert_eq!(judge(&without).expect("good").unknown_done, 0);
    }

    #[test]
    fn money_is_neither_made_nor_lost() {
        assert_eq!(refused(|it| it.closing[1][0] += 1), "money is conserved");
        assert_eq!(refused(|it| it.closing[0].truncate(2)), "money is conserved");
        assert_eq!(refused(|it| it.closing[0].swap(0, 1)), "balances are what the journal says");
    }

    #[test]
    fn what_was_acknowledged_is_there_and_what_was_refused_is_not() {
        assert_eq!(refused(|it| it.journal.remove(&(0, 1))), "what was acknowledged is there");
        assert_eq!(refused(|it| it.journal.insert((0, 2), row(0, 1, 999))), "what was refused is not there");
        assert_eq!(refused(|it| it.journal.insert((0, 1), row(0, 2, 10))), "a row says what was sent");
        assert_eq!(refused(|it| it.journal.insert((0, 9), row(0, 1, 1))), "nothing is there that nobody sent");
    }

    #[test]
    fn an_audit_finds_all_the_money_as_of_one_moment() {
        assert_eq!(refused(|it| it.audits[3].balances[0].holds -= 1), "an audit finds all the money");
        assert_eq!(refused(|it| it.audits[2].balances.pop()), "an audit finds all the money");
        // The sum is right, and it never was so: one transfer too many, or half of one and half of another.
        assert_eq!(refused(|it| it.audits[2].counters = vec![1, 1]), "an audit is of one moment");
        let halves = [90, 100, 110].map(|holds| Balance { holds, version: 28 });
        assert_eq!(refused(|it| it.audits[2].balances = halves.to_vec()), "an audit is of one moment");
    }

    #[test]
    fn a_read_is_as_fresh_as_was_asked_for() {
        let fresh = "a read is as fresh as was asked for";
        assert_eq!(refused(|it| it.audits[1] = audit(Way::Strict, 16, [100; 3], [0, 0])), fresh);
        let stale = audit(Way::At { told: vec![1, 1] }, 28, [90, 110, 100], [1, 0]);
        assert_eq!(refused(|it| it.audits[2] = stale), fresh);
        assert_eq!(refused(|it| it.audits[4].counters = vec![1, 0]), fresh);
        assert_eq!(refused(|it| it.audits[4].counters = vec![1, 3]), "nothing is read before it was asked for");
    }

    #[test]
    fn one_reader_does_not_go_back() {
        assert_eq!(refused(|it| it.audits[1].balances[2].version = 0), "one reader does not go back");
        // What is unknown is not owed to anybody, but to who has seen it.
        let again = audit(Way::Strict, 60, [90, 80, 130], [1, 1]);
        assert_eq!(refused(|it| it.audits.push(again)), "one reader does not go back");
    }
}

//! Steps of transactions over several shards, in stories.
//!
//! ```text
//!   prepare TX [fence=100] TXN           TXN as elsewhere: its gets become reads, its puts and dels writes; or append KEY VALUE {also append KEY VALUE}
//!   decide TX [fence=100] [others=no] [prepared=N] [key=N] [after=T] TXN
//!   settle TX [fence=100], resolve TX aborted|then|else [at=T], forget TX
//!   ledger                               what is prepared and what is decided
//! ```

use super::language::{self, Words};
use super::{Told, option, reserving};
use crate::Machine;
use goldenscript::ArgumentConsumer;
use quorate_env::{LogIndex, ShardId, Timestamp};
use quorate_kv::across::{Decision, Part, PartResult, TxAnswer, TxId, TxStep, Verdict, Write};
use quorate_kv::log::Record;
use quorate_kv::{Command, Op, Txn};
use std::error::Error;
use std::fmt::Write as _;

/// The home of everything that a story prepares.
const HOME: ShardId = ShardId(9);

pub(super) fn command(name: &str, args: &mut ArgumentConsumer<'_>) -> Result<Command, Box<dyn Error>> {
    let tx = TxId(args.next_pos().ok_or("which transaction?")?.parse()?);
    let fence = LogIndex(option(args, "fence")?.unwrap_or(100));
    let others_hold = option::<String>(args, "others")?.is_none_or(|others| others != "no");
    let prepared: Option<u64> = option(args, "prepared")?;
    let key = option(args, "key")?;
    let claim = reserving::claim(tx, args)?;
    let (after, at) = (option(args, "after")?.unwrap_or(0), option(args, "at")?.unwrap_or(0));
    let (after, at) = (Timestamp(after), Timestamp(at));
    let step = match name {
        "prepare" => TxStep::Prepare { home: HOME, fence, part: Box::new(Part { claim, ..part(args)? }) },
        "decide" => {
            let prepared = prepared.map(ShardId).into_iter().collect();
            let part = Part { claim, ..part(args)? };
            TxStep::Decide(Box::new(Verdict { part, others_hold, after, prepared, fence, key, ends: Vec::new() }))
        }
        "settle" => TxStep::Settle { fence },
        "resolve" => TxStep::Resolve(match args.next_pos() {
            Some("aborted") => Decision::Aborted,
            Some("then") => Decision::Committed { succeeded: true, at },
            Some("else") => Decision::Committed { succeeded: false, at },
            _ => return Err("aborted, then or else?".into()),
        }),
        _ => TxStep::Forget,
    };
    Ok(Command::Across { tx, step })
}

fn part(args: &mut ArgumentConsumer<'_>) -> Result<Part, Box<dyn Error>> {
    let mut words = Words::of(args);
    let mut records = Vec::new();
    while words.is("append") {
        records.push(Record::of(words.word()?, words.word()?));
        words.is("also");
    }
    if !records.is_empty() {
        words.end()?;
        return Ok(Part { success: vec![Write::Append(records)], ..Part::default() });
    }
    let Txn { compares, success, failure } = words.txn()?;
    words.end()?;
    let mut part = Part { compares, ..Part::default() };
    for (ops, into) in [(success, &mut part.success), (failure, &mut part.failure)] {
        for op in ops {
            match op {
                Op::Range(read) => part.reads.push(read),
                Op::Put(put) => into.push(Write::Put { key: put.key, value: put.value }),
                Op::Delete(delete) => into.push(Write::Delete(delete.range)),
                Op::Txn(_) => return Err("a part is not nested".into()),
            }
        }
    }
    Ok(part)
}

pub(super) fn answer(answer: &TxAnswer) -> String {
    let result = |result: &PartResult| {
        let reads: String = result.reads.iter().map(|read| format!("; {}", language::range_result(read))).collect();
        let end = result.end.map_or(String::new(), |end| format!("; ends at {end}"));
        let lost = result.lost.iter().map(|key| format!("; {} is lost", key.escape_ascii())).collect::<String>();
        format!("{}{end}{lost}{reads}", if result.holds { "holds" } else { "does not hold" })
    };
    match answer {
        TxAnswer::Prepared(part) if part.at != Timestamp::ZERO => {
            format!("prepared at {}: {}", part.at.0, result(part))
        }
        TxAnswer::Prepared(part) => format!("prepared: {}", result(part)),
        TxAnswer::Decided { decision, result: Some(part) } => format!("{}: {}", of(*decision), result(part)),
        TxAnswer::Decided { decision, result: None } => format!("{} before", of(*decision)),
        TxAnswer::Repeated(decision, ends) => {
            let ends: String = ends.iter().map(|(shard, end)| format!("; {shard} ended at {end}")).collect();
            format!("{} before, as another{ends}", of(*decision))
        }
        TxAnswer::Settled(Some(decision)) => format!("settled: {}", of(*decision)),
        TxAnswer::Settled(None) => String::from("settled: nothing is known"),
        TxAnswer::Done => String::from("done"),
    }
}

pub(super) fn ledger(machine: &Machine) -> Told {
    let mut told = String::new();
    for (tx, prepared) in machine.prepared() {
        writeln!(told, "{} prepared for {}, fence {}", tx.0, prepared.home, prepared.fence.0)?;
    }
    for (tx, decided) in machine.unresolved() {
        writeln!(told, "{} {}, not yet heard of {:?}", tx.0, of(decided.decision), decided.unresolved)?;
    }
    Ok(told)
}

fn of(decision: Decision) -> String {
    match decision {
        Decision::Aborted => "aborted".into(),
        Decision::Committed { succeeded, at } => {
            let when = if at == Timestamp::ZERO { String::new() } else { format!(" at {}", at.0) };
            format!("committed {}{when}", if succeeded { "then" } else { "else" })
        }
    }
}

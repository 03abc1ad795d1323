//! Reservations, in stories.
//!
//! ```text
//!   reserve TX age=N [patient=true] [held=KEY@ENTRY,...] KEY...
//!   release TX, lapse TX until=ENTRY
//!   claim=AGE[:KEY@ENTRY,...]            before the words of a prepare or a decide: of the transaction of the same number
//!   reservations                         the table
//! ```

use super::{Told, language, option};
use crate::rows::RESERVED;
use crate::{Machine, Slot};
use bytes::Bytes;
use goldenscript::ArgumentConsumer;
use quorate_env::{LogIndex, Timestamp};
use quorate_kv::across::TxId;
use quorate_kv::reserve::{Claim, Hold, Holder, ReserveStep, Reserved};
use quorate_kv::{Command, RangeResult};
use std::error::Error;
use std::fmt::Write as _;

pub(super) fn command(name: &str, args: &mut ArgumentConsumer<'_>) -> Result<Command, Box<dyn Error>> {
    let by = TxId(args.next_pos().ok_or("which transaction?")?.parse()?);
    let step = match name {
        "release" => ReserveStep::Release,
        "lapse" => ReserveStep::Lapse { until: LogIndex(option(args, "until")?.ok_or("until when?")?) },
        _ => {
            let age = Timestamp(option(args, "age")?.ok_or("how old?")?);
            let patient = option(args, "patient")?.unwrap_or(false);
            let held = held(&option::<String>(args, "held")?.unwrap_or_default())?;
            let mut keys = Vec::new();
            while let Some(key) = args.next_pos() {
                keys.push(Bytes::copy_from_slice(key.as_bytes()));
            }
            ReserveStep::Reserve { age, patient, keys, held }
        }
    };
    Ok(Command::Reserve { by, step })
}

fn held(words: &str) -> Result<Vec<Hold>, Box<dyn Error>> {
    let one = |word: &str| -> Result<Hold, Box<dyn Error>> {
        let (key, since) = word.split_once('@').ok_or("KEY@ENTRY")?;
        Ok(Hold { key: Bytes::copy_from_slice(key.as_bytes()), since: LogIndex(since.parse()?) })
    };
    words.split(',').filter(|word| !word.is_empty()).map(one).collect()
}

pub(super) fn claim(by: TxId, args: &mut ArgumentConsumer<'_>) -> Result<Option<Claim>, Box<dyn Error>> {
    let Some(words) = option::<String>(args, "claim")? else { return Ok(None) };
    let (age, keys) = words.split_once(':').unwrap_or((&words, ""));
    let holder = Holder { age: Timestamp(age.parse()?), by };
    Ok(Some(Claim { holder, held: held(keys)? }))
}

pub(super) fn answer(reserved: &Reserved) -> String {
    let one = |held: &quorate_kv::reserve::Held| {
        let kvs: Vec<_> = held.kv.iter().cloned().collect();
        let count = kvs.len() as u64;
        format!("since {} {}", held.since.0, language::range_result(&RangeResult { kvs, count, more: false }))
    };
    reserved.keys.iter().map(one).collect::<Vec<_>>().join("; ")
}

pub(super) fn table(machine: &Machine, slot: Slot) -> Told {
    let (from, to) = slot.kind(RESERVED);
    let rows = machine.parts().1.scan(from, to).count();
    let mut told = String::new();
    for (by, since) in machine.reserved() {
        writeln!(told, "{} since {}", by.0, since.0)?;
    }
    writeln!(told, "{rows} keys")?;
    Ok(told)
}

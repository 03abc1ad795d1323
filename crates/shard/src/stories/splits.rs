//! Splits, in stories.
//!
//! ```text
//!   split KEY CHILD, wean CHILD
//!   births                   what is kept for which child
//!   build CHILD [bytes=64]   copies its rows into a slot of its number
//!   enter CHILD              the story goes on in the child, or in 1, where it began
//!   clear [max=N]
//! ```

use super::{OWN, Teller, Told, option};
use crate::{Machine, Procedures, Slot};
use goldenscript::ArgumentConsumer;
use quorate_env::ShardId;
use quorate_kv::{Command, Level};
use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;

pub(super) fn child(args: &mut ArgumentConsumer<'_>) -> Result<ShardId, Box<dyn Error>> {
    Ok(ShardId(args.next_pos().ok_or("which child?")?.parse()?))
}

pub(super) fn slot_of(child: ShardId) -> Slot {
    Slot(u32::try_from(child.0).expect("a story's numbers are small"))
}

impl Teller {
    pub(super) fn split(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Told {
        match name {
            "split" => {
                let at = args.next_pos().ok_or("at which key?")?.to_owned().into();
                let child = child(args)?;
                self.run_now(Command::Split { at, child })
            }
            "wean" => {
                let child = child(args)?;
                self.run_now(Command::Wean { child })
            }
            "births" => self.births(),
            "build" => {
                let bytes = option(args, "bytes")?.unwrap_or(64);
                self.build(child(args)?, bytes)
            }
            "enter" => {
                let procedures = Arc::new(Procedures::of(Level::LATEST));
                self.machine = Machine::open(self.store.clone(), slot_of(child(args)?), procedures)?;
                self.seq = 100 * u64::from(self.machine.slot().0);
                self.state()
            }
            _ => {
                let more = self.machine.clear_outside(option(args, "max")?.unwrap_or(usize::MAX))?;
                Ok(String::from(if more { "more is left" } else { "nothing is left" }))
            }
        }
    }

    fn births(&self) -> Told {
        let mut told = String::new();
        for birth in self.machine.births() {
            let (range, decisions) = (&birth.range, birth.decisions.len());
            writeln!(told, "{} from {}: {range:?}, {decisions} decisions", birth.child, birth.index)?;
        }
        Ok(told)
    }

    fn build(&mut self, child: ShardId, bytes: usize) -> Told {
        let Some(mut building) = self.machine.build(child, slot_of(child)) else {
            return Ok(String::from("nothing to build it from"));
        };
        let mut steps = 1;
        while !building.step(bytes)? {
            steps += 1;
        }
        assert_eq!(building.slot(), slot_of(child));
        assert!(building.step(bytes)?, "it stays done");
        let built = Machine::open(self.store.clone(), slot_of(child), Arc::new(Procedures::of(Level::LATEST)))?;
        assert!(built.outcome_of(quorate_kv::CommandId { session: OWN, seq: 1 }).is_none(), "sessions stay behind");
        Ok(format!("{steps} steps"))
    }
}
